"""The choice of a penalty a target by held-out folds, nested so that no fold has a say in its own probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from lfp.util.types import Floats, Ints

Fit_co = TypeVar("Fit_co", covariant=True)
Fit = TypeVar("Fit")


class Solver(Protocol[Fit_co]):
    """Probes fitted on all folds but those left out. A fold left out leaves no trace, not even of rounding."""

    @property
    def n_targets(self) -> int:
        """How many targets are fitted side by side."""

    def errors(self, left_out: Sequence[int], judged: Sequence[int], alphas: Floats) -> list[Floats]:
        """For each judged fold, its rows' summed loss [alphas, targets]."""

    def at(self, left_out: Sequence[int], alpha: Floats) -> Fit_co:
        """The probe, each target at its own alpha [targets]."""


def choose_nested(solver: Solver[Fit], n_folds: int, alphas: Floats) -> tuple[list[Fit], Fit]:
    """A probe a fold that never saw it, neither in its fit nor in the choice of alpha, and the probe of all rows."""
    errors = np.zeros((n_folds, n_folds, len(alphas), solver.n_targets))  # [outer, inner, alpha, target]
    for outer in range(n_folds):
        for inner in range(outer + 1, n_folds):  # the rows of neither serve both orders
            errors[outer, inner], errors[inner, outer] = solver.errors((outer, inner), (inner, outer), alphas)
    by_fold = [solver.at((k,), alphas[errors[k].sum(axis=0).argmin(axis=0)]) for k in range(n_folds)]
    return by_fold, choose(solver, n_folds, alphas)


def choose(solver: Solver[Fit], n_folds: int, alphas: Floats) -> Fit:
    """The probe of all rows, at the alpha with the least loss over folds held out in turn."""
    held_out = np.zeros((len(alphas), solver.n_targets))
    for k in range(n_folds):
        held_out += solver.errors((k,), (k,), alphas)[0]
    return solver.at((), alphas[held_out.argmin(axis=0)])


def each_at_its_own(alpha: Floats, fit: Callable[[float, Ints], tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Coefficients [features, targets] and intercepts [targets]; targets that share an alpha are fitted together."""
    groups = [np.flatnonzero(alpha == one) for one in np.unique(alpha)]
    fits = [fit(float(alpha[group[0]]), group) for group in groups]
    order = np.argsort(np.concatenate(groups))
    return np.hstack([coef for coef, _ in fits])[:, order], np.concatenate([offset for _, offset in fits])[order]
