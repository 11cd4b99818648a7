"""Linear algebra of features: dense products, Cholesky factors, conjugate gradients, and principal components."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from lfp.errors import DataError
from lfp.util.types import Flags, Floats, Floats32

Linear = Callable[[Floats], Floats]
"""A linear map of vectors [features, targets], column by column."""

SPARSE_BELOW = 0.04
"""Share of non-zeros below which a sparse product is faster than a dense one (measured)."""
_ROWS_AT_ONCE = 2048
_MAX_PRODUCTS = 10_000


def is_sparse(features: sp.csr_array) -> bool:
    """Whether products of these features are faster sparse than dense."""
    return bool(features.nnz <= SPARSE_BELOW * features.shape[0] * features.shape[1])


def feature_products(features: sp.csr_array) -> Floats:
    """Compute X^T X [features, features], dense; rows that are not sparse are made dense a block at a time."""
    if is_sparse(features):
        return np.asarray((features.T @ features).toarray(), dtype=np.float64)
    total = np.zeros((features.shape[1], features.shape[1]))
    for start in range(0, features.shape[0], _ROWS_AT_ONCE):
        dense = features[start : start + _ROWS_AT_ONCE].toarray().astype(np.float64, copy=False)
        total += dense.T @ dense
    return total


def row_products(a: sp.csr_array, b: sp.csr_array) -> Floats:
    """Compute A B^T [rows of a, rows of b], dense; columns that are not sparse are made dense a block at a time."""
    if min(a.nnz / a.shape[0], b.nnz / b.shape[0]) <= SPARSE_BELOW * a.shape[1]:
        return np.asarray((a @ b.T).toarray(), dtype=np.float64)
    left, right = a.tocsc(), b.tocsc()
    total = np.zeros((a.shape[0], b.shape[0]))
    for start in range(0, a.shape[1], _ROWS_AT_ONCE):
        columns = slice(start, start + _ROWS_AT_ONCE)
        total += left[:, columns].toarray().astype(np.float64) @ right[:, columns].toarray().astype(np.float64).T
    return total


def column_means(features: sp.csr_array) -> Floats:
    """Compute the mean of each feature [features]."""
    return np.asarray(features.sum(axis=0), dtype=np.float64).ravel() / features.shape[0]


def cholesky(gram: Floats, alpha: float) -> tuple[Floats, bool]:
    """Factor gram + alpha I. Raises DataError where rounding leaves it no factor."""
    penalised = gram.copy()
    penalised[np.diag_indices_from(penalised)] += alpha
    try:
        factor: tuple[Floats, bool] = cho_factor(penalised.T, lower=False, overwrite_a=True, check_finite=False)
    except LinAlgError as error:
        raise DataError(
            f"alpha {alpha:g} is too small for these features; raise the smallest of probes.alphas"
        ) from error
    return factor


def factor_roughly(products: Floats32, alpha: float) -> Linear:
    """Factor products + alpha I in single precision; return what solves with it, to precondition with.

    A penalty that is lost in the products' rounding is raised until there is a factor.
    """
    diagonal = np.diagonal(products).copy()
    penalty = alpha
    while True:
        np.fill_diagonal(products, diagonal + np.float32(penalty))
        try:
            factor = cho_factor(products.T, lower=False, overwrite_a=False, check_finite=False)
        except LinAlgError:
            penalty = max(10.0 * penalty, 1e-7 * float(diagonal.max()))
        else:
            break

    def solve(vectors: Floats) -> Floats:
        sizes = np.maximum(np.abs(vectors).max(axis=0), 1e-300)  # residuals may be too small for single precision
        scaled = cho_solve(factor, (vectors / sizes).astype(np.float32), check_finite=False)
        return np.asarray(scaled, dtype=np.float64) * sizes

    return solve


def conjugate_gradients(
    product: Linear,
    residual: Floats,
    *,
    precondition: Linear,
    is_small: Callable[[Floats, Floats], Flags],
    at_most: int | None = None,
) -> Floats:
    """Solve product(x) = residual for x [features, targets], from x = 0, all targets side by side.

    A target stops once `is_small(residual, x)` [targets] holds, or after `at_most` products (10,000): the caller checks
    whether that is near enough (Hestenes and Stiefel 1952, preconditioned).
    """

    def divide(top: Floats, bottom: Floats) -> Floats:  # 0 for a target that is solved to the last bit
        return np.divide(top, bottom, out=np.zeros_like(top), where=bottom != 0)

    solution, residual = np.zeros_like(residual), residual.copy()
    direction = preconditioned = precondition(residual)
    square = dots(residual, preconditioned)
    for _ in range(_MAX_PRODUCTS if at_most is None else at_most):
        live = ~is_small(residual, solution)
        if not live.any():
            break
        image = product(direction)
        length = np.where(live, divide(square, dots(direction, image)), 0.0)
        solution += length * direction
        image *= length
        residual -= image
        preconditioned = precondition(residual)
        square, before = dots(residual, preconditioned), square
        direction = preconditioned + divide(square, before) * direction
    return solution


def principal_components(rows: sp.csr_array | Floats) -> Floats:
    """Project rows [n, features] on their first two principal components: coordinates [n, 2]; sparse rows stay sparse.

    Each component is turned so that its largest entry is positive; one along which rows do not differ is 0.
    """
    from sklearn.decomposition import PCA

    places, size = np.zeros((rows.shape[0], 2)), min(2, *rows.shape)
    if sp.issparse(rows) and size == min(rows.shape):  # ARPACK needs more rows and columns than components
        rows = sp.csr_array(rows).toarray()
    if not size:
        return places
    spread = rows.max(axis=0) - rows.min(axis=0)
    if not (spread.nnz if sp.issparse(spread) else spread.any()):  # all rows are the same
        return places
    pca = PCA(size, svd_solver="arpack" if sp.issparse(rows) else "full", random_state=0)
    places[:, :size] = pca.fit_transform(rows)
    return places * np.where(places[np.abs(places).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)


def dots(a: Floats, b: Floats) -> Floats:
    """Compute the inner products [targets] of the columns of two arrays."""
    return np.einsum("rt,rt->t", a, b)


def norms(a: Floats) -> Floats:
    """Compute the Euclidean norms [targets] of the columns."""
    return np.sqrt(dots(a, a))
