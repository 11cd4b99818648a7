"""Scores of predictions against true feedback, each with a bootstrap interval over words and a permutation null."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Statistic = Callable[[Floats, Floats], float]
"""A score of (true, predicted), one number a word."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and its null; None where there is none. `n` is the words (or texts) behind it."""

    value: float
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    null_mean: float | None = None
    null_high: float | None = None
    null_p: float | None = None


def tau(true: Floats, predicted: Floats) -> float:
    """Kendall's tau-b, 0 where either side is constant (scipy.stats.kendalltau)."""
    value = float(kendalltau(true, predicted).statistic) if len(true) > 1 else 0.0
    return 0.0 if np.isnan(value) else value


def tau_within_sign(true: Floats, predicted: Floats) -> float:
    """Kendall's tau over pairs of words of one sign: positive and negative words' taus, weighted by their pairs."""
    signs = [true > 0, true < 0]
    pairs = [float(side.sum() * (side.sum() - 1)) for side in signs]
    taus = [tau(true[side], predicted[side]) for side in signs]
    return float(np.dot(pairs, taus) / max(1.0, sum(pairs)))


def sign_ceiling(true: Floats, predicted: Floats) -> float:
    """The tau that these predictions' signs alone would have, their sizes being in random order.

    Pairs of words predicted with different signs count as they fall; pairs predicted with the same sign count nothing.
    Ties take pairs off as in tau-b, so that this is the mean of `tau` over all shuffles of sizes within a sign.
    """
    negative, zero, positive = (np.sort(true[np.sign(predicted) == sign]) for sign in (-1, 0, 1))
    agreement = _balance(positive, negative) + _balance(positive, zero) + _balance(zero, negative)
    untied = (_pairs(len(true)) - _tied_pairs(true)) * (_pairs(len(true)) - _tied_pairs(predicted))
    return float(agreement / np.sqrt(untied)) if untied else 0.0


def _balance(high: Floats, low: Floats) -> float:
    """Pairs in which the member of `high` is the larger, less those in which it is the smaller; both are sorted."""
    below, up_to = np.searchsorted(low, high, side="left"), np.searchsorted(low, high, side="right")
    return float(below.sum() - (len(low) - up_to).sum())


def _pairs(n: int) -> float:
    return n * (n - 1) / 2.0


def _tied_pairs(values: Floats) -> float:
    return sum(_pairs(int(count)) for count in np.unique(values, return_counts=True)[1])


def sign_accuracy(true: Floats, predicted: Floats) -> float:
    """Share of words whose prediction has the sign of their true value."""
    return float((np.sign(true) == np.sign(predicted)).mean()) if len(true) else 0.0


def bootstrap(
    statistic: Statistic, true: Floats, predicted: Floats, *, n: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic over words drawn with replacement."""
    draws = rng.integers(len(true), size=(n, len(true)))
    low, high = np.quantile([statistic(true[rows], predicted[rows]) for rows in draws], [0.025, 0.975])
    return float(low), float(high)


def bootstrap_difference(
    statistic: Statistic, true: Floats, predicted: Floats, other: Floats, *, n: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The 95 % interval of statistic(predicted) - statistic(other), the same words drawn for both."""
    draws = rng.integers(len(true), size=(n, len(true)))
    values = [statistic(true[r], predicted[r]) - statistic(true[r], other[r]) for r in draws]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def mean_interval(values: Floats, *, n: int, rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % percentile interval of a mean over values drawn with replacement."""
    means = values[rng.integers(len(values), size=(n, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
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


def with_null(estimate: Estimate, nulls: Floats) -> Estimate:
    """The estimate beside its null: mean, 95th percentile, and the share of permutations that reach it."""
    reached = int((nulls >= estimate.value).sum())
    return Estimate(
        value=estimate.value,
        n=estimate.n,
        ci_low=estimate.ci_low,
        ci_high=estimate.ci_high,
        null_mean=float(nulls.mean()),
        null_high=float(np.quantile(nulls, 0.95)),
        null_p=(reached + 1) / (len(nulls) + 1),
    )
