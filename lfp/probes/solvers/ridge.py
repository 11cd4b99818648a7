"""Ridge on all folds but some: by the products of features, by the products of rows, or by iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lfp.errors import DataError
from lfp.probes.solvers.conjugate import Linear, conjugate_gradients, norms
from lfp.probes.solvers.normal_equations import SPARSE_BELOW, Normal, OneHot, Ridge, Sums, means, row_products
from lfp.probes.solvers.penalty import each_at_its_own
from lfp.util.types import Flags, Floats, Ints

_FINAL, _ROUGH = 1e-5, 1e-3
"""Tolerances of iterated weights: those returned, and those that only tell alphas apart."""


@dataclass(frozen=True)
class Primal:
    """By the products of features [features, features] of each fold: for many rows, which are read once."""

    features: list[sp.csr_array]
    targets: list[Floats]
    sums: list[Sums]

    @staticmethod
    def of(features: sp.csr_array, targets: Floats, folds: Ints) -> Primal:
        """Sums up each fold."""
        rows = [np.flatnonzero(folds == k) for k in range(int(folds.max()) + 1)]
        parts, values = [features[one] for one in rows], [targets[one] for one in rows]
        return Primal(parts, values, [Sums.of(x, y) for x, y in zip(parts, values, strict=True)])

    @property
    def n_targets(self) -> int:
        """How many targets are fitted side by side."""
        return self.targets[0].shape[1]

    def errors(self, left_out: Sequence[int], judged: Sequence[int], alphas: Floats) -> list[Floats]:
        """For each judged fold, the summed squared errors [alphas, targets] of its rows."""
        equations = self._without(left_out)
        ridges = [equations.at(alpha) for alpha in alphas]
        return [np.stack([self._squared_error(fold, ridge) for ridge in ridges]) for fold in judged]

    def at(self, left_out: Sequence[int], alpha: Floats) -> Ridge:
        """The ridge, each target at its own alpha [targets]."""
        equations = self._without(left_out)
        return Ridge(*each_at_its_own(alpha, lambda one, targets: _pair(equations.at(one, targets))), alpha)

    def _without(self, left_out: Sequence[int]) -> Normal | OneHot:
        """Added up, never subtracted."""
        kept = [part for k, part in enumerate(self.sums) if k not in left_out]
        total = Sums(*(sum(getattr(part, name) for part in kept) for name in Sums.__dataclass_fields__))
        one_hot = np.count_nonzero(total.xx) == np.count_nonzero(np.diagonal(total.xx))
        return OneHot(total) if one_hot else Normal.of(total)

    def _squared_error(self, fold: int, ridge: Ridge) -> Floats:
        """By the rows where they are few and sparse, else by their sums: the same number either way."""
        x = self.features[fold]
        if x.nnz > SPARSE_BELOW * x.shape[1] ** 2:
            return self.sums[fold].squared_error(ridge)
        return ((self.targets[fold] - ridge.intercept - x @ ridge.coef) ** 2).sum(axis=0)


@dataclass(frozen=True)
class Dual:
    """By the products of rows [rows, rows]: for more features than rows. Weights are X^T u, (K + alpha I) u = y."""

    features: sp.csr_array
    targets: Floats
    folds: Ints
    products: Floats

    @staticmethod
    def of(features: sp.csr_array, targets: Floats, folds: Ints) -> Dual:
        """Multiplies every row with every row, fold by fold: what suits one fold's rows is no matter of another's."""
        rows = [np.flatnonzero(folds == k) for k in range(int(folds.max()) + 1)]
        parts = [features[one] for one in rows]
        products = np.empty((len(folds), len(folds)))
        for a, rows_a in enumerate(rows):
            for b, rows_b in enumerate(rows[: a + 1]):
                products[np.ix_(rows_a, rows_b)] = block = row_products(parts[a], parts[b])
                products[np.ix_(rows_b, rows_a)] = block.T
        return Dual(features, targets, folds, products)

    @property
    def n_targets(self) -> int:
        """How many targets are fitted side by side."""
        return self.targets.shape[1]

    def errors(self, left_out: Sequence[int], judged: Sequence[int], alphas: Floats) -> list[Floats]:
        """For each judged fold, the summed squared errors [alphas, targets] of its rows."""
        kept, row_means, equations = self._without(left_out)
        duals = np.hstack([equations.at(alpha).coef for alpha in alphas])
        held_out = [np.flatnonzero(self.folds == fold) for fold in judged]
        centred = [self.products[np.ix_(rows, kept)] @ duals - row_means @ duals for rows in held_out]
        predicted = [one.reshape(len(one), -1, self.n_targets) + equations.y_mean for one in centred]
        return [
            ((self.targets[rows][:, None] - y) ** 2).sum(axis=0) for rows, y in zip(held_out, predicted, strict=True)
        ]

    def at(self, left_out: Sequence[int], alpha: Floats) -> Ridge:
        """The ridge, each target at its own alpha [targets]."""
        kept, _, equations = self._without(left_out)
        duals, _ = each_at_its_own(alpha, lambda one, targets: _pair(equations.at(one, targets)))
        x = self.features[kept]
        coef = x.T @ duals
        return Ridge(coef, equations.y_mean - means(x) @ coef, alpha)

    def _without(self, left_out: Sequence[int]) -> tuple[Ints, Floats, Normal]:
        """The rows kept, their products' means, and their centred products as equations of duals instead of weights."""
        kept = np.flatnonzero(~np.isin(self.folds, left_out))
        products, targets = self.products[np.ix_(kept, kept)], self.targets[kept]
        row_means = products.mean(axis=0)
        products -= row_means
        products -= (row_means - row_means.mean())[:, None]
        y_mean = targets.mean(axis=0)
        return kept, row_means, Normal(products, targets - y_mean, np.zeros(len(kept)), y_mean)


