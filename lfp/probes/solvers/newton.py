"""Penalised logistic regression by truncated Newton steps: many targets side by side, sparse features kept sparse."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_solve
from scipy.special import expit

from lfp.errors import DataError
from lfp.probes.solvers.conjugate import Linear, conjugate_gradients, dots, norms
from lfp.probes.solvers.normal_equations import centred_products, cholesky
from lfp.util.types import Flags, Floats, Ints

Fit = tuple[Floats, Floats]
"""Coefficients [features, targets] and intercepts [targets]."""

_DENSE_ABOVE = 0.25
"""Share of non-zeros above which a dense copy is about as small as the sparse one, and its products far faster."""
_FACTORED = 2048
"""Features up to which their products are factored to precondition the steps."""
_MAX_STEPS, _MAX_HALVINGS = 100, 40


@dataclass(frozen=True)
class Tolerance:
    """When a fit is done: its weights are within `weights` of the exact ones, relative to their norm, as the gradient
    proves (|error| <= |gradient| / alpha), or the gradient is `gradient` of the largest it could be.
    """

    weights: float
    gradient: float


FINAL, ROUGH = Tolerance(1e-5, 1e-14), Tolerance(1e-3, 1e-5)
"""Of the fits returned, down to rounding, and of those that only tell alphas apart."""


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
    def given(features: sp.csr_array, targets: Floats, *, intercept: bool) -> Outcomes:
        """Rows as they are best multiplied."""
        n, width = features.shape
        products = centred_products(features, is_centred=intercept) if width <= min(_FACTORED, 4 * n) else None
        rows = features.astype(np.float64, copy=False)
        largest = float(np.linalg.norm(abs(rows).sum(axis=0)))
        is_dense = rows.nnz > _DENSE_ABOVE * n * width
        return Outcomes(rows.toarray() if is_dense else rows, targets, intercept, products, largest)

    def of(self, targets: Ints) -> Outcomes:
        """Some of the targets."""
        return replace(self, targets=self.targets[:, targets])

    def nothing(self) -> Fit:
        """No weights; the intercept is the log-odds of the share of 1s."""
        share = self.targets.mean(axis=0)
        log_odds = np.log(share) - np.log1p(-share) if self.intercept else np.zeros_like(share)
        return np.zeros((self.features.shape[1], self.targets.shape[1])), log_odds


def log_loss(log_odds: Floats, outcomes: Floats) -> Floats:
    """Summed over rows: log(1 + exp(-z)) of a 1, log(1 + exp(z)) of a 0; [targets]."""
    return (np.logaddexp(0.0, log_odds) - outcomes * log_odds).sum(axis=0)


def minimise(outcomes: Outcomes, alpha: float, start: Fit, *, tolerance: Tolerance) -> Fit:
    """The weights and intercepts of least log loss + alpha / 2 |w|^2, from a start.

    Newton's steps, each solved by conjugate gradients only as far as it pays (Dembo and Steihaug 1983), with the
    intercept eliminated from every step and the loss never let rise. Raises DataError where a target gets nowhere.
    """
    coef, offset = start[0].copy(), start[1].copy()
    precondition = _preconditioner(outcomes, alpha, start)
    active = np.arange(len(offset))
    for _ in range(_MAX_STEPS):
        some = outcomes.of(active)
        state = _State.at(some, alpha, (coef[:, active], offset[active]))
        left = ~state.is_done(tolerance)
        if not left.any():
            return coef, offset
        active = active[left]
        state = state.of(left)
        coef[:, active], offset[active] = state.after(state.step(precondition))
    raise DataError(
        f"the logistic weights at alpha {alpha:g} did not converge in {_MAX_STEPS} steps ({len(active)} targets); "
        "raise the smallest of probes.alphas"
    )


@dataclass(frozen=True)
class _State:
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
    def at(outcomes: Outcomes, alpha: float, fit: Fit) -> _State:
        coef, offset = fit
        log_odds = outcomes.features @ coef + offset
        share = expit(log_odds)
        curvature = share * (1.0 - share)
        error = share - outcomes.targets
        slope = error.sum(axis=0) if outcomes.intercept else np.zeros_like(offset)
        error -= curvature * (slope / _sums(curvature))
        gradient = outcomes.features.T @ error + alpha * coef
        return _State(outcomes, alpha, coef, offset, log_odds, curvature, gradient, slope)

    def of(self, targets: Flags) -> _State:
        """Some of the targets."""
        parts = {
            name: getattr(self, name)[..., targets]
            for name in ("coef", "offset", "log_odds", "curvature", "gradient", "slope")
        }
        return replace(self, outcomes=self.outcomes.of(np.flatnonzero(targets)), **parts)

    def is_done(self, tolerance: Tolerance) -> Flags:
        """Which targets [targets] are near enough; the intercept's next step must be as small as the weights' error."""
        size = norms(self.gradient)
        weights = size <= np.maximum(
            tolerance.weights * self.alpha * norms(self.coef), tolerance.gradient * self.outcomes.largest
        )
        still = np.abs(self.slope) <= tolerance.weights * _sums(self.curvature) * np.maximum(1.0, np.abs(self.offset))
        done: Flags = weights & still
        return done

    def curve(self, direction: Floats) -> Floats:
        """The second derivative [features, targets] along a direction of weights, the intercept following along."""
        along = self.outcomes.features @ direction
        if self.outcomes.intercept:
            along -= dots(self.curvature, along) / _sums(self.curvature)
        along *= self.curvature
        return self.outcomes.features.T @ along + self.alpha * direction

    def step(self, precondition: Linear) -> Floats:
        """Newton's step of the weights, solved the closer the smaller the gradient is already."""
        size = norms(self.gradient)
        share = np.minimum(0.1, np.sqrt(size / max(self.outcomes.largest, 1e-300)))
        return conjugate_gradients(
            self.curve,
            -self.gradient,
            precondition=precondition,
            is_small=lambda residual, _: norms(residual) <= share * size,
        )

    def after(self, step: Floats) -> Fit:
        """Weights and intercepts after as much of the step as lowers the loss (Armijo's rule)."""
        along = self.outcomes.features @ step
        follow = np.zeros_like(self.offset)
        if self.outcomes.intercept:
            follow = -(self.slope + dots(self.curvature, along)) / _sums(self.curvature)
        along += follow
        before = self._loss(self.log_odds, self.coef)
        promised = dots(self.gradient, step) - self.slope**2 / _sums(self.curvature)
        length = np.ones_like(before)
        for _ in range(_MAX_HALVINGS):
            loss = self._loss(self.log_odds + length * along, self.coef + length * step)
            rises = loss > before + 1e-4 * length * promised + 1e-13 * np.abs(before)
            if not rises.any():
                break
            length[rises] *= 0.5
        return self.coef + length * step, self.offset + length * follow

    def _loss(self, log_odds: Floats, coef: Floats) -> Floats:
        return log_loss(log_odds, self.outcomes.targets) + 0.5 * self.alpha * dots(coef, coef)


def _preconditioner(outcomes: Outcomes, alpha: float, start: Fit) -> Linear:
    """Solves with the curvature as if all rows had its mean; where features are many, with its diagonal alone."""
    share = expit(outcomes.features @ start[0] + start[1])
    if outcomes.products is None:
        diagonal = alpha + (outcomes.features**2).T @ (share * (1.0 - share)).mean(axis=1)
        return lambda vectors: vectors / diagonal[:, None]
    factor = cholesky(float((share * (1.0 - share)).mean()) * outcomes.products, alpha)
    return lambda vectors: cho_solve(factor, vectors, check_finite=False)


def _sums(curvature: Floats) -> Floats:
    return np.maximum(curvature.sum(axis=0), 1e-300)
