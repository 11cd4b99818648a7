"""Ridge solved by conjugate gradients on sparse rows: for many rows of many features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import scipy.sparse as sp

from lfp.errors import DataError
from lfp.probes.exact_ridge import Ridge
from lfp.probes.folds import Folds, Split, fit_by_alpha
from lfp.probes.linear_algebra import Linear, column_means, conjugate_gradients, factor_roughly, is_sparse, norms
from lfp.util.types import Flags, Floats, Floats32, Ints

FACTORED_SIDE = 6144
"""Largest side of a matrix that is factored, for memory."""
_FINAL, _ROUGH = 1e-8, 1e-3
"""Tolerances of iterated weights: those returned, and those that only compare alphas."""
_PROVED = 1e-4
"""Relative error of weights beyond which they are refused."""
_WORSE = 1.01
"""How many times the error of the next larger alpha makes an alpha count as worse."""
_SPARSE_COST, _FEWEST_PRODUCTS = 16.0, 10


@dataclass(frozen=True)
class Iterative:
    """Solve by conjugate gradients on sparse rows, centred implicitly: for many rows of many features.

    The largest alphas need few products. An alpha that would need more than a factor costs gets one, in single
    precision, of the features' products, as long as these are at most `FACTORED_SIDE` features.
    """

    features: sp.csr_array
    targets: Floats
    folds: Ints
    barred: Flags | None = None

    @cached_property
    def split(self) -> Split:
        """Which rows are fitted on and judged."""
        return Split(self.folds, self.barred)

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return self.targets.shape[1]

    def errors(self, left_out: Sequence[Folds], alphas: Floats) -> dict[Folds, Floats]:
        """Sum the squared errors of held-out rows [alphas, targets] by the folds that choose no alpha.

        From the largest alpha on, each starts from the weights of the one before. Where the last two were each worse
        than the one before by a hundredth, smaller ones are not tried for that target, and their error is infinite.
        """
        paths, order = [_Path.start(self, folds) for folds in left_out], np.argsort(-alphas)
        groups = dict.fromkeys(others for path in paths for others in path.others)
        sums = {others: np.full((len(alphas), self.n_targets), np.inf) for others in groups}
        is_open = {others: np.ones(self.n_targets, bool) for others in groups}
        for step, place in enumerate(order):
            for others in groups:
                sums[others][place, is_open[others]] = 0.0
            for path in paths:
                targets = np.flatnonzero(np.any([is_open[others] for others in path.others], axis=0))
                if len(targets):
                    errors = path.judge(float(alphas[place]), targets)
                    for others, error in zip(path.others, errors, strict=True):
                        sums[others][place, targets] += error
            if step >= 2:
                for others, total in sums.items():
                    last, middle, first = total[order[step]], total[order[step - 1]], total[order[step - 2]]
                    is_open[others] &= (last <= _WORSE * middle) | (middle <= _WORSE * first)
        return sums

    def fit(self, left_out: Folds, alpha: Floats) -> Ridge:
        """Fit the ridge, each target at its own alpha [targets]."""
        rows = self.without(left_out)

        def solve(value: float, some: Ints) -> tuple[Floats, Floats]:
            chosen = replace(rows, targets=rows.targets[:, some])
            coef, _ = chosen.solve(value, np.zeros((self.features.shape[1], len(some))), tolerance=_FINAL)
            return coef, chosen.targets.mean(axis=0) - column_means(rows.features) @ coef

        return Ridge(*fit_by_alpha(alpha, solve), alpha)

    def without(self, left_out: Folds) -> CentredRows:
        """Select the rows that are kept, and their products where a factor may be needed."""
        kept = self.split.fitted(left_out)
        features = self.features[kept].astype(np.float64, copy=False)
        has_factor = self.features.shape[1] <= FACTORED_SIDE and is_sparse(self.features)
        return CentredRows(features, self.targets[kept], partial(self._add_products, left_out) if has_factor else None)

    @cached_property
    def _products(self) -> list[Floats32]:
        """The products [features, features] of each fold's rows that are never barred, in single precision."""
        is_free = ~self.split.is_ever_barred
        return [self._multiply(np.flatnonzero((self.folds == k) & is_free)) for k in range(int(self.folds.max()) + 1)]

    def _multiply(self, rows: Ints) -> Floats32:
        part = self.features[rows]
        return np.asarray((part.T @ part).toarray(), np.float32)

    def _add_products(self, left_out: Folds) -> Floats32:
        """Add up the products of the rows that are kept."""
        kept = [part for fold, part in enumerate(self._products) if fold not in left_out]
        fitted = self.split.fitted(left_out)
        barred = fitted[self.split.is_ever_barred[fitted]]
        kept += [self._multiply(barred)] if len(barred) else []
        total = kept[0].copy()
        for part in kept[1:]:
            total += part
        return total


