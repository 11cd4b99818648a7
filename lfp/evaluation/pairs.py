"""Judge preferences: margins of held-out pairs, with intervals over pairs and nulls of pairs with swapped sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lfp.config import ProbesConfig
from lfp.errors import DataError
from lfp.evaluation.results import Estimate, ResultRow
from lfp.evaluation.statistics.calibration import (
    calibrated_nulls,
    calibration_error,
    calibration_interval,
    calibration_slope,
)
from lfp.evaluation.statistics.resampling import Statistic, bootstrap, bootstrap_difference, with_null
from lfp.evaluation.statistics.scores import auroc, folded, length_controlled_accuracy, mirrored, pair_accuracy
from lfp.evaluation.words import require_finite
from lfp.util.types import Floats

_ROW = "preference_accuracy"
_FEWEST = 10


@dataclass(frozen=True)
class JudgedPairs:
    """Held-out pairs: `lengths` [pairs] are chosen minus rejected, in any unit.

    `signs` [permutations, pairs] are -1 where the null swaps a pair's sides, else 1: had people chosen by a coin, every
    such preference would have been as likely as the real one.
    """

    lengths: Floats
    signs: Floats
    config: ProbesConfig
    seed: int

    @staticmethod
    def of(length_differences: Floats, config: ProbesConfig, *, seed: int) -> JudgedPairs:
        """Pairs to judge margins of. Raises DataError where there are fewer than ten."""
        if len(length_differences) < _FEWEST:
            raise DataError(
                f"{len(length_differences)} pairs are held out, and at least ten are needed to judge a preference "
                "probe; pass more pairs or raise corpus.held_out_share"
            )
        shape = (config.permutations, len(length_differences))
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=shape)
        return JudgedPairs(np.asarray(length_differences, np.float64), signs, config, seed)


def pair_rows(
    pairs: JudgedPairs, margins: Floats, null_margins: Floats | None, *, log_odds: bool, **keys: Any
) -> list[ResultRow]:
    """Row `preference_accuracy` of margins [pairs], predicted chosen minus rejected.

    Accuracy, accuracy with length controlled, area under the curve and calibration slope meet preferences swapped by
    `pairs.signs`: with `null_margins` [permutations, pairs], of probes refitted on permuted training preferences but
    named by the real chosen side, a permutation's own margins; without them (margins that no preference was fitted to)
    the same. null_p is one-sided, the share of nulls at least as large.

    With `log_odds` (margins are a probability's) also the calibration error of the side predicted to win, whose null is
    a calibrated predictor with these probabilities: a small null_p tells of miscalibration. Raises DataError where a
    margin is not finite.
    """
    require_finite(margins)
    rows = [
        ResultRow.from_estimate(_ROW, metric, _estimate(statistic, pairs, margins, null_margins), **keys)
        for metric, statistic in _statistics().items()
    ]
    return (
        [*rows, ResultRow.from_estimate(_ROW, "calibration_error", _calibration(pairs, margins), **keys)]
        if log_odds
        else rows
    )


def length_row(pairs: JudgedPairs, **keys: Any) -> ResultRow:
    """How often the longer side was chosen (equal lengths count half): what a predictor of length alone scores.

    Its null swaps sides, and null_p is two-sided about a half: people may prefer the shorter.
    """
    figure = _estimate(lambda _, lengths: pair_accuracy(lengths) - 0.5, pairs, pairs.lengths, None, two_sided=True)
    return ResultRow.from_estimate(_ROW, "accuracy_of_length", _moved(figure, 0.5), **keys)


def pair_difference_row(
    pairs: JudgedPairs, tuned: Floats, base: Floats, *, nulls: tuple[Floats, Floats] | None = None, **keys: Any
) -> ResultRow:
    """Accuracy of the tuned model's margins minus that of the base model's, the same pairs drawn for both.

    Its null is the same difference where preferences are permuted, both probes refitted (`nulls`, as in `pair_rows`);
    null_p is two-sided.
    """
    require_finite(tuned, base)
    rng = np.random.default_rng(pairs.seed)
    low, high = bootstrap_difference(_accuracy, pairs.lengths, tuned, base, n=pairs.config.bootstraps, rng=rng)
    estimate = Estimate(pair_accuracy(tuned) - pair_accuracy(base), len(tuned), low, high)
    ours, theirs = nulls if nulls is not None else (None, None)
    of_null = _nulls(_accuracy, pairs, tuned, ours) - _nulls(_accuracy, pairs, base, theirs)
    figure = with_null(estimate, of_null, two_sided=True)
    return ResultRow.from_estimate(_ROW, "accuracy", figure, **(keys | {"model": "difference"}))


def _statistics() -> Mapping[str, Statistic]:
    """Scores of (length differences, margins), one a pair."""
    return {
        "accuracy": _accuracy,
        "accuracy_length_controlled": lambda lengths, margins: length_controlled_accuracy(margins, lengths),
        "auroc": lambda _, margins: auroc(*mirrored(margins)),
        "calibration_slope": lambda _, margins: calibration_slope(*mirrored(margins)),
    }


def _accuracy(_: Floats, margins: Floats) -> float:
    return pair_accuracy(margins)


def _estimate(
    statistic: Statistic, pairs: JudgedPairs, margins: Floats, null_margins: Floats | None, *, two_sided: bool = False
) -> Estimate:
    rng = np.random.default_rng(pairs.seed)
    low, high = bootstrap(statistic, pairs.lengths, margins, n=pairs.config.bootstraps, rng=rng)
    estimate = Estimate(statistic(pairs.lengths, margins), len(margins), low, high)
    return with_null(estimate, _nulls(statistic, pairs, margins, null_margins), two_sided=two_sided)


def _nulls(statistic: Statistic, pairs: JudgedPairs, margins: Floats, null_margins: Floats | None) -> Floats:
    """The statistic under each permutation: at most as many as there are refitted margins and signs."""
    theirs = [margins] * len(pairs.signs) if null_margins is None else null_margins
    swapped = zip(pairs.signs, theirs, strict=False)
    return np.array([statistic(pairs.lengths * signs, values * signs) for signs, values in swapped])


def _calibration(pairs: JudgedPairs, margins: Floats) -> Estimate:
    won, log_odds = folded(margins)
    rng = np.random.default_rng(pairs.seed)
    low, high = calibration_interval(won, log_odds, n=pairs.config.bootstraps, rng=rng)
    estimate = Estimate(calibration_error(won, log_odds), len(margins), low, high)
    return with_null(estimate, calibrated_nulls(log_odds, n=pairs.config.permutations, rng=rng))


def _moved(figure: Estimate, by: float) -> Estimate:
    """The same figure counted from another zero; p stays."""
    ends = (figure.ci_low, figure.ci_high, figure.null_mean, figure.null_high)
    low, high, mean, null_high = (None if end is None else end + by for end in ends)
    return Estimate(figure.value + by, figure.n, low, high, mean, null_high, figure.null_p)
