"""Ridge probes on sparse features: a penalty per target, chosen by folds, by the solver that suits the size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_solve

from lfp.errors import DataError
from lfp.probes.folds import (
    Folds,
    HeldOutErrors,
    Penalties,
    Solver,
    Split,
    check_fit,
    choose,
    choose_nested,
    fit_by_alpha,
    fit_nested,
    held_out_errors,
    sum_errors,
)
from lfp.probes.linear_algebra import (
    SPARSE_BELOW,
    Linear,
    cholesky,
    column_means,
    conjugate_gradients,
    factor_roughly,
    feature_products,
    is_sparse,
    norms,
    row_products,
)
from lfp.util.types import Flags, Floats, Floats32, Ints

Equations = Callable[[float, Ints], tuple[Floats, Floats]]
"""Solve for the coefficients [features, targets] and intercepts [targets] of some targets at one alpha."""

_SIDE_WITH_FACTOR, _SIDE_OF_ONE, _SIDE = 640, 2048, 6144
"""Sides of the matrix that the exact solvers factor: up to where iterating sparse features is quicker for one target,
with a factor in single precision and without (an exact factor costs side^3 and serves all targets, iterating costs as
much again for each), and at the very most, for memory."""
_NUMBERS_AT_ONCE = 2_000_000
"""Weights that are iterated at once: 16 targets or more."""
_FINAL, _ROUGH = 1e-8, 1e-3
"""Tolerances of iterated weights: those returned, and those that only compare alphas."""
_PROVED = 1e-4
"""Relative error of weights beyond which they are refused."""
_WORSE = 1.01
"""How many times the error of the next larger alpha makes an alpha count as worse."""
_SPARSE_COST, _FEWEST_PRODUCTS = 16.0, 10


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
class FoldedRidge:
    """`by_fold[k]` never saw a row of fold k, neither in its fit nor in the choice of alpha; `whole` saw all rows."""

    by_fold: tuple[Ridge, ...]
    whole: Ridge


def fit_folded_ridge(
    features: sp.csr_array,
    targets: Floats,
    folds: Ints,
    *,
    n_folds: int,
    alphas: Sequence[float] | Penalties,
    barred: Flags | None = None,
) -> FoldedRidge:
    """Fit ridge probes of targets [rows, targets] on features [rows, features], with an unpenalised intercept.

    Each target has its own alpha, the one with the least squared error over inner folds (the remaining folds, in
    turn), unless alphas are chosen already. Rows that are `barred` [rows, folds] from a fold are left out with it. The
    loss is |y - x w - b|^2 + alpha |w|^2, scikit-learn's. Where rows or features are few (640 for one target, up to
    6,144 for many or for dense features), the weights are exact; beyond that they are iterated to a relative error of
    1e-8 (1e-3 while alphas are compared), and the features never made dense. Raises DataError where a fold has no row,
    a target is constant, or no error below 1e-4 can be proved.
    """
    split = Split(folds, barred)
    _check(features, targets, split, n_folds, alphas.whole.tolist() if isinstance(alphas, Penalties) else alphas)
    parts, start = [], 0
    for solver in _choose_solvers(features, targets, split):
        if isinstance(alphas, Penalties):
            parts.append(fit_nested(solver, alphas.select(slice(start, start + solver.n_targets))))
        else:
            parts.append(choose_nested(solver, n_folds, np.asarray(alphas, float)))
        start += solver.n_targets
    by_fold = tuple(Ridge.concatenate(ridges) for ridges in zip(*(ridges for ridges, _ in parts), strict=True))
    return FoldedRidge(by_fold, Ridge.concatenate([whole for _, whole in parts]))


def folded_errors(
    features: sp.csr_array,
    targets: Floats,
    folds: Ints,
    *,
    n_folds: int,
    alphas: Sequence[float],
    barred: Flags | None = None,
) -> HeldOutErrors:
    """Compute the squared errors by which `fit_folded_ridge` chooses alphas, as shares of the targets' variance.

    Summed over probes of the same targets on different features, they choose one alpha for all of them.
    """
    split = Split(folds, barred)
    _check(features, targets, split, n_folds, alphas)
    parts = [
        held_out_errors(solver, n_folds, np.asarray(alphas, float))
        for solver in _choose_solvers(features, targets, split)
    ]
    return HeldOutErrors.concatenate(parts).relative(((targets - targets.mean(axis=0)) ** 2).sum(axis=0))


def _check(features: sp.csr_array, targets: Floats, split: Split, n_folds: int, alphas: Sequence[float]) -> None:
    check_fit(features, targets, split.folds, n_folds, alphas)
    split.require_rows(n_folds)


def fit_ridge(
    features: sp.csr_array,
    targets: Floats,
    folds: Ints,
    *,
    n_folds: int,
    alphas: Sequence[float],
    barred: Flags | None = None,
) -> Ridge:
    """Fit `fit_folded_ridge(...).whole` alone, a third of the work: no fold is kept out of the choice of alpha."""
    split = Split(folds, barred)
    _check(features, targets, split, n_folds, alphas)
    solvers = _choose_solvers(features, targets, split)
    return Ridge.concatenate([choose(solver, n_folds, np.asarray(alphas, float)) for solver in solvers])


def _choose_solvers(features: sp.csr_array, targets: Floats, split: Split) -> Sequence[Solver[Ridge]]:
    """Choose one solver, or several of a few targets where each target carries vectors as long as the features."""
    (n_rows, width), n_targets = features.shape, targets.shape[1]
    of_one = _SIDE_WITH_FACTOR if width <= _SIDE else _SIDE_OF_ONE
    largest = of_one * n_targets ** (1 / 3) if is_sparse(features) else _SIDE
    if min(n_rows, width) <= min(_SIDE, largest):
        solver = Primal if width <= n_rows else Dual
        return [solver.from_rows(features, targets, split.folds, split.barred)]
    at_once = max(16, _NUMBERS_AT_ONCE // width)
    return [
        Iterative(features, targets[:, start : start + at_once], split.folds, split.barred)
        for start in range(0, n_targets, at_once)
    ]


def place_scales(features: sp.csr_array, place_of: Ints) -> Floats:
    """Compute the factor of each feature [features] that gives its place unit mean square norm over rows."""
    squares = np.asarray(features.multiply(features).sum(axis=0)).ravel() / max(1, features.shape[0])
    of_place = np.bincount(place_of, squares)
    return 1.0 / np.sqrt(np.maximum(of_place, 1e-30))[place_of]


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


@dataclass(frozen=True)
class Iterative:
    """Solve by conjugate gradients on sparse rows, centred implicitly: for many rows of many features.

    The largest alphas need few products. An alpha that would need more than a factor costs gets one, in single
    precision, of the features' products, as long as these are at most `_SIDE` features.
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
        has_factor = self.features.shape[1] <= _SIDE and is_sparse(self.features)
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
