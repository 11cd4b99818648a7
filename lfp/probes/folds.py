"""Folds: which rows are held out together, what cannot be fitted on them, and the choice of penalties by them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from lfp.errors import DataError
from lfp.util.types import Floats, Ints

Folds = tuple[int, ...]
Fit = TypeVar("Fit")
Fit_co = TypeVar("Fit_co", covariant=True)


def row_folds(n_rows: int, *, n_folds: int, seed: int) -> Ints:
    """Draw a fold for every row [rows]; folds have equal sizes, to within one row."""
    return np.random.default_rng(seed).permutation(n_rows) % n_folds


def group_folds(groups: ArrayLike, *, n_folds: int, seed: int) -> Ints:
    """Draw a fold for every row [rows], the same for all rows of a group (a word, a pair).

    Folds have equal numbers of groups, to within one. Raises DataError where there are fewer groups than folds.
    """
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < n_folds:
        raise DataError(
            f"{len(names)} words or pairs cannot fill {n_folds} folds, so a fold would hold out none; "
            "pass more texts or lower probes.folds"
        )
    return row_folds(len(names), n_folds=n_folds, seed=seed)[group_of]


def check_fit(features: sp.csr_array, targets: Floats, folds: Ints, n_folds: int, alphas: Sequence[float]) -> None:
    """Raise DataError on what no probe can be fitted to: an empty fold, a constant target, a value that is not finite.

    Features are [rows, features], targets [rows, targets] and folds [rows], from 0 to n_folds - 1.
    """
    if not len(alphas) or not min(alphas) > 0:
        raise DataError(f"alphas {list(alphas)} must be one or more numbers above 0; set probes.alphas")
    if n_folds < 3:
        raise DataError(f"{n_folds} folds leave none to choose alpha on; set probes.folds to 3 or more")
    if not features.shape[0] == len(targets) == len(folds):
        raise DataError(
            f"{features.shape[0]} rows of features, {len(targets)} of targets and {len(folds)} of folds: "
            "pass one of each per row"
        )
    sizes = np.bincount(folds, minlength=n_folds)
    if len(sizes) > n_folds:
        raise DataError(
            f"row {int(folds.argmax())} is in fold {folds.max()}, but the last of {n_folds} is {n_folds - 1}"
        )
    if (sizes == 0).any():
        raise DataError(
            f"fold {int(sizes.argmin())} of {n_folds} has no row, so no word of it is held out: too few words; "
            "pass more texts or lower probes.folds"
        )
    wrong = np.flatnonzero(~np.isfinite(features.data))
    if wrong.size:
        row = int(np.searchsorted(features.indptr, wrong[0], side="right")) - 1
        raise DataError(
            f"feature {features.indices[wrong[0]]} of row {row} is not a finite number; check the activations"
        )
    name = "target {} of " + f"{targets.shape[1]}, counted from 0"
    rows, columns = np.nonzero(~np.isfinite(targets))
    if rows.size:
        raise DataError(
            f"the feedback of row {rows[0]} ({name.format(columns[0])}) is not a finite number; check the reward"
        )
    constant = np.flatnonzero(np.ptp(targets, axis=0) == 0)
    if constant.size:
        raise DataError(
            f"the feedback ({name.format(constant[0])}) is the same on every row, {targets[0, constant[0]]:g}, "
            "so there is nothing to predict; check the reward"
        )


class Solver(Protocol[Fit_co]):
    """Fits probes on all folds but those left out. A fold left out leaves no trace, not even of rounding."""

    @property
    def n_targets(self) -> int:
        """Number of targets."""

    def errors(self, left_out: Sequence[Folds], alphas: Floats) -> dict[Folds, Floats]:
        """Sum the loss of held-out rows [alphas, targets] by the folds that choose no alpha.

        For each set of folds left out, its folds are judged in turn, and their loss counts for the set's other folds.
        """

    def fit(self, left_out: Folds, alpha: Floats) -> Fit_co:
        """Fit the probe, each target at its own alpha [targets]."""


def choose_nested(solver: Solver[Fit], n_folds: int, alphas: Floats) -> tuple[list[Fit], Fit]:
    """Fit a probe per fold that never saw it, neither in its fit nor in the choice of alpha, and one of all rows."""
    pairs = list(itertools.combinations(range(n_folds), 2))  # one fit without both serves both orders
    chosen = _choose_alphas(solver, pairs, [(fold,) for fold in range(n_folds)], alphas)
    return [solver.fit((fold,), chosen[fold,]) for fold in range(n_folds)], choose(solver, n_folds, alphas)


def choose(solver: Solver[Fit], n_folds: int, alphas: Floats) -> Fit:
    """Fit the probe of all rows, at the alpha with the least loss over folds held out in turn."""
    return solver.fit((), _choose_alphas(solver, [(fold,) for fold in range(n_folds)], [()], alphas)[()])


def _choose_alphas(
    solver: Solver[Fit], left_out: Sequence[Folds], unseen: Sequence[Folds], alphas: Floats
) -> dict[Folds, Floats]:
    """Choose the alpha of the least loss [targets] where these folds are unseen; a lone alpha needs no choice."""
    if len(alphas) == 1:
        return dict.fromkeys(unseen, np.full(solver.n_targets, alphas[0]))
    errors = solver.errors(left_out, alphas)
    return {folds: alphas[np.argmin(errors[folds], axis=0)] for folds in unseen}


def sum_errors(left_out: Sequence[Folds], judge: Callable[[Folds], Iterable[Floats]]) -> dict[Folds, Floats]:
    """Build `Solver.errors` from the losses [alphas, targets] of each fold of a set left out, in the set's order."""
    sums: dict[Folds, Floats] = {}
    for folds in left_out:
        for fold, error in zip(folds, judge(folds), strict=True):
            others = tuple(each for each in folds if each != fold)
            sums[others] = sums[others] + error if others in sums else error
    return sums


def fit_by_alpha(alpha: Floats, fit: Callable[[float, Ints], tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Fit coefficients [features, targets] and intercepts [targets]; targets that share an alpha share a fit."""
    groups = [np.flatnonzero(alpha == value) for value in np.unique(alpha)]
    fits = [fit(float(alpha[group[0]]), group) for group in groups]
    order = np.argsort(np.concatenate(groups))
    return np.hstack([coef for coef, _ in fits])[:, order], np.concatenate([offset for _, offset in fits])[order]