@dataclass(frozen=True)
class Iterative:
    """By conjugate gradients on sparse rows, centred implicitly: for many rows of many features."""

    features: sp.csr_array
    targets: Floats
    folds: Ints

    @property
    def n_targets(self) -> int:
        """How many targets are fitted side by side."""
        return self.targets.shape[1]

    def errors(self, left_out: Sequence[int], judged: Sequence[int], alphas: Floats) -> list[Floats]:
        """For each judged fold, the squared errors [alphas, targets]; each alpha starts from the next larger."""
        rows = self._without(left_out)
        held_out = [(self.features[self.folds == fold], self.targets[self.folds == fold]) for fold in judged]
        errors = [np.empty((len(alphas), self.n_targets)) for _ in judged]
        coef = np.zeros((self.features.shape[1], self.n_targets))
        for place in np.argsort(-alphas):
            coef = rows.solve(float(alphas[place]), coef, tolerance=_ROUGH)
            intercept = rows.intercept(coef)
            for error, (x, y) in zip(errors, held_out, strict=True):
                error[place] = ((y - x @ coef - intercept) ** 2).sum(axis=0)
        return errors

    def at(self, left_out: Sequence[int], alpha: Floats) -> Ridge:
        """The ridge, each target at its own alpha [targets]."""
        rows = self._without(left_out)

        def fit(one: float, targets: Ints) -> tuple[Floats, Floats]:
            mine = CentredRows(rows.features, rows.targets[:, targets])
            coef = mine.solve(one, np.zeros((self.features.shape[1], len(targets))), tolerance=_FINAL)
            return coef, mine.intercept(coef)

        return Ridge(*each_at_its_own(alpha, fit), alpha)

    def _without(self, left_out: Sequence[int]) -> CentredRows:
        kept = ~np.isin(self.folds, left_out)
        return CentredRows(self.features[kept].astype(np.float64, copy=False), self.targets[kept])


@dataclass(frozen=True)
class CentredRows:
    """Ridge on sparse rows less their mean, without making them dense."""

    features: sp.csr_array
    targets: Floats

    def solve(self, alpha: float, start: Floats, *, tolerance: float) -> Floats:
        """The weights [features, targets] of these targets, from a start.

        They are within `tolerance` of the exact ones, relative to their norm: the residual r of the normal equations
        proves it, as their matrix is at least alpha I, so that |error| <= |r| / alpha. The proof is made again, at ten
        times the tolerance, with the residual computed afresh. Raises DataError where rounding keeps a target from it.
        """
        right = self.features.T @ (self.targets - self.targets.mean(axis=0))
        left = right - self.curve(start, alpha)

        def is_small(residual: Floats, moved: Floats, times: float = 1.0) -> Flags:
            return norms(residual) <= times * tolerance * alpha * norms(start + moved)

        step = conjugate_gradients(
            lambda vectors: self.curve(vectors, alpha), left, precondition=self._scaled(alpha), is_small=is_small
        )
        missed = ~is_small(right - self.curve(start + step, alpha), step, 10.0)
        if missed.any():
            raise DataError(
                f"the weights at alpha {alpha:g} cannot be computed to {10.0 * tolerance:g} of their size "
                f"({int(missed.sum())} of {len(missed)} targets); raise the smallest of probes.alphas"
            )
        return start + step

    def curve(self, vectors: Floats, alpha: float) -> Floats:
        """(Xc^T Xc + alpha I) v of vectors v [features, any], Xc being the rows less their mean."""
        along = self.features @ vectors
        along -= along.mean(axis=0)
        return self.features.T @ along + alpha * vectors

    def intercept(self, coef: Floats) -> Floats:
        """What makes predictions right on average [targets]."""
        return self.targets.mean(axis=0) - means(self.features) @ coef

    def _scaled(self, alpha: float) -> Linear:
        """Division by the diagonal: features that fire often and those that hardly do become alike (Jacobi)."""
        n = self.features.shape[0]
        squares = np.asarray(self.features.power(2).sum(axis=0)).ravel()
        diagonal = np.maximum(squares - n * means(self.features) ** 2, 0.0) + alpha
        return lambda vectors: vectors / diagonal[:, None]


def _pair(ridge: Ridge) -> tuple[Floats, Floats]:
    return ridge.coef, ridge.intercept
