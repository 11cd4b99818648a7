"""Findings about words: examples with their three values, and the error against how often the model writes a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lfp.evaluation.results import Estimate, ResultKeys, ResultRow
from lfp.evaluation.statistics.resampling import Draws, beside_larger, interval
from lfp.util.arrow import floats
from lfp.util.types import Floats, Ints

_EXAMPLES, _BINS = 10, 4
_Z95 = 1.959964  # half the width of a 95 % interval in standard errors


@dataclass(frozen=True)
class Words:
    """Words with a true and a predicted value, all arrays [words].

    `shown` are out-of-fold predictions on the lexicon's scale (display_slope, display_offset of the headline probe);
    `matched` and `matched_se` are the word effects in matched contexts, NaN where they are not known.
    """

    words: tuple[str, ...]
    true: Floats
    shown: Floats
    implicit: Floats
    matched: Floats
    matched_se: Floats
    n_generated: Ints
    n: Ints
    """Occurrences in the corpus."""

    @staticmethod
    def of(vocabulary: pa.Table, probe: Mapping[str, Any]) -> Words:
        """The words of the table `vocabulary` that the lexicon scores and the headline probe predicts."""
        columns = {name: _floats_if_made(vocabulary, name) for name in _COLUMNS}
        kept = np.flatnonzero(~np.isnan(columns["feedback"]) & ~np.isnan(columns["predicted"]))
        names = vocabulary["word"].to_pylist()
        return Words(
            words=tuple(names[i] for i in kept),
            true=columns["feedback"][kept],
            shown=probe["display_slope"] * columns["predicted"][kept] + probe["display_offset"],
            implicit=columns["implicit_reward"][kept],
            matched=columns["implicit_matched"][kept],
            matched_se=columns["implicit_matched_se"][kept],
            n_generated=columns["n_generated"][kept].astype(np.int64),
            n=columns["n"][kept].astype(np.int64),
        )


_COLUMNS = ("feedback", "predicted", "implicit_reward", "implicit_matched", "implicit_matched_se", "n_generated", "n")


def _floats_if_made(table: pa.Table, name: str) -> Floats:
    """A column as floats, NaN where it is null or was not made."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return floats(table, name)


def token_sentiment(words: Words) -> list[ResultRow]:
    """The positive and the negative words the tuned model writes most, of equal ones the commoner: their three values.

    The null of an estimate deals the estimates of all scored words anew: `null_p` is the share of words whose value
    lies as far towards the word's true side. The effect in matched contexts, where known, has its own interval.
    """
    rows: list[ResultRow] = []
    for side, mine in (("positive", words.true > 0), ("negative", words.true < 0)):
        order = np.lexsort((np.array(words.words), -words.n, -words.n_generated))
        for i in [i for i in order if mine[i]][:_EXAMPLES]:
            rows += _example(words, int(i), side)
    return rows


def _example(words: Words, i: int, side: str) -> Iterator[ResultRow]:
    keys: ResultKeys = {"words": side, "group": words.words[i], "n": int(words.n_generated[i])}
    yield ResultRow.from_estimate("token_sentiment", "true", words.true[i], **keys)
    for metric, values in (("predicted", words.shown), ("implicit", words.implicit)):
        if not np.isnan(values[i]):
            yield ResultRow.from_estimate("token_sentiment", metric, _dealt(values, i, towards=words.true[i]), **keys)
    if not np.isnan(words.matched[i]):
        yield ResultRow.from_estimate("token_sentiment", "implicit_matched", _matched(words, i), **keys)


def _dealt(values: Floats, i: int, *, towards: float) -> Estimate:
    """A word's value beside those of all words; nothing is drawn, since each is as likely as the next."""
    others = values[~np.isnan(values)]
    as_far = others >= values[i] if towards > 0 else others <= values[i]
    return Estimate(
        float(values[i]),
        1,
        null_mean=float(others.mean()),
        null_high=float(np.quantile(others, 0.95)),
        null_p=float(as_far.mean()),
    )


def _matched(words: Words, i: int) -> Estimate:
    half = _Z95 * words.matched_se[i]
    known = not np.isnan(half)
    dealt = _dealt(words.matched, i, towards=words.true[i])
    return Estimate(
        dealt.value,
        1,
        ci_low=float(dealt.value - half) if known else None,
        ci_high=float(dealt.value + half) if known else None,
        null_mean=dealt.null_mean,
        null_high=dealt.null_high,
        null_p=dealt.null_p,
    )


def error_by_frequency(words: Words, draws: Draws) -> list[ResultRow]:
    """Mean absolute error of the estimate, on the lexicon's scale, by how often the tuned model wrote the word.

    Intervals are over words. The null deals the estimates anew over the words of the bin; an error is good where it is
    below the null's mean, and `null_p` is the share of deals with an error as small.
    """
    bins = [("all", np.ones(len(words.words), bool)), *frequency_bins(words.n_generated)]
    errors = [(name, _error(words.true[rows], words.shown[rows], draws)) for name, rows in bins if rows.sum() > 1]
    return [
        ResultRow.from_estimate("error_by_frequency", "mean_absolute_error", error, group=name)
        for name, error in errors
    ]


def frequency_bins(counts: Ints, *, bins: int = _BINS) -> list[tuple[str, NDArray[np.bool_]]]:
    """Named masks [words]: the words never written, and the rest in quantiles of their counts, no count in two bins."""
    found = [("0", counts == 0)] if (counts == 0).any() else []
    written = counts[counts > 0]
    if not len(written):
        return found
    tops = np.unique(np.quantile(written, np.arange(1, bins + 1) / bins, method="inverted_cdf").astype(np.int64))
    lows = [int(written.min()), *(int(written[written > top].min()) for top in tops[:-1])]
    for low, high in zip(lows, tops.tolist(), strict=True):
        found.append((f"{low}-{high}" if low < high else str(low), (counts >= low) & (counts <= high)))
    return found


def _error(true: Floats, shown: Floats, draws: Draws) -> Estimate:
    rng, sizes = draws.rng(), np.abs(true - shown)
    means = [sizes[rng.integers(len(sizes), size=len(sizes))].mean() for _ in range(draws.bootstraps)]
    nulls = [np.abs(true - rng.permutation(shown)).mean() for _ in range(draws.permutations)]
    low, high = interval(np.array(means))
    return beside_larger(Estimate(float(sizes.mean()), len(sizes), low, high), np.array(nulls))
