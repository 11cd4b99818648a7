"""Intervals of a probe's weights where the rows of a word or pair are not independent of each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from scipy.linalg import cho_solve
from scipy.special import expit, stdtrit

from lfp.errors import DataError
from lfp.probes.exact_ridge import Ridge
from lfp.probes.linear_algebra import Linear, cholesky, conjugate_gradients, feature_products, norms
from lfp.probes.logistic import Logistic
from lfp.util.types import Flags, Floats

_FACTORED = 6144
_DRAWS, _AT_ONCE = 128, 64
_TOLERANCE = 1e-4


def clustered_intervals(
    features: sp.csr_array, targets: Floats, groups: ArrayLike, probe: Ridge | Logistic, *, intercept: bool = True
) -> tuple[Floats, Floats]:
    """Compute the ends [features] of 95 % intervals of the weights of a probe's first target; groups are independent.

    The sandwich of Liang and Zeger (1986), H^-1 (sum_g s_g s_g^T) H^-1, with s_g a group's summed score, H the
    penalised curvature, the intercept eliminated from both, G / (G - 1) for G groups and Student's t of G - 1 degrees
    of freedom (Cameron and Miller 2015). They say how the penalised weights would vary with other groups; they do not
    undo the penalty's pull to 0, nor count the choice of alpha. Features, targets and groups [rows] are those the probe
    was fitted to, and `intercept` is whether it has one. Above 6,144 features and 128 groups the sum over groups is
    estimated by 128 random signings of them; widths then have a standard error of 6 %. Raises DataError on fewer than
    two groups, and where the iteration above 6,144 features does not come near enough.
    """
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    n_groups = len(names)
    if n_groups < 2:
        raise DataError(f"{n_groups} word or pair gives weights no interval; pass more texts")
    curvature = _Curvature.of_probe(features, targets, probe, intercept=intercept)
    coef, alpha = probe.coef[:, 0], float(probe.alpha[0])
    is_wide = features.shape[1] > _FACTORED
    solve = curvature.solve_by_iteration(alpha) if is_wide else curvature.solve_by_factor(alpha)
    variance = np.zeros(len(coef))
    for block in _combinations(n_groups, is_drawn=is_wide and n_groups > _DRAWS):
        weighted = curvature.residual[:, None] * block[group_of]
        scores = features.T @ weighted - np.outer(curvature.mean, weighted.sum(axis=0))
        variance += (solve(scores) ** 2).sum(axis=1)
    half = stdtrit(n_groups - 1, 0.975) * np.sqrt(variance * n_groups / (n_groups - 1))
    return coef - half, coef + half


def _combinations(n_groups: int, *, is_drawn: bool) -> Iterator[Floats]:
    """Yield columns of the identity [groups, groups], or random signs of groups, some columns at a time.

    The mean of (sum_g sign_g m_g)^2 over signings is sum_g m_g^2 (Hutchinson 1990).
    """
    rng = np.random.default_rng(0)
    for start in range(0, _DRAWS if is_drawn else n_groups, _AT_ONCE):
        if is_drawn:
            yield rng.choice([-1.0, 1.0], size=(n_groups, _AT_ONCE)) / _DRAWS**0.5
        else:
            yield np.eye(n_groups, min(_AT_ONCE, n_groups - start), -start)


@dataclass(frozen=True)
class _Curvature:
    """A fit's rows with their residual and curvature (1 of ridge, p (1 - p) of logistic), and features' means by it."""

    features: sp.csr_array
    residual: Floats
    curvature: Floats
    mean: Floats

    @staticmethod
    def of_probe(features: sp.csr_array, targets: Floats, probe: Ridge | Logistic, *, intercept: bool) -> _Curvature:
        predicted = features @ probe.coef[:, 0] + probe.intercept[0]
        curvature = np.ones(len(predicted))
        if isinstance(probe, Logistic):
            predicted = expit(predicted)
            curvature = predicted * (1.0 - predicted)
        mean = features.T @ curvature / max(curvature.sum(), 1e-300) if intercept else np.zeros(features.shape[1])
        return _Curvature(features, targets - predicted, curvature, mean)

    def solve_by_factor(self, alpha: float) -> Linear:
        """Factor the penalised curvature; return what solves with it."""
        spread = self.features.multiply(np.sqrt(self.curvature)[:, None]).tocsr()
        products = feature_products(spread) - self.curvature.sum() * np.outer(self.mean, self.mean)
        factor = cholesky(products, alpha)
        return lambda vectors: cho_solve(factor, vectors, check_finite=False)

    def solve_by_iteration(self, alpha: float) -> Linear:
        """Return what solves with the penalised curvature by iteration, to 1e-4 of the solution's norm."""
        total = self.curvature.sum()
        squares = self.features.power(2).T @ self.curvature - total * self.mean**2
        diagonal = np.maximum(squares, 0.0)[:, None] + alpha

        def product(vectors: Floats) -> Floats:
            along = self.features @ vectors - self.mean @ vectors
            return (
                self.features.T @ (self.curvature[:, None] * along)
                - np.outer(self.mean, self.curvature @ along)
                + alpha * vectors
            )

        def is_small(residual: Floats, solution: Floats) -> Flags:
            return norms(residual) <= _TOLERANCE * alpha * norms(solution)

        def solve(right: Floats) -> Floats:
            found = conjugate_gradients(product, right, precondition=lambda v: v / diagonal, is_small=is_small)
            if not is_small(0.1 * (right - product(found)), found).all():
                raise DataError(f"no interval of the weights can be computed at alpha {alpha:g}; raise probes.alphas")
            return found

        return solve
