"""Ridge solved exactly: by the products of features where there are many rows, by those of rows where there are few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_solve

from lfp.probes.folds import Folds, Split, fit_by_alpha, sum_errors
from lfp.probes.linear_algebra import SPARSE_BELOW, cholesky, column_means, feature_products, row_products
from lfp.util.types import Flags, Floats, Ints

Equations = Callable[[float, Ints], tuple[Floats, Floats]]
"""Solve for the coefficients [features, targets] and intercepts [targets] of some targets at one alpha."""


@dataclass(frozen=True)
class Ridge:
    """Linear predictions `x @ coef + intercept`: coef [features, targets]; intercept and alpha [targets]."""

    coef: Floats
    intercept: Floats
    alpha: Floats

    @staticmethod
    def concatenate(ridges: Sequence[Ridge]) -> Ridge:
        """Put ridges of different targets side by side."""
        return Ridge(
            np.hstack([ridge.coef for ridge in ridges]),
            np.concatenate([ridge.intercept for ridge in ridges]),
            np.concatenate([ridge.alpha for ridge in ridges]),
        )


@dataclass(frozen=True)
class Sums:
    """Count, sums and products of some rows of features and targets: all that ridge needs of them."""

    n: int
    x: Floats
    y: Floats
    xx: Floats
    xy: Floats
    yy: Floats

    @staticmethod
    def from_rows(x: sp.csr_array, y: Floats) -> Sums:
        """Sum up rows."""
        return Sums(
            len(y),
            np.asarray(x.sum(axis=0), dtype=np.float64).ravel(),
            y.sum(axis=0),
            feature_products(x),
            np.asarray(x.T @ y, dtype=np.float64),
            (y**2).sum(axis=0),
        )

    @staticmethod
    def total(parts: Sequence[Sums]) -> Sums:
        """Add up the sums of parts."""
        return Sums(*(sum(getattr(part, name) for part in parts) for name in Sums.__dataclass_fields__))

    def equations(self) -> Equations:
        """Prepare the centred normal equations: one Cholesky factor per alpha serves every target.

        Where no row has two features the products are a diagonal, and centring takes off one outer product (Sherman
        and Morrison).
        """
        x_mean, y_mean = self.x / self.n, self.y / self.n
        diagonal = np.diagonal(self.xx)
        if np.count_nonzero(self.xx) == np.count_nonzero(diagonal):

            def solve(alpha: float, targets: Ints) -> tuple[Floats, Floats]:
                penalised = diagonal + alpha
                plain = (self.xy[:, targets] - np.outer(self.x, y_mean[targets])) / penalised[:, None]
                along = x_mean / penalised
                coef = plain + np.outer(along, (self.x @ plain) / (1.0 - self.x @ along))
                return coef, y_mean[targets] - x_mean @ coef

            return solve
        gram = self.xx - self.n * np.outer(x_mean, x_mean)
        products = self.xy - self.n * np.outer(x_mean, y_mean)

        def solve_by_factor(alpha: float, targets: Ints) -> tuple[Floats, Floats]:
            coef = cho_solve(cholesky(gram, alpha), products[:, targets], check_finite=False)
            return coef, y_mean[targets] - x_mean @ coef

        return solve_by_factor

    def squared_error(self, coef: Floats, intercept: Floats) -> Floats:
        """Sum (y - x w - b)^2 over these rows, per target [targets]."""
        quadratic = np.einsum("ft,ft->t", coef, self.xx @ coef - 2.0 * self.xy + 2.0 * np.outer(self.x, intercept))
        return quadratic + self.yy + self.n * intercept**2 - 2.0 * intercept * self.y


@dataclass(frozen=True)
class Primal:
    """Solve by the products of features [features, features] of each fold: for many rows, which are read once.

    `sums` are of each fold's rows that are never barred; those that are, are summed up where they count.
    """

    features: sp.csr_array
    targets: Floats
    split: Split
    sums: list[Sums]

    @staticmethod
    def from_rows(features: sp.csr_array, targets: Floats, folds: Ints, barred: Flags | None = None) -> Primal:
        """Sum up each fold."""
        split = Split(folds, barred)
        rows = [np.flatnonzero((folds == k) & ~split.is_ever_barred) for k in range(int(folds.max()) + 1)]
        return Primal(features, targets, split, [Sums.from_rows(features[kept], targets[kept]) for kept in rows])

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return self.targets.shape[1]

    def errors(self, left_out: Sequence[Folds], alphas: Floats) -> dict[Folds, Floats]:
        """Sum the squared errors of held-out rows [alphas, targets] by the folds that choose no alpha."""
        return sum_errors(left_out, lambda folds: self._judge(folds, alphas))

    def _judge(self, left_out: Folds, alphas: Floats) -> list[Floats]:
        """Compute the summed squared errors [alphas, targets] of the rows of each fold.

        By the rows where these are few and sparse, else by their sums: the same number either way.
        """
        solve, targets = self._without(left_out), np.arange(self.n_targets)
        ridges = [solve(float(alpha), targets) for alpha in alphas]
        found = []
        for fold in left_out:
            rows = self.split.judged(fold, tuple(other for other in left_out if other != fold))
            x, y = self.features[rows], self.targets[rows]
            if x.nnz > SPARSE_BELOW * x.shape[1] ** 2:
                sums = self._sum([fold], rows)
                found.append(np.stack([sums.squared_error(*ridge) for ridge in ridges]))
            else:
                found.append(np.stack([((y - offset - x @ coef) ** 2).sum(axis=0) for coef, offset in ridges]))
        return found

    def fit(self, left_out: Folds, alpha: Floats) -> Ridge:
        """Fit the ridge, each target at its own alpha [targets]."""
        return Ridge(*fit_by_alpha(alpha, self._without(left_out)), alpha)

    def _without(self, left_out: Folds) -> Equations:
        """Add up the rows that are kept; subtracting the others would leave a trace of their rounding."""
        kept = [fold for fold in range(len(self.sums)) if fold not in left_out]
        return self._sum(kept, self.split.fitted(left_out)).equations()

    def _sum(self, folds: Sequence[int], rows: Ints) -> Sums:
        """Sum up `rows`, of which the folds hold those that are never barred."""
        parts = [self.sums[fold] for fold in folds]
        barred = rows[self.split.is_ever_barred[rows]]
        if len(barred):
            parts.append(Sums.from_rows(self.features[barred], self.targets[barred]))
        return Sums.total(parts)


@dataclass(frozen=True)
class Dual:
    """Solve by the products of rows [rows, rows]: for more features than rows.

    Weights are X^T u with (K + alpha I) u = y, the products K and the targets y centred.
    """

    features: sp.csr_array
    targets: Floats
    split: Split
    products: Floats

    @staticmethod
    def from_rows(features: sp.csr_array, targets: Floats, folds: Ints, barred: Flags | None = None) -> Dual:
        """Multiply every row with every row, fold by fold, so that no fold's rounding depends on another's rows."""
        rows = [np.flatnonzero(folds == k) for k in range(int(folds.max()) + 1)]
        parts = [features[kept] for kept in rows]
        products = np.empty((len(folds), len(folds)))
        for a, rows_a in enumerate(rows):
            for b, rows_b in enumerate(rows[: a + 1]):
                products[np.ix_(rows_a, rows_b)] = block = row_products(parts[a], parts[b])
                products[np.ix_(rows_b, rows_a)] = block.T
        return Dual(features, targets, Split(folds, barred), products)

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return self.targets.shape[1]

    def errors(self, left_out: Sequence[Folds], alphas: Floats) -> dict[Folds, Floats]:
        """Sum the squared errors of held-out rows [alphas, targets] by the folds that choose no alpha."""
        return sum_errors(left_out, lambda folds: self._judge(folds, alphas))

    def _judge(self, left_out: Folds, alphas: Floats) -> list[Floats]:
        """Compute the summed squared errors [alphas, targets] of the rows of each fold."""
        kept, row_means, products, targets, y_mean = self._without(left_out)
        duals = np.hstack([
            cho_solve(cholesky(products, alpha), targets, check_finite=False) for alpha in alphas
        ])  # fmt: skip
        errors = []
        for fold in left_out:
            rows = self.split.judged(fold, tuple(other for other in left_out if other != fold))
            centred = self.products[np.ix_(rows, kept)] @ duals - row_means @ duals
            predicted = centred.reshape(len(rows), -1, self.targets.shape[1]) + y_mean
            errors.append(((self.targets[rows][:, None] - predicted) ** 2).sum(axis=0))
        return errors

    def fit(self, left_out: Folds, alpha: Floats) -> Ridge:
        """Fit the ridge, each target at its own alpha [targets]."""
        kept, _, products, targets, y_mean = self._without(left_out)

        def solve(value: float, some: Ints) -> tuple[Floats, Floats]:
            return cho_solve(cholesky(products, value), targets[:, some], check_finite=False), y_mean[some]

        duals, _ = fit_by_alpha(alpha, solve)
        x = self.features[kept]
        coef = x.T @ duals
        return Ridge(coef, y_mean - column_means(x) @ coef, alpha)

    def _without(self, left_out: Folds) -> tuple[Ints, Floats, Floats, Floats, Floats]:
        """Select the rows kept: their numbers, means of products, centred products and targets, and targets' means."""
        kept = self.split.fitted(left_out)
        products, targets = self.products[np.ix_(kept, kept)], self.targets[kept]
        row_means = products.mean(axis=0)
        products -= row_means
        products -= (row_means - row_means.mean())[:, None]
        y_mean = targets.mean(axis=0)
        return kept, row_means, products, targets - y_mean, y_mean
