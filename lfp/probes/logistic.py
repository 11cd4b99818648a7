"""Logistic probes on sparse features: a penalty per target, chosen by folds, fitted by truncated Newton steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_solve
from scipy.special import expit

from lfp.errors import DataError
from lfp.probes.folds import Folds, check_fit, choose, fit_by_alpha, sum_errors
from lfp.probes.linear_algebra import (
    Linear,
    cholesky,
    column_means,
    conjugate_gradients,
    dots,
    feature_products,
    norms,
)
from lfp.util.types import Flags, Floats, Ints

Weights = tuple[Floats, Floats]
"""Coefficients [features, targets] and intercepts [targets]."""

_DENSE_ABOVE = 0.25
"""Share of non-zeros above which a dense copy is about as small as the sparse one, and its products far faster."""
_FACTORED = 2048
"""Features up to which their products are factored to precondition the steps."""
_MAX_STEPS, _MAX_HALVINGS = 100, 40


@dataclass(frozen=True)
class Logistic:
    """Log-odds `x @ coef + intercept` of a 1: coef [features, targets]; intercept (0 without one), alpha [targets]."""

    coef: Floats
    intercept: Floats
    alpha: Floats


def fit_logistic(
    features: sp.csr_array,
    targets: Floats,
    folds: Ints,
    *,
    n_folds: int,
    alphas: Sequence[float],
    intercept: bool = True,
    chosen: Floats | None = None,
) -> Logistic:
    """Fit logistic probes of targets of 0 and 1, [rows] or [rows, targets], on features [rows, features].

    The loss is sum log(1 + exp(-s z)) + alpha / 2 |w|^2 over log-odds z = x w + b and s = 2 y - 1: scikit-learn's with
    C = 1 / alpha. The intercept is not penalised; without one, on differences of the two features of a pair, this is
    the model of Bradley and Terry (1952). Each target has its own alpha, the one with the least loss of held-out rows
    over folds, unless they are `chosen` already [targets]. The gradient proves weights to be within 1e-5 of their norm,
    or is down to rounding. Raises DataError where a fold has no row, a target is constant (with an intercept: without
    any two folds), or the iteration cannot get that close.
    """
    solver = _build_solver(features, targets, folds, n_folds=n_folds, alphas=alphas, intercept=intercept)
    return choose(solver, n_folds, np.asarray(alphas, float)) if chosen is None else solver.fit((), chosen)


def logistic_errors(
    features: sp.csr_array,
    targets: Floats,
    folds: Ints,
    *,
    n_folds: int,
    alphas: Sequence[float],
    intercept: bool = True,
) -> Floats:
    """Compute the log loss of held-out rows [alphas, targets] by which `fit_logistic` chooses alphas."""
    solver = _build_solver(features, targets, folds, n_folds=n_folds, alphas=alphas, intercept=intercept)
    return solver.errors([(fold,) for fold in range(n_folds)], np.asarray(alphas, float))[()]


def _build_solver(
    features: sp.csr_array,
    targets: Floats,
    folds: Ints,
    *,
    n_folds: int,
    alphas: Sequence[float],
    intercept: bool,
) -> _Solver:
    """Check what is to be fitted, and prepare it."""
    targets = np.asarray(targets, dtype=np.float64)
    targets = targets[:, None] if targets.ndim == 1 else targets
    check_fit(features, targets, folds, n_folds, alphas)
    if not np.isin(targets, (0.0, 1.0)).all():
        row = int(np.argwhere(~np.isin(targets, (0.0, 1.0)))[0, 0])
        raise DataError(f"row {row} is neither 0 nor 1, so no preference can be read from it; check the pairs")
    if intercept:
        ones = np.stack([targets[folds == k].sum(axis=0) for k in range(n_folds)])
        zeros = np.bincount(folds, minlength=n_folds)[:, None] - ones
        for value, counts in ((0, zeros), (1, ones)):  # without both outcomes the intercept is infinite
            left = counts.sum(axis=0) - np.sort(counts, axis=0)[-2:].sum(axis=0)
            if (left == 0).any():
                raise DataError(
                    f"all rows of target {int(left.argmin())} that are {value} lie in two of {n_folds} folds, so that "
                    "none is left where these are held out; pass more rows or another seed"
                )
    return _Solver(features, targets, folds, intercept)


@dataclass(frozen=True)
class _Solver:
    """Fits on all folds but those left out, every target side by side."""

    features: sp.csr_array
    targets: Floats
    folds: Ints
    intercept: bool

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return self.targets.shape[1]

    def errors(self, left_out: Sequence[Folds], alphas: Floats) -> dict[Folds, Floats]:
        """Sum the log loss of held-out rows [alphas, targets] by the folds that choose no alpha."""
        return sum_errors(left_out, lambda folds: self._judge(folds, alphas))

    def _judge(self, left_out: Folds, alphas: Floats) -> list[Floats]:
        """Compute the summed log loss [alphas, targets] of each fold; each alpha starts from the next larger."""
        outcomes = self._without(left_out)
        rows = [self.folds == fold for fold in left_out]
        held_out = [(self.features[kept], self.targets[kept]) for kept in rows]
        losses = [np.empty((len(alphas), self.targets.shape[1])) for _ in left_out]
        weights = outcomes.start()
        for place in np.argsort(-alphas):
            weights = minimise(outcomes, float(alphas[place]), weights, tolerance=ROUGH)
            for loss, (x, y) in zip(losses, held_out, strict=True):
                loss[place] = _log_loss(x @ weights[0] + weights[1], y)
        return losses

    def fit(self, left_out: Folds, alpha: Floats) -> Logistic:
        """Fit the probe, each target at its own alpha [targets]."""
        outcomes = self._without(left_out)

        def solve(value: float, targets: Ints) -> Weights:
            some = outcomes.select(targets)
            return minimise(some, value, some.start(), tolerance=FINAL)

        return Logistic(*fit_by_alpha(alpha, solve), alpha)

    def _without(self, left_out: Folds) -> Outcomes:
        kept = ~np.isin(self.folds, left_out)
        return Outcomes.from_rows(self.features[kept], self.targets[kept], intercept=self.intercept)


@dataclass(frozen=True)
class Tolerance:
    """When a fit is done: its weights are within `weights` of the exact ones, relative to their norm, as the gradient
    proves (|error| <= |gradient| / alpha), or the gradient is `gradient` of the largest it could be.
    """

    weights: float
    gradient: float


FINAL, ROUGH = Tolerance(1e-5, 1e-14), Tolerance(1e-3, 1e-5)
"""Of the fits returned, down to rounding, and of those that only compare alphas."""


@dataclass(frozen=True)
class Outcomes:
    """What is fitted: rows of features [rows, features], outcomes of 0 and 1 [rows, targets], and how it is solved.

    `products` are the features' [features, features], centred where there is an intercept; None if they are many.
    `largest` is a bound on the gradient's norm at alpha 0: a row's error is less than 1.
    """

    features: sp.csr_array | Floats
    targets: Floats
    intercept: bool
    products: Floats | None
    largest: float

    @staticmethod
    def from_rows(features: sp.csr_array, targets: Floats, *, intercept: bool) -> Outcomes:
        """Keep rows sparse or make them dense, whichever multiplies faster."""
        n, width = features.shape
        products = None
        if width <= min(_FACTORED, 4 * n):
            mean = column_means(features) if intercept else np.zeros(width)
            products = feature_products(features) - n * np.outer(mean, mean)
        rows = features.astype(np.float64, copy=False)
        largest = float(np.linalg.norm(abs(rows).sum(axis=0)))
        is_dense = rows.nnz > _DENSE_ABOVE * n * width
        return Outcomes(rows.toarray() if is_dense else rows, targets, intercept, products, largest)

    def select(self, targets: Ints) -> Outcomes:
        """Keep some of the targets."""
        return replace(self, targets=self.targets[:, targets])

    def start(self) -> Weights:
        """Return weights of 0; the intercept is the log-odds of the share of 1s."""
        share = self.targets.mean(axis=0)
        log_odds = np.log(share) - np.log1p(-share) if self.intercept else np.zeros_like(share)
        return np.zeros((self.features.shape[1], self.targets.shape[1])), log_odds


def minimise(outcomes: Outcomes, alpha: float, start: Weights, *, tolerance: Tolerance) -> Weights:
    """Find the weights and intercepts of least log loss + alpha / 2 |w|^2, from a start.

    Newton's steps, each solved by conjugate gradients only as far as it pays (Dembo and Steihaug 1983), with the
    intercept eliminated from every step and the loss never let rise. Raises DataError where a target does not converge.
    """
    coef, offset = start[0].copy(), start[1].copy()
    precondition = _preconditioner(outcomes, alpha, start)
    active = np.arange(len(offset))
    for _ in range(_MAX_STEPS):
        point = _Point.at(outcomes.select(active), alpha, (coef[:, active], offset[active]))
        left = ~point.is_done(tolerance)
        if not left.any():
            return coef, offset
        active = active[left]
        point = point.select(left)
        coef[:, active], offset[active] = point.after(point.step(precondition))
    raise DataError(
        f"the logistic weights at alpha {alpha:g} did not converge in {_MAX_STEPS} steps ({len(active)} targets); "
        "raise the smallest of probes.alphas"
    )


@dataclass(frozen=True)
class _Point:
    """A point on the way, for each target: log-odds, curvature p (1 - p) [rows, targets], and the loss's slopes.

    `gradient` [features, targets] is the weights', the intercept following along; `slope` [targets] is the intercept's.
    """

    outcomes: Outcomes
    alpha: float
    coef: Floats
    offset: Floats
    log_odds: Floats
    curvature: Floats
    gradient: Floats
    slope: Floats

    @staticmethod
    def at(outcomes: Outcomes, alpha: float, weights: Weights) -> _Point:
        coef, offset = weights
        log_odds = outcomes.features @ coef + offset
        share = expit(log_odds)
        curvature = share * (1.0 - share)
        error = share - outcomes.targets
        slope = error.sum(axis=0) if outcomes.intercept else np.zeros_like(offset)
        error -= curvature * (slope / _total(curvature))
        gradient = outcomes.features.T @ error + alpha * coef
        return _Point(outcomes, alpha, coef, offset, log_odds, curvature, gradient, slope)

    def select(self, targets: Flags) -> _Point:
        """Keep some of the targets."""
        names = ("coef", "offset", "log_odds", "curvature", "gradient", "slope")
        parts = {name: getattr(self, name)[..., targets] for name in names}
        return replace(self, outcomes=self.outcomes.select(np.flatnonzero(targets)), **parts)

    def is_done(self, tolerance: Tolerance) -> Flags:
        """Tell which targets are near enough; the intercept's next step must be as small as the weights' error."""
        weights = norms(self.gradient) <= np.maximum(
            tolerance.weights * self.alpha * norms(self.coef), tolerance.gradient * self.outcomes.largest
        )
        still = np.abs(self.slope) <= tolerance.weights * _total(self.curvature) * np.maximum(1.0, np.abs(self.offset))
        done: Flags = weights & still
        return done

    def step(self, precondition: Linear) -> Floats:
        """Compute Newton's step of the weights, solved the closer the smaller the gradient is already."""
        total = _total(self.curvature)

        def curve(direction: Floats) -> Floats:
            """Multiply by the second derivative, the intercept following along."""
            along = self.outcomes.features @ direction
            if self.outcomes.intercept:
                along -= dots(self.curvature, along) / total
            along *= self.curvature
            return self.outcomes.features.T @ along + self.alpha * direction

        size = norms(self.gradient)
        share = np.minimum(0.1, np.sqrt(size / max(self.outcomes.largest, 1e-300)))
        return conjugate_gradients(
            curve,
            -self.gradient,
            precondition=precondition,
            is_small=lambda residual, _: norms(residual) <= share * size,
        )

    def after(self, step: Floats) -> Weights:
        """Take as much of the step as lowers the loss (Armijo's rule)."""

        def loss_at(log_odds: Floats, coef: Floats) -> Floats:
            return _log_loss(log_odds, self.outcomes.targets) + 0.5 * self.alpha * dots(coef, coef)

        total = _total(self.curvature)
        along = self.outcomes.features @ step
        follow = np.zeros_like(self.offset)
        if self.outcomes.intercept:
            follow = -(self.slope + dots(self.curvature, along)) / total
        along += follow
        before = loss_at(self.log_odds, self.coef)
        promised = dots(self.gradient, step) - self.slope**2 / total
        length = np.ones_like(before)
        for _ in range(_MAX_HALVINGS):
            loss = loss_at(self.log_odds + length * along, self.coef + length * step)
            rises = loss > before + 1e-4 * length * promised + 1e-13 * np.abs(before)
            if not rises.any():
                break
            length[rises] *= 0.5
        return self.coef + length * step, self.offset + length * follow


def _total(curvature: Floats) -> Floats:
    """Sum over rows [targets], never 0."""
    return np.maximum(curvature.sum(axis=0), 1e-300)


def _log_loss(log_odds: Floats, outcomes: Floats) -> Floats:
    """Sum over rows log(1 + exp(-z)) of a 1 and log(1 + exp(z)) of a 0; [targets]."""
    return (np.logaddexp(0.0, log_odds) - outcomes * log_odds).sum(axis=0)


def _preconditioner(outcomes: Outcomes, alpha: float, start: Weights) -> Linear:
    """Solve with the curvature as if all rows had its mean; where features are many, with its diagonal alone."""
    share = expit(outcomes.features @ start[0] + start[1])
    if outcomes.products is None:
        diagonal = alpha + (outcomes.features**2).T @ (share * (1.0 - share)).mean(axis=1)
        return lambda vectors: vectors / diagonal[:, None]
    factor = cholesky(float((share * (1.0 - share)).mean()) * outcomes.products, alpha)
    return lambda vectors: cho_solve(factor, vectors, check_finite=False)
