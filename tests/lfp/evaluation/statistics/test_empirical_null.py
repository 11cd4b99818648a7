"""The empirical null: its p-values are uniform, and values that stand out neither move it nor hide in it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from lfp.evaluation.statistics.empirical_null import FEWEST, EmpiricalNull


@pytest.mark.parametrize("n", [50, 1000])
def test_p_values_of_chance_are_uniform(n: int) -> None:
    lists = np.random.default_rng(0).normal(3.0, 2.0, size=(400, n))
    p = [EmpiricalNull.fit(values).p_values(values)[0] for values in lists]
    assert kstest(p, "uniform").pvalue > 0.05


def test_centre_and_spread_are_those_of_the_middle() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=4000)
    null = EmpiricalNull.fit(values)
    assert (null.centre, null.spread) == pytest.approx((3.0, 2.0), abs=0.1)
    values[:200] = 1e6  # one in twenty
    assert (EmpiricalNull.fit(values).centre, EmpiricalNull.fit(values).spread) == pytest.approx((3.0, 2.0), abs=0.1)
    assert (EmpiricalNull.fit(values).p_values(values)[:200] < 1e-6).all()


def test_a_value_that_stands_out_is_judged_by_the_others_alone() -> None:
    values = np.random.default_rng(2).normal(size=300)
    found = [EmpiricalNull.fit(np.append(values, size)) for size in (10.0, 1e9)]
    assert (found[0].centre, found[0].spread) == (found[1].centre, found[1].spread)


def test_lists_drawn_scatter_by_their_spread_and_its_error() -> None:
    null = EmpiricalNull(1.0, 2.0, 400)
    drawn = null.draw(500, np.random.default_rng(3))
    assert drawn.shape == (500, 400)
    assert (drawn.mean(), drawn.std(axis=1).mean()) == pytest.approx((1.0, 2.0), abs=0.05)
    assert drawn.std(axis=1).std() > 0.08  # more than a plain standard deviation of 400 has


def test_too_few_values_or_equal_ones_have_no_null() -> None:
    assert EmpiricalNull.fit(np.arange(FEWEST - 1.0)) is None
    assert EmpiricalNull.fit(np.ones(100)) is None
    with_unknown = np.append(np.random.default_rng(4).normal(size=50), np.nan)
    null = EmpiricalNull.fit(with_unknown)
    assert null.n == 50 and np.isnan(null.p_values(with_unknown)[-1])
