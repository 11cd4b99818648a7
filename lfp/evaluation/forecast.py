"""What preference data hold of every feature before tuning, and what tuning made of it: forecast and receipt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from lfp.errors import DataError
from lfp.evaluation.results import FATES, RATE, Estimate
from lfp.evaluation.statistics.resampling import with_null
from lfp.evaluation.statistics.scores import spearman
from lfp.util.types import Flags, Floats, Ints

_FOLDS = 5
_FEWEST = 2 * _FOLDS
_TOO_FEW = "conversations are too few for a forecast; pass more pairs, or set forecast.pairs to 0"
_BLOCKS = 20
"""Of conversations, or features, each of which is left out in turn."""
_WIDEST = 1.0 - 1e-9
"""Rank correlations at 1 have no finite place on Fisher's scale."""


@dataclass(frozen=True)
class Means:
    """A mean of every feature [features] with its 95 % interval and two-sided p, over independent groups."""

    value: Floats
    low: Floats
    high: Floats
    p: Floats


def difference_at_equal_length(differences: Floats, lengths: Floats, groups: Ints) -> Means:
    """Estimate the mean difference [features] of pairs whose responses are as long as each other.

    `differences` [pairs, features] and `lengths` [pairs] are chosen minus rejected; pairs of one of `groups` [pairs]
    are not independent. It is the intercept of a regression on the difference in length, with the sandwich of Liang
    and Zeger (1986). Raises DataError on fewer than three groups.
    """
    spread = lengths.std()
    if spread == 0:  # all alike, so that nothing is to be controlled
        return mean_of_groups(differences, groups)
    design = np.column_stack([np.ones(len(lengths)), lengths / spread])
    influence = np.linalg.pinv(design)  # [2, pairs]
    residuals = differences - design @ (influence @ differences)
    return _means(influence[0] @ differences, influence[0][:, None] * residuals, groups)


def swapped_differences(
    differences: Floats, lengths: Floats, groups: Ints, *, n: int, rng: np.random.Generator
) -> Floats:
    """Estimate `n` times the difference at equal length [n, features] with the sides of pairs swapped at random.

    The pairs of one of `groups` are swapped together: had people tossed a coin, the data would be as these.
    """
    place = np.unique(groups, return_inverse=True)[1]
    signs = rng.choice([-1.0, 1.0], size=(n, int(place.max()) + 1))[:, place]
    spread = lengths.std()
    influences = [
        sign * np.linalg.pinv(np.column_stack([np.ones(len(lengths)), lengths * sign / spread]))[0]
        if spread
        else sign / len(lengths)
        for sign in signs
    ]
    return np.asarray(np.array(influences) @ differences)


def preference_at_equal_length(differences: Floats, rewards: Floats, lengths: Floats, groups: Ints) -> Means:
    """Estimate how far features [features] differ where the implicit reward differs by a standard deviation.

    `differences` [pairs, features], `rewards` and `lengths` [pairs] are of one response less the other. Features are
    regressed on both through the origin, so that it does not matter which response comes first, nor which was chosen.
    """
    sizes = [np.sqrt((values**2).mean()) or 1.0 for values in (rewards, lengths)]
    design = np.column_stack([rewards / sizes[0], lengths / sizes[1]])
    influence = np.linalg.pinv(design)
    residuals = differences - design @ (influence @ differences)
    return _means(influence[0] @ differences, influence[0][:, None] * residuals, groups)


def mean_of_groups(values: Floats, groups: Ints) -> Means:
    """Estimate the mean of rows [rows, features], those of one of `groups` [rows] not being independent.

    Raises DataError on fewer than three groups.
    """
    mean = values.mean(axis=0)
    return _means(mean, (values - mean) / len(values), groups)


def _means(value: Floats, moves: Floats, groups: Ints) -> Means:
    """Give means their intervals; `moves` [rows, features] is how far each row moves them."""
    place = np.unique(groups, return_inverse=True)[1]
    n = int(place.max()) + 1 if len(place) else 0
    if n < 3:
        raise DataError(f"{n} {_TOO_FEW}")
    sums = np.zeros((n, moves.shape[1]))
    np.add.at(sums, place, moves)
    error = np.sqrt((sums**2).sum(axis=0) * n / (n - 1))
    half = student.ppf(0.975, n - 1) * error
    sizes = np.divide(np.abs(value), error, out=np.where(value == 0, 0.0, np.inf), where=error > 0)
    return Means(value, value - half, value + half, 2.0 * student.sf(sizes, n - 1))


@dataclass(frozen=True)
class Measured:
    """A figure of every feature [features], and the same without each block of conversations [blocks, features]."""

    value: Floats
    without: Floats

    def over(self, spread: Floats) -> Measured:
        """Return the figures in units of the features' spread [features]."""
        return Measured(self.value / spread, self.without / spread)


