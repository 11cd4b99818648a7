"""Ridge probes on features, every word out of fold: one probe a fold for judging, one on all rows for use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from lfp.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ridge:
    """Linear predictions `x @ coef + intercept`: coef [features, targets]; intercept and alpha [targets]."""

    coef: Floats
    intercept: Floats
    alpha: Floats


@dataclass(frozen=True)
class FoldedRidge:
    """`by_fold[k]` never saw a row of fold k, neither in its fit nor in the choice of alpha; `whole` saw all rows."""

    by_fold: tuple[Ridge, ...]
    whole: Ridge


def word_folds(words: Sequence[str], *, n_folds: int, seed: int) -> dict[str, int]:
    """A fold for every word, of even sizes, drawn by the seed over the sorted words."""
    order = np.random.default_rng(seed).permutation(len(words))
    return {word: int(place) % n_folds for word, place in zip(sorted(words), order, strict=True)}


def layer_scales(features: sp.csr_array, layer_of: Ints) -> Floats:
    """The factor of each feature [features] that gives its layer's block unit mean square norm over rows."""
    squares = np.asarray(features.multiply(features).sum(axis=0)).ravel() / max(1, features.shape[0])
    of_layer = np.bincount(layer_of, squares)
    return 1.0 / np.sqrt(np.maximum(of_layer, 1e-30))[layer_of]


def fit_folded_ridge(
    features: sp.csr_array, targets: Floats, folds: Ints, *, n_folds: int, alphas: Sequence[float]
) -> FoldedRidge:
    """Ridge probes of targets [rows, targets] on features [rows, features], with an unpenalised intercept.

    Each target has its own alpha, the one with the least squared error over inner folds (the remaining folds, in
    turn). The loss is |y - x w - b|^2 + alpha |w|^2, scikit-learn's. The sums of each fold are kept, so rows are read
    once whatever the number of folds, alphas and targets. Raises DataError where a fold has no row or a target is
    constant.
    """
    _check(targets, folds, n_folds)
    sums = [_Sums.of(features[folds == k], targets[folds == k]) for k in range(n_folds)]
    errors = np.zeros((n_folds, n_folds, len(alphas), targets.shape[1]))  # [outer, inner, alpha, target]
    for outer in range(n_folds):
        for inner in range(outer + 1, n_folds):
            ridges = _at_all(_Normal.of(_total(sums, outer, inner)), alphas)  # the rows of neither serve both orders
            errors[outer, inner] = [sums[inner].squared_error(ridge) for ridge in ridges]
            errors[inner, outer] = [sums[outer].squared_error(ridge) for ridge in ridges]
    equations = [_Normal.of(_total(sums, k)) for k in range(n_folds)]
    grid = np.asarray(alphas, float)
    by_fold = tuple(_chosen(one, grid, errors[k].sum(axis=0)) for k, one in enumerate(equations))
    held_out = np.array(
        [[sums[k].squared_error(ridge) for ridge in _at_all(one, alphas)] for k, one in enumerate(equations)]
    )
    return FoldedRidge(by_fold, _chosen(_Normal.of(_total(sums)), grid, held_out.sum(axis=0)))


@dataclass(frozen=True)
class _Sums:
    """What ridge needs of some rows: count, sums and products."""

    n: int
    x: Floats
    y: Floats
    xx: Floats
    xy: Floats
    yy: Floats

    @staticmethod
    def of(features: sp.csr_array, targets: Floats) -> _Sums:
        dense = features.toarray().astype(np.float64)
        return _Sums(len(dense), dense.sum(0), targets.sum(0), dense.T @ dense, dense.T @ targets, (targets**2).sum(0))

    def squared_error(self, ridge: Ridge) -> Floats:
        """Sum over these rows of (y - x w - b)^2, a target [targets]."""
        w, b = ridge.coef, ridge.intercept
        quadratic = np.einsum("ft,ft->t", w, self.xx @ w - 2.0 * self.xy + 2.0 * np.outer(self.x, b))
        return quadratic + self.yy + self.n * b**2 - 2.0 * b * self.y


def _total(sums: Sequence[_Sums], *left_out: int) -> _Sums:
    """Added up, never subtracted: a fold left out leaves no trace, not even of rounding."""
    kept = [part for k, part in enumerate(sums) if k not in left_out]
    parts = [[getattr(part, name) for part in kept] for name in _Sums.__dataclass_fields__]
    return _Sums(*(sum(values) for values in parts))


@dataclass(frozen=True)
class _Normal:
    """The centred normal equations of ridge: one Cholesky factor an alpha serves every target."""

    gram: Floats
    products: Floats
    x_mean: Floats
    y_mean: Floats

    @staticmethod
    def of(sums: _Sums) -> _Normal:
        x_mean, y_mean = sums.x / sums.n, sums.y / sums.n
        gram = sums.xx - sums.n * np.outer(x_mean, x_mean)
        return _Normal(gram, sums.xy - sums.n * np.outer(x_mean, y_mean), x_mean, y_mean)

    def at(self, alpha: float) -> Ridge:
        """The ridge of every target at one alpha."""
        penalised = self.gram.copy()
        penalised[np.diag_indices_from(penalised)] += alpha
        factor = cho_factor(penalised, lower=True, overwrite_a=True, check_finite=False)
        coef = cho_solve(factor, self.products, check_finite=False)
        return Ridge(coef, self.y_mean - self.x_mean @ coef, np.full(len(self.y_mean), alpha))


def _at_all(equations: _Normal, alphas: Sequence[float]) -> list[Ridge]:
    return [equations.at(alpha) for alpha in alphas]


def _chosen(equations: _Normal, alphas: Floats, errors: Floats) -> Ridge:
    """The ridge at each target's best alpha; errors are [alphas, targets]."""
    best = errors.argmin(axis=0)
    ridges = {int(row): equations.at(float(alphas[row])) for row in np.unique(best)}
    coef = np.column_stack([ridges[row].coef[:, target] for target, row in enumerate(best.tolist())])
    return Ridge(coef, equations.y_mean - equations.x_mean @ coef, alphas[best])


def _check(targets: Floats, folds: Ints, n_folds: int) -> None:
    sizes = np.bincount(folds, minlength=n_folds)
    if (sizes == 0).any() or n_folds < 3:
        raise DataError(
            f"fold {int(sizes.argmin())} of {n_folds} has no row: too few words; pass more texts or lower probes.folds"
            if n_folds >= 3
            else f"{n_folds} folds leave none to choose alpha on; set probes.folds to 3 or more"
        )
    if (np.ptp(targets, axis=0) == 0).any():
        raise DataError("the feedback is the same on every row, so there is nothing to predict; check the reward")
