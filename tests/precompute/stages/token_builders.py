"""Made-up tokens and words, and what stage `probes` makes of them."""

from __future__ import annotations

import numpy as np

from lfp.config import ProbesConfig
from lfp.evaluation.words import ScoredWords
from precompute.stages.probes.fitting import Judged
from precompute.stages.probes.inputs import Inputs, Kept, encode_kept, raw_columns
from precompute.stages.probes.targets import Rows, SharedTokens, Words, feedback_rows

N_WORDS, WIDTH = 30, 6
CONFIG = ProbesConfig(folds=3, permutations=20, bootstraps=20, alphas=(0.1, 1.0, 10.0), weight_permutations=20)


def kept(seed: int = 0, n_occurrences: int = 90) -> Kept:
    """Occurrences of one to three tokens, word by word, then forty tokens of no word; word 7 never occurs."""
    rng = np.random.default_rng(seed)
    words = np.sort(rng.choice(np.delete(np.arange(N_WORDS), 7), size=n_occurrences))
    lengths = rng.integers(1, 4, size=n_occurrences)
    starts = np.cumsum(lengths) - lengths
    n = int(lengths.sum()) + 40
    outputs = {model: rng.normal(size=(n, WIDTH)).astype(np.float32) for model in ("tuned", "base")}
    ids = rng.integers(12, size=n)
    return Kept(
        words=np.concatenate([np.repeat(words, lengths), np.full(40, -1)]),
        token_ids=ids,
        reward=rng.normal(size=n),
        advantage=rng.normal(size=n),
        sample=(sample := np.sort(rng.choice(n, size=min(n, 120), replace=False))),
        before=sample - 1,
        occurrence_words=words,
        occurrence_starts=starts,
        occurrence_ends=starts + lengths,
        corpus_token_ids=np.unique(ids),
        outputs=outputs,
    )


def vocabulary(values: np.ndarray | None = None) -> Words:
    """Thirty words, folds in turn, values from -3 to 3 but for word 7."""
    stated = np.linspace(-3, 3, N_WORDS) if values is None else values
    stated = stated.copy()
    stated[7] = np.nan
    words = [f"word{i}" for i in range(N_WORDS)]
    return Words(words, np.full(N_WORDS, 10), np.arange(N_WORDS) % CONFIG.folds, stated, {})


def scored(words: Words) -> ScoredWords:
    return ScoredWords.from_vocabulary(words.values, words.counts.astype(float), CONFIG, seed=0)


def shared(of: Kept | None = None) -> SharedTokens:
    """The shared tokens of some words, by default of none."""
    config = CONFIG.model_copy(update={"shared_tokens": "keep" if of is None else "drop"})
    return SharedTokens.from_words(of or kept(), vocabulary().folds, config)


def inputs(name: str = "raw") -> Inputs:
    return Inputs(name, np.repeat([0, 1], WIDTH // 2), raw_columns)


def encoded(of: Kept, rows: dict[str, np.ndarray] | None = None):
    return encode_kept(of, raw_columns, source="tuned", n_words=N_WORDS, rows=rows or {"sample": of.sample})


def feedback(of: Kept, words: Words) -> tuple[Rows, Judged]:
    slots, rows_of = of.lasts_of(~np.isnan(words.values), 1000)
    found = encoded(of, {"lasts": slots})
    rows = feedback_rows(
        found.rows["lasts"], rows_of, words, scored(words), shared=shared(), token_ids=of.token_ids[slots]
    )
    return rows, Judged(found.words.at_last, np.ones(len(words.folds)), words.folds)


ONE_ALPHA = CONFIG.model_copy(update={"alphas": (1.0,)})
