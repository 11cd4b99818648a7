"""Clustered intervals of weights against the formula written out, and against a bootstrap of whole groups."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import t as student
from sklearn.linear_model import Ridge as SklearnRidge

from lfp.errors import DataError
from lfp.probes import linear_algebra, weight_intervals
from lfp.probes.exact_ridge import Ridge
from lfp.probes.logistic import Logistic, fit_logistic
from lfp.probes.ridge import fit_ridge
from lfp.probes.weight_intervals import clustered_intervals
from tests.lfp.builders import sparse_features

Data = tuple[sp.csr_array, np.ndarray, np.ndarray]


def clustered(n_groups: int = 90, width: int = 8, *, seed: int = 0) -> Data:
    """Features, targets and groups of 1 to 7 rows, whose noise is mostly the group's."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(rng.permutation(n_groups), rng.integers(1, 8, size=n_groups))
    features = sparse_features(len(groups), width, seed=seed)
    noise = rng.normal(size=n_groups)[groups] * (1.0 + features.toarray()[:, 0]) + 0.3 * rng.normal(size=len(groups))
    return features, features @ rng.normal(size=width) + noise + 2.0, groups


def ridge_of(features: sp.csr_array, targets: np.ndarray, *, alpha: float = 3.0) -> Ridge:
    folds = np.arange(len(targets)) % 3
    return fit_ridge(features, targets[:, None], folds, n_folds=3, alphas=(alpha,))


def logistic_of(features: sp.csr_array, targets: np.ndarray, *, intercept: bool) -> Logistic:
    folds = np.arange(len(targets)) % 3
    return fit_logistic(features, targets, folds, n_folds=3, alphas=(0.5,), intercept=intercept)


def written_out(data: Data, probe: Ridge | Logistic, *, intercept: bool = True) -> np.ndarray:
    """Half widths by the textbook's matrices, the intercept as one more, unpenalised column."""
    features, targets, groups = data
    x = np.column_stack([features.toarray(), np.ones(len(targets))]) if intercept else features.toarray()
    z = features @ probe.coef[:, 0] + probe.intercept[0]
    mean, curvature = (expit(z), expit(z) * expit(-z)) if isinstance(probe, Logistic) else (z, np.ones(len(z)))
    penalty = np.full(x.shape[1], probe.alpha[0])
    if intercept:
        penalty[-1] = 0.0
    bread = np.linalg.inv(x.T @ (curvature[:, None] * x) + np.diag(penalty))
    scores = np.stack([x[groups == g].T @ (targets - mean)[groups == g] for g in np.unique(groups)])
    n = len(scores)
    variance = np.diag(bread @ (scores.T @ scores) @ bread) * n / (n - 1)
    return student.ppf(0.975, n - 1) * np.sqrt(variance[: features.shape[1]])


def half_widths(data: Data, probe: Ridge | Logistic, *, intercept: bool = True) -> np.ndarray:
    features, targets, groups = data
    low, high = clustered_intervals(features, targets, groups, probe, intercept=intercept)
    np.testing.assert_allclose((low + high) / 2, probe.coef[:, 0], atol=1e-9)
    return (high - low) / 2


@given(st.integers(0, 10_000), st.integers(10, 90), st.integers(1, 10))
@settings(max_examples=20, deadline=None)
def test_a_ridges_intervals_are_the_formulas(seed: int, n_groups: int, width: int) -> None:
    data = clustered(n_groups, width, seed=seed)
    ridge = ridge_of(*data[:2])
    np.testing.assert_allclose(half_widths(data, ridge), written_out(data, ridge), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("intercept", [True, False])
def test_a_logistic_probes_intervals_are_the_formulas(intercept: bool) -> None:
    features, values, groups = clustered()
    data = features, (values > np.median(values)).astype(float), groups
    probe = logistic_of(*data[:2], intercept=intercept)
    expected = written_out(data, probe, intercept=intercept)
    np.testing.assert_allclose(half_widths(data, probe, intercept=intercept), expected, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_they_are_about_a_bootstrap_of_groups(seed: int) -> None:
    features, targets, groups = data = clustered(seed=seed)
    ridge = ridge_of(features, targets)
    rng = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(groups == g) for g in range(90)]
    draws = []
    for _ in range(400):
        rows = np.concatenate([rows_of[g] for g in rng.integers(90, size=90)])
        draws.append(SklearnRidge(alpha=3.0).fit(features.toarray()[rows], targets[rows]).coef_)
    ratio = half_widths(data, ridge) / (1.96 * np.std(draws, axis=0))
    assert 0.85 < np.median(ratio) < 1.2 and ratio.min() > 0.7 and ratio.max() < 1.45


def test_rows_that_repeat_each_other_tell_nothing_more() -> None:
    """Each row four times over in its group: the same interval, where independent rows would halve it."""
    features, targets, groups = clustered()
    once = half_widths((features, targets, groups), ridge_of(features, targets, alpha=1.0))
    four = sp.csr_array(sp.vstack([features] * 4)), np.tile(targets, 4), np.tile(groups, 4)
    np.testing.assert_allclose(half_widths(four, ridge_of(*four[:2], alpha=4.0)), once, rtol=1e-6)


def test_words_may_name_the_groups() -> None:
    features, targets, groups = clustered()
    ridge = ridge_of(features, targets)
    named = features, targets, np.array([f"word {g}" for g in groups])
    np.testing.assert_allclose(half_widths(named, ridge), half_widths((features, targets, groups), ridge))


@pytest.mark.parametrize("intercept", [True, False])
def test_wide_features_are_iterated_to_the_same(monkeypatch: pytest.MonkeyPatch, intercept: bool) -> None:
    features, values, groups = clustered()
    data = features, (values > np.median(values)).astype(float), groups
    probe = logistic_of(*data[:2], intercept=intercept)
    exact = half_widths(data, probe, intercept=intercept)
    monkeypatch.setattr(weight_intervals, "_FACTORED", 4)
    np.testing.assert_allclose(half_widths(data, probe, intercept=intercept), exact, rtol=1e-3)


def test_wide_features_of_many_groups_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """By 128 signings, whose error of a width is 6 %; the same every time."""
    data = clustered(400, 40)
    ridge = ridge_of(*data[:2])
    exact = half_widths(data, ridge)
    monkeypatch.setattr(weight_intervals, "_FACTORED", 4)
    ratio = half_widths(data, ridge) / exact
    assert 0.02 < ratio.std() < 0.1 and abs(ratio.mean() - 1.0) < 0.05
    np.testing.assert_array_equal(half_widths(data, ridge) / exact, ratio)


def test_one_group_is_refused() -> None:
    features, targets, _ = clustered()
    with pytest.raises(DataError, match="1 word or pair gives weights no interval"):
        clustered_intervals(features, targets, np.zeros(len(targets)), ridge_of(features, targets))


def test_an_interval_that_is_not_computed_near_enough_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets, groups = clustered()
    ridge = ridge_of(features, targets)
    monkeypatch.setattr(weight_intervals, "_FACTORED", 4)
    monkeypatch.setattr(linear_algebra, "_MAX_PRODUCTS", 1)
    with pytest.raises(DataError, match=r"no interval of the weights can be computed at alpha 3; raise probes\.alphas"):
        clustered_intervals(features, targets, groups, ridge)
