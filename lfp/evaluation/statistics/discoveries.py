"""False discovery rate: which of many p-values count as discoveries (Benjamini and Hochberg 1995)."""

from __future__ import annotations

import numpy as np

from lfp.errors import DataError
from lfp.evaluation.results import RATE as RATE
from lfp.util.types import Flags, Floats

_UPPER = 0.5  # p-values above this are taken for tests without an effect


def benjamini_hochberg(p: Floats, rate: float = RATE) -> Flags:
    """Flag the discoveries [tests] among p-values [tests] at a false discovery rate; NaN is no test, and no discovery.

    Holds for independent tests and for tests that are positively dependent (Benjamini and Yekutieli 2001).
    Where no effect is real, the chance of any flag at all is at most `rate`.
    """
    return np.asarray(adjusted_p(p) <= rate)


def adjusted_p(p: Floats) -> Floats:
    """Adjust p-values [tests]: the smallest false discovery rate at which each is a discovery, its q; NaN stays NaN.

    Raises DataError where a p-value is not between 0 and 1.
    """
    values = np.asarray(p, np.float64)
    known = np.flatnonzero(~np.isnan(values))
    if ((values[known] < 0.0) | (values[known] > 1.0)).any():
        raise DataError("a p-value is below 0 or above 1, so no false discovery rate can be computed; check the test")
    order = known[np.argsort(values[known], kind="stable")]
    scaled = values[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


def adaptive_q(p: Floats) -> Floats:
    """Adjust p-values [tests] by the estimated number of tests without an effect rather than by that of all tests.

    Of such tests half have p-values above 0.5; counting these, and one more for small numbers of tests, estimates
    how many there are (Storey, Taylor and Siegmund 2004). NaN is no test. Where effects are common this finds more of
    them than `adjusted_p` at the same false discovery rate.
    """
    values = np.asarray(p, np.float64)
    known = values[~np.isnan(values)]
    if not len(known):
        return adjusted_p(values)
    share = min(1.0, (1 + np.count_nonzero(known > _UPPER)) / (len(known) * (1 - _UPPER)))
    return adjusted_p(values) * share
