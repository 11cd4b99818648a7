"""What preference data hold of every feature before tuning, and what tuning made of it: forecast and receipt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

from lfp.errors import DataError
from lfp.evaluation.results import FATES, RATE, Estimate
from lfp.evaluation.statistics.resampling import Draws, interval, with_null
from lfp.evaluation.statistics.scores import spearman
from lfp.util.types import Floats, Ints

_FOLDS = 5
_FEWEST = 2 * _FOLDS


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
        raise DataError(f"{n} conversations are too few for a forecast; pass more pairs, or set forecast.pairs to 0")
    sums = np.zeros((n, moves.shape[1]))
    np.add.at(sums, place, moves)
    error = np.sqrt((sums**2).sum(axis=0) * n / (n - 1))
    half = student.ppf(0.975, n - 1) * error
    sizes = np.divide(np.abs(value), error, out=np.where(value == 0, 0.0, np.inf), where=error > 0)
    return Means(value, value - half, value + half, 2.0 * student.sf(sizes, n - 1))


@dataclass(frozen=True)
class Receipt:
    """What came of a forecast, all [features] where not said otherwise.

    `expected` is what the difference in the data predicts of what was learned, by a line fitted on other features.
    `r2` and `rank_correlation` are of the features, with their nulls.
    """

    expected: Floats
    r2: Estimate
    rank_correlation: Estimate


def judge_forecast(in_data: Floats, learned: Floats, *, nulls: Floats, spread: Floats, draws: Draws) -> Receipt | None:
    """Compare differences in the data with a measure of what was learned, [features] in units of their `spread`.

    R2 is of predictions of features that the line was not fitted on, its interval over features. The null forecasts
    from `nulls` [draws, features], the differences of pairs whose sides were swapped at random: features that fire
    together still do. None for fewer than ten features.
    """
    if len(in_data) < _FEWEST:
        return None
    across, up = in_data / spread, learned / spread
    folds = np.random.default_rng(draws.seed).permutation(len(across)) % _FOLDS
    expected = _predict_other_folds(across, up, folds)
    rng = draws.rng()
    rows = [rng.integers(len(up), size=len(up)) for _ in range(draws.bootstraps)]
    swapped = nulls / spread
    explained = with_null(
        Estimate(_r2(expected, up), len(up), *interval(np.array([_r2(expected[row], up[row]) for row in rows]))),
        np.array([_r2(_predict_other_folds(values, up, folds), up) for values in swapped]),
    )
    ranked = with_null(
        Estimate(spearman(up, across), len(up), *interval(np.array([spearman(up[row], across[row]) for row in rows]))),
        np.array([spearman(up, values) for values in swapped]),
        two_sided=True,
    )
    return Receipt(expected * spread, explained, replace(ranked, n=len(up)))


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
