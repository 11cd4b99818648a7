"""The moderated t of a tuned model against its twins: a plain reference, its calibration, and its power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import digamma, polygamma
from scipy.stats import kstest, ttest_ind
from scipy.stats import t as student

from lfp.errors import DataError
from lfp.evaluation.statistics.twins import RATE, compare_with_twins, leave_one_out, moderate
from lfp.evaluation.twin_words import TwinWords, remove_stated


def simulate(n_words: int, n_twins: int, *, seed: int, prior_df: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw models [twins, words] whose variances fall with information and scatter themselves; return both."""
    rng = np.random.default_rng(seed)
    information = np.exp(rng.normal(2.0, 1.5, n_words))
    variances = 0.04 / np.sqrt(information) * prior_df / rng.chisquare(prior_df, n_words)
    return rng.normal(0.0, np.sqrt(variances), (n_twins, n_words)), information


def plain_reference(variances: list[float], df: float, information: list[float]) -> tuple[list[float], float]:
    """Smyth's moderated variances, word by word, with the prior's degrees of freedom by bisection."""
    x = [math.log(value) for value in information]
    y = [math.log(value) - float(digamma(df / 2)) + math.log(df / 2) for value in variances]
    fit = np.polynomial.Polynomial.fit(x, y, 3)
    excess = sum((b - fit(a)) ** 2 for a, b in zip(x, y, strict=True)) / (len(x) - 4) - float(polygamma(1, df / 2))
    low, high = 1e-3, 1e6
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if polygamma(1, middle / 2) > excess else (low, middle)
    prior_df = low
    moderated = []
    for value, a in zip(variances, x, strict=True):
        prior = math.exp(fit(a) + float(digamma(prior_df / 2)) - math.log(prior_df / 2))
        moderated.append((df * value + prior_df * prior) / (df + prior_df))
    return moderated, df + prior_df


def test_variances_are_moderated_as_by_the_plain_reference():
    models, information = simulate(300, 8, seed=0)
    variances = models.var(axis=0, ddof=1)
    found, df = moderate(variances, 7, information)
    expected, expected_df = plain_reference(variances.tolist(), 7, information.tolist())
    assert df == pytest.approx(expected_df, rel=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert 10 < df < 18  # seven of its own and about six of the prior


def test_equal_variances_are_taken_from_all_words():
    rng = np.random.default_rng(1)
    models = rng.normal(0.0, 0.3, (9, 400))
    test = compare_with_twins(models[0], models[1:], np.exp(rng.normal(size=400)))
    assert test.df > 50
    assert np.abs(test.error / (0.3 * np.sqrt(1 + 1 / 8)) - 1).max() < 0.25


def test_one_word_has_students_t():
    models = np.random.default_rng(2).normal(size=(6, 1))
    test = compare_with_twins(models[0], models[1:], np.ones(1))
    reference = ttest_ind(models[:1, 0], models[1:, 0])
    assert (test.t[0], test.p[0]) == (pytest.approx(reference.statistic), pytest.approx(reference.pvalue))


@pytest.mark.parametrize("n_twins", [4, 8])
def test_p_values_of_a_further_twin_are_uniform(n_twins):
    found = []
    for seed in range(12):
        models, information = simulate(400, n_twins + 1, seed=seed)
        found.append(compare_with_twins(models[0], models[1:], information).p)
    assert kstest(np.concatenate(found), "uniform").pvalue > 0.01


def test_a_further_twin_has_a_flag_no_more_often_than_stated():
    flagged = []
    for seed in range(100):
        models, information = simulate(200, 7, seed=seed)
        flagged.append(bool((compare_with_twins(models[0], models[1:], information).q <= RATE).any()))
    assert np.mean(flagged) <= RATE + 2 * math.sqrt(RATE * (1 - RATE) / 100)


def test_planted_words_come_first_and_pass():
    ranks, passed = [], []
    for seed in range(20):
        models, information = simulate(400, 9, seed=seed)
        word = int(np.argsort(information)[300])
        models[0, word] += 12.0 * 0.2 * information[word] ** -0.25
        test = compare_with_twins(models[0], models[1:], information)
        ranks.append(1 + int((np.abs(test.t) > abs(test.t[word])).sum()))
        passed.append(test.q[word] <= RATE)
    assert np.mean(np.array(ranks) <= 5) >= 0.95
    assert np.mean(passed) >= 0.8


def test_a_word_without_information_or_value_has_no_test():
    models, information = simulate(50, 5, seed=3)
    information[3] = 0.0
    models[2, 7] = np.nan
    test = compare_with_twins(models[0], models[1:], information)
    assert set(np.flatnonzero(np.isnan(test.p))) == {3, 7} == set(np.flatnonzero(np.isnan(test.q)))
    known = ~np.isnan(test.p)
    np.testing.assert_allclose(test.p[known], 2 * student.sf(np.abs(test.t[known]), test.df))


def test_one_twin_is_refused():
    with pytest.raises(DataError, match=r"two twins at least .* twins.n to 8"):
        compare_with_twins(np.zeros(3), np.zeros((1, 3)), np.ones(3))


def test_what_the_stated_value_explains_is_removed_from_every_model():
    models, information = simulate(200, 6, seed=4)
    stated = np.where(np.arange(200) % 3, np.nan, np.random.default_rng(5).normal(0, 2, 200))
    strength = np.arange(1, 7)[:, None]  # every model learned the stated values to another degree
    taught = models + strength * (0.3 * np.nan_to_num(stated) + 0.1 * np.abs(np.nan_to_num(stated)) + 0.2)
    np.testing.assert_allclose(
        remove_stated(taught, stated=stated, information=information),
        remove_stated(models, stated=stated, information=information),
        atol=1e-9,
    )


def test_the_report_counts_words_beside_each_twin_left_out():
    models, information = simulate(300, 9, seed=6)
    models[0, 5] += 40 * 0.2 * information[5] ** -0.25
    found = TwinWords.compare(models[0], models[1:], stated=np.full(300, np.nan), information=information)
    rows = found.rows([f"word{i}" for i in range(300)])
    count = next(row for row in rows if row.metric == "words_differing")
    expected = [int((test.q <= RATE).sum()) for test in leave_one_out(found.twins, information)]
    assert (count.value, count.n) == (float((found.test.q <= RATE).sum()), 300)
    assert (count.null_mean, count.null_high) == (np.mean(expected), max(expected))
    assert next(row.group for row in rows if row.metric == "preferred_more") == "word:word5"
