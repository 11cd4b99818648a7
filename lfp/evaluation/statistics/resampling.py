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
"""A score of (true, predicted), one value per word."""

_ROUNDING = 1e-12
"""Values closer than this are equal: differences of equal shares may differ in their last bits."""


@dataclass(frozen=True)
class Draws:
    """How many resamples an interval has, how many permutations a null, and the seed of both."""

    bootstraps: int
    permutations: int
    seed: int

    def rng(self) -> np.random.Generator:
        """Return a new generator for one figure, so that no figure depends on which others were made."""
        return np.random.default_rng(self.seed)


def bootstrap(
    statistic: Statistic,
    true: Floats,
    predicted: Floats,
    *,
    n: int,
    rng: np.random.Generator,
    groups: Ints | None = None,
) -> tuple[float, float]:
    """Compute the 95 % interval of a statistic over `n` draws of words with replacement; `groups` are drawn whole."""
    counts, n_units = _draw(len(true), groups, n=n, rng=rng)
    return _expanded_interval(_score_draws(statistic, true, predicted, counts), n_units)


def bootstrap_difference(
    statistic: Statistic, true: Floats, predicted: Floats, other: Floats, *, n: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Compute the 95 % interval of statistic(predicted) - statistic(other), the same words drawn for both."""
    counts, n_units = _draw(len(true), None, n=n, rng=rng)
    scores, others = (_score_draws(statistic, true, values, counts) for values in (predicted, other))
    return _expanded_interval(scores - others, n_units)


def mean_interval(
    values: Floats, *, n: int, rng: np.random.Generator, groups: Ints | None = None
) -> tuple[float, float]:
    """Compute the 95 % interval of a mean over values drawn with replacement; `groups` [values] are drawn whole."""
    counts, n_units = _draw(len(values), groups, n=n, rng=rng)
    return _expanded_interval(counts @ values / counts.sum(axis=1), n_units)


def _draw(n_words: int, groups: Ints | None, *, n: int, rng: np.random.Generator) -> tuple[Ints, int]:
    """Draw units (words, or groups of them): how often each word is in each draw [n, words], and how many units."""
    units, place = n_words, np.arange(n_words)
    if groups is not None:
        names, place = np.unique(groups, return_inverse=True)
        units = len(names)
    drawn = rng.integers(units, size=(n, units)) + units * np.arange(n)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * units).reshape(n, units)[:, place], units


def _score_draws(statistic: Statistic, true: Floats, predicted: Floats, counts: Ints) -> Floats:
    at_once = fast(statistic, len(true))
    if at_once is not None:
        return at_once(true, predicted, counts)
    rows = (np.repeat(np.arange(len(true)), count) for count in counts)
    return np.array([statistic(true[drawn], predicted[drawn]) for drawn in rows])


def _expanded_interval(values: Floats, n_units: int) -> tuple[float, float]:
    """Compute the expanded percentile interval: quantiles further out than 2.5 and 97.5 %.

    Percentile intervals are too narrow by sqrt((n - 1) / n) and use a normal instead of a t quantile; moving the levels
    corrects both (Hesterberg 2015, "What teachers should know about the bootstrap", section 5.2), but no bias.
    """
    out = float(stdtrit(n_units - 1, 0.975)) * np.sqrt(n_units / (n_units - 1)) if n_units > 1 else 0.0
    low, high = np.quantile(values, [ndtr(-out), ndtr(out)])
    return float(low), float(high)


def interval(values: Floats) -> tuple[float, float]:
    """Compute the 95 % percentile interval of resampled values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def permutations_within_bins(values: Floats, counts: Floats, *, bins: int, n: int, rng: np.random.Generator) -> Floats:
    """Permute the words' values `n` times [n, words], among words of similar frequency only."""
    rank = np.argsort(np.argsort(counts, kind="stable"), kind="stable")
    bin_of = rank * bins // max(1, len(values))
    shuffled = np.tile(values, (n, 1))
    for b in range(bins):
        members = np.flatnonzero(bin_of == b)
        shuffled[:, members] = rng.permuted(shuffled[:, members], axis=1)
    return shuffled


def permutations_of_groups(values: Floats, groups: Ints, *, n: int, rng: np.random.Generator) -> Floats:
    """Permute values `n` times [n, texts]: a group's values go, in any order, to a group of the same size.

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
    """Add a null to an estimate: mean, 95th percentile, and the share of permutations that reach the value.

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


def with_null_of_sizes(value: float, n: int, nulls: Floats) -> Estimate:
    """Compare a signed value with a null of sizes: `null_p` is the share of them that reach its size."""
    return replace(with_null(Estimate(abs(value), n), nulls), value=value)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """Convert an estimate to another unit: value, interval and null times `factor`; p and n stay."""
    names = ("value", "ci_low", "ci_high", "null_mean", "null_high")
    known = {name: getattr(estimate, name) for name in names}
    return replace(estimate, **{name: value * factor for name, value in known.items() if value is not None})
