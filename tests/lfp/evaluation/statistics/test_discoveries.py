"""Tests of false discovery rates."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from lfp.errors import DataError
from lfp.evaluation.statistics.discoveries import adjusted_p, benjamini_hochberg


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_p_equals_scipys(seed):
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(200) ** 2, seed % 3 + 1)  # with ties, zeros and ones
    assert np.allclose(adjusted_p(p), false_discovery_control(p), atol=1e-15)


def test_flags_are_the_largest_set_below_the_line():
    p = np.array([0.001, 0.009, 0.014, 0.021, 0.9, 0.5])  # the line at 5 %: 0.0083, 0.0167, 0.025, 0.033, ...
    assert benjamini_hochberg(p, 0.05).tolist() == [True, True, True, True, False, False]
    assert benjamini_hochberg(p, 0.01).tolist() == [True, False, False, False, False, False]


def test_a_p_value_that_is_unknown_is_no_test():
    p = np.array([0.02, np.nan, 0.04, np.nan])
    assert adjusted_p(p)[[0, 2]].tolist() == adjusted_p(p[[0, 2]]).tolist() == [0.04, 0.04]
    assert np.isnan(adjusted_p(p)[[1, 3]]).all()
    assert benjamini_hochberg(p, 0.05).tolist() == [True, False, True, False]
    assert adjusted_p(np.zeros(0)).shape == benjamini_hochberg(np.zeros(0), 0.05).shape == (0,)


def test_without_an_effect_any_flag_is_as_rare_as_the_rate():
    rng = np.random.default_rng(0)
    flagged = [benjamini_hochberg(rng.random(50), 0.05).any() for _ in range(4000)]
    assert 0.04 < np.mean(flagged) < 0.06


def test_a_value_that_is_no_p_value_is_refused():
    with pytest.raises(DataError, match="below 0 or above 1"):
        adjusted_p(np.array([0.5, 1.5]))
