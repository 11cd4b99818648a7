"""Stages `features`, one pass over the corpus for statistics and the probes' tokens, and `rollouts` after words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lfp.config import TuneConfig
from lfp.evaluation.results import ResultKeys, ResultRow
from lfp.evaluation.word_gaps import LEAST_COUNT, faded_ahead
from lfp.texts.corpus import CorpusText
from lfp.texts.vocabulary import commonest_tokens
from lfp.util.types import Flags
from precompute.run.inputs import (
    count_prompt_tokens,
    load_dictionaries,
    load_pair,
    load_reward,
    load_role,
    read_statistics_texts,
    sae_folder,
)
from precompute.run.work_folder import Output, Run
from precompute.stages.features import tables
from precompute.stages.features.corpus_pass import PassCorpus, build_corpus
from precompute.stages.features.pass_shards import Filled, run_pass
from precompute.stages.features.scaling import read_pair_columns

if TYPE_CHECKING:
    from lfp.ml.features.statistics import FeatureStats
    from lfp.ml.implicit_reward.rollouts import Places
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.sae.autoencoders import Dictionary

_COMPONENTS = 5
"""Principal components of the differences of activations that are kept."""
_TOKENS_REPORTED = 6
_SEED_OFFSET = 2  # other samples than tuning and the completions had


def run(run: Run, output: Output, *, with_lexicon: bool = False) -> None:
    """Write the tables of features, vocabulary.json, words.npz, the probes' tokens, and mirror.npz.

    `kept.npz`, `outputs-tuned.npy` and `outputs-base.npy` are the probes' tokens, slot by slot (`Drawn`), and where a
    dictionary reads more than a model's activations, `views-tuned.npy` and `views-base.npy` what it reads. `mirror.npz`
    has both models through the base model's dictionary, over all tokens: density and mean by feature.
    """
    base, tuned = load_pair(run)
    corpus = build_corpus(run, tuned, with_lexicon=with_lexicon)
    dictionaries = load_dictionaries(run)
    filled = run_pass(run, (tuned, base), dictionaries, corpus, output)
    sums = filled.sums
    _write_tables(output, run, sums.stats, dictionaries[0], tuned)
    differences = tables.differences(sums.differences.directions(_COMPONENTS), tuned, sums.differences.n_tokens)
    output.table("differences", differences)
    output.results(_difference_rows(differences))
    vocabulary = corpus.vocabulary
    output.json(
        "vocabulary",
        {
            "words": vocabulary.words,
            "counts": vocabulary.counts.tolist(),
            "folds": vocabulary.folds.tolist(),
            "all_counts": vocabulary.all_counts,
        },
    )
    output.json("word_tokens", commonest_tokens(vocabulary, corpus.spelled))
    output.json("texts", {"n_texts": len(corpus.texts), "n_tokens": sums.stats.tuned.n_tokens})
    _write_words(output, corpus, filled)
    _write_kept(output, corpus, filled)
    mirror = {f"density_{role}": totals.density for role, totals in sums.mirror.items()}
    mirror |= {f"mean_{role}": totals.mean for role, totals in sums.mirror.items()}
    n_tokens = sums.mirror["tuned"].n_tokens
    np.savez(output.folder / "mirror.npz", allow_pickle=False, n_tokens=n_tokens, **mirror)


def _write_tables(output: Output, run: Run, stats: FeatureStats, dictionary: Dictionary, tuned: LanguageModel) -> None:
    stability = run.json("saes", "stability")
    by_place = [
        np.array(stability[sae_folder("tuned", sae.info.place)] or [np.nan] * sae.info.width, float)
        for sae in dictionary.saes
    ]
    of_pair = read_pair_columns(run.folder("saes"), dictionary.places)
    output.table("features", tables.features(stats, dictionary, tuned, np.concatenate(by_place), of_pair))
    output.table("decoders", tables.decoders(dictionary))
    output.table("histograms", tables.histograms(stats))
    output.table("examples", tables.examples(stats))
    output.table("neighbours", tables.neighbours(stats, dictionary))


def _difference_rows(differences: pa.Table) -> list[ResultRow]:
    """Report the mean difference and the components of every place; `group` are the tokens that each raises most."""
    rows = []
    for row in differences.to_pylist():
        tokens = " ".join(token["token"].strip() for token in row["pos_logits"][:_TOKENS_REPORTED])
        place: ResultKeys = {"layer": row["layer"], "site": row["site"], "n": row["n_tokens"]}
        metric = "mean_share" if row["rank"] == 0 else "component_share"
        keys: ResultKeys = {**place, "group": f"{row['rank']}: {tokens}"}
        rows.append(ResultRow.from_estimate("differences", metric, row["share"], **keys))
    return rows


def _write_words(output: Output, corpus: PassCorpus, filled: Filled) -> None:
    """Write each word's number of occurrences, means over them, and its effect in matched contexts."""
    n_words, occurrences = len(corpus.vocabulary.words), corpus.tokens.occurrences()
    moved = filled.advantage - filled.reward  # KL(base || tuned)
    # a word's last token alone has it, so that a sum over the word's tokens is that value
    moved_after = np.where(corpus.tokens.is_last, faded_ahead(np.nan_to_num(moved), corpus.tokens.text_ids), 0.0)
    scores = {"reward": filled.reward, "advantage": filled.advantage, "moved": moved, "moved_after": moved_after}
    matched, matched_se = filled.sums.matched.effects().of_words(corpus.columns.of_word)
    np.savez(
        output.folder / "words.npz",
        allow_pickle=False,
        matched=matched,
        matched_se=matched_se,
        advantage_error=occurrences.errors(filled.advantage, n_words),
        **occurrences.means(scores, n_words),
    )


