"""Logistic probes against scikit-learn's, with the penalty that held-out folds choose."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from lfp.errors import DataError
from lfp.probes.logistic import (
    FINAL,
    Logistic,
    Outcomes,
    Tolerance,
    fit_logistic,
    minimise,
)
from tests.lfp.builders import sparse_features

ALPHAS = (1e-2, 1e-1, 1.0, 1e1, 1e2)
N_FOLDS = 4
FEATURES = sparse_features(200, 15)
FOLDS = np.random.default_rng(1).choice(N_FOLDS, p=[0.15, 0.2, 0.3, 0.35], size=200)


def outcomes(features: sp.csr_array, *, seed: int = 2) -> np.ndarray:
    """Three targets: nearly separable, noisy, all noise; more 1s than 0s."""
    rng = np.random.default_rng(seed)
    log_odds = features @ rng.normal(size=(features.shape[1], 3)) * [5.0, 0.7, 0.0]
    return (log_odds - np.median(log_odds, axis=0) + rng.logistic(size=log_odds.shape) > -0.5).astype(float)


TARGETS = outcomes(FEATURES)


def fit(
    y: np.ndarray = TARGETS, features: sp.csr_array = FEATURES, folds: np.ndarray = FOLDS, *, intercept: bool = True
) -> Logistic:
    return fit_logistic(features, y, folds, n_folds=N_FOLDS, alphas=ALPHAS, intercept=intercept)


fitted = cache(lambda intercept: fit(intercept=intercept))


def sklearns(x: np.ndarray, y: np.ndarray, alpha: float, *, intercept: bool) -> LogisticRegression:
    solver = "newton-cholesky" if intercept else "newton-cg"
    return LogisticRegression(C=1 / alpha, tol=1e-10, max_iter=5000, solver=solver, fit_intercept=intercept).fit(x, y)


def naive_alpha(x: np.ndarray, y: np.ndarray, folds: np.ndarray, *, intercept: bool) -> float:
    """The alpha with the least log loss on folds left out in turn."""
    losses = np.zeros(len(ALPHAS))
    for fold in np.unique(folds):
        out = folds == fold
        for i, alpha in enumerate(ALPHAS):
            z = sklearns(x[~out], y[~out], alpha, intercept=intercept).decision_function(x[out])
            losses[i] += np.logaddexp(0.0, -(2 * y[out] - 1) * z).sum()
    return ALPHAS[int(losses.argmin())]


@pytest.mark.parametrize("intercept", [True, False])
def test_alpha_and_coefficients_are_scikit_learns(intercept: bool) -> None:
    probe = fitted(intercept)
    for target in range(3):
        x, y = FEATURES.toarray(), TARGETS[:, target]
        assert probe.alpha[target] == naive_alpha(x, y, FOLDS, intercept=intercept)
        expected = sklearns(x, y, probe.alpha[target], intercept=intercept)
        np.testing.assert_allclose(probe.coef[:, target], expected.coef_[0], atol=1e-5 * np.abs(expected.coef_).max())
        assert probe.intercept[target] == pytest.approx(float(np.ravel(expected.intercept_)[0]), abs=1e-4)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("density", [0.03, 0.6])
def test_wide_features_are_solved_alike(density: float, intercept: bool) -> None:
    """With more features than products are formed of, sparse rows and dense ones."""
    features = sparse_features(50, 400, density=density)
    y = outcomes(features)
    rows = Outcomes.from_rows(features, y, intercept=intercept)
    assert rows.products is None and sp.issparse(rows.features) == (density < 0.1)
    for alpha in (1e-2, 1.0):
        coef, offset = minimise(rows, alpha, rows.start(), tolerance=FINAL)
        for target in range(3):
            expected = sklearns(features.toarray(), y[:, target], alpha, intercept=intercept)
            scale = np.abs(expected.coef_).max()
            np.testing.assert_allclose(coef[:, target], expected.coef_[0], atol=1e-4 * scale)
            assert offset[target] == pytest.approx(float(np.ravel(expected.intercept_)[0]), abs=1e-3)


@given(st.integers(0, 10_000), st.integers(12, 40), st.integers(1, 12), st.booleans())
@settings(max_examples=25, deadline=None)
def test_no_small_change_lowers_the_loss(seed: int, n_rows: int, width: int, intercept: bool) -> None:
    """The slope of the loss is nil at the fit, whatever the rows: separable, constant and silent features too."""
    rng = np.random.default_rng(seed)
    x = sparse_features(n_rows, width, seed=seed, density=rng.uniform(0.05, 1.0))
    y = rng.integers(2, size=(n_rows, 2)).astype(float)
    y[:2] = [[0.0, 1.0], [1.0, 0.0]]
    alpha = 10.0 ** rng.uniform(-2, 2)
    rows = Outcomes.from_rows(x, y, intercept=intercept)
    coef, offset = minimise(rows, alpha, rows.start(), tolerance=FINAL)
    error = expit(x @ coef + offset) - y
    slope = np.linalg.norm(x.T @ error + alpha * coef, axis=0)
    assert (slope <= 1e-4 * (1.0 + alpha) * (1.0 + np.linalg.norm(coef, axis=0))).all()
    assert not intercept or (np.abs(error.sum(axis=0)) <= 1e-4 * n_rows).all()


@pytest.mark.parametrize("intercept", [True, False])
def test_several_targets_at_once_equal_one_at_a_time(intercept: bool) -> None:
    together = fitted(intercept)
    for target in range(3):
        alone = fit(TARGETS[:, target], intercept=intercept)
        assert together.alpha[target] == alone.alpha[0]
        norm = np.linalg.norm(alone.coef)
        np.testing.assert_allclose(together.coef[:, target], alone.coef[:, 0], atol=2e-5 * norm)


def test_separable_rows_stay_finite_and_a_constant_feature_is_the_intercepts() -> None:
    dense = np.column_stack([np.where(TARGETS[:, 0] > 0, 1.0, -1.0), np.ones(200), np.zeros(200)])
    probe = fit(TARGETS[:, 0], sp.csr_array(dense))
    assert np.isfinite(probe.coef).all() and probe.coef[0, 0] > 3.0
    np.testing.assert_allclose(probe.coef[1:, 0], 0.0, atol=1e-4)


def test_pairs_need_no_intercept_and_do_not_care_which_side_is_first() -> None:
    """Bradley and Terry: turning pairs round, with their outcome, changes nothing."""
    differences = sp.csr_array(FEATURES[:100] - FEATURES[100:])
    y, folds = TARGETS[:100], FOLDS[:100]
    turned = np.random.default_rng(0).random(100) < 0.5
    sign = sp.diags_array(np.where(turned, -1.0, 1.0))
    there = fit(y, differences, folds, intercept=False)
    back = fit(np.where(turned[:, None], 1.0 - y, y), sp.csr_array(sign @ differences), folds, intercept=False)
    np.testing.assert_array_equal(there.alpha, back.alpha)
    np.testing.assert_allclose(there.coef, back.coef, atol=1e-4)
    assert not there.intercept.any()


def test_targets_that_are_no_outcomes_are_refused() -> None:
    with pytest.raises(DataError, match="row 3 is neither 0 nor 1"):
        fit(np.where(np.arange(200)[:, None] == 3, 0.5, TARGETS))


def test_constant_targets_and_empty_folds_are_refused() -> None:
    with pytest.raises(DataError, match="same on every row"):
        fit(np.ones(200))
    with pytest.raises(DataError, match="fold 2 of 4 has no row"):
        fit(folds=np.where(FOLDS == 2, 1, FOLDS))
    with pytest.raises(DataError, match=r"set probes\.alphas"):
        fit_logistic(FEATURES, TARGETS, FOLDS, n_folds=N_FOLDS, alphas=())


def test_folds_that_hold_all_of_an_outcome_are_refused_where_there_is_an_intercept() -> None:
    rare = ((FOLDS < 2) & (np.arange(200) % 9 == 0)).astype(float)
    with pytest.raises(DataError, match="all rows of target 0 that are 1 lie in two of 4 folds"):
        fit(rare)
    assert np.isfinite(fit(rare, intercept=False).coef).all()


def test_weights_that_never_come_near_enough_are_refused() -> None:
    rows = Outcomes.from_rows(FEATURES, TARGETS, intercept=True)
    with pytest.raises(DataError, match=r"did not converge .* raise the smallest of probes\.alphas"):
        minimise(rows, 1e-2, rows.start(), tolerance=Tolerance(weights=0.0, gradient=0.0))
