"""Scores with their uncertainty: bootstrap intervals and permutation nulls, over words, texts, pairs or features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, stdtrit

from lfp.evaluation.results import Estimate
from lfp.evaluation.statistics.rank_bootstrap import fast
from lfp.util.types import Floats, Ints

Statistic = Callable[[Floats, Floats], float]
"""A score of (true, predicted), one number a word."""


_ROUNDING = 1e-12
"""Figures closer than this are one: differences of equal shares may differ in their last bits."""


def bootstrap(
    statistic: Statistic,
    true: Floats,
    predicted: Floats,
    *,
    n: int,
    rng: np.random.Generator,
    groups: Ints | None = None,
) -> tuple[float, float]:
    """The 95 % interval of a statistic over `n` draws of words with replacement; `groups` [words] are drawn whole."""
    counts = _draws(len(true), groups, n=n, rng=rng)
    return _interval(_of_draws(statistic, true, predicted, counts), _n_units(len(true), groups))


def bootstrap_difference(
    statistic: Statistic, true: Floats, predicted: Floats, other: Floats, *, n: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The 95 % interval of statistic(predicted) - statistic(other), the same words drawn for both."""
    counts = _draws(len(true), None, n=n, rng=rng)
    ours, others = (_of_draws(statistic, true, values, counts) for values in (predicted, other))
    return _interval(ours - others, len(true))


def mean_interval(
    values: Floats, *, n: int, rng: np.random.Generator, groups: Ints | None = None
) -> tuple[float, float]:
    """The 95 % interval of a mean over values drawn with replacement; `groups` [values] are drawn whole."""
    counts = _draws(len(values), groups, n=n, rng=rng)
    return _interval(counts @ values / counts.sum(axis=1), _n_units(len(values), groups))


def _draws(n_words: int, groups: Ints | None, *, n: int, rng: np.random.Generator) -> Ints:
    """How often each word is in each bootstrap draw: [n, words]."""
    place = np.arange(n_words) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_units = _n_units(n_words, groups)
    drawn = rng.integers(n_units, size=(n, n_units)) + n_units * np.arange(n)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * n_units).reshape(n, n_units)[:, place]


def _n_units(n_words: int, groups: Ints | None) -> int:
    return n_words if groups is None else len(np.unique(groups))


def _of_draws(statistic: Statistic, true: Floats, predicted: Floats, counts: Ints) -> Floats:
    at_once = fast(statistic, len(true))
    if at_once is not None:
        return at_once(true, predicted, counts)
    rows = (np.repeat(np.arange(len(true)), count) for count in counts)
    return np.array([statistic(true[drawn], predicted[drawn]) for drawn in rows])


def _interval(values: Floats, n_units: int) -> tuple[float, float]:
    """The expanded percentile interval: quantiles further out than 2.5 and 97.5 % by what n - 1 instead of n costs.

    Percentile intervals are too narrow by sqrt((n - 1) / n) and take a t for a normal; the levels are moved to mend
    both (Hesterberg 2015, "What teachers should know about the bootstrap", section 5.2). It does not correct a bias.
    """
    out = float(stdtrit(n_units - 1, 0.975)) * np.sqrt(n_units / (n_units - 1)) if n_units > 1 else 0.0
    low, high = np.quantile(values, [ndtr(-out), ndtr(out)])
    return float(low), float(high)


def permutations_within_bins(values: Floats, counts: Floats, *, bins: int, n: int, rng: np.random.Generator) -> Floats:
    """`n` rearrangements [n, words] of the words' values, each among words of like frequency only."""
    rank = np.argsort(np.argsort(counts, kind="stable"), kind="stable")
    bin_of = rank * bins // max(1, len(values))
    shuffled = np.tile(values, (n, 1))
    for b in range(bins):
        members = np.flatnonzero(bin_of == b)
        shuffled[:, members] = rng.permuted(shuffled[:, members], axis=1)
    return shuffled


def permutations_of_groups(values: Floats, groups: Ints, *, n: int, rng: np.random.Generator) -> Floats:
    """`n` rearrangements [n, texts] in which a group's values go, in any order, to a group of the same size.

    Texts of one group (a pair, a prompt) depend on each other, and still do after this; a group of a size that no other
    has keeps its values, which makes the null harder to beat, never easier.
    """
    place, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    shuffled = np.tile(values, (n, 1))
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes[place] == size)
        of_group = members[np.argsort(place[members], kind="stable")].reshape(-1, size)  # [groups of this size, size]
        order = rng.permuted(np.tile(np.arange(len(of_group)), (n, 1)), axis=1)
        moved = rng.permuted(values[of_group][order], axis=2)
        shuffled[:, of_group.ravel()] = moved.reshape(n, -1)
    return shuffled


def with_null(estimate: Estimate, nulls: Floats, *, two_sided: bool = False) -> Estimate:
    """The estimate beside its null: mean, 95th percentile, and the share of permutations that reach it.

    p is (r + 1) / (n + 1), so never 0 and never too small: r is how many of n are at least as large. Two-sided, sizes
    are compared whatever the sign, in p and in the 95th percentile; the mean stays signed.
    """
    sized, value = (np.abs(nulls), abs(estimate.value)) if two_sided else (nulls, estimate.value)
    return replace(
        estimate,
        null_mean=float(nulls.mean()),
        null_high=float(np.quantile(sized, 0.95)),
        null_p=(int((sized >= value - _ROUNDING).sum()) + 1) / (len(nulls) + 1),
    )


def randomised_p(value: float, nulls: Floats, rng: np.random.Generator) -> float:
    """The permutation p-value with ties broken by chance: exactly uniform where value and nulls are exchangeable.

    (g + u (e + 1)) / (n + 1), u uniform in [0, 1): g of n nulls are larger, e are equal (the value itself is one more).
    `with_null`'s p is its upper end, u = 1. For checking a null, not for reporting: it differs from draw to draw.
    """
    larger, reached = int((nulls > value + _ROUNDING).sum()), int((nulls >= value - _ROUNDING).sum())
    return float((larger + rng.random() * (reached - larger + 1)) / (len(nulls) + 1))


@dataclass(frozen=True)
class Draws:
    """How many resamples an interval rests on, how many permutations a null, and the seed of both."""

    bootstraps: int
    permutations: int
    seed: int

    def rng(self) -> np.random.Generator:
        """A generator of its own for one figure, so that no figure depends on which others were made."""
        return np.random.default_rng(self.seed)


def interval(values: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of a figure's resamples."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def beside_sizes(value: float, n: int, nulls: Floats) -> Estimate:
    """A signed figure whose null is of sizes: `null_p` is the share of them that reach its size."""
    return replace(with_null(Estimate(abs(value), n), nulls), value=value)


def beside_larger(estimate: Estimate, nulls: Floats) -> Estimate:
    """A figure that is better the smaller it is, such as an error: `null_p` is the share of nulls as small."""
    small = with_null(replace(estimate, value=-estimate.value), -nulls)
    return replace(with_null(estimate, nulls), null_p=small.null_p)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """The same figure in another unit: value, interval and null times `factor`; p and n stay."""
    return Estimate(
        value=estimate.value * factor,
        n=estimate.n,
        ci_low=_times(estimate.ci_low, factor),
        ci_high=_times(estimate.ci_high, factor),
        null_mean=_times(estimate.null_mean, factor),
        null_high=_times(estimate.null_high, factor),
        null_p=estimate.null_p,
    )


def _times(figure: float | None, factor: float) -> float | None:
    return None if figure is None else figure * factor
