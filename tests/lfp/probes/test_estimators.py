"""The estimators keep scikit-learn's conventions and are the fits they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from lfp.errors import DataError
from lfp.probes.estimators import LogisticProbe, RidgeProbe
from lfp.probes.folds import group_folds
from lfp.probes.logistic import fit_logistic
from lfp.probes.ridge import fit_ridge
from tests.lfp.builders import sparse_features

X = sparse_features(150, 12)
RNG = np.random.default_rng(0)
VALUES = X @ RNG.normal(size=(12, 2)) + RNG.normal(size=(150, 2))
LABELS = np.where(VALUES[:, 0] > np.median(VALUES[:, 0]), "yes", "no")
GROUPS = RNG.integers(40, size=150)
ALPHAS = (0.1, 1.0, 10.0)


@pytest.mark.parametrize("dense", [True, False])
def test_ridge_is_the_fit_by_groups(dense: bool) -> None:
    folds = group_folds(GROUPS, n_folds=4, seed=3)
    expected = fit_ridge(X, VALUES, folds, n_folds=4, alphas=ALPHAS)
    x = X.toarray() if dense else X
    probe = RidgeProbe(alphas=ALPHAS, n_folds=4, seed=3).fit(x, VALUES, GROUPS)
    np.testing.assert_array_equal(probe.coef_, expected.coef.T)
    np.testing.assert_array_equal(probe.alpha_, expected.alpha)
    np.testing.assert_allclose(probe.predict(x), X @ expected.coef + expected.intercept)
    assert probe.n_features_in_ == 12


def test_ridge_of_one_target_has_scikit_learns_shapes() -> None:
    probe = RidgeProbe(alphas=ALPHAS).fit(X, VALUES[:, 0])
    twin = Ridge(alpha=probe.alpha_).fit(X.toarray(), VALUES[:, 0])
    assert probe.coef_.shape == twin.coef_.shape and np.shape(probe.intercept_) == np.shape(twin.intercept_)
    np.testing.assert_allclose(probe.predict(X), twin.predict(X.toarray()), atol=1e-8)
    assert probe.score(X, VALUES[:, 0]) == pytest.approx(twin.score(X.toarray(), VALUES[:, 0]))


@pytest.mark.parametrize("intercept", [True, False])
def test_logistic_is_the_fit_by_groups_and_scikit_learns(intercept: bool) -> None:
    probe = LogisticProbe(alphas=ALPHAS, n_folds=4, fit_intercept=intercept).fit(X, LABELS, GROUPS)
    folds = group_folds(GROUPS, n_folds=4, seed=0)
    expected = fit_logistic(X, LABELS == "yes", folds, n_folds=4, alphas=ALPHAS, intercept=intercept)
    np.testing.assert_array_equal(probe.coef_, expected.coef.T)
    twin = LogisticRegression(C=1 / probe.alpha_, tol=1e-10, fit_intercept=intercept, max_iter=1000)
    twin.fit(X.toarray(), LABELS)
    for name in ("decision_function", "predict_proba"):
        np.testing.assert_allclose(getattr(probe, name)(X), getattr(twin, name)(X.toarray()), atol=1e-4)
    np.testing.assert_array_equal(probe.predict(X), twin.predict(X.toarray()))
    assert probe.coef_.shape == twin.coef_.shape and probe.intercept_.shape == twin.intercept_.shape
    assert list(probe.classes_) == ["no", "yes"]


@pytest.mark.parametrize(("probe", "y"), [(RidgeProbe(alphas=ALPHAS), VALUES[:, 1]), (LogisticProbe(), LABELS)])
def test_scikit_learns_tools_take_them(probe: Any, y: np.ndarray) -> None:
    again = clone(probe)
    assert again is not probe and again.get_params() == probe.get_params()
    assert cross_val_score(probe, X, y, cv=3).min() > 0.1
    search = GridSearchCV(probe, {"n_folds": [3, 4]}, cv=3).fit(X, y)
    assert search.best_params_["n_folds"] in (3, 4)
    pipe = make_pipeline(MaxAbsScaler(), clone(probe))
    name = type(probe).__name__.lower()
    assert pipe.fit(X, y, **{f"{name}__groups": GROUPS}).score(X, y) > 0.5


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(DataError, match="2 words or pairs cannot fill 5 folds"):
        RidgeProbe().fit(X, VALUES, GROUPS % 2)
    with pytest.raises(DataError, match="3 classes where a logistic probe needs two"):
        LogisticProbe().fit(X, GROUPS % 3)
