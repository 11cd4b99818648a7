"""Ridge probes on sparse features: a penalty per target, chosen by folds, by the solver that suits the size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lfp.probes.exact_ridge import Dual, Primal, Ridge
from lfp.probes.folds import (
    HeldOutErrors,
    Penalties,
    Solver,
    Split,
    check_fit,
    choose,
    choose_nested,
    fit_nested,
    held_out_errors,
)
from lfp.probes.iterative_ridge import FACTORED_SIDE, Iterative
from lfp.probes.linear_algebra import is_sparse
from lfp.util.types import Flags, Floats, Ints

_SIDE_WITH_FACTOR, _SIDE_OF_ONE = 640, 2048
"""Sides of the matrix that the exact solvers factor, at most `FACTORED_SIDE`: up to where iterating sparse features is
quicker for one target, with a factor in single precision and without (an exact factor costs side^3 and serves all
targets, iterating costs as much again for each)."""
_NUMBERS_AT_ONCE = 2_000_000
"""Weights that are iterated at once: 16 targets or more."""


@dataclass(frozen=True)
class FoldedRidge:
    """`by_fold[k]` never saw a row of fold k, neither in its fit nor in the choice of alpha; `whole` saw all rows."""

    by_fold: tuple[Ridge, ...]
    whole: Ridge


def fit_folded_ridge(
    features: sp.csr_array,
    targets: Floats,
    folds: Ints,
    *,
    n_folds: int,
    alphas: Sequence[float] | Penalties,
    barred: Flags | None = None,
) -> FoldedRidge:
    """Fit ridge probes of targets [rows, targets] on features [rows, features], with an unpenalised intercept.

    Each target has its own alpha, the one with the least squared error over inner folds (the remaining folds, in
    turn), unless alphas are chosen already. Rows that are `barred` [rows, folds] from a fold are left out with it. The
    loss is |y - x w - b|^2 + alpha |w|^2, scikit-learn's. Where rows or features are few (640 for one target, up to
    6,144 for many or for dense features), the weights are exact; beyond that they are iterated to a relative error of
    1e-8 (1e-3 while alphas are compared), and the features never made dense. Raises DataError where a fold has no row,
    a target is constant, or no error below 1e-4 can be proved.
    """
    split = Split(folds, barred)
    _check(features, targets, split, n_folds, alphas.whole.tolist() if isinstance(alphas, Penalties) else alphas)
    parts, start = [], 0
    for solver in _choose_solvers(features, targets, split):
        if isinstance(alphas, Penalties):
            parts.append(fit_nested(solver, alphas.select(slice(start, start + solver.n_targets))))
        else:
            parts.append(choose_nested(solver, n_folds, np.asarray(alphas, float)))
        start += solver.n_targets
    by_fold = tuple(Ridge.concatenate(ridges) for ridges in zip(*(ridges for ridges, _ in parts), strict=True))
    return FoldedRidge(by_fold, Ridge.concatenate([whole for _, whole in parts]))


def folded_errors(
    features: sp.csr_array,
    targets: Floats,
    folds: Ints,
    *,
    n_folds: int,
    alphas: Sequence[float],
    barred: Flags | None = None,
) -> HeldOutErrors:
    """Compute the squared errors by which `fit_folded_ridge` chooses alphas, as shares of the targets' variance.

    Summed over probes of the same targets on different features, they choose one alpha for all of them.
    """
    split = Split(folds, barred)
    _check(features, targets, split, n_folds, alphas)
    parts = [
        held_out_errors(solver, n_folds, np.asarray(alphas, float))
        for solver in _choose_solvers(features, targets, split)
    ]
    return HeldOutErrors.concatenate(parts).relative(((targets - targets.mean(axis=0)) ** 2).sum(axis=0))


def _check(features: sp.csr_array, targets: Floats, split: Split, n_folds: int, alphas: Sequence[float]) -> None:
    check_fit(features, targets, split.folds, n_folds, alphas)
    split.require_rows(n_folds)


def fit_ridge(
    features: sp.csr_array,
    targets: Floats,
    folds: Ints,
    *,
    n_folds: int,
    alphas: Sequence[float],
    barred: Flags | None = None,
) -> Ridge:
    """Fit `fit_folded_ridge(...).whole` alone, a third of the work: no fold is kept out of the choice of alpha."""
    split = Split(folds, barred)
    _check(features, targets, split, n_folds, alphas)
    solvers = _choose_solvers(features, targets, split)
    return Ridge.concatenate([choose(solver, n_folds, np.asarray(alphas, float)) for solver in solvers])


def _choose_solvers(features: sp.csr_array, targets: Floats, split: Split) -> Sequence[Solver[Ridge]]:
    """Choose one solver, or several of a few targets where each target carries vectors as long as the features."""
    (n_rows, width), n_targets = features.shape, targets.shape[1]
    of_one = _SIDE_WITH_FACTOR if width <= FACTORED_SIDE else _SIDE_OF_ONE
    largest = of_one * n_targets ** (1 / 3) if is_sparse(features) else FACTORED_SIDE
    if min(n_rows, width) <= min(FACTORED_SIDE, largest):
        solver = Primal if width <= n_rows else Dual
        return [solver.from_rows(features, targets, split.folds, split.barred)]
    at_once = max(16, _NUMBERS_AT_ONCE // width)
    return [
        Iterative(features, targets[:, start : start + at_once], split.folds, split.barred)
        for start in range(0, n_targets, at_once)
    ]


def place_scales(features: sp.csr_array, place_of: Ints) -> Floats:
    """Compute the factor of each feature [features] that gives its place unit mean square norm over rows."""
    squares = np.asarray(features.multiply(features).sum(axis=0)).ravel() / max(1, features.shape[0])
    of_place = np.bincount(place_of, squares)
    return 1.0 / np.sqrt(np.maximum(of_place, 1e-30))[place_of]
