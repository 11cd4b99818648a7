"""Calibration of predicted log-odds: the expected calibration error with its interval and null, and the slope."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import rankdata

from lfp.util.types import Floats

_BINS = 10
_STEEPEST = 30.0
"""Largest slope of margins in units of their root mean square: that of perfectly separated preferences is infinite."""


def calibration_error(true: Floats, log_odds: Floats) -> float:
    """Expected calibration error: |share of ones - mean predicted probability|, averaged over ten equal-count bins.

    Equal log-odds share a bin, so the order of rows does not matter. Even a calibrated predictor scores above 0, more
    so with few rows per bin, so compare it with its null. `true` is 0 or 1, or 0.5 for an outcome that is neither.
    """
    gaps, _ = _gaps_of_bins(true, log_odds)
    return float(np.abs(gaps).sum())


def calibrated_nulls(log_odds: Floats, *, n: int, rng: np.random.Generator) -> Floats:
    """Draw `n` calibration errors of a calibrated predictor with these log-odds: what chance alone leaves."""
    likely = expit(log_odds)
    return np.array([calibration_error((rng.random(len(likely)) < likely).astype(float), log_odds) for _ in range(n)])


def calibration_interval(true: Floats, log_odds: Floats, *, n: int, rng: np.random.Generator) -> tuple[float, float]:
    """Compute the 95 % interval of the calibration error: the errors under which the one found is not unusual.

    A bootstrap of rows adds noise to bins that have noise already, and the error, a sum of sizes, grows with it: such
    intervals never held the truth of a calibrated predictor. Here the gaps found, c times as large, stand for the
    truth, the binomial noise of each bin is added `n` times, and every c >= 0 is kept whose errors hold the one found
    between their 2.5 and 97.5 % quantiles. The upper end is at least the error found. In simulations of 150 and
    1,000 rows, 95 to 97 % of intervals held the truth of calibrated log-odds, 92 to 93 % that of log-odds two to four
    times too large.
    """
    gaps, deviations = _gaps_of_bins(true, log_odds)
    found = float(np.abs(gaps).sum())
    noise = deviations * rng.normal(size=(n, _BINS))
    scales = np.linspace(0.0, 3.0, 61)
    quantiles = np.array([np.quantile(np.abs(c * gaps + noise).sum(axis=1), [0.025, 0.975]) for c in scales])
    low, high = (float(np.interp(found, quantiles[:, end], scales)) * found for end in (1, 0))
    return low, max(high, found)


def _gaps_of_bins(true: Floats, log_odds: Floats) -> tuple[Floats, Floats]:
    """Compute each bin's share of rows times (share of ones - mean probability) [bins], and its standard deviation.

    The deviation is binomial, with half a one and half a zero added so that none is 0.
    """
    bin_of = ((rankdata(log_odds) - 0.5) * _BINS / max(1, len(log_odds))).astype(np.int64)
    rows, ones = np.bincount(bin_of, minlength=_BINS), np.bincount(bin_of, true, minlength=_BINS)
    gaps = np.bincount(bin_of, true - expit(log_odds), minlength=_BINS) / max(1, len(true))
    share = (ones + 0.5) / (rows + 1.0)
    return gaps, np.asarray(np.sqrt(rows * share * (1.0 - share)) / max(1, len(true)))


def calibration_slope(margins: Floats) -> float:
    """Slope of a logistic regression of preferences on margins [pairs]: 1 if calibrated, below 1 if over-confident.

    Unpenalised and without an intercept: P(chosen) = expit(slope * margin), margins being chosen minus rejected, in
    log-odds. 0 where all margins are 0. Where every preference has the sign of its margin (or none has), the slope has
    no maximum and ends at 30 / root mean square margin.
    """
    size = float(np.sqrt((margins**2).mean())) if len(margins) else 0.0
    if not size:
        return 0.0
    scaled = margins / size

    def rise(slope: float) -> float:  # of the log-likelihood; it falls with the slope
        return float(scaled @ expit(-slope * scaled))

    if rise(_STEEPEST) >= 0.0:
        return _STEEPEST / size
    if rise(-_STEEPEST) <= 0.0:
        return -_STEEPEST / size
    return float(brentq(rise, -_STEEPEST, _STEEPEST)) / size
