"""Ridge and logistic probes as scikit-learn estimators: fit(X, y, groups), with no group on both sides of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from lfp.errors import DataError
from lfp.probes.folds import group_folds
from lfp.probes.logistic import fit_logistic
from lfp.probes.ridge import fit_ridge
from lfp.util.types import Floats

Features = Any
"""A sparse scipy array, or anything numpy makes an array of; [rows, features]."""

_ALPHAS = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)


class RidgeProbe(RegressorMixin, BaseEstimator):
    """Ridge regression, its penalty chosen by folds that share no group.

    Fitted attributes: coef_ [features] or [targets, features] as y is, intercept_, alpha_, n_features_in_.
    """

    def __init__(self, *, alphas: Sequence[float] = _ALPHAS, n_folds: int = 5, seed: int = 0) -> None:
        self.alphas = alphas
        self.n_folds = n_folds
        self.seed = seed

    def fit(self, X: Features, y: ArrayLike, groups: ArrayLike | None = None) -> Self:  # noqa: N803
        """Fit to X [rows, features], sparse or dense, and y [rows] or [rows, targets].

        Without groups every row is a group.
        """
        features, targets = _csr(X), np.asarray(y, dtype=np.float64)
        columns = targets[:, None] if targets.ndim == 1 else targets
        units = np.arange(features.shape[0]) if groups is None else groups
        folds = group_folds(units, n_folds=self.n_folds, seed=self.seed)
        ridge = fit_ridge(features, columns, folds, n_folds=self.n_folds, alphas=self.alphas)
        if targets.ndim == 1:
            self.coef_, self.intercept_, self.alpha_ = ridge.coef[:, 0], ridge.intercept[0], ridge.alpha[0]
        else:
            self.coef_, self.intercept_, self.alpha_ = ridge.coef.T, ridge.intercept, ridge.alpha
        self.n_features_in_ = features.shape[1]
        return self

    def predict(self, X: Features) -> Floats:  # noqa: N803
        """Predict for X [rows, features], in the shape of y."""
        predicted: Floats = _csr(X) @ self.coef_.T + self.intercept_
        return predicted


class LogisticProbe(ClassifierMixin, BaseEstimator):
    """Logistic regression of two classes, its penalty chosen by folds that share no group.

    Fitted attributes: classes_ (sorted), coef_ [1, features], intercept_ [1], alpha_, n_features_in_.
    """

    def __init__(
        self, *, alphas: Sequence[float] = _ALPHAS, n_folds: int = 5, fit_intercept: bool = True, seed: int = 0
    ) -> None:
        self.alphas = alphas
        self.n_folds = n_folds
        self.fit_intercept = fit_intercept
        self.seed = seed

    def fit(self, X: Features, y: ArrayLike, groups: ArrayLike | None = None) -> Self:  # noqa: N803
        """Fit to X [rows, features], sparse or dense, and y [rows]; without groups every row is a group.

        Raises DataError where there are not two classes.
        """
        features = _csr(X)
        self.classes_, outcomes = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) != 2:
            raise DataError(f"{len(self.classes_)} classes where a logistic probe needs two; check the labels")
        units = np.arange(features.shape[0]) if groups is None else groups
        folds = group_folds(units, n_folds=self.n_folds, seed=self.seed)
        fit = fit_logistic(
            features,
            outcomes.astype(np.float64),
            folds,
            n_folds=self.n_folds,
            alphas=self.alphas,
            intercept=self.fit_intercept,
        )
        self.coef_, self.intercept_, self.alpha_ = fit.coef.T, fit.intercept, fit.alpha[0]
        self.n_features_in_ = features.shape[1]
        return self

    def decision_function(self, X: Features) -> Floats:  # noqa: N803
        """Compute the log-odds [rows] of the second class."""
        log_odds: Floats = _csr(X) @ self.coef_[0] + self.intercept_[0]
        return log_odds

    def predict_proba(self, X: Features) -> Floats:  # noqa: N803
        """Compute the probabilities [rows, 2] of the classes."""
        second = expit(self.decision_function(X))
        return np.column_stack([1.0 - second, second])

    def predict(self, X: Features) -> NDArray[Any]:  # noqa: N803
        """Predict the likelier class [rows]."""
        likelier: NDArray[Any] = self.classes_[(self.decision_function(X) > 0).astype(int)]
        return likelier


def _csr(features: Features) -> sp.csr_array:
    return sp.csr_array(features if sp.issparse(features) else np.asarray(features, dtype=np.float64))
