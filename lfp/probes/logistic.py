"""Logistic probes on sparse features: a penalty a target chosen by folds, with or without an intercept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lfp.errors import DataError
from lfp.probes.folds import check_alphas, check_fit
from lfp.probes.solvers.newton import FINAL, ROUGH, Outcomes, log_loss, minimise
from lfp.probes.solvers.penalty import choose, choose_nested, each_at_its_own
from lfp.util.types import Floats, Ints


@dataclass(frozen=True)
class Logistic:
    """Log-odds `x @ coef + intercept` of a 1: coef [features, targets]; intercept (0 where none was asked for) and
    alpha [targets].
    """

    coef: Floats
    intercept: Floats
    alpha: Floats


@dataclass(frozen=True)
class FoldedLogistic:
    """`by_fold[k]` never saw a row of fold k, neither in its fit nor in the choice of alpha; `whole` saw all rows."""

    by_fold: tuple[Logistic, ...]
    whole: Logistic


def fit_folded_logistic(
    features: sp.csr_array,
    targets: Floats,
    folds: Ints,
    *,
    n_folds: int,
    alphas: Sequence[float],
    intercept: bool = True,
) -> FoldedLogistic:
    """Logistic probes of targets of 0 and 1, [rows] or [rows, targets], on features [rows, features].

    The loss is sum log(1 + exp(-s z)) + alpha / 2 |w|^2 over log-odds z = x w + b and s = 2 y - 1: scikit-learn's with
    C = 1 / alpha. The intercept is not penalised; without one, on differences of the two features of a pair, this is
    the model of Bradley and Terry (1952). Each target has its own alpha, the one with the least loss of held-out rows
    over inner folds. The gradient proves weights to be within 1e-5 of their norm, or is down to rounding. Raises
    DataError where a fold has no row, a target is constant (with an intercept: without any two folds), or the
    iteration cannot get that close.
    """
    solver = _solver(features, targets, folds, n_folds=n_folds, intercept=intercept)
    check_alphas(alphas)
    by_fold, whole = choose_nested(solver, n_folds, np.asarray(alphas, float))
    return FoldedLogistic(tuple(by_fold), whole)


def fit_logistic(
    features: sp.csr_array,
    targets: Floats,
    folds: Ints,
    *,
    n_folds: int,
    alphas: Sequence[float],
    intercept: bool = True,
) -> Logistic:
    """`fit_folded_logistic(...).whole` alone, at about a third of the work: no fold is kept out of the choice."""
    solver = _solver(features, targets, folds, n_folds=n_folds, intercept=intercept)
    check_alphas(alphas)
    return choose(solver, n_folds, np.asarray(alphas, float))


def _solver(features: sp.csr_array, targets: Floats, folds: Ints, *, n_folds: int, intercept: bool) -> _Newton:
    targets = np.asarray(targets, dtype=np.float64)
    targets = targets[:, None] if targets.ndim == 1 else targets
    check_fit(features, targets, folds, n_folds)
    if not np.isin(targets, (0.0, 1.0)).all():
        row = int(np.argwhere(~np.isin(targets, (0.0, 1.0)))[0, 0])
        raise DataError(f"row {row} is neither 0 nor 1, so no preference can be read from it; check the pairs")
    if intercept:
        _check_both(targets, folds, n_folds)
    return _Newton(features, targets, folds, intercept)


def _check_both(targets: Floats, folds: Ints, n_folds: int) -> None:
    """Raises DataError where two folds hold all of a target's 0s, or 1s: an intercept without them is infinite."""
    ones = np.stack([targets[folds == k].sum(axis=0) for k in range(n_folds)])
    zeros = np.bincount(folds, minlength=n_folds)[:, None] - ones
    for value, counts in ((0, zeros), (1, ones)):
        left = counts.sum(axis=0) - np.sort(counts, axis=0)[-2:].sum(axis=0)
        if (left == 0).any():
            target = int(left.argmin())
            raise DataError(
                f"all rows of target {target} that are {value} lie in two of {n_folds} folds, so that none is left "
                "where these are held out; pass more rows or another seed"
            )


@dataclass(frozen=True)
class _Newton:
    """Fits on all folds but those left out, every target side by side."""

    features: sp.csr_array
    targets: Floats
    folds: Ints
    intercept: bool

    @property
    def n_targets(self) -> int:
        """How many targets are fitted side by side."""
        return self.targets.shape[1]

    def errors(self, left_out: Sequence[int], judged: Sequence[int], alphas: Floats) -> list[Floats]:
        """For each judged fold, the summed log loss [alphas, targets]; each alpha starts from the next larger."""
        outcomes = self._without(left_out)
        rows = [self.folds == fold for fold in judged]
        held_out = [(self.features[one], self.targets[one]) for one in rows]
        losses = [np.empty((len(alphas), self.n_targets)) for _ in judged]
        fit = outcomes.nothing()
        for place in np.argsort(-alphas):
            fit = minimise(outcomes, float(alphas[place]), fit, tolerance=ROUGH)
            for loss, (x, y) in zip(losses, held_out, strict=True):
                loss[place] = log_loss(x @ fit[0] + fit[1], y)
        return losses

    def at(self, left_out: Sequence[int], alpha: Floats) -> Logistic:
        """The probe, each target at its own alpha [targets]."""
        outcomes = self._without(left_out)

        def fit(one: float, targets: Ints) -> tuple[Floats, Floats]:
            mine = outcomes.of(targets)
            return minimise(mine, one, mine.nothing(), tolerance=FINAL)

        return Logistic(*each_at_its_own(alpha, fit), alpha)

    def _without(self, left_out: Sequence[int]) -> Outcomes:
        kept = ~np.isin(self.folds, left_out)
        return Outcomes.given(self.features[kept], self.targets[kept], intercept=self.intercept)
