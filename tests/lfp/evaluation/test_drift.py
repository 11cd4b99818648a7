"""Drift: planted changes are named, contributions add up, nulls are what chance would give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lfp.evaluation.drift import (
    BORN,
    GONE,
    Drift,
    Firing,
    Weights,
    flips,
    largest,
    share_carried,
    status_count,
    statuses,
)
from lfp.evaluation.results import STATUSES

N = 10_000


def firing(density_tuned, density_base, mean_tuned, mean_base, n_tokens: int = N) -> Firing:
    values = (np.array(column, float) for column in (density_tuned, density_base, mean_tuned, mean_base))
    return Firing(*values, n_tokens=n_tokens)


def weights(values, noise=0.0) -> Weights:
    values = np.array(values, float)
    return Weights(values, np.full(len(values), noise))


def random_drift(seed: int, n: int = 60) -> Drift:
    rng = np.random.default_rng(seed)
    both = firing(rng.random(n) * 0.1, rng.random(n) * 0.1, rng.random(n) * 0.2, rng.random(n) * 0.2)
    return Drift(statuses(both), both, weights(rng.normal(size=n)), weights(rng.normal(size=n), 0.3))


def test_each_kind_of_change_is_named() -> None:
    found = statuses(
        firing(
            [0.1, 0.1, 0.1, 0.1, 0.001, 0.0],
            [0.001, 0.1, 0.1, 0.1, 0.1, 0.0],
            [0.1, 0.3, 0.1, 0.1, 0.001, 0.0],
            [0.001, 0.1, 0.1, 0.3, 0.1, 0.0],
        )
    )
    assert [STATUSES[i] for i in found] == ["born", "strengthened", "steady", "weakened", "gone", "steady"]


def test_what_few_tokens_cannot_tell_is_steady() -> None:
    rare = firing([0.0004], [0.0], [0.0004], [0.0])
    assert STATUSES[statuses(rare)[0]] == "steady"
    many = firing([0.0004], [0.0], [0.0004], [0.0], n_tokens=100 * N)
    assert STATUSES[statuses(many)[0]] == "born"


SHARES = arrays(float, 12, elements=st.floats(0, 0.5))


@given(SHARES, SHARES, SHARES, SHARES, st.integers(0, 10**6))
def test_models_that_change_places_turn_every_status_round(a, b, c, d, n: int) -> None:
    there = statuses(firing(a, b, c * a, d * b, n))
    back = statuses(firing(b, a, d * b, c * a, n))
    assert (there + back == len(STATUSES) - 1).all()


@given(st.integers(0, 1000))
def test_contributions_are_weights_times_means_and_shares_sum_to_one(seed: int) -> None:
    found = random_drift(seed)
    np.testing.assert_allclose(
        found.drifted, found.weights.values * (found.firing.mean_tuned - found.firing.mean_base), atol=1e-12
    )
    assert found.share.sum() == pytest.approx(1.0)
    carried = [share_carried(found, i, draws=5, rng=np.random.default_rng(0)).value for i in range(len(STATUSES))]
    assert sum(carried) == pytest.approx(1.0)


def test_a_sign_is_flipped_only_beyond_both_noises() -> None:
    both = firing(*[[0.1] * 5] * 4)
    tuned = Weights(np.array([1.0, 1.0, 1.0, 0.1, -1.0]), np.array([0.5, 0.5, np.nan, 0.5, 0.5]))
    base = Weights(np.array([-1.0, -0.1, -0.1, -1.0, -1.0]), np.array([0.5, 0.5, np.nan, 0.5, 0.5]))
    found = Drift(statuses(both), both, tuned, base)
    assert found.flipped.tolist() == [True, False, True, False, False]
    assert not Drift(statuses(both), both, tuned, None).flipped.any()


def test_no_feature_at_all_is_no_drift() -> None:
    none = firing([], [], [], [])
    found = Drift(statuses(none), none, weights([]), None)
    assert share_carried(found, BORN, draws=5, rng=np.random.default_rng(0)).value == 0.0
    assert largest(found, 3, draws=5, rng=np.random.default_rng(0)) == []
    counted = status_count(found.status, found.status, BORN, draws=5, rng=np.random.default_rng(0))
    assert (counted.value, counted.n, counted.null_high) == (0.0, 0, None)


def test_births_beyond_the_mirror_are_beyond_the_null() -> None:
    """Half born against none gone in the mirror; and, exchangeable, as many gone there."""
    own, mirror = np.full(100, 2), np.full(100, 2)
    own[:50] = BORN
    born = status_count(own, mirror, BORN, draws=200, rng=np.random.default_rng(0))
    assert born.value == 50 > born.null_high and born.null_p < 1e-6 and 35 < born.ci_low < 50 < born.ci_high < 65
    mirror[:50] = GONE
    even = status_count(own, mirror, BORN, draws=200, rng=np.random.default_rng(0))
    assert even.null_mean == 50 and even.null_p > 0.4


def test_the_null_of_counts_is_what_dealing_the_pool_gives() -> None:
    """Against a naive deal: the mirror turned round, both pooled, shuffled, the first part counted."""
    rng = np.random.default_rng(1)
    own, mirror = rng.integers(5, size=80), rng.integers(5, size=50)
    born = status_count(own, mirror, BORN, draws=10, rng=rng)
    pool = np.concatenate([own, 4 - mirror])
    drawn = np.array([(rng.permutation(pool)[:80] == BORN).sum() for _ in range(4000)])
    assert drawn.mean() == pytest.approx(born.null_mean, abs=0.2)
    assert (drawn >= born.value).mean() == pytest.approx(born.null_p, abs=0.03)


def test_weights_on_changed_features_pass_the_null_and_dealt_ones_seldom_do() -> None:
    moved = np.r_[np.ones(20), np.full(180, 0.1)]
    both = firing(np.full(200, 0.1), np.full(200, 0.1), moved, np.zeros(200))
    status = np.where(moved == 1.0, BORN, 2)
    rng = np.random.default_rng(0)
    planted = Drift(status, both, weights(np.where(moved == 1.0, 3.0, 1.0) * rng.normal(size=200)), None)
    assert share_carried(planted, BORN, draws=99, rng=rng).null_p <= 0.02
    (feature, first), *_ = largest(planted, 3, draws=99, rng=rng)
    assert feature < 20 and abs(first.value) > first.null_mean
    ps = [
        share_carried(
            Drift(status, both, weights(rng.permutation(planted.weights.values)), None), BORN, draws=19, rng=rng
        ).null_p
        for _ in range(100)
    ]
    assert 0.35 < np.mean(ps) < 0.65


def test_flips_against_dealt_weights() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=300)
    both = firing(*[np.full(300, 0.1)] * 4)
    same = flips(Drift(statuses(both), both, weights(values), weights(values)), draws=50, rng=rng)
    assert same.value == 0 and same.null_p == 1.0 and same.null_mean > 100
    turned = flips(Drift(statuses(both), both, weights(values), weights(-values)), draws=50, rng=rng)
    assert turned.value == 300 and turned.null_p < 0.05
