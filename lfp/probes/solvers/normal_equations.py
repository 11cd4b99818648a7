"""The equations of ridge, their sums over rows, and the dense products of sparse features that they are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from lfp.errors import DataError
from lfp.util.types import Floats, Ints

SPARSE_BELOW = 0.04
"""Share of non-zeros below which a sparse product beats a dense one (measured)."""
_ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class Ridge:
    """Linear predictions `x @ coef + intercept`: coef [features, targets]; intercept and alpha [targets]."""

    coef: Floats
    intercept: Floats
    alpha: Floats


@dataclass(frozen=True)
class Sums:
    """What ridge needs of some rows: count, sums and products."""

    n: int
    x: Floats
    y: Floats
    xx: Floats
    xy: Floats
    yy: Floats

    @staticmethod
    def of(features: sp.csr_array, targets: Floats) -> Sums:
        """Of rows of features [rows, features] and of targets [rows, targets]."""
        return Sums(
            len(targets),
            np.asarray(features.sum(axis=0), dtype=np.float64).ravel(),
            targets.sum(axis=0),
            feature_products(features),
            np.asarray(features.T @ targets, dtype=np.float64),
            (targets**2).sum(axis=0),
        )

    def squared_error(self, ridge: Ridge) -> Floats:
        """Sum over these rows of (y - x w - b)^2, a target [targets]."""
        w, b = ridge.coef, ridge.intercept
        quadratic = np.einsum("ft,ft->t", w, self.xx @ w - 2.0 * self.xy + 2.0 * np.outer(self.x, b))
        return quadratic + self.yy + self.n * b**2 - 2.0 * b * self.y


@dataclass(frozen=True)
class Normal:
    """The centred normal equations of ridge: one Cholesky factor an alpha serves every target."""

    gram: Floats
    products: Floats
    x_mean: Floats
    y_mean: Floats

    @staticmethod
    def of(sums: Sums) -> Normal:
        """The sums less what the means account for."""
        x_mean, y_mean = sums.x / sums.n, sums.y / sums.n
        gram = sums.xx - sums.n * np.outer(x_mean, x_mean)
        return Normal(gram, sums.xy - sums.n * np.outer(x_mean, y_mean), x_mean, y_mean)

    def at(self, alpha: float, targets: Ints | slice = slice(None)) -> Ridge:
        """The ridge of these targets at one alpha."""
        coef = cho_solve(cholesky(self.gram, alpha), self.products[:, targets], check_finite=False)
        y_mean = self.y_mean[targets]
        return Ridge(coef, y_mean - self.x_mean @ coef, np.full(len(y_mean), alpha))


@dataclass(frozen=True)
class OneHot:
    """The same equations where no row has two features: a diagonal less one outer product (Sherman and Morrison)."""

    sums: Sums

    def at(self, alpha: float, targets: Ints | slice = slice(None)) -> Ridge:
        """The ridge of these targets at one alpha."""
        x_mean, y_mean = self.sums.x / self.sums.n, self.sums.y[targets] / self.sums.n
        penalised = np.diagonal(self.sums.xx) + alpha
        plain = (self.sums.xy[:, targets] - np.outer(self.sums.x, y_mean)) / penalised[:, None]
        along = x_mean / penalised
        coef = plain + np.outer(along, (self.sums.x @ plain) / (1.0 - self.sums.x @ along))
        return Ridge(coef, y_mean - x_mean @ coef, np.full(len(y_mean), alpha))


def cholesky(gram: Floats, alpha: float) -> tuple[Floats, bool]:
    """The Cholesky factor of gram + alpha I; raises DataError where rounding leaves it none."""
    penalised = gram.copy()
    penalised[np.diag_indices_from(penalised)] += alpha
    try:
        factor: tuple[Floats, bool] = cho_factor(penalised.T, lower=False, overwrite_a=True, check_finite=False)
    except LinAlgError as error:
        raise DataError(
            f"alpha {alpha:g} is too small for these features; raise the smallest of probes.alphas"
        ) from error
    return factor


def centred_products(features: sp.csr_array, *, is_centred: bool) -> Floats:
    """X^T X [features, features], of centred features where asked for."""
    products = feature_products(features)
    mean = means(features) if is_centred else np.zeros(features.shape[1])
    return products - features.shape[0] * np.outer(mean, mean)


def feature_products(features: sp.csr_array) -> Floats:
    """X^T X [features, features], dense; dense copies of the rows are made a few at a time, and only of dense rows."""
    if features.nnz <= SPARSE_BELOW * features.shape[0] * features.shape[1]:
        return np.asarray((features.T @ features).toarray(), dtype=np.float64)
    total = np.zeros((features.shape[1], features.shape[1]))
    for start in range(0, features.shape[0], _ROWS_AT_ONCE):
        dense = features[start : start + _ROWS_AT_ONCE].toarray().astype(np.float64, copy=False)
        total += dense.T @ dense
    return total


def row_products(a: sp.csr_array, b: sp.csr_array) -> Floats:
    """A B^T [rows of a, rows of b], dense; dense copies are made of a few columns at a time."""
    if min(a.nnz / a.shape[0], b.nnz / b.shape[0]) <= SPARSE_BELOW * a.shape[1]:
        return np.asarray((a @ b.T).toarray(), dtype=np.float64)
    left, right = a.tocsc(), b.tocsc()
    total = np.zeros((a.shape[0], b.shape[0]))
    for start in range(0, a.shape[1], _ROWS_AT_ONCE):
        columns = slice(start, start + _ROWS_AT_ONCE)
        total += left[:, columns].toarray().astype(np.float64) @ right[:, columns].toarray().astype(np.float64).T
    return total


def means(features: sp.csr_array) -> Floats:
    """The mean of each feature [features]."""
    return np.asarray(features.sum(axis=0), dtype=np.float64).ravel() / features.shape[0]
