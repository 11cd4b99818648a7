"""Forecast and receipt: differences at equal length, R2 of features that were not fitted, and what was learned."""

from __future__ import annotations

import numpy as np
import pytest

from lfp.errors import DataError
from lfp.evaluation.forecast import (
    difference_at_equal_length,
    judge_forecast,
    mean_of_groups,
    name_fates,
    preference_at_equal_length,
    swapped_differences,
)
from lfp.evaluation.results import FATES
from lfp.evaluation.statistics.resampling import Draws

DRAWS = Draws(200, 200, 0)


def test_a_difference_that_length_alone_makes_is_none_at_equal_length() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.normal(5, 10, size=400)
    differences = np.column_stack([0.1 * lengths, 0.5 + 0.1 * lengths]) + rng.normal(size=(400, 2))
    found = difference_at_equal_length(differences, lengths, np.arange(400))
    assert found.p[0] > 0.05 and found.p[1] < 1e-6
    assert found.low[1] < 0.5 < found.high[1] and (differences.mean(axis=0) > 0.4).all()


def test_pairs_of_one_conversation_count_once() -> None:
    values = np.random.default_rng(1).normal(size=(50, 3))
    alone = mean_of_groups(values, np.arange(50))
    copied = mean_of_groups(np.repeat(values, 8, axis=0), np.repeat(np.arange(50), 8))
    np.testing.assert_allclose(copied.high - copied.low, alone.high - alone.low)
    np.testing.assert_allclose(difference_at_equal_length(values, np.ones(50), np.arange(50)).value, alone.value)
    with pytest.raises(DataError, match="2 conversations are too few"):
        mean_of_groups(values, np.arange(50) % 2)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = 0.0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        lengths = rng.normal(size=60)
        found = difference_at_equal_length(0.3 * lengths[:, None] + rng.normal(size=(60, 5)), lengths, np.arange(60))
        held += ((found.low < 0) & (found.high > 0)).mean() / 200
    assert 0.92 < held < 0.97


def judged(slope: float, *, seed: int = 0, n: int = 400):
    rng = np.random.default_rng(seed)
    spread, across = rng.lognormal(size=n), rng.normal(size=n)
    learned = slope * across + 0.1 * rng.normal(size=n)
    nulls = rng.normal(size=(200, n)) * spread
    return judge_forecast(across * spread, learned * spread, nulls=nulls, spread=spread, draws=DRAWS)


def test_what_was_learned_from_the_data_is_forecast() -> None:
    found = judged(0.3)
    assert found.r2.ci_low > found.r2.null_high and found.r2.null_p < 0.01
    assert found.rank_correlation.value > 0.8 and found.rank_correlation.null_p < 0.01
    against = judged(-0.3)
    assert against.rank_correlation.value < -0.8 and against.r2.null_p < 0.01


def test_what_was_not_learned_explains_nothing() -> None:
    found = judged(0.0)
    assert found.r2.value <= 0.0 and found.r2.null_p > 0.05 and found.rank_correlation.null_p > 0.05


def test_what_the_implicit_reward_prefers_does_not_depend_on_which_was_chosen() -> None:
    rng = np.random.default_rng(2)
    rewards, lengths = rng.normal(size=500), rng.normal(size=500)
    differences = np.column_stack([0.5 * rewards, 0.5 * lengths, np.zeros(500)]) + rng.normal(size=(500, 3))
    found = preference_at_equal_length(differences, rewards, lengths, np.arange(500))
    assert found.p[0] < 1e-6 and (found.p[1:] > 0.01).all() and found.low[0] < 0.5 < found.high[0]
    turned = rng.choice([-1.0, 1.0], size=500)
    again = preference_at_equal_length(
        differences * turned[:, None], rewards * turned, lengths * turned, np.arange(500)
    )
    np.testing.assert_allclose(again.value, found.value)


def test_features_that_fire_together_have_a_null_as_wide_as_their_number_allows() -> None:
    """Two hundred copies of three features, of which data and learning know nothing of each other."""
    p = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        copies = np.repeat(np.arange(3), 70)
        differences, lengths = rng.normal(size=(60, 3))[:, copies], rng.normal(size=60)
        learned = rng.normal(size=3)[copies] + 0.01 * rng.normal(size=210)
        found = difference_at_equal_length(differences, lengths, np.arange(60))
        nulls = swapped_differences(differences, lengths, np.arange(60), n=99, rng=rng)
        assert np.abs(nulls.mean(axis=0)).max() < 4 * nulls.std() / 10
        judged = judge_forecast(found.value, learned, nulls=nulls, spread=np.ones(210), draws=Draws(10, 99, seed))
        p.append(judged.r2.null_p)
    assert np.mean(np.array(p) <= 0.05) < 0.15


def test_fates_follow_both_rates_and_the_sign() -> None:
    q = np.array([0.01, 0.01, 0.01, 0.5, 0.5])
    learned_q = np.array([0.01, 0.01, 0.5, 0.01, 0.5])
    fates = name_fates(np.ones(5), np.array([1.0, -1.0, 1.0, 1.0, 1.0]), data_q=q, learned_q=learned_q)
    assert fates == [FATES[0], FATES[1], FATES[1], FATES[2], FATES[3]]


def test_too_few_features_are_not_judged() -> None:
    few = np.arange(5.0)
    assert judge_forecast(few, few, nulls=few[None], spread=few + 1, draws=DRAWS) is None
