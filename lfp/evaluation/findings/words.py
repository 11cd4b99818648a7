"""Findings about words: their three values, the error by frequency, and where two judges disagree most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import rankdata

from lfp.evaluation.results import Estimate, ResultRow
from lfp.evaluation.statistics.empirical_null import EmpiricalNull
from lfp.evaluation.statistics.resampling import Draws, interval, with_null, with_null_of_sizes
from lfp.evaluation.statistics.scores import spearman
from lfp.util.types import Flags, Floats, Ints, floats

_EXAMPLES, _BINS, _LENGTH = 10, 4, 10
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
    """Occurrences in the texts that the statistics cover."""

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
        nulls = np.array([np.abs(true - rng.permutation(shown)).mean() for _ in range(draws.permutations)])
        error = Estimate(float(sizes.mean()), len(sizes), *interval(np.array(means)))
        as_small = with_null(replace(error, value=-error.value), -nulls)
        figure = replace(with_null(error, nulls), null_p=as_small.null_p)
        rows.append(ResultRow.from_estimate("error_by_frequency", "mean_absolute_error", figure, group=name))
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


def percentile_ranks(values: Floats) -> Floats:
    """Rank each value among all, from 0 to 1; equal values share their mean rank."""
    return np.asarray((rankdata(values) - 0.5) / max(1, len(values)), np.float64)


def queues(
    names: Sequence[str], judges: Mapping[str, Floats], pairs: Mapping[str, tuple[str, str]], draws: Draws
) -> list[ResultRow]:
    """List the largest gaps of every pair of judges: `pairs` maps a metric to the judges it compares.

    `names` are those of the things judged, as the column `group` gives them, and each judge has a value of each, NaN
    where it has none; such things are left out. A gap is the first judge's percentile rank less the second's. The null
    of a list's k-th gap is the k-th largest of two judges that agree as much as these on the whole: their ranks are
    drawn from a normal copula of the same rank correlation. Against ranks that are permuted, no judges that agree at
    all would ever show a large gap.
    """
    rows = []
    for metric, (first, second) in pairs.items():
        kept = np.flatnonzero(~np.isnan(judges[first]) & ~np.isnan(judges[second]))
        ranks, others = percentile_ranks(judges[first][kept]), percentile_ranks(judges[second][kept])
        gaps, rng = ranks - others, draws.rng()
        drawn = (_draw_agreeing(ranks, others, rng) for _ in range(draws.permutations))
        nulls = np.array([-np.sort(-np.abs(one - other))[:_LENGTH] for one, other in drawn])
        for k, i in enumerate(np.argsort(-np.abs(gaps), kind="stable")[:_LENGTH]):
            estimate = with_null_of_sizes(float(gaps[i]), len(kept), nulls[:, k])
            rows.append(ResultRow.from_estimate("disagreements", metric, estimate, group=names[kept[i]]))
    return rows


def _draw_agreeing(ranks: Floats, others: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw ranks of two judges with the same values and the same rank correlation, from a normal copula."""
    correlation = 2.0 * np.sin(np.pi * spearman(ranks, others) / 6.0)  # of the normal variables (Pearson 1907)
    first = rng.normal(size=len(ranks))
    second = correlation * first + np.sqrt(max(0.0, 1.0 - correlation**2)) * rng.normal(size=len(ranks))
    places = (np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (first, second))
    one, other = (np.sort(known)[place] for known, place in zip((ranks, others), places, strict=True))
    return one, other


def word_gap_rows(
    words: Sequence[str], gaps: Floats, draws: Draws, *, spreads: Floats | None = None, flagged: Flags | None = None
) -> list[ResultRow]:
    """List the words that tuning rewards most above and most below what is stated (`word_gaps`), ten of each.

    The null is what the other words show (`EmpiricalNull`): a list's k-th gap is compared with the k-th largest of as
    many words that differ by chance. `spreads` [words] is how far each word's gap scatters compared with others, all
    alike by default. `words_flagged` counts the words that are `flagged` as unlike the others.
    """
    known = np.flatnonzero(~np.isnan(gaps))
    scatter = np.ones(len(known)) if spreads is None else spreads[known]
    null = EmpiricalNull.fit(gaps[known] / scatter)
    chance = None if null is None else null.draw(draws.permutations, draws.rng()) * scatter
    keys: dict[str, Any] = {"model": "difference", "target": "implicit_advantage"}
    rows = []
    for metric, sign in (("gap_over_paid", 1.0), ("gap_under_paid", -1.0)):
        order = known[np.argsort(-sign * gaps[known], kind="stable")][:_LENGTH]
        largest = None if chance is None else -np.sort(-sign * chance, axis=1)[:, :_LENGTH]
        for k, i in enumerate(order):
            estimate = Estimate(float(gaps[i]), len(known))
            if largest is not None:
                estimate = replace(with_null(Estimate(sign * gaps[i], len(known)), largest[:, k]), value=float(gaps[i]))
            rows.append(ResultRow.from_estimate("disagreements", metric, estimate, group=f"word:{words[i]}", **keys))
    if flagged is not None:
        count = Estimate(float(flagged[known].sum()), len(known))
        rows.append(ResultRow.from_estimate("disagreements", "words_flagged", count, **keys))
    return rows
