"""Calibration against scikit-learn and naive bins; its interval covers and its null a calibrated predictor's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import kstest
from sklearn.linear_model import LogisticRegression

from lfp.evaluation.statistics.calibration import (
    calibrated_nulls,
    calibration_error,
    calibration_interval,
    calibration_slope,
)
from lfp.evaluation.statistics.scores import mirrored
from tests.benchmarks.nulls import randomised_p

Floats = np.ndarray


def outcomes(n: int, rng: np.random.Generator, *, scale: float = 1.0) -> tuple[Floats, Floats]:
    """Outcomes and the log-odds stated for them, `scale` times the real ones."""
    log_odds = 1.5 * rng.normal(size=n)
    return (rng.random(n) < expit(log_odds / scale)).astype(float), log_odds


def naive_error(true: Floats, log_odds: Floats) -> float:
    parts = np.array_split(np.argsort(log_odds), 10)
    gaps = [len(rows) * abs(true[rows].mean() - expit(log_odds[rows]).mean()) for rows in parts]
    return sum(gaps) / len(true)


def test_the_calibration_error_is_that_of_ten_equal_bins() -> None:
    true, log_odds = outcomes(200, np.random.default_rng(0))
    assert calibration_error(true, log_odds) == pytest.approx(naive_error(true, log_odds))


def test_equal_predictions_share_a_bin_whatever_the_order_of_rows() -> None:
    true, log_odds = np.array([1.0, 0.0] * 50), np.zeros(100)
    assert calibration_error(true, log_odds) == calibration_error(np.sort(true), log_odds) == 0.0
    assert calibration_error(np.ones(100), log_odds) == 0.5
    assert calibration_error(np.zeros(0), np.zeros(0)) == 0.0


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_slope_is_an_unpenalised_logistic_regressions(scale: float) -> None:
    true, log_odds = outcomes(400, np.random.default_rng(1), scale=scale)
    margins = np.where(true > 0, log_odds, -log_odds)
    logistic = LogisticRegression(C=np.inf, tol=1e-10, fit_intercept=False, solver="newton-cholesky")
    rows, chosen = mirrored(margins)[1][:, None], mirrored(margins)[0]
    assert calibration_slope(margins) == pytest.approx(logistic.fit(rows, chosen).coef_[0, 0], abs=1e-6)
    assert calibration_slope(margins) == pytest.approx(1 / scale, abs=0.25)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_slope_ends_where_preferences_are_separated(unit: float) -> None:
    margins = np.array([2.0, 1.0, 1.0, 2.0]) * unit
    size = np.sqrt((margins**2).mean())
    assert calibration_slope(margins) == pytest.approx(30.0 / size)
    assert calibration_slope(-margins) == pytest.approx(-30.0 / size)


def test_margins_of_nothing_have_no_slope() -> None:
    assert calibration_slope(np.zeros(3)) == calibration_slope(np.zeros(0)) == 0.0


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_intervals_of_the_calibration_error_cover_it(scale: float) -> None:
    """Of a calibrated predictor the error is 0, however far above the one found lies."""
    rng = np.random.default_rng(3)
    known = 0.0 if scale == 1.0 else calibration_error(*outcomes(400_000, rng, scale=scale))
    covered = []
    for _ in range(250):
        true, log_odds = outcomes(150, rng, scale=scale)
        low, high = calibration_interval(true, log_odds, n=150, rng=rng)
        assert low <= calibration_error(true, log_odds) <= high
        covered.append(low <= known <= high)
    assert 0.90 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize(("scale", "is_null"), [(1.0, True), (2.0, False)])
def test_the_null_of_the_calibration_error_is_a_calibrated_predictor(scale: float, is_null: bool) -> None:
    rng = np.random.default_rng(4)
    p_values = []
    for _ in range(150):
        true, log_odds = outcomes(150, rng, scale=scale)
        nulls = calibrated_nulls(log_odds, n=29, rng=rng)
        p_values.append(randomised_p(calibration_error(true, log_odds), nulls, rng))
    assert (kstest(p_values, "uniform").pvalue > 0.01) == is_null
