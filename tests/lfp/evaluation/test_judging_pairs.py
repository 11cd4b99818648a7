"""Scores of preferences: statistics of margins, length controlled, and their nulls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lfp.config import ProbesConfig
from lfp.errors import DataError
from lfp.evaluation.pairs import JudgedPairs, length_row, pair_difference_row, pair_rows
from lfp.evaluation.statistics.calibration import calibration_slope
from lfp.evaluation.statistics.scores import auroc, length_controlled_accuracy, mirrored, pair_accuracy

CONFIG = ProbesConfig(permutations=60, bootstraps=80)
LENGTHS = np.random.default_rng(0).integers(-3, 4, size=120).astype(float)
MARGINS = np.random.default_rng(1).normal(size=120) + 0.6


def judged(lengths: np.ndarray = LENGTHS, seed: int = 0) -> JudgedPairs:
    return JudgedPairs.from_lengths(lengths, CONFIG, seed=seed)


def by_metric(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row.metric: row for row in rows}


def test_every_figure_of_pairs_has_an_interval_and_a_null() -> None:
    rows = by_metric(pair_rows(judged(), MARGINS, None, log_odds=True, model="tuned"))
    assert set(rows) == {"accuracy", "accuracy_length_controlled", "auroc", "calibration_slope", "calibration_error"}
    assert rows["accuracy"].value == pair_accuracy(MARGINS)
    assert rows["accuracy_length_controlled"].value == length_controlled_accuracy(MARGINS, LENGTHS)
    assert rows["auroc"].value == auroc(*mirrored(MARGINS))
    assert rows["calibration_slope"].value == calibration_slope(MARGINS)
    for row in rows.values():
        assert row.ci_low <= row.value <= row.ci_high
        assert row.null_mean < row.null_high
        assert (row.report_row, row.model, row.n) == ("preference_accuracy", "tuned", 120)
    assert rows["accuracy"].null_p == 1 / 61


def test_margins_of_no_probability_have_no_calibration_error() -> None:
    assert "calibration_error" not in by_metric(pair_rows(judged(), MARGINS, None, log_odds=False))


def test_swapped_preferences_are_right_half_of_the_time() -> None:
    rows = by_metric(pair_rows(judged(), MARGINS, None, log_odds=False))
    for name in ("accuracy", "accuracy_length_controlled", "auroc"):
        assert rows[name].null_mean == pytest.approx(0.5, abs=0.03)
    assert rows["calibration_slope"].null_mean == pytest.approx(0.0, abs=0.1)


def test_refitted_margins_meet_the_preferences_swapped() -> None:
    """A probe that could memorise a permutation has a null of 1, and finds nothing."""
    pairs = judged()
    rows = by_metric(pair_rows(pairs, MARGINS, pairs.signs, log_odds=False))
    assert (rows["accuracy"].null_mean, rows["accuracy"].null_p) == (1.0, 1.0)
    fewer = by_metric(pair_rows(pairs, np.ones(120), -pairs.signs[:20], log_odds=False))
    assert (fewer["accuracy"].null_mean, fewer["accuracy"].null_p) == (0.0, 1 / 21)


def test_lengths_are_swapped_with_their_pairs() -> None:
    """Length alone has a half in every permutation, since the side that is chosen then brings its length."""
    pairs = judged()
    row = by_metric(pair_rows(pairs, pairs.lengths, None, log_odds=False))["accuracy_length_controlled"]
    assert row.value == row.null_mean == row.null_high == 0.5
    assert row.null_p == 1.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_length_alone_is_judged_two_sided(sign: float) -> None:
    lengths = sign * np.concatenate([np.ones(80), -np.ones(30), np.zeros(10)])
    row = length_row(judged(lengths), target="preference")
    assert row.value == pytest.approx(0.5 + sign * 25 / 120)
    assert row.ci_low < row.value < row.ci_high
    assert (row.metric, row.null_p) == ("accuracy_of_length", 1 / 61)
    assert row.null_mean == pytest.approx(0.5, abs=0.03)
    assert 0.5 < row.null_high < 0.65


def test_over_confident_margins_are_told_by_slope_and_error() -> None:
    rng = np.random.default_rng(2)
    sizes = np.abs(2.0 * rng.normal(size=400))
    margins = np.where(rng.random(400) < 1 / (1 + np.exp(-sizes)), sizes, -sizes)
    pairs = judged(np.ones(400))
    calibrated, wide = (by_metric(pair_rows(pairs, k * margins, None, log_odds=True)) for k in (1.0, 4.0))
    assert calibrated["calibration_slope"].ci_low < 1.0 < calibrated["calibration_slope"].ci_high
    assert wide["calibration_slope"].value == pytest.approx(calibrated["calibration_slope"].value / 4)
    assert calibrated["calibration_error"].null_p > 0.05
    assert wide["calibration_error"].null_p == 1 / 61


def test_the_difference_is_tuned_minus_base_on_the_same_pairs() -> None:
    pairs, noise = judged(), np.random.default_rng(3).normal(size=120)
    row = pair_difference_row(pairs, MARGINS, noise, target="preference")
    assert row.value == pytest.approx(pair_accuracy(MARGINS) - pair_accuracy(noise))
    assert row.ci_low < row.value < row.ci_high
    assert (row.model, row.metric) == ("difference", "accuracy")
    assert row.null_p < 0.05
    back = pair_difference_row(pairs, noise, MARGINS)
    assert (back.value, back.null_p) == (-row.value, row.null_p)
    same = pair_difference_row(pairs, noise, noise, nulls=(pairs.signs, pairs.signs))
    assert (same.value, same.ci_low, same.ci_high, same.null_p) == (0.0, 0.0, 0.0, 1.0)


def test_the_seed_decides_the_swaps() -> None:
    assert np.array_equal(judged().signs, judged().signs)
    assert not np.array_equal(judged().signs, judged(seed=1).signs)


def test_too_few_pairs_and_margins_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="9 pairs are held out, and at least ten are needed"):
        judged(np.ones(9))
    with pytest.raises(DataError, match="1 of 120 predictions are not finite"):
        pair_rows(judged(), np.where(np.arange(120) == 3, np.nan, MARGINS), None, log_odds=False)
