"""Ridge probes on sparse features: a penalty a target chosen by folds, by whichever of three solvers suits the size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lfp.probes.folds import check_alphas, check_fit
from lfp.probes.solvers.normal_equations import Ridge
from lfp.probes.solvers.penalty import Solver, choose, choose_nested
from lfp.probes.solvers.ridge import Dual, Iterative, Primal
from lfp.util.types import Floats, Ints

_SIDE_OF_ONE, _SIDE = 2048, 6144
"""Sides of the matrix that the exact solvers factor: up to where iterating is quicker for one target (a factor costs
side^3 and serves all targets, iterating costs as much again for each), and at the very most, for memory."""


_TARGETS_AT_ONCE = 16


@dataclass(frozen=True)
class FoldedRidge:
    """`by_fold[k]` never saw a row of fold k, neither in its fit nor in the choice of alpha; `whole` saw all rows."""

    by_fold: tuple[Ridge, ...]
    whole: Ridge


def fit_folded_ridge(
    features: sp.csr_array, targets: Floats, folds: Ints, *, n_folds: int, alphas: Sequence[float]
) -> FoldedRidge:
    """Ridge probes of targets [rows, targets] on features [rows, features], with an unpenalised intercept.

    Each target has its own alpha, the one with the least squared error over inner folds (the remaining folds, in
    turn). The loss is |y - x w - b|^2 + alpha |w|^2, scikit-learn's. Where rows or features are few (2,048 for one
    target, up to 6,144 for many), the weights are exact; beyond that they are iterated to a proved relative error of
    1e-4 (1e-2 while alphas are compared), and the features never made dense. Raises DataError where a fold has no row,
    a target is constant, or the iteration cannot get that close.
    """
    check_fit(features, targets, folds, n_folds)
    check_alphas(alphas)
    parts = [choose_nested(one, n_folds, np.asarray(alphas, float)) for one in _solvers(features, targets, folds)]
    by_fold = tuple(_side_by_side(ridges) for ridges in zip(*(ridges for ridges, _ in parts), strict=True))
    return FoldedRidge(by_fold, _side_by_side([whole for _, whole in parts]))


def fit_ridge(features: sp.csr_array, targets: Floats, folds: Ints, *, n_folds: int, alphas: Sequence[float]) -> Ridge:
    """`fit_folded_ridge(...).whole` alone, at about a third of the work: no fold is kept out of the choice of alpha."""
    check_fit(features, targets, folds, n_folds)
    check_alphas(alphas)
    return _side_by_side(
        [choose(one, n_folds, np.asarray(alphas, float)) for one in _solvers(features, targets, folds)]
    )


def _solvers(features: sp.csr_array, targets: Floats, folds: Ints) -> Sequence[Solver[Ridge]]:
    """One solver, or where each target carries several vectors as long as the features, one a few targets."""
    side, n_targets = min(features.shape), targets.shape[1]
    if side <= min(_SIDE, _SIDE_OF_ONE * n_targets ** (1 / 3)):
        solver = Primal if features.shape[1] <= features.shape[0] else Dual
        return [solver.of(features, targets, folds)]
    starts = range(0, n_targets, _TARGETS_AT_ONCE)
    return [Iterative(features, targets[:, start : start + _TARGETS_AT_ONCE], folds) for start in starts]


def _side_by_side(ridges: Sequence[Ridge]) -> Ridge:
    return Ridge(
        np.hstack([one.coef for one in ridges]),
        np.concatenate([one.intercept for one in ridges]),
        np.concatenate([one.alpha for one in ridges]),
    )


def layer_scales(features: sp.csr_array, layer_of: Ints) -> Floats:
    """The factor of each feature [features] that gives its layer's block unit mean square norm over rows."""
    squares = np.asarray(features.multiply(features).sum(axis=0)).ravel() / max(1, features.shape[0])
    of_layer = np.bincount(layer_of, squares)
    return 1.0 / np.sqrt(np.maximum(of_layer, 1e-30))[layer_of]
