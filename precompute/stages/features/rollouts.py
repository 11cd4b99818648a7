"""Stage `rollouts`: what the tuned model's own text is paid after each word, and in the word's stead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lfp.evaluation.word_gaps import LEAST_COUNT
from lfp.util.types import Floats
from precompute.run.inputs import load_reward, load_role
from precompute.run.work_folder import Output, Run
from precompute.stages.features.corpus_pass import PassCorpus

if TYPE_CHECKING:
    from lfp.ml.implicit_reward.rollouts import Context, Places
    from lfp.ml.models.loading import LanguageModel


_SEED_OFFSET = 2  # other draws than tuning and the completions had


def run(run: Run, output: Output) -> None:
    """Writes rollouts.npz: the mean stated reward `after` and `before` words [words], NaN for words without any.

    Words too rare to have a gap have none, nor has any word where the feedback is pairs of texts or none are asked for.
    """
    per_word = run.config.probes.rollouts if run.config.tune.method == "grpo" else 0
    n_words = len(run.json("features", "vocabulary")["words"])
    means = {name: np.full(n_words, np.nan) for name in ("before", "after")}
    if per_word:
        tuned = load_role(run, "tuned")
        places = _places(run, tuned, per_word)
        for done, (name, contexts) in enumerate({"before": places.before, "after": places.after}.items()):
            run.progress(f"rollouts {name} words", done, len(means), float(len(contexts)))
            means[name] = _word_means(places, _rewards(run, tuned, contexts), n_words)
    np.savez(output.folder / "rollouts.npz", allow_pickle=False, **means)


def _places(run: Run, tuned: LanguageModel, per_word: int) -> Places:
    """Occurrences that tuning can have come by: from the shortest prefix to the end of the longest's completion."""
    from lfp.ml.implicit_reward.rollouts import draw_places

    corpus, tune = PassCorpus.of(run, tuned), run.config.tune
    shortest, longest = tune.prefix_tokens
    end = min(longest + tune.completion_tokens, tuned.n_ctx - tune.completion_tokens - 1)
    is_wanted = np.bincount(corpus.tokens.occurrences().words, minlength=len(corpus.vocabulary.words)) >= LEAST_COUNT
    return draw_places(
        corpus.tokens, is_wanted, per_word=per_word, reach=(max(1, shortest), end), seed=run.config.seed + _SEED_OFFSET
    )


def _rewards(run: Run, tuned: LanguageModel, contexts: list[Context]) -> Floats:
    from lfp.ml.implicit_reward.rollouts import rewards_ahead

    tune = run.config.tune
    lead = (tuned.bos_id,) if run.config.model.prepend_bos and tuned.bos_id is not None else ()
    return rewards_ahead(
        tuned,
        [(*lead, *context) for context in contexts],
        load_reward(run.config, run.config_dir),
        n_tokens=tune.completion_tokens,
        temperature=tune.temperature,
        seed=run.config.seed + _SEED_OFFSET,
    )


def _word_means(places: Places, rewards: Floats, n_words: int) -> Floats:
    counts = np.bincount(places.words, minlength=n_words)
    sums = np.bincount(places.words, rewards, minlength=n_words)
    return np.divide(sums, counts, out=np.full(n_words, np.nan), where=counts > 0)
