"""Stage `rollouts`: mean reward of what the tuned model writes after each word, and in place of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lfp.evaluation.word_gaps import LEAST_COUNT
from precompute.run.inputs import load_reward, load_role
from precompute.run.work_folder import Output, Run
from precompute.stages.features.corpus_pass import build_corpus

if TYPE_CHECKING:
    from lfp.ml.implicit_reward.rollouts import Places
    from lfp.ml.models.loading import LanguageModel


_SEED_OFFSET = 2  # other samples than tuning and the completions had


def run(run: Run, output: Output) -> None:
    """Write rollouts.npz: the mean stated reward `after` and `before` words [words], NaN for words without rollouts.

    Those are words too rare to have a gap, and all words where the feedback is pairs or `probes.rollouts` is 0.
    """
    from lfp.ml.implicit_reward.rollouts import rewards_ahead

    config = run.config
    n_words = len(run.json("features", "vocabulary")["words"])
    means = {name: np.full(n_words, np.nan) for name in ("before", "after")}
    if config.tune.method == "grpo" and config.probes.rollouts:
        tuned, seed = load_role(run, "tuned"), config.seed + _SEED_OFFSET
        places = _draw_places(run, tuned, seed=seed)
        counts = np.bincount(places.words, minlength=n_words)
        lead = (tuned.bos_id,) if config.model.prepend_bos and tuned.bos_id is not None else ()
        for done, (name, contexts) in enumerate({"before": places.before, "after": places.after}.items()):
            run.progress(f"rollouts {name} words", done, len(means), float(len(contexts)))
            rewards = rewards_ahead(
                tuned,
                [(*lead, *context) for context in contexts],
                load_reward(config, run.config_dir),
                n_tokens=config.tune.completion_tokens,
                temperature=config.tune.temperature,
                seed=seed,
            )
            sums = np.bincount(places.words, rewards, minlength=n_words)
            means[name] = np.divide(sums, counts, out=means[name], where=counts > 0)
    np.savez(output.folder / "rollouts.npz", allow_pickle=False, **means)


def _draw_places(run: Run, tuned: LanguageModel, *, seed: int) -> Places:
    """Draw occurrences that tuning can have reached: from the shortest prefix to the end of the longest completion."""
    from lfp.ml.implicit_reward.rollouts import draw_places

    corpus, tune = build_corpus(run, tuned), run.config.tune
    shortest, longest = tune.prefix_tokens
    end = min(longest + tune.completion_tokens, tuned.n_ctx - tune.completion_tokens - 1)
    is_wanted = np.bincount(corpus.tokens.occurrences().words, minlength=len(corpus.vocabulary.words)) >= LEAST_COUNT
    per_word = run.config.probes.rollouts
    return draw_places(corpus.tokens, is_wanted, per_word=per_word, reach=(max(1, shortest), end), seed=seed)