def measure_without(measure: Callable[[Flags], Floats], groups: Ints) -> Measured:
    """Measure features on all rows, and without each of at most 20 blocks of groups; groups [rows] stay whole.

    `measure` gets which rows to read, and returns a figure of every feature [features]. Raises DataError on fewer than
    three groups.
    """
    names, place = np.unique(groups, return_inverse=True)
    if len(names) < 3:
        raise DataError(f"{len(names)} {_TOO_FEW}")
    block = place % min(_BLOCKS, len(names))
    without = [measure(block != left_out) for left_out in range(int(block.max()) + 1)]
    return Measured(measure(np.ones(len(groups), bool)), np.array(without))


@dataclass(frozen=True)
class Receipt:
    """What came of a forecast, all [features] where not said otherwise.

    `expected` is what the difference in the data predicts of what was learned, by a line fitted on other features.
    `r2` and `rank_correlation` are of the features, with their nulls.
    """

    expected: Floats
    r2: Estimate
    rank_correlation: Estimate


def judge_forecast(in_data: Measured, learned: Measured, *, nulls: Floats, spread: Floats, seed: int) -> Receipt | None:
    """Compare differences in the data with a measure of what was learned, features in units of their `spread`.

    R2 is of predictions of features that the line was not fitted on. Intervals are by the jackknife over blocks of the
    conversations of both measures and over blocks of features, their variances added: features that fire together
    share the noise of the pairs, so that their number says little. The null forecasts from `nulls` [draws, features],
    the differences of pairs whose sides were swapped at random. None for fewer than ten features.
    """
    n = len(spread)
    if n < _FEWEST:
        return None
    across, up = in_data.over(spread), learned.over(spread)
    rng = np.random.default_rng(seed)
    folds, blocks = rng.permutation(n) % _FOLDS, rng.permutation(n) % min(_BLOCKS, n)

    def explain(x: Floats, y: Floats, rows: Flags) -> float:
        return float(np.log1p(-_WIDEST * _r2(_predict_other_folds(x[rows], y[rows], folds[rows]), y[rows])))

    def rank(x: Floats, y: Floats, rows: Flags) -> float:
        return float(np.arctanh(_WIDEST * spearman(y[rows], x[rows])))

    value, high, low = -np.expm1(_jackknife(explain, across, up, blocks))
    swapped = nulls / spread
    explained = with_null(
        Estimate(value, n, low, high),
        np.array([_r2(_predict_other_folds(values, up.value, folds), up.value) for values in swapped]),
    )
    rho, low, high = np.tanh(_jackknife(rank, across, up, blocks)).tolist()
    ranked = with_null(
        Estimate(rho, n, low, high), np.array([spearman(up.value, values) for values in swapped]), two_sided=True
    )
    return Receipt(_predict_other_folds(across.value, up.value, folds) * spread, explained, ranked)


def _jackknife(
    statistic: Callable[[Floats, Floats, Flags], float], across: Measured, up: Measured, blocks: Ints
) -> tuple[float, float, float]:
    """Return a statistic of two measures and the features it reads, with its 95 % interval; `blocks` [features]."""
    everything = np.ones(len(blocks), bool)
    value = statistic(across.value, up.value, everything)
    left_out = (
        [statistic(x, up.value, everything) for x in across.without],
        [statistic(across.value, y, everything) for y in up.without],
        [statistic(across.value, up.value, blocks != block) for block in range(int(blocks.max()) + 1)],
    )
    variance = sum(_jackknife_variance(np.array(values)) for values in left_out)
    half = float(student.ppf(0.975, min(map(len, left_out)) - 1)) * variance**0.5
    return value, value - half, value + half


def _jackknife_variance(values: Floats) -> float:
    """Return the variance of a figure from what it is without each block."""
    return float((len(values) - 1) * values.var())


def name_fates(in_data: Floats, learned: Floats, *, data_q: Floats, learned_q: Floats) -> list[str]:
    """Name what became of each feature; what was learned against the data's difference is not learned from them."""
    fates = []
    for is_in_data, is_learned, is_alike in zip(data_q <= RATE, learned_q <= RATE, in_data * learned > 0, strict=True):
        if is_in_data:
            fates.append(FATES[0 if is_learned and is_alike else 1])
        else:
            fates.append(FATES[2 if is_learned else 3])
    return fates


def _predict_other_folds(across: Floats, up: Floats, folds: Ints) -> Floats:
    """Predict each fold's values by a line through the other folds'."""
    predicted = np.empty(len(up))
    for fold in range(_FOLDS):
        is_other = folds != fold
        x, y = across[is_other], up[is_other]
        scale = float(((x - x.mean()) ** 2).sum())
        slope = float(((x - x.mean()) * (y - y.mean())).sum()) / scale if scale > 0 else 0.0
        predicted[~is_other] = y.mean() + slope * (across[~is_other] - x.mean())
    return predicted


def _r2(predicted: Floats, values: Floats) -> float:
    total = float(((values - values.mean()) ** 2).sum())
    return 1.0 - float(((values - predicted) ** 2).sum()) / total if total > 0 else 0.0
