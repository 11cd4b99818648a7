"""Score preferences: margins of held-out pairs, intervals over conversations, nulls of pairs with swapped sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lfp.config import ProbesConfig
from lfp.errors import DataError
from lfp.evaluation.results import Estimate, ResultRow, name_dictionaries
from lfp.evaluation.statistics.calibration import (
    calibrated_nulls,
    calibration_error,
    calibration_interval,
    calibration_slope,
)
from lfp.evaluation.statistics.resampling import Statistic, average_seeds, bootstrap, bootstrap_difference, with_null
from lfp.evaluation.statistics.scores import auroc, folded, length_controlled_accuracy, mirrored, pair_accuracy
from lfp.evaluation.words import require_finite
from lfp.util.types import Floats, Ints

_ROW = "preference_accuracy"
_FEWEST = 10


@dataclass(frozen=True)
class JudgedPairs:
    """Held-out pairs: `lengths` [pairs] are chosen minus rejected, in any unit; `groups` [pairs] are drawn together.

    `signs` [permutations, pairs] are -1 where the null swaps a pair's sides, else 1: had people tossed a coin, each
    of these preferences would have been as likely as the real one.
    """

    lengths: Floats
    signs: Floats
    config: ProbesConfig
    seed: int
    groups: Ints | None = None

    @staticmethod
    def from_lengths(
        length_differences: Floats, config: ProbesConfig, *, seed: int, groups: Ints | None = None
    ) -> JudgedPairs:
        """Draw the swaps of the null. Raises DataError where there are fewer than ten pairs."""
        if len(length_differences) < _FEWEST:
            raise DataError(
                f"{len(length_differences)} pairs are held out, and at least ten are needed to judge a preference "
                "probe; pass more pairs or raise corpus.held_out_share"
            )
        shape = (config.permutations, len(length_differences))
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=shape)
        return JudgedPairs(np.asarray(length_differences, np.float64), signs, config, seed, groups)


def pair_rows(
    pairs: JudgedPairs, margins: Floats, null_margins: Floats | None, *, log_odds: bool, **keys: Any
) -> list[ResultRow]:
    """Compute rows `preference_accuracy` of margins [pairs], predicted chosen minus rejected.

    The null of accuracy, accuracy with length controlled, area under the curve and calibration slope swaps sides by
    `pairs.signs`. Each permutation has its own `null_margins` [permutations, pairs], by a probe refitted on permuted
    training preferences, signed by the real chosen side; margins that were fitted to no preference have none, and are
    swapped themselves. null_p is one-sided, the share of nulls at least as large.

    With `log_odds` (margins of a probability) also the calibration error of the side predicted to win, whose null is
    a calibrated predictor with these probabilities: a small null_p means miscalibration. Raises DataError where a
    margin is not finite.
    """
    require_finite(margins)
    statistics: dict[str, Statistic] = {
        "accuracy": _accuracy,
        "accuracy_length_controlled": lambda lengths, margins: length_controlled_accuracy(margins, lengths),
        "auroc": lambda _, margins: auroc(*mirrored(margins)),
        "calibration_slope": lambda _, margins: calibration_slope(margins),
    }
    rows = [
        ResultRow.from_estimate(_ROW, metric, _estimate(statistic, pairs, margins, null_margins), **keys)
        for metric, statistic in statistics.items()
    ]
    if log_odds:
        won, odds = folded(margins)
        rng = np.random.default_rng(pairs.seed)
        low, high = calibration_interval(won, odds, n=pairs.config.bootstraps, rng=rng)
        error = Estimate(calibration_error(won, odds), len(margins), low, high)
        figure = with_null(error, calibrated_nulls(odds, n=pairs.config.permutations, rng=rng))
        rows.append(ResultRow.from_estimate(_ROW, "calibration_error", figure, **keys))
    return rows


def length_row(pairs: JudgedPairs, **keys: Any) -> ResultRow:
    """Compute how often the longer side was chosen (equal lengths count half): the score of length alone.

    Its null swaps sides, and null_p is two-sided about a half: people may prefer the shorter.
    """
    above_half = _estimate(lambda _, lengths: pair_accuracy(lengths) - 0.5, pairs, pairs.lengths, None, two_sided=True)
    ends = ("value", "ci_low", "ci_high", "null_mean", "null_high")
    figure = replace(above_half, **{name: getattr(above_half, name) + 0.5 for name in ends})
    return ResultRow.from_estimate(_ROW, "accuracy_of_length", figure, **keys)


def pair_difference_row(
    pairs: JudgedPairs,
    tuned: Floats,
    base: Floats,
    *,
    nulls: tuple[Floats, Floats] | None = None,
    others: Sequence[tuple[Floats, Floats]] = (),
    **keys: Any,
) -> ResultRow:
    """Compute the accuracy of the tuned model's margins minus the base model's, the same pairs drawn for both.

    Its null is the same difference where preferences are permuted, both probes refitted (`nulls`, as in `pair_rows`);
    null_p is two-sided. `others` are margins by dictionaries of both models from other seeds: see `difference_row`.
    """
    estimates = []
    for side, other in ((tuned, base), *others):
        require_finite(side, other)
        rng = np.random.default_rng(pairs.seed)
        low, high = bootstrap_difference(
            _accuracy, pairs.lengths, side, other, n=pairs.config.bootstraps, rng=rng, groups=pairs.groups
        )
        estimates.append(Estimate(pair_accuracy(side) - pair_accuracy(other), len(side), low, high))
    estimate = average_seeds(estimates)
    tuned_nulls, base_nulls = nulls if nulls is not None else (None, None)
    differences = _nulls(_accuracy, pairs, tuned, tuned_nulls) - _nulls(_accuracy, pairs, base, base_nulls)
    figure = with_null(estimate, differences, two_sided=True)
    keys |= {"model": "difference", "group": name_dictionaries(len(estimates))}
    return ResultRow.from_estimate(_ROW, "accuracy", figure, **keys)


def _accuracy(_: Floats, margins: Floats) -> float:
    return pair_accuracy(margins)


def _estimate(
    statistic: Statistic, pairs: JudgedPairs, margins: Floats, null_margins: Floats | None, *, two_sided: bool = False
) -> Estimate:
    rng = np.random.default_rng(pairs.seed)
    low, high = bootstrap(statistic, pairs.lengths, margins, n=pairs.config.bootstraps, rng=rng, groups=pairs.groups)
    estimate = Estimate(statistic(pairs.lengths, margins), len(margins), low, high)
    return with_null(estimate, _nulls(statistic, pairs, margins, null_margins), two_sided=two_sided)


def _nulls(statistic: Statistic, pairs: JudgedPairs, margins: Floats, null_margins: Floats | None) -> Floats:
    """Compute the statistic under each permutation: as many as there are refitted margins, at most as many as signs."""
    refitted = [margins] * len(pairs.signs) if null_margins is None else null_margins
    swapped = zip(pairs.signs, refitted, strict=False)
    return np.array([statistic(pairs.lengths * signs, values * signs) for signs, values in swapped])