@dataclass
class _Path:
    """The weights of all folds but those left out, as alpha falls, and the rows that they are judged on.

    `others` are the folds that choose no alpha where each left-out fold is judged.
    """

    rows: CentredRows
    held_out: list[tuple[sp.csr_array, Floats]]
    others: list[Folds]
    coef: Floats
    needs_factor: bool = False

    @staticmethod
    def start(solver: Iterative, left_out: Folds) -> _Path:
        """Start from weights of 0."""
        others = [tuple(each for each in left_out if each != fold) for fold in left_out]
        rows = [solver.split.judged(fold, rest) for fold, rest in zip(left_out, others, strict=True)]
        held_out = [(solver.features[judged], solver.targets[judged]) for judged in rows]
        coef = np.zeros((solver.features.shape[1], solver.n_targets))
        return _Path(solver.without(left_out), held_out, others, coef)

    def judge(self, alpha: float, targets: Ints) -> list[Floats]:
        """Compute the summed squared error [some targets] of each left-out fold at the next alpha."""
        rows = replace(self.rows, targets=self.rows.targets[:, targets])
        coef, self.needs_factor = rows.solve(
            alpha, self.coef[:, targets], tolerance=_ROUGH, needs_factor=self.needs_factor
        )
        self.coef[:, targets] = coef
        intercept = rows.targets.mean(axis=0) - column_means(rows.features) @ coef
        return [((y[:, targets] - x @ coef - intercept) ** 2).sum(axis=0) for x, y in self.held_out]


@dataclass(frozen=True)
class CentredRows:
    """Ridge on sparse rows less their mean, without making them dense.

    `products` computes X^T X [features, features], in single precision and not centred, where a factor may be used.
    """

    features: sp.csr_array
    targets: Floats
    products: Callable[[], Floats32] | None = None

    def solve(
        self, alpha: float, start: Floats, *, tolerance: float, needs_factor: bool = False
    ) -> tuple[Floats, bool]:
        """Compute the weights [features, targets] from a start, and whether that took a factor.

        They are within `tolerance` of the exact ones, relative to their norm: the residual r of the normal equations
        proves it, as their matrix is at least alpha I, so that |error| <= |r| / alpha. The proof is repeated, at ten
        times the tolerance, with the residual recomputed. Raises DataError where rounding keeps a target from it and
        from 1e-4.
        """
        n, mean = self.features.shape[0], column_means(self.features)
        squares = np.asarray(self.features.power(2).sum(axis=0)).ravel()
        diagonal = np.maximum(squares - n * mean**2, 0.0) + alpha
        right = self.features.T @ (self.targets - self.targets.mean(axis=0))

        def curve(vectors: Floats) -> Floats:
            """Multiply vectors [features, any] by Xc^T Xc + alpha I, Xc being the rows less their mean."""
            along = self.features @ vectors
            along -= along.mean(axis=0)
            return self.features.T @ along + alpha * vectors

        def improve(coef: Floats, precondition: Linear, at_most: int | None) -> tuple[Floats, Floats]:
            """Iterate from some weights; return new ones, and the bound on their relative error [targets]."""

            def is_small(residual: Floats, moved: Floats) -> Flags:
                return norms(residual) <= tolerance * alpha * norms(coef + moved)

            coef = coef + conjugate_gradients(
                curve, right - curve(coef), precondition=precondition, is_small=is_small, at_most=at_most
            )
            size = alpha * norms(coef)
            return coef, np.divide(norms(right - curve(coef)), size, out=np.zeros_like(size), where=size > 0)

        coef, bound, is_factored = start, np.full(start.shape[1], np.inf), False
        if self.products is None or not needs_factor:
            at_most = None if self.products is None else self._n_before_factor()
            coef, bound = improve(coef, lambda vectors: vectors / diagonal[:, None], at_most)
        if self.products is not None and (bound > 10.0 * tolerance).any():
            products, is_factored = self.products(), True
            products -= np.float32(n) * np.outer(mean, mean).astype(np.float32)
            coef, bound = improve(coef, factor_roughly(products, alpha), None)
        largest = max(10.0 * tolerance, _PROVED)
        if (missed := bound > largest).any():
            raise DataError(
                f"the weights at alpha {alpha:g} cannot be computed to {largest:g} of their size "
                f"({int(missed.sum())} of {len(missed)} targets); raise the smallest of probes.alphas"
            )
        return coef, is_factored

    def _n_before_factor(self) -> int:
        """Number of products that cost as much as a factor, by their operations: sparse ones take 16 times as long."""
        width, n_targets = self.features.shape[1], self.targets.shape[1]
        one = _SPARSE_COST * (4.0 * self.features.nnz + 24.0 * width) * (n_targets + 1.5)
        return max(_FEWEST_PRODUCTS, int(width**3 / 3.0 / one))
