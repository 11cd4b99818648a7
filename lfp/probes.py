"""Ridge probes on features, every word out of fold: one probe a fold for judging, one on all rows for use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

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
    everything = _total(sums)
    without = [everything - part for part in sums]
    errors = np.zeros((n_folds, n_folds, len(alphas), targets.shape[1]))  # [outer, inner, alpha, target]
    for outer in range(n_folds):
        for inner in range(outer + 1, n_folds):
            path = _Path.of(without[outer] - sums[inner])  # the rows of neither serve both orders
            errors[outer, inner] = [sums[inner].squared_error(path.at(alpha)) for alpha in alphas]
            errors[inner, outer] = [sums[outer].squared_error(path.at(alpha)) for alpha in alphas]
    paths = [_Path.of(part) for part in without]
    grid = np.asarray(alphas, float)
    by_fold = tuple(_chosen(path, grid, errors[k].sum(axis=0)) for k, path in enumerate(paths))
    held_out = sum(
        np.array([sums[k].squared_error(path.at(alpha)) for alpha in alphas]) for k, path in enumerate(paths)
    )
    return FoldedRidge(by_fold, _chosen(_Path.of(everything), grid, np.asarray(held_out)))


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
        return _Sums(
            len(dense), dense.sum(0), targets.sum(0), dense.T @ dense, dense.T @ targets, (targets**2).sum(0)
        )

    def __sub__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.n - other.n, self.x - other.x, self.y - other.y, self.xx - other.xx, self.xy - other.xy, self.yy - other.yy
        )

    def squared_error(self, ridge: Ridge) -> Floats:
        """Sum over these rows of (y - x w - b)^2, a target [targets]."""
        w, b = ridge.coef, ridge.intercept
        quadratic = np.einsum("ft,ft->t", w, self.xx @ w - 2.0 * self.xy + 2.0 * np.outer(self.x, b))
        return quadratic + self.yy + self.n * b**2 - 2.0 * b * self.y


def _total(sums: Sequence[_Sums]) -> _Sums:
    parts = [[getattr(part, name) for part in sums] for name in _Sums.__dataclass_fields__]
    return _Sums(*(sum(values) for values in parts))


@dataclass(frozen=True)
class _Path:
    """Ridge at any alpha from one eigendecomposition of the centred Gram matrix."""

    vectors: Floats
    values: Floats
    rotated: Floats
    x_mean: Floats
    y_mean: Floats

    @staticmethod
    def of(sums: _Sums) -> _Path:
        x_mean, y_mean = sums.x / sums.n, sums.y / sums.n
        values, vectors = np.linalg.eigh(sums.xx - sums.n * np.outer(x_mean, x_mean))
        rotated = vectors.T @ (sums.xy - sums.n * np.outer(x_mean, y_mean))
        return _Path(vectors, np.maximum(values, 0.0), rotated, x_mean, y_mean)

    def at(self, alpha: float | Floats) -> Ridge:
        """The ridge at one alpha, or at one a target."""
        alphas = np.broadcast_to(np.asarray(alpha, float), self.y_mean.shape)
        coef = self.vectors @ (self.rotated / (self.values[:, None] + alphas))
        return Ridge(coef, self.y_mean - self.x_mean @ coef, alphas)


def _chosen(path: _Path, alphas: Floats, errors: Floats) -> Ridge:
    """The ridge at each target's best alpha; errors are [alphas, targets]."""
    return path.at(alphas[errors.argmin(axis=0)])


def _check(targets: Floats, folds: Ints, n_folds: int) -> None:
    sizes = np.bincount(folds, minlength=n_folds)
    if (sizes == 0).any() or n_folds < 3:
        raise DataError(
            f"fold {int(sizes.argmin())} of {n_folds} has no row: too few words; pass more texts or lower probes.folds"
            if n_folds >= 3 else f"{n_folds} folds leave none to choose alpha on; set probes.folds to 3 or more"
        )
    if (np.ptp(targets, axis=0) == 0).any():
        raise DataError("the feedback is the same on every row, so there is nothing to predict; check the reward")