def _write_kept(output: Output, corpus: PassCorpus, filled: Filled) -> None:
    tokens, drawn = corpus.tokens, corpus.drawn
    np.savez(
        output.folder / "kept.npz",
        allow_pickle=False,
        words=tokens.words[drawn.tokens],
        token_ids=tokens.token_ids[drawn.tokens],
        reward=filled.reward[drawn.tokens],
        advantage=filled.advantage[drawn.tokens],
        sample=drawn.sample,
        before=drawn.before,
        occurrence_words=drawn.words,
        occurrence_starts=drawn.starts,
        occurrence_ends=drawn.ends,
        corpus_token_ids=np.unique(tokens.token_ids),
    )


def run_rollouts(run: Run, output: Output, *, with_lexicon: bool = False) -> None:
    """Write rollouts.npz: the mean stated reward `after` and `before` words [words], NaN for words without rollouts.

    Those are words too rare to have a gap, and all words where the feedback is pairs or `probes.rollouts` is 0.
    """
    from lfp.ml.implicit_reward.rollouts import rewards_ahead

    config = run.config
    n_words = len(run.json("features", "vocabulary")["words"])
    means = {name: np.full(n_words, np.nan) for name in ("before", "after")}
    if config.tune.method == "grpo" and config.probes.rollouts:
        tuned, seed = load_role(run, "tuned"), config.seed + _SEED_OFFSET
        places = _draw_places(run, tuned, seed=seed, with_lexicon=with_lexicon)
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


def _draw_places(run: Run, tuned: LanguageModel, *, seed: int, with_lexicon: bool) -> Places:
    """Draw occurrences that tuning can have reached: from the shortest prefix to the end of the longest completion."""
    from lfp.ml.implicit_reward.rollouts import draw_places

    corpus, tune = build_corpus(run, tuned, with_lexicon=with_lexicon), run.config.tune
    is_wanted = np.bincount(corpus.tokens.occurrences().words, minlength=len(corpus.vocabulary.words)) >= LEAST_COUNT
    return draw_places(
        corpus.tokens,
        is_wanted,
        per_word=run.config.probes.rollouts,
        reached=_find_reached(read_statistics_texts(run), corpus, tune, n_ctx=tuned.n_ctx),
        seed=seed,
    )


def _find_reached(texts: Sequence[CorpusText], corpus: PassCorpus, tune: TuneConfig, *, n_ctx: int) -> Flags:
    """Mark the tokens [tokens] that a completion can have reached; in a dialogue from its last response on."""
    shortest, longest = tune.prefix_tokens
    last = n_ctx - tune.completion_tokens - 1
    reached = []
    for tokens, prompt in zip(corpus.texts, count_prompt_tokens(texts, corpus.texts), strict=True):
        first, end = (max(1, shortest), longest) if prompt is None else (prompt, prompt)
        positions = np.arange(len(tokens.token_ids))
        reached.append((positions >= first) & (positions < min(end + tune.completion_tokens, last)))
    return np.concatenate(reached)
