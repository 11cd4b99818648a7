"""Forecast and receipt: differences at equal length, R2 of features that were not fitted, and what was learned."""

from __future__ import annotations

import numpy as np
import pytest

from lfp.errors import DataError
from lfp.evaluation.forecast import (
    Measured,
    difference_at_equal_length,
    judge_forecast,
    mean_of_groups,
    measure_without,
    name_fates,
    preference_at_equal_length,
    swapped_differences,
)
from lfp.evaluation.results import FATES


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


def exact(values: np.ndarray) -> Measured:
    """Take a figure as known without the noise of pairs."""
    return Measured(values, np.tile(values, (20, 1)))


def judged(slope: float, *, seed: int = 0, n: int = 400):
    rng = np.random.default_rng(seed)
    spread, across = rng.lognormal(size=n), rng.normal(size=n)
    learned = slope * across + 0.1 * rng.normal(size=n)
    nulls = rng.normal(size=(200, n)) * spread
    return judge_forecast(exact(across * spread), exact(learned * spread), nulls=nulls, spread=spread, seed=0)


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
        judged = judge_forecast(exact(found.value), exact(learned), nulls=nulls, spread=np.ones(210), seed=seed)
        p.append(judged.r2.null_p)
    assert np.mean(np.array(p) <= 0.05) < 0.15


def test_fates_follow_both_rates_and_the_sign() -> None:
    q = np.array([0.01, 0.01, 0.01, 0.5, 0.5])
    learned_q = np.array([0.01, 0.01, 0.5, 0.01, 0.5])
    fates = name_fates(np.ones(5), np.array([1.0, -1.0, 1.0, 1.0, 1.0]), data_q=q, learned_q=learned_q)
    assert fates == [FATES[0], FATES[1], FATES[1], FATES[2], FATES[3]]


def test_too_few_features_are_not_judged() -> None:
    few = exact(np.arange(5.0))
    assert judge_forecast(few, few, nulls=few.without, spread=np.ones(5), seed=0) is None


def draw_receipt(rng: np.random.Generator, slope: float, *, n_pairs: int = 100, n_features: int = 80):
    """Judge a forecast of new features by new pairs, whose features share the noise of three things they fire on."""
    in_data, shared = rng.normal(size=n_features), 3.0 * rng.normal(size=(3, n_features))
    learned = slope * in_data + 0.5 * rng.normal(size=n_features)
    groups, lengths, rewards = np.arange(n_pairs), *rng.normal(size=(2, n_pairs))

    def noise() -> np.ndarray:
        return rng.normal(size=(n_pairs, 3)) @ shared + 3.0 * rng.normal(size=(n_pairs, n_features))

    before, after = in_data + noise(), rewards[:, None] * learned + noise()
    measured = [
        measure_without(
            lambda rows: difference_at_equal_length(before[rows], lengths[rows], groups[rows]).value, groups
        ),
        measure_without(
            lambda rows: preference_at_equal_length(after[rows], rewards[rows], lengths[rows], groups[rows]).value,
            groups,
        ),
    ]
    spread = np.ones(n_features)
    found = judge_forecast(*measured, nulls=np.zeros((1, n_features)), spread=spread, seed=0)
    up = measured[1].value
    rows = rng.integers(n_features, size=(60, n_features))  # the interval over features alone, which is too narrow
    alone = np.quantile([1 - ((up - found.expected)[r] ** 2).mean() / up[r].var() for r in rows], [0.025, 0.975])
    return found, alone


@pytest.mark.parametrize("slope", [0.35, 1.5])
def test_intervals_of_the_forecast_hold_what_other_pairs_and_features_give(slope: float) -> None:
    """Intervals hold the median of 40 draws of pairs and features; those over features alone hold it too seldom."""
    drawn = [draw_receipt(np.random.default_rng(seed), slope) for seed in range(40)]
    for figure in ("r2", "rank_correlation"):
        found = [getattr(receipt, figure) for receipt, _ in drawn]
        truth = np.median([estimate.value for estimate in found])
        assert np.mean([estimate.ci_low <= truth <= estimate.ci_high for estimate in found]) >= 0.9, figure
    truth = np.median([receipt.r2.value for receipt, _ in drawn])
    assert np.mean([low <= truth <= high for _, (low, high) in drawn]) < 0.75


def test_an_interval_needs_three_conversations() -> None:
    with pytest.raises(DataError, match="2 conversations are too few"):
        measure_without(lambda rows: np.ones(rows.sum()), np.arange(6) % 2)
