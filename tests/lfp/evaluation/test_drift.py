"""Drift: planted changes are named, contributions add up, nulls are what chance would give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kstest

from lfp.evaluation.drift import (
    BORN,
    GONE,
    STEADY,
    Drift,
    Firing,
    Weights,
    count_beside_twins,
    flips,
    largest,
    share_carried,
    status_count,
    statuses,
)
from lfp.evaluation.results import STATUSES, Estimate

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
    assert largest(found, 3) == []
    counted = status_count(found.status, found.status, BORN, draws=5, rng=np.random.default_rng(0))
    assert (counted.value, counted.n, counted.null_high) == (0.0, 0, None)


def test_counts_stand_beside_those_of_exchanged_models_and_have_no_p_value() -> None:
    """Against a naive draw: the mirror turned round, both pooled, shuffled, the first part counted."""
    rng = np.random.default_rng(1)
    own, mirror = rng.integers(5, size=80), rng.integers(5, size=50)
    born = status_count(own, mirror, BORN, draws=400, rng=rng)
    pool = np.concatenate([own, 4 - mirror])
    drawn = np.array([(rng.permutation(pool)[:80] == BORN).sum() for _ in range(4000)])
    assert drawn.mean() == pytest.approx(born.null_mean, abs=0.2)
    assert born.null_p is None and born.null_high is None
    assert born.value == (own == BORN).sum() and born.ci_low < born.value < born.ci_high


def noise_probe(rng: np.random.Generator, *, n_shuffles: int = 99) -> Drift:
    """A probe of a target that is one of its own shuffles: weights linear in words' values, and tied to firing."""
    n_features, n_words = 40, 30
    base = rng.lognormal(0.0, 1.0, n_features)
    loads = rng.normal(size=(n_features, n_words)) * (rng.random((n_features, n_words)) < 0.3) * base[:, None]
    both = firing(np.full(n_features, 0.1), np.full(n_features, 0.1), base * rng.gamma(2.0, 0.5, n_features), base)
    values = rng.standard_t(4, size=n_words)
    fits = np.stack([loads @ rng.permutation(values) for _ in range(1 + n_shuffles)], axis=1)
    status = np.where(both.mean_tuned > both.mean_base, BORN, GONE)
    return Drift(status, both, Weights(fits[:, 0], np.full(n_features, 0.5), fits[:, 1:]), None)


def test_p_values_of_a_probe_of_noise_are_uniform() -> None:
    """Weights that are permuted over the features instead make nearly every such probe pass at the lower ranks."""
    rng = np.random.default_rng(0)
    probes = [noise_probe(rng) for _ in range(400)]
    ranks = np.array([[estimate.null_p for _, estimate in largest(probe, 8)] for probe in probes])
    shares = [share_carried(probe, BORN, draws=5, rng=rng).null_p for probe in probes]
    for values in (ranks[:, 0], ranks[:, 3], ranks[:, 7], np.array(shares)):
        assert kstest(values - rng.uniform(0, 0.01, len(values)), "uniform").pvalue > 0.01
    permuted = []
    for probe in probes:
        sizes = np.abs(probe.drifted)
        moves = np.abs(probe.firing.mean_tuned - probe.firing.mean_base)
        others = np.abs(rng.permuted(np.tile(probe.weights.values, (99, 1)), axis=1)) * moves
        permuted.append((np.sort(others)[:, -8] >= np.sort(sizes)[-8]).mean())
    assert kstest(permuted, "uniform").pvalue < 1e-6


def test_a_planted_change_passes_the_null_of_shuffled_targets() -> None:
    rng = np.random.default_rng(1)
    probe = noise_probe(rng)
    values = probe.weights.values.copy()
    values[3] = 1e3 * np.abs(probe.weights.nulls).max() * np.sign(values[3])
    planted = replace(probe, weights=replace(probe.weights, values=values))
    (feature, first), *_ = largest(planted, 3)
    assert feature == 3 and first.null_p == 0.01 and abs(first.value) > first.null_high
    (_, unknown), *_ = largest(replace(planted, weights=Weights(values, probe.weights.noise)), 3)
    assert unknown.null_p is None


def test_flips_against_shuffled_targets() -> None:
    rng = np.random.default_rng(0)
    values, nulls = rng.normal(size=300), rng.normal(size=(300, 50))
    both = firing(*[np.full(300, 0.1)] * 4)

    def count(base: np.ndarray, of_null: np.ndarray) -> Estimate:
        probes = Weights(values, np.full(300, 0.0), nulls), Weights(base, np.full(300, 0.0), of_null)
        return flips(Drift(statuses(both), both, *probes), draws=50, rng=rng)

    same = count(values, nulls)
    assert (same.value, same.null_mean, same.null_p) == (0.0, 0.0, 1.0)
    turned = count(-values, nulls)
    assert turned.value == 300 and turned.null_p == 1 / 51
    unrelated = count(-values, rng.normal(size=(300, 50)))
    assert 120 < unrelated.null_mean < 180 and unrelated.null_p == 1 / 51


def test_a_count_stands_beside_that_of_every_twin() -> None:
    tuned = np.array([GONE, GONE, GONE, STEADY, -1])
    twins = [np.array([GONE, STEADY, STEADY, STEADY, -1]), np.array([STEADY, STEADY, STEADY, STEADY, GONE])]
    found = count_beside_twins(tuned, twins, GONE)
    assert (found.value, found.n, found.null_mean, found.null_high) == (3.0, 4, 1.0, 1.0)
    assert found.null_p == pytest.approx(1 / 3)
    assert count_beside_twins(twins[0], [twins[0], twins[0]], GONE).null_p == 1.0
