"""Folds: which rows are held out together, what cannot be fitted on them, and the choice of penalties by them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from lfp.errors import DataError
from lfp.util.types import Flags, Floats, Ints

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


@dataclass(frozen=True)
class Split:
    """Which fold each row is held out in [rows], and `barred` [rows, folds]: rows of other folds that are left out too.

    A row is barred from a fold where it would give away what the fold holds out, as a token that a held-out word shares
    with another word does.
    """

    folds: Ints
    barred: Flags | None = None

    def fitted(self, left_out: Folds) -> Ints:
        """Return the rows that are fitted on where some folds are left out."""
        return np.flatnonzero(~(np.isin(self.folds, left_out) | self._is_barred(left_out)))

    def judged(self, fold: int, others: Folds) -> Ints:
        """Return the rows of a fold whose loss chooses an alpha where `others` are unseen."""
        return np.flatnonzero((self.folds == fold) & ~self._is_barred(others))

    @cached_property
    def is_ever_barred(self) -> Flags:
        """Whether each row is barred from any fold [rows]."""
        return self._is_barred(() if self.barred is None else tuple(range(self.barred.shape[1])))

    def _is_barred(self, folds: Folds) -> Flags:
        if self.barred is None or not folds:
            return np.zeros(len(self.folds), bool)
        return np.asarray(self.barred[:, list(folds)].any(axis=1), bool)

    def least_left(self, n_folds: int) -> float:
        """Return the smallest share of the rows outside two folds that is left when these are left out."""
        pairs = itertools.combinations(range(n_folds), 2)
        return min(len(self.fitted(pair)) / max(1, int((~np.isin(self.folds, pair)).sum())) for pair in pairs)

    def require_rows(self, n_folds: int) -> None:
        """Raise DataError where nothing is left to fit on while two folds are left out."""
        if self.barred is not None:
            for pair in itertools.combinations(range(n_folds), 2):
                if (n := len(self.fitted(pair))) < 2:
                    raise DataError(
                        f"{n} of {len(self.folds)} rows are left to fit on without folds {pair[0]} and {pair[1]} and "
                        "the rows barred from them; pass more rows or bar fewer"
                    )


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


@dataclass(frozen=True)
class Penalties:
    """Alphas [targets]: `by_fold[k]` chosen without fold k, `whole` on all rows."""

    by_fold: tuple[Floats, ...]
    whole: Floats

    def select(self, targets: slice) -> Penalties:
        """Return those of some targets."""
        return Penalties(tuple(alphas[targets] for alphas in self.by_fold), self.whole[targets])


@dataclass(frozen=True)
class HeldOutErrors:
    """Loss of held-out rows [alphas, targets]: `by_fold[k]` of the folds other than k, `whole` of all."""

    by_fold: tuple[Floats, ...]
    whole: Floats

    @staticmethod
    def total(errors: Sequence[HeldOutErrors]) -> HeldOutErrors:
        """Add up the losses of several probes of the same targets, which are to have one alpha."""
        by_fold = zip(*(error.by_fold for error in errors), strict=True)
        whole = np.sum([error.whole for error in errors], axis=0)
        return HeldOutErrors(tuple(np.sum(parts, axis=0) for parts in by_fold), whole)

    @staticmethod
    def concatenate(errors: Sequence[HeldOutErrors]) -> HeldOutErrors:
        """Put the losses of different targets side by side."""
        by_fold = zip(*(error.by_fold for error in errors), strict=True)
        return HeldOutErrors(tuple(map(np.hstack, by_fold)), np.hstack([error.whole for error in errors]))

    def relative(self, scale: Floats) -> HeldOutErrors:
        """Divide each target's loss by its scale [targets]."""
        return HeldOutErrors(tuple(error / scale for error in self.by_fold), self.whole / scale)

    def choose(self, alphas: Floats) -> Penalties:
        """Choose each target's alpha of the least loss."""
        by_fold = tuple(alphas[np.argmin(error, axis=0)] for error in self.by_fold)
        return Penalties(by_fold, alphas[np.argmin(self.whole, axis=0)])


def held_out_errors(solver: Solver[Fit], n_folds: int, alphas: Floats) -> HeldOutErrors:
    """Compute the loss of held-out rows at every alpha, with and without each fold."""
    pairs = list(itertools.combinations(range(n_folds), 2))  # one fit without both serves both orders
    nested = solver.errors(pairs, alphas)
    whole = solver.errors([(fold,) for fold in range(n_folds)], alphas)
    return HeldOutErrors(tuple(nested[fold,] for fold in range(n_folds)), whole[()])


def choose_nested(solver: Solver[Fit], n_folds: int, alphas: Floats) -> tuple[list[Fit], Fit]:
    """Fit a probe per fold that never saw it, neither in its fit nor in the choice of alpha, and one of all rows."""
    if len(alphas) == 1:  # a lone alpha needs no choice
        lone = np.full(solver.n_targets, alphas[0])
        return fit_nested(solver, Penalties((lone,) * n_folds, lone))
    return fit_nested(solver, held_out_errors(solver, n_folds, alphas).choose(alphas))


def fit_nested(solver: Solver[Fit], penalties: Penalties) -> tuple[list[Fit], Fit]:
    """Fit a probe per fold that never saw it, and one of all rows, at alphas that are chosen."""
    by_fold = [solver.fit((fold,), alpha) for fold, alpha in enumerate(penalties.by_fold)]
    return by_fold, solver.fit((), penalties.whole)


def choose(solver: Solver[Fit], n_folds: int, alphas: Floats) -> Fit:
    """Fit the probe of all rows, at the alpha with the least loss over folds held out in turn."""
    return solver.fit((), choose_whole(solver, n_folds, alphas))


def choose_whole(solver: Solver[Fit], n_folds: int, alphas: Floats) -> Floats:
    """Choose the alpha of the least loss [targets] over folds held out in turn; a lone alpha needs no choice."""
    if len(alphas) == 1:
        return np.full(solver.n_targets, alphas[0])
    errors = solver.errors([(fold,) for fold in range(n_folds)], alphas)[()]
    return np.asarray(alphas[np.argmin(errors, axis=0)])


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
