"""Scores against scipy and naive counts; intervals that cover, nulls that are uniform."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, kstest

from lfp.metrics import (
    Estimate,
    bootstrap,
    bootstrap_difference,
    mean_interval,
    permutations_within_bins,
    sign_accuracy,
    sign_ceiling,
    tau,
    tau_within_sign,
    with_null,
)

Floats = np.ndarray
VALUES = st.integers(-3, 3).map(float)
"""Few distinct values, so that ties are common."""


def naive_tau(true: Floats, predicted: Floats) -> float:
    """Tau-b by its definition: concordant minus discordant pairs over the geometric mean of untied ones."""
    score, untied_true, untied_predicted = 0.0, 0, 0
    for i in range(len(true)):
        for j in range(i):
            a, b = np.sign(true[i] - true[j]), np.sign(predicted[i] - predicted[j])
            score += a * b
            untied_true += a != 0
            untied_predicted += b != 0
    return score / np.sqrt(untied_true * untied_predicted) if untied_true and untied_predicted else 0.0


def shuffled_within_sign(predicted: Floats, rng: np.random.Generator) -> Floats:
    shuffled = predicted.copy()
    for sign in (-1, 0, 1):
        side = np.sign(predicted) == sign
        shuffled[side] = rng.permutation(predicted[side])
    return shuffled


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), max_size=15))
def test_tau_is_tau_b(pairs: list[tuple[float, float]]) -> None:
    true, predicted = np.array(pairs, float).reshape(-1, 2).T
    assert tau(true, predicted) == pytest.approx(naive_tau(true, predicted), abs=1e-12)


def test_tau_is_scipys() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=(2, 50)).round(1)
    assert tau(true, predicted) == kendalltau(true, predicted).statistic != 0


@pytest.mark.parametrize("true", [[], [1.0], [1.0, 1.0, 1.0]])
def test_tau_of_nothing_to_rank_is_zero(true: list[float]) -> None:
    assert tau(np.array(true), np.arange(float(len(true)))) == 0.0


def test_tau_within_sign_counts_pairs_of_one_sign_only() -> None:
    true = np.array([1.0, 2.0, 3.0, -1.0, -2.0])
    assert tau_within_sign(true, np.array([1.0, 2.0, 3.0, -1.0, -2.0])) == 1.0
    assert tau_within_sign(true, np.array([-11.0, -10.0, -9.0, 5.0, 4.0])) == 1.0
    assert tau_within_sign(true, np.array([1.0, 2.0, 3.0, -2.0, -1.0])) == pytest.approx((3 - 1) / 4)
    assert tau_within_sign(np.array([1.0, -1.0, 0.0]), np.arange(3.0)) == 0.0


@pytest.mark.parametrize("n", [10, 1000])
def test_perfect_signs_on_balanced_words_have_a_ceiling_of_a_half(n: int) -> None:
    """PAPER.md: a sign accuracy of 1.0 already gives tau 0.5."""
    true = np.concatenate([np.linspace(1, 4, n // 2), np.linspace(-4, -1, n // 2)])
    ceiling = sign_ceiling(true, np.sign(true) * np.random.default_rng(0).random(n))
    assert ceiling == pytest.approx(0.5 * n / (n - 1))


@pytest.mark.parametrize(("accuracy", "ceiling"), [(0.8, 0.30), (0.9, 0.40)])
def test_partly_right_signs_have_the_ceiling_the_paper_notes(accuracy: float, ceiling: float) -> None:
    """Both signs right minus both wrong, over the half of pairs that are predicted apart."""
    rng = np.random.default_rng(1)
    true = np.concatenate([rng.uniform(1, 4, 1000), rng.uniform(-4, -1, 1000)])
    right = np.where(np.arange(2000) % 10 < 10 * accuracy, 1.0, -1.0)
    assert sign_ceiling(true, np.sign(true) * right * rng.random(2000)) == pytest.approx(ceiling, abs=0.01)


@pytest.mark.parametrize("decimals", [0, 1, 8], ids=["many ties", "some ties", "no ties"])
def test_the_ceiling_is_the_mean_tau_of_sizes_shuffled_within_predicted_sign(decimals: int) -> None:
    """Lexicon values are tied often, so the ceiling must be tau-b's, the one it is compared with."""
    rng = np.random.default_rng(2)
    true = rng.normal(size=60).round(decimals)
    predicted = (true + rng.normal(size=60) * 1.5).round(decimals)
    taus = [tau(true, shuffled_within_sign(predicted, rng)) for _ in range(1500)]
    error = np.std(taus) / np.sqrt(len(taus))
    assert sign_ceiling(true, predicted) == pytest.approx(np.mean(taus), abs=3.5 * error)
    assert error < 0.005 < 0.1 < np.mean(taus)


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), max_size=12))
def test_the_ceiling_knows_signs_alone(pairs: list[tuple[float, float]]) -> None:
    true, predicted = np.array(pairs, float).reshape(-1, 2).T
    ceiling = sign_ceiling(true, predicted)
    assert -1.0 <= ceiling <= 1.0
    assert sign_ceiling(true, shuffled_within_sign(predicted, np.random.default_rng(0))) == ceiling
    assert sign_ceiling(true, -predicted) == pytest.approx(-ceiling)


