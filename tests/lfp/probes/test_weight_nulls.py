"""Tests of weights against those of shuffled targets: chance is flagged at the stated rate, and a signal is found."""

from __future__ import annotations

import numpy as np
import pytest

from lfp.probes.weight_nulls import WeightNull, _studentise

N_FEATURES, N_WORDS, N_SHUFFLES = 80, 60, 40


def simulate(rng: np.random.Generator, *, n_real: int = 0, tail: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    """Weights of a word-level target and of its shuffles: linear in the words' values, which may have heavy tails.

    Some features fire on few words, all share a factor, and a part of the target stays in every shuffle.
    """
    loads = rng.normal(size=(N_FEATURES, N_WORDS)) * (rng.random((N_FEATURES, N_WORDS)) < rng.choice([0.03, 0.3, 1.0]))
    loads += 0.3 * rng.normal(size=N_WORDS)
    values, kept = rng.standard_t(tail, size=N_WORDS), 3.0 * rng.normal(size=N_FEATURES)
    nulls = np.stack([loads @ rng.permutation(values) for _ in range(N_SHUFFLES)], axis=1)
    weights = loads @ values
    weights[:n_real] += 8.0 * nulls[:n_real].std(axis=1)
    return weights + kept, nulls + kept[:, None]


@pytest.mark.parametrize("tail", [3.0, 30.0])
def test_with_a_pure_noise_target_a_run_with_any_flag_is_as_rare_as_the_rate(tail):
    rng = np.random.default_rng(0)
    runs = [WeightNull.from_weights(*simulate(rng, tail=tail)) for _ in range(600)]
    assert np.mean([run.beats.any() for run in runs]) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)
    p = np.concatenate([run.p for run in runs])
    for level in (0.01, 0.05, 0.5):  # p is exact on average over features
        assert np.mean(p <= level) == pytest.approx(level, rel=0.15)


def test_among_flagged_features_the_share_of_false_ones_is_below_the_rate():
    rng = np.random.default_rng(1)
    false, found = [], []
    for _ in range(400):
        flags = WeightNull.from_weights(*simulate(rng, n_real=20)).beats
        false.append(flags[20:].sum() / max(1, flags.sum()))
        found.append(flags[:20].mean())
    assert np.mean(false) < 0.05 + 2 * np.std(false) / np.sqrt(400)
    assert np.mean(found) > 0.9


def test_a_part_of_the_target_that_shuffles_keep_counts_for_nothing():
    rng = np.random.default_rng(2)
    nulls = rng.normal(size=(50, 200))
    weights = rng.normal(size=50)
    far = 100.0 * np.arange(50.0)
    plain, moved = WeightNull.from_weights(weights, nulls), WeightNull.from_weights(weights + far, nulls + far[:, None])
    np.testing.assert_allclose(moved.p, plain.p, atol=1e-9)
    np.testing.assert_allclose(moved.mean, plain.mean + far)
    assert not moved.beats.any() and (moved.high[1:] > 50).all()


def test_distances_are_by_the_other_draws_alone():
    drawn = np.random.default_rng(3).normal(size=(4, 9))
    expected = [
        [(row[i] - np.delete(row, i).mean()) / np.delete(row, i).std(ddof=1) for i in range(9)] for row in drawn
    ]
    np.testing.assert_allclose(_studentise(drawn), expected)


def test_a_feature_that_never_fires_is_no_test():
    rng = np.random.default_rng(4)
    nulls, weights = rng.normal(size=(10, 30)), rng.normal(size=10)
    silent = WeightNull.from_weights(np.append(weights, 0.0), np.vstack([nulls, np.zeros(30)]))
    assert np.isnan(silent.p[-1]) and not silent.beats[-1]
    np.testing.assert_array_equal(silent.q[:-1], WeightNull.from_weights(weights, nulls).q)
    assert not WeightNull.from_weights(np.zeros(3), np.zeros((3, 20))).beats.any()
    assert not WeightNull.of_none(3).beats.any()
