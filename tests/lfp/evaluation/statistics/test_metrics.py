"""Intervals that cover, nulls that are uniform."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import kendalltau, kstest

from lfp.evaluation.results import Estimate
from lfp.evaluation.statistics.resampling import (
    Statistic,
    average_seeds,
    bootstrap,
    bootstrap_difference,
    bootstrap_r2,
    mean_interval,
    permutations_of_groups,
    permutations_within_bins,
    with_null,
)
from lfp.evaluation.statistics.scores import accuracy, auroc, r2, spearman, tau
from lfp.probes.ridge import fit_folded_ridge
from tests.benchmarks.nulls import randomised_p

Floats = np.ndarray
Draw = Callable[[np.random.Generator], tuple[Floats, Floats]]


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


def bivariate(n: int, *, rho: float, lexicon_like: bool = False) -> Draw:
    """Normal values with correlation `rho`; those of a lexicon are whole numbers from -3 to 3, so most are tied."""

    def draw(rng: np.random.Generator) -> tuple[Floats, Floats]:
        true, noise = rng.normal(size=(2, n))
        predicted = rho * true + np.sqrt(1 - rho**2) * noise
        return np.clip(np.round(1.5 * true), -3.0, 3.0) if lexicon_like else true, predicted

    return draw


def outcomes(n: int) -> Draw:
    """Log-odds and outcomes that come up as often as they say."""

    def draw(rng: np.random.Generator) -> tuple[Floats, Floats]:
        log_odds = 1.5 * rng.normal(size=n)
        return (rng.random(n) < expit(log_odds)).astype(float), log_odds

    return draw


def coverage(statistic: Statistic, draw: Draw, known: float, *, simulations: int = 300) -> float:
    rng = np.random.default_rng(11)
    ends = [bootstrap(statistic, *draw(rng), n=200, rng=rng) for _ in range(simulations)]
    return float(np.mean([low <= known <= high for low, high in ends]))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_intervals_of_tau_cover_a_known_tau_92_to_98_times_in_100(rho: float) -> None:
    """Of two normals with correlation rho, tau is 2 / pi asin(rho)."""
    assert 0.92 <= coverage(tau, bivariate(60, rho=rho), 2 / np.pi * np.arcsin(rho)) <= 0.98


def test_intervals_of_tau_cover_it_with_a_lexicons_ties() -> None:
    known = tau(*bivariate(400_000, rho=0.6, lexicon_like=True)(np.random.default_rng(0)))
    assert 0.92 <= coverage(tau, bivariate(60, rho=0.6, lexicon_like=True), known) <= 0.98


@pytest.mark.parametrize(
    ("statistic", "draw", "large"),
    [(spearman, bivariate(60, rho=0.5), bivariate(400_000, rho=0.5)), (auroc, outcomes(120), outcomes(400_000)),
     (accuracy, outcomes(120), outcomes(400_000))],
    ids=["spearman", "auroc", "accuracy"],
)  # fmt: skip
def test_intervals_of_other_scores_cover_them(statistic: Statistic, draw: Draw, large: Draw) -> None:
    known = statistic(*large(np.random.default_rng(0)))
    assert 0.92 <= coverage(statistic, draw, known, simulations=250) <= 0.98


def test_intervals_of_a_difference_of_taus_cover_it() -> None:
    rng, covered = np.random.default_rng(12), []
    known = 2 / np.pi * (np.arcsin(1 / np.sqrt(2)) - np.arcsin(1 / np.sqrt(5)))
    for _ in range(500):
        true, shared, one, other = rng.normal(size=(4, 60))
        tuned, base = true + (shared + one) / np.sqrt(2), true + np.sqrt(2) * (shared + other)
        low, high = bootstrap_difference(tau, true, tuned, base, n=200, rng=rng)
        covered.append(low <= known <= high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_texts_of_a_group_are_drawn_together() -> None:
    """Ten copies of each of twelve rows are no more evidence than the twelve."""
    rng = np.random.default_rng(13)
    true, predicted = np.repeat(rng.normal(size=(2, 12)), 10, axis=1)
    alone = bootstrap(spearman, true[::10], predicted[::10], n=2000, rng=rng)
    grouped = bootstrap(spearman, true, predicted, n=2000, rng=rng, groups=np.repeat(np.arange(12), 10))
    assert grouped == pytest.approx(alone, abs=0.07)
    low, high = bootstrap(spearman, true, predicted, n=2000, rng=rng)
    assert high - low < 0.5 * (grouped[1] - grouped[0])


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


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=25), st.integers(0, 99))
def test_a_groups_values_go_to_one_group_of_its_size(groups: list[int], seed: int) -> None:
    of_row = np.array(groups)
    values = np.arange(len(groups), dtype=float)
    shuffled = permutations_of_groups(values, of_row, n=6, rng=np.random.default_rng(seed))
    whole = {frozenset(np.flatnonzero(of_row == group).tolist()) for group in set(groups)}
    for row in shuffled.astype(int):
        assert sorted(row) == list(range(len(groups)))
        assert {frozenset(row[of_row == group].tolist()) for group in set(groups)} == whole


def test_groups_of_one_are_shuffled_freely() -> None:
    shuffled = permutations_of_groups(np.arange(4.0), np.arange(4), n=4000, rng=np.random.default_rng(0))
    for place in range(4):
        assert np.bincount(shuffled[:, place].astype(int)) == pytest.approx([1000] * 4, abs=130)


def test_the_null_is_summed_up_and_the_p_value_never_zero() -> None:
    nulls = np.arange(19.0)
    found = with_null(Estimate(100.0, 7, 90.0, 110.0), nulls)
    assert found == Estimate(100.0, 7, 90.0, 110.0, null_mean=9.0, null_high=np.quantile(nulls, 0.95), null_p=0.05)
    assert with_null(Estimate(18.0, 7), nulls).null_p == 0.1
    assert with_null(Estimate(-1.0, 7), nulls).null_p == 1.0


def test_two_sided_nulls_count_by_size_and_differences_in_the_last_bit_are_none() -> None:
    nulls = np.array([-4.0, -1.0, 1.0, 2.0])
    found = with_null(Estimate(-2.0, 7), nulls, two_sided=True)
    assert (found.null_mean, found.null_p) == (-0.5, 3 / 5)
    assert found.null_high == np.quantile([1.0, 1.0, 2.0, 4.0], 0.95)
    assert with_null(Estimate(0.7 - 0.6, 7), np.array([0.8 - 0.7, 0.9 - 0.8, 0.0])).null_p == 3 / 4


def test_randomised_p_values_are_uniform_where_plain_ones_are_not() -> None:
    """Scores of three values: most permutations tie, and (r + 1) / (n + 1) is far too large."""
    rng = np.random.default_rng(14)
    draws = rng.integers(3, size=(1000, 20)).astype(float)
    randomised = [randomised_p(row[0], row[1:], rng) for row in draws]
    plain = [with_null(Estimate(row[0], 1), row[1:]).null_p for row in draws]
    assert kstest(randomised, "uniform").pvalue > 0.05
    assert kstest(plain, "uniform").pvalue < 1e-6
    assert all(r <= p for r, p in zip(randomised, plain, strict=True))


def test_randomised_p_lies_between_the_shares_that_pass_and_reach_a_value() -> None:
    rng = np.random.default_rng(0)
    found = [randomised_p(1.0, np.array([0.0, 1.0, 1.0, 2.0]), rng) for _ in range(200)]
    assert 1 / 5 <= min(found) < 0.25
    assert 0.75 < max(found) <= 4 / 5


def test_p_values_of_out_of_fold_probes_are_uniform_over_shuffles_of_the_lexicon() -> None:
    """One feature matrix; each of 100 shuffles is the lexicon once, with shuffles of its own, probes refitted on all.

    Frequency is in the features and in the values, and out-of-fold predictions lean against the truth: tau's own
    p-value, which knows of neither, is far from uniform.
    """
    rng = np.random.default_rng(15)
    n_words, n_nulls = 90, 19
    counts = rng.permutation(n_words).astype(float)
    sparse = sp.random_array((n_words, 20), density=0.3, rng=rng).toarray()
    features = sp.csr_array(sparse + counts[:, None] / n_words)
    lexicon = np.round(rng.normal(size=n_words) + 3.0 * counts / n_words)
    folds = rng.permutation(n_words) % 3
    stated = permutations_within_bins(lexicon, counts, bins=3, n=100, rng=rng)
    randomised, analytic = [], []
    for values in stated:
        null_values = permutations_within_bins(values, counts, bins=3, n=n_nulls, rng=rng)
        targets = np.vstack([values, null_values]).T
        fit = fit_folded_ridge(features, targets, folds, n_folds=3, alphas=(1.0,))
        predicted = np.empty_like(targets)
        for fold, ridge in enumerate(fit.by_fold):
            predicted[folds == fold] = features[folds == fold] @ ridge.coef + ridge.intercept
        taus = np.array([tau(targets[:, i], predicted[:, i]) for i in range(1 + n_nulls)])
        randomised.append(randomised_p(taus[0], taus[1:], rng))
        analytic.append(kendalltau(values, predicted[:, 0]).pvalue)
    assert kstest(randomised, "uniform").pvalue > 0.01
    assert kstest(analytic, "uniform").pvalue < 1e-6


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


def test_a_mean_over_groups_drawn_whole_is_as_unsure_as_the_groups() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=20), 50)
    whole = mean_interval(values, n=400, rng=np.random.default_rng(1), groups=np.repeat(np.arange(20), 50))
    twenty = mean_interval(values[::50], n=400, rng=np.random.default_rng(1))
    alone = mean_interval(values, n=400, rng=np.random.default_rng(1))
    assert whole == pytest.approx(twenty) and whole[1] - whole[0] > 4 * (alone[1] - alone[0])


def test_the_interval_of_r2_by_sums_is_that_of_drawn_groups() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(20, size=300)
    true = rng.normal(size=20)[groups] + rng.normal(size=300) + 5.0
    predicted = 0.5 * true + rng.normal(size=300) + 2.0
    found = bootstrap_r2(true, predicted, n=400, rng=np.random.default_rng(1), groups=groups)
    expected = bootstrap(r2, true, predicted, n=400, rng=np.random.default_rng(1), groups=groups)
    assert found == pytest.approx(expected)


def test_an_average_over_seeds_covers_the_truth_where_seeds_differ_and_where_they_do_not() -> None:
    rng = np.random.default_rng(0)
    for between in (0.0, 3.0):
        covered = []
        for _ in range(800):
            shared = rng.normal()  # of the words, which all seeds have in common
            values = 5.0 + shared + between * rng.normal(size=3)
            found = average_seeds([Estimate(value, 50, value - 1.96, value + 1.96) for value in values])
            assert found.value == pytest.approx(values.mean())
            covered.append(found.ci_low <= 5.0 <= found.ci_high)
        assert np.mean(covered) > 0.95 - 2 * np.sqrt(0.05 * 0.95 / 800)
    alone = Estimate(1.0, 50, 0.5, 1.5)
    assert average_seeds([alone]) == alone