def test_sign_accuracy_is_a_share() -> None:
    assert sign_accuracy(np.array([1.0, 2.0, -1.0, -3.0]), np.array([0.1, -2.0, -9.0, 0.0])) == 0.5
    assert sign_accuracy(np.zeros(0), np.zeros(0)) == 0.0


def test_the_interval_of_a_mean_covers_it_about_95_times_in_100() -> None:
    rng = np.random.default_rng(3)
    intervals = [mean_interval(rng.exponential(size=80), n=200, rng=rng) for _ in range(600)]
    assert 0.91 <= np.mean([low <= 1.0 <= high for low, high in intervals]) <= 0.97


def test_the_interval_of_a_statistic_covers_it_about_95_times_in_100() -> None:
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(300):
        true, noise = rng.normal(size=(2, 60))
        low, high = bootstrap(lambda a, b: float((a * b).mean()), true, true + noise, n=120, rng=rng)
        covered.append(low <= 1.0 <= high)
    assert 0.88 <= np.mean(covered) <= 0.97


def test_a_word_is_drawn_with_both_its_values() -> None:
    values = np.random.default_rng(5).normal(size=30)
    assert bootstrap(tau, values, 3 * values, n=50, rng=np.random.default_rng(0)) == pytest.approx((1.0, 1.0))


def test_differences_are_of_the_same_words() -> None:
    rng = np.random.default_rng(6)
    true, predicted, noise = rng.normal(size=(3, 40))
    predicted = predicted + true
    assert bootstrap_difference(tau, true, predicted, predicted, n=50, rng=rng) == (0.0, 0.0)
    low, high = bootstrap_difference(tau, true, predicted, noise, n=200, rng=rng)
    assert 0 < low < tau(true, predicted) - tau(true, noise) < high


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 99))
def test_values_are_rearranged_among_words_of_like_frequency(n_words: int, bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.permutation(n_words).astype(float)
    values = np.arange(n_words, dtype=float)
    shuffled = permutations_within_bins(values, counts, bins=bins, n=8, rng=rng)
    assert shuffled.shape == (8, n_words)
    by_count = np.argsort(counts)
    for members in (by_count[(np.arange(n_words) * bins // n_words) == b] for b in range(bins)):
        expected = np.sort(values[members])
        assert all(np.array_equal(np.sort(row[members]), expected) for row in shuffled)


def test_rearrangements_are_even_and_differ_from_row_to_row() -> None:
    shuffled = permutations_within_bins(np.arange(6.0), np.ones(6), bins=2, n=3000, rng=np.random.default_rng(0))
    for place in range(3):
        assert np.bincount(shuffled[:, place].astype(int), minlength=3) == pytest.approx([1000] * 3, abs=110)
    assert len(np.unique(shuffled, axis=0)) == 36


def test_the_null_is_summed_up_and_the_p_value_never_zero() -> None:
    nulls = np.arange(19.0)
    found = with_null(Estimate(100.0, 7, 90.0, 110.0), nulls)
    assert found == Estimate(100.0, 7, 90.0, 110.0, null_mean=9.0, null_high=np.quantile(nulls, 0.95), null_p=0.05)
    assert with_null(Estimate(18.0, 7), nulls).null_p == 0.1
    assert with_null(Estimate(-1.0, 7), nulls).null_p == 1.0


def test_p_values_on_random_data_are_uniform() -> None:
    """Values depend on frequency and so do predictions: only permuting within bins makes that no evidence."""
    rng = np.random.default_rng(7)
    p_values = {2: [], 1: []}
    for _ in range(300):
        counts = rng.permutation(40).astype(float)
        common = 3.0 * (counts >= 20)
        values, predicted = rng.normal(size=(2, 40)) + common
        for bins, found in p_values.items():
            shuffled = permutations_within_bins(values, counts, bins=bins, n=99, rng=rng)
            estimate = Estimate(float(values @ predicted), 40)
            found.append(with_null(estimate, shuffled @ predicted).null_p - 0.01 * rng.random())
    assert kstest(p_values[2], "uniform").pvalue > 0.05
    assert kstest(p_values[1], "uniform").pvalue < 1e-6
