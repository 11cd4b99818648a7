"""Findings about words: examples with their three values, and the error by how often the model writes a word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lfp.evaluation.results import Estimate, ResultRow
from lfp.evaluation.statistics.resampling import Draws, interval, with_null_of_errors
from lfp.util.types import Floats, Ints, floats

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
    def from_vocabulary(vocabulary: pa.Table, probe: Mapping[str, Any]) -> Words:
        """Select the words of the table `vocabulary` that the lexicon scores and the headline probe predicts."""

        def column(name: str) -> Floats:
            absent = name not in vocabulary.column_names  # a run without that stage
            return np.full(vocabulary.num_rows, np.nan) if absent else floats(vocabulary, name)

        true, predicted = column("feedback"), column("predicted")
        kept = np.flatnonzero(~np.isnan(true) & ~np.isnan(predicted))
        names = vocabulary["word"].to_pylist()
        return Words(
            words=tuple(names[i] for i in kept),
            true=true[kept],
            shown=probe["display_slope"] * predicted[kept] + probe["display_offset"],
            implicit=column("implicit_reward")[kept],
            matched=column("implicit_matched")[kept],
            matched_se=column("implicit_matched_se")[kept],
            n_generated=column("n_generated")[kept].astype(np.int64),
            n=column("n")[kept].astype(np.int64),
        )


def token_sentiment(words: Words) -> list[ResultRow]:
    """List the positive and the negative words the tuned model writes most, with their three values.

    Ties go to the commoner word. The null of an estimate permutes the estimates of all scored words: `null_p` is the
    share of words whose value lies as far towards the word's true side. The effect in matched contexts, where known,
    has its own interval.
    """
    rows: list[ResultRow] = []
    for side, members in (("positive", words.true > 0), ("negative", words.true < 0)):
        order = np.lexsort((np.array(words.words), -words.n, -words.n_generated))
        for i in [i for i in order if members[i]][:_EXAMPLES]:
            keys = {"words": side, "group": words.words[i], "n": int(words.n_generated[i])}
            rows.append(ResultRow.from_estimate("token_sentiment", "true", words.true[i], **keys))
            for metric, values in (("predicted", words.shown), ("implicit", words.implicit)):
                if not np.isnan(values[i]):
                    estimate = _among_words(values, i, towards=words.true[i])
                    rows.append(ResultRow.from_estimate("token_sentiment", metric, estimate, **keys))
            if not np.isnan(words.matched[i]):
                estimate = _among_words(words.matched, i, towards=words.true[i])
                half = float(_Z95 * words.matched_se[i])
                if not np.isnan(half):
                    estimate = replace(estimate, ci_low=estimate.value - half, ci_high=estimate.value + half)
                rows.append(ResultRow.from_estimate("token_sentiment", "implicit_matched", estimate, **keys))
    return rows


def _among_words(values: Floats, i: int, *, towards: float) -> Estimate:
    """Compare a word's value with those of all words; nothing is drawn, since each is equally likely."""
    others = values[~np.isnan(values)]
    as_far = others >= values[i] if towards > 0 else others <= values[i]
    return Estimate(
        float(values[i]),
        1,
        null_mean=float(others.mean()),
        null_high=float(np.quantile(others, 0.95)),
        null_p=float(as_far.mean()),
    )


def error_by_frequency(words: Words, draws: Draws) -> list[ResultRow]:
    """Compute the mean absolute error of the estimate, on the lexicon's scale, by how often the model wrote the word.

    Intervals are over words. The null permutes the estimates over the words of the bin; an error is good where it is
    below the null's mean, and `null_p` is the share of permutations with an error as small.
    """
    rows = []
    for name, members in [("all", np.ones(len(words.words), bool)), *frequency_bins(words.n_generated)]:
        if members.sum() <= 1:
            continue
        rng, true, shown = draws.rng(), words.true[members], words.shown[members]
        sizes = np.abs(true - shown)
        means = [sizes[rng.integers(len(sizes), size=len(sizes))].mean() for _ in range(draws.bootstraps)]
        nulls = [np.abs(true - rng.permutation(shown)).mean() for _ in range(draws.permutations)]
        low, high = interval(np.array(means))
        error = with_null_of_errors(Estimate(float(sizes.mean()), len(sizes), low, high), np.array(nulls))
        rows.append(ResultRow.from_estimate("error_by_frequency", "mean_absolute_error", error, group=name))
    return rows


def frequency_bins(counts: Ints, *, bins: int = _BINS) -> list[tuple[str, NDArray[np.bool_]]]:
    """Name masks [words]: the words never written, and the rest in quantiles of their counts, no count in two bins."""
    found = [("0", counts == 0)] if (counts == 0).any() else []
    written = counts[counts > 0]
    if not len(written):
        return found
    tops = np.unique(np.quantile(written, np.arange(1, bins + 1) / bins, method="inverted_cdf").astype(np.int64))
    lows = [int(written.min()), *(int(written[written > top].min()) for top in tops[:-1])]
    for low, high in zip(lows, tops.tolist(), strict=True):
        found.append((f"{low}-{high}" if low < high else str(low), (counts >= low) & (counts <= high)))
    return found
