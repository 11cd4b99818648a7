"""Each of the three solvers against scikit-learn's ridge, fold by fold, and proof that a fold held out stays out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.model_selection import GroupKFold, cross_val_predict

from lfp.errors import DataError
from lfp.probes import ridge as ridge_module
from lfp.probes.exact_ridge import Dual, Primal, Ridge
from lfp.probes.folds import HeldOutErrors, Solver, choose, choose_nested
from lfp.probes.iterative_ridge import CentredRows, Iterative
from lfp.probes.ridge import FoldedRidge, fit_folded_ridge, fit_ridge, folded_errors, place_scales
from tests.lfp.builders import sparse_features

ALPHAS = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)
N_FOLDS = 5
FEATURES = sparse_features(240, 30)
FOLDS = np.random.default_rng(1).choice(N_FOLDS, p=[0.1, 0.15, 0.2, 0.25, 0.3], size=240)
SOLVERS: dict[str, Callable[..., Solver[Ridge]]] = {
    "primal": Primal.from_rows,
    "dual": Dual.from_rows,
    "iterative": Iterative,
}
RTOL = {"primal": 1e-8, "dual": 1e-7, "iterative": 1e-7}
"""Of the weights' norm."""
every_solver = pytest.mark.parametrize("solver", SOLVERS)


def targets(features: sp.csr_array) -> np.ndarray:
    """Three targets of rising noise, the last all noise, so that each wants an alpha of its own; means far from 0."""
    rng = np.random.default_rng(2)
    signal = features @ rng.normal(size=(features.shape[1], 3))
    noise = rng.normal(size=(features.shape[0], 3))
    return signal * [1.0, 1.0, 0.0] + noise * [0.1, 12.0, 1.0] + [5.0, -3.0, 0.0]


TARGETS = targets(FEATURES)


def fit(
    solver: str, features: sp.csr_array = FEATURES, y: np.ndarray = TARGETS, folds: np.ndarray = FOLDS
) -> FoldedRidge:
    by_fold, whole = choose_nested(SOLVERS[solver](features, y, folds), N_FOLDS, np.array(ALPHAS))
    return FoldedRidge(tuple(by_fold), whole)


fitted = cache(fit)


def naive_alpha(x: np.ndarray, y: np.ndarray, folds: np.ndarray) -> float:
    """The alpha whose predictions, each fold in turn left out, have the least squared error."""
    errors = []
    for alpha in ALPHAS:
        split = GroupKFold(n_splits=len(np.unique(folds)))
        predicted = cross_val_predict(SklearnRidge(alpha=alpha, solver="cholesky"), x, y, groups=folds, cv=split)
        errors.append(((predicted - y) ** 2).sum())
    return ALPHAS[int(np.argmin(errors))]


def same(a: Ridge, b: Ridge) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("coef", "intercept", "alpha"))


def assert_close(a: Ridge, b: Any, target: int, rtol: float) -> None:
    """`b` is scikit-learn's, fitted to this target alone."""
    assert np.linalg.norm(a.coef[:, target] - b.coef_) <= rtol * np.linalg.norm(b.coef_)
    assert a.intercept[target] == pytest.approx(b.intercept_, rel=10 * rtol, abs=rtol)


@every_solver
@pytest.mark.parametrize("fold", [*range(N_FOLDS), None])
def test_alpha_and_coefficients_are_scikit_learns(solver: str, fold: int | None) -> None:
    """Fold None is the ridge of all rows."""
    rows = np.ones(len(FOLDS), bool) if fold is None else fold != FOLDS
    ridge = fitted(solver).whole if fold is None else fitted(solver).by_fold[fold]
    for target in range(3):
        x, y = FEATURES.toarray()[rows], TARGETS[rows, target]
        assert ridge.alpha[target] == naive_alpha(x, y, FOLDS[rows])
        expected = SklearnRidge(alpha=ridge.alpha[target], solver="cholesky").fit(x, y)
        assert_close(ridge, expected, target, RTOL[solver])


@every_solver
def test_more_features_than_rows_are_no_obstacle(solver: str) -> None:
    features = sparse_features(60, 150, density=0.2)
    y, folds = targets(features), np.arange(60) % N_FOLDS
    ridge = fit(solver, features, y, folds).by_fold[2]
    for target in range(3):
        x, of_target = features.toarray()[folds != 2], y[folds != 2, target]
        assert ridge.alpha[target] == naive_alpha(x, of_target, folds[folds != 2])
        assert_close(ridge, SklearnRidge(alpha=ridge.alpha[target]).fit(x, of_target), target, RTOL[solver])


@pytest.mark.parametrize(("rows", "features"), [(2600, 2200), (100, 2200), (300, 40)])
def test_the_size_chooses_the_solver_and_the_weights_stay_scikit_learns(rows: int, features: int) -> None:
    """Iterated, by products of rows, by products of features."""
    x = sparse_features(rows, features, density=0.01)
    y = targets(x)[:, :1]
    ridge = fit_folded_ridge(x, y, np.arange(rows) % 3, n_folds=3, alphas=(0.1, 1.0)).whole
    assert_close(ridge, SklearnRidge(alpha=ridge.alpha[0], solver="cholesky").fit(x.toarray(), y[:, 0]), 0, 1e-7)


def test_many_targets_beyond_the_exact_solvers_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 6,144 rows and features nothing is factored; sixteen targets at a time."""
    monkeypatch.setattr(ridge_module, "_NUMBERS_AT_ONCE", 0)
    x = sp.csr_array(sp.eye_array(6200)) * 2.0
    y = np.random.default_rng(0).normal(size=(6200, 18))
    ridge = fit_ridge(x, y, np.arange(6200) % 3, n_folds=3, alphas=(4.0, 1e6))
    penalty = 4.0 + ridge.alpha
    np.testing.assert_allclose(ridge.coef, 2.0 * (y - y.mean(axis=0)) / penalty, atol=1e-4)


def test_targets_choose_their_own_alphas() -> None:
    alpha = fitted("primal").whole.alpha
    assert alpha[0] < alpha[1] < alpha[2]
    assert len(fitted("primal").by_fold) == N_FOLDS and fitted("primal").whole.coef.shape == (30, 3)


@every_solver
def test_several_targets_at_once_equal_one_at_a_time(solver: str) -> None:
    together = fitted(solver)
    for target in range(3):
        alone = fit(solver, y=TARGETS[:, [target]])
        for one, single in zip((*together.by_fold, together.whole), (*alone.by_fold, alone.whole), strict=True):
            assert one.alpha[target] == single.alpha[0]
            np.testing.assert_allclose(one.coef[:, target], single.coef[:, 0], rtol=1e-6, atol=1e-9)


@every_solver
@pytest.mark.parametrize("fold", range(N_FOLDS))
def test_held_out_rows_leave_no_trace_in_their_folds_ridge(solver: str, fold: int) -> None:
    """Not even of rounding, however large the change, and were the features made dense."""
    out = fold == FOLDS
    moved = np.where(out[:, None], 1e3 * FEATURES.toarray() + 1.0, FEATURES.toarray())
    changed = fit(solver, y=np.where(out[:, None], 1e6 * TARGETS[::-1], TARGETS))
    for again in (changed, fit(solver, features=sp.csr_array(moved))):
        assert same(again.by_fold[fold], fitted(solver).by_fold[fold])
        assert not any(same(again.by_fold[k], fitted(solver).by_fold[k]) for k in range(N_FOLDS) if k != fold)


@pytest.mark.parametrize("solver", ["primal", "dual"])
@pytest.mark.parametrize("density", [0.01, 1.0])
def test_sparse_and_dense_products_are_the_same(solver: str, density: float) -> None:
    features = sparse_features(200, 100, density=density)
    y, folds = targets(features), np.arange(200) % N_FOLDS
    ridge = fit(solver, features, y, folds).whole
    for target in range(3):
        expected = SklearnRidge(alpha=ridge.alpha[target], solver="cholesky").fit(features.toarray(), y[:, target])
        assert_close(ridge, expected, target, 1e-7)


def test_features_that_fire_one_at_a_time_are_solved_as_any_others() -> None:
    """Token identity: one feature a row, whose products are a diagonal."""
    rng = np.random.default_rng(5)
    token = rng.integers(25, size=300)
    one_hot = sp.csr_array((rng.uniform(0.5, 2.0, 300), token, np.arange(301)), shape=(300, 25))
    y, folds = targets(one_hot), np.arange(300) % N_FOLDS
    ridge = fit("primal", one_hot, y, folds)
    for target in range(3):
        x = one_hot.toarray()[folds != 1]
        expected = SklearnRidge(alpha=ridge.by_fold[1].alpha[target], solver="cholesky").fit(x, y[folds != 1, target])
        assert_close(ridge.by_fold[1], expected, target, 1e-8)
        assert ridge.by_fold[1].alpha[target] == naive_alpha(x, y[folds != 1, target], folds[folds != 1])


@given(st.integers(0, 10_000), st.integers(12, 40), st.integers(1, 60), st.floats(0.02, 1.0))
@settings(max_examples=25, deadline=None)
def test_the_three_solvers_agree(seed: int, n_rows: int, width: int, density: float) -> None:
    x = sparse_features(n_rows, width, seed=seed, density=density)
    y = np.random.default_rng(seed).normal(size=(n_rows, 2)) + 3.0
    folds = np.arange(n_rows) % N_FOLDS
    exact, *others = (build(x, y, folds).fit((1, 3), np.array([0.1, 5.0])) for build in SOLVERS.values())
    for other in others:
        error = np.linalg.norm(other.coef - exact.coef, axis=0)
        assert (error <= 1e-6 * np.linalg.norm(exact.coef, axis=0) + 1e-12).all()
        np.testing.assert_allclose(other.intercept, exact.intercept, rtol=1e-5)


def test_targets_of_noise_are_given_up_early_and_every_alpha_is_the_exact_solvers() -> None:
    """Forty targets: two of signal, the others by permutations of it, as the nulls of a lexicon are."""
    x, rng = sparse_features(400, 120), np.random.default_rng(6)
    signal = x @ rng.normal(size=(120, 2)) + rng.normal(size=(400, 2))
    y = np.column_stack([signal, *(rng.permutation(signal[:, 0]) for _ in range(38))])
    folds, alphas = np.arange(400) % N_FOLDS, np.array(ALPHAS)
    exact, iterated = (choose_nested(SOLVERS[name](x, y, folds), N_FOLDS, alphas) for name in ("primal", "iterative"))
    for one, other in zip((*exact[0], exact[1]), (*iterated[0], iterated[1]), strict=True):
        np.testing.assert_array_equal(one.alpha, other.alpha)
    errors = Iterative(x, y, folds).errors([(fold,) for fold in range(N_FOLDS)], alphas)[()]
    untried = np.isinf(errors)
    assert untried[0].sum() > 20 and not untried[:, 0].all()
    every = Primal.from_rows(x, y, folds).errors([(fold,) for fold in range(N_FOLDS)], alphas)[()]
    np.testing.assert_allclose(errors[~untried], every[~untried], rtol=1e-2)


def test_weights_that_take_many_products_are_solved_by_a_factor_to_the_same_tolerance() -> None:
    features = sp.csr_array(FEATURES * np.geomspace(1e-2, 1e2, 30))
    rows = CentredRows(features, TARGETS, lambda: np.asarray((features.T @ features).toarray(), np.float32))
    start = np.zeros((30, 3))
    for alpha, takes_factor in ((1e8, False), (1e-3, True)):
        coef, is_factored = rows.solve(alpha, start, tolerance=1e-9)
        assert is_factored == takes_factor
        for target in range(3):
            expected = SklearnRidge(alpha=alpha, solver="cholesky").fit(features.toarray(), TARGETS[:, target]).coef_
            assert np.linalg.norm(coef[:, target] - expected) <= 1e-7 * np.linalg.norm(expected)


def test_a_lone_alpha_needs_no_folds() -> None:
    class NoErrors(Primal):
        def errors(self, left_out: Any, alphas: Any) -> Any:
            raise AssertionError

    whole = choose(NoErrors.from_rows(FEATURES, TARGETS, FOLDS), N_FOLDS, np.array([10.0]))
    assert whole.alpha.tolist() == [10.0] * 3


@every_solver
def test_features_that_never_fire_or_repeat_another_are_no_obstacle(solver: str) -> None:
    dense = FEATURES.toarray()
    dense[:, 3], dense[:, 5] = 0.0, dense[:, 4]
    found = fit(solver, features=sp.csr_array(dense)).whole
    assert not found.coef[3].any()
    np.testing.assert_allclose(found.coef[4], found.coef[5], rtol=1e-6)


@every_solver
def test_a_training_part_that_knows_nothing_predicts_its_mean(solver: str) -> None:
    """All that varies is held out; float32 features are no obstacle either."""
    out = FOLDS == 4
    dense = np.where(out[:, None], FEATURES.toarray(), 0.0).astype(np.float32)
    ridge = fit(solver, features=sp.csr_array(dense)).by_fold[4]
    assert not ridge.coef.any()
    np.testing.assert_allclose(ridge.intercept, TARGETS[~out].mean(axis=0))


@every_solver
def test_out_of_fold_predictions_follow_a_target_that_is_all_signal(solver: str) -> None:
    predicted = np.empty(len(FOLDS))
    for fold, ridge in enumerate(fitted(solver).by_fold):
        rows = np.flatnonzero(fold == FOLDS)
        predicted[rows] = FEATURES[rows] @ ridge.coef[:, 0] + ridge.intercept[0]
    assert ((predicted - TARGETS[:, 0]) ** 2).mean() < 0.02


BARRED = (np.random.default_rng(7).random((240, N_FOLDS)) < 0.12) & (np.arange(N_FOLDS) != FOLDS[:, None])


def naive_barred_alpha(target: int, unseen: tuple[int, ...]) -> float:
    """The alpha of least squared error where a fold is unseen, and with it the rows barred from it."""
    x, y, errors = FEATURES.toarray(), TARGETS[:, target], []
    for alpha in ALPHAS:
        total = 0.0
        for fold in set(range(N_FOLDS)) - set(unseen):
            out = [fold, *unseen]
            fitted_on = ~np.isin(FOLDS, out) & ~BARRED[:, out].any(axis=1)
            judged = (fold == FOLDS) & ~BARRED[:, list(unseen)].any(axis=1)
            reference = SklearnRidge(alpha=alpha, solver="cholesky").fit(x[fitted_on], y[fitted_on])
            total += ((reference.predict(x[judged]) - y[judged]) ** 2).sum()
        errors.append(total)
    return ALPHAS[int(np.argmin(errors))]


@every_solver
def test_rows_barred_from_a_fold_are_left_out_with_it_and_leave_no_trace(solver: str) -> None:
    found = choose_nested(SOLVERS[solver](FEATURES, TARGETS, FOLDS, BARRED), N_FOLDS, np.array(ALPHAS))[0]
    for fold, ridge in enumerate(found):
        kept = (fold != FOLDS) & ~BARRED[:, fold]
        for target in range(3):
            assert ridge.alpha[target] == naive_barred_alpha(target, (fold,))
            expected = SklearnRidge(alpha=ridge.alpha[target], solver="cholesky")
            assert_close(ridge, expected.fit(FEATURES.toarray()[kept], TARGETS[kept, target]), target, RTOL[solver])
    changed = TARGETS + 100.0 * BARRED[:, [2]]
    other = choose_nested(SOLVERS[solver](FEATURES, changed, FOLDS, BARRED), N_FOLDS, np.array(ALPHAS))[0]
    assert same(found[2], other[2]) and not same(found[1], other[1])


def test_a_fold_that_bars_all_other_rows_is_refused() -> None:
    barred = np.repeat([[True, False, False, False, False]], 240, axis=0)
    with pytest.raises(DataError, match=r"0 of 240 rows are left to fit on .* bar fewer"):
        fit_folded_ridge(FEATURES, TARGETS, FOLDS, n_folds=N_FOLDS, alphas=ALPHAS, barred=barred)


def test_probes_on_different_features_choose_one_alpha_by_the_sum_of_their_errors() -> None:
    noisy = sp.csr_array(FEATURES + sp.random_array(FEATURES.shape, density=0.3, rng=np.random.default_rng(3)))
    errors = [folded_errors(x, TARGETS, FOLDS, n_folds=N_FOLDS, alphas=ALPHAS) for x in (FEATURES, noisy)]
    alone = [fit_folded_ridge(x, TARGETS, FOLDS, n_folds=N_FOLDS, alphas=ALPHAS) for x in (FEATURES, noisy)]
    for error, ridge in zip(errors, alone, strict=True):
        assert error.choose(np.array(ALPHAS)).whole.tolist() == ridge.whole.alpha.tolist()
    common = HeldOutErrors.total(errors).choose(np.array(ALPHAS))
    together = fit_folded_ridge(noisy, TARGETS, FOLDS, n_folds=N_FOLDS, alphas=common)
    for fold in range(N_FOLDS):
        sums = errors[0].by_fold[fold] + errors[1].by_fold[fold]
        assert together.by_fold[fold].alpha.tolist() == [ALPHAS[i] for i in sums.argmin(axis=0)]
    total = ((TARGETS - TARGETS.mean(axis=0)) ** 2).sum(axis=0)
    assert (errors[0].whole.min(axis=0) < 1.05).all() and errors[0].whole[0, 0] * total[0] < 0.02 * 240


def test_the_fit_of_all_rows_alone_is_the_folded_fits() -> None:
    whole = fit_ridge(FEATURES, TARGETS, FOLDS, n_folds=N_FOLDS, alphas=ALPHAS)
    assert same(whole, fit_folded_ridge(FEATURES, TARGETS, FOLDS, n_folds=N_FOLDS, alphas=ALPHAS).whole)


def test_weights_that_rounding_keeps_from_the_tolerance_are_refused() -> None:
    rows = CentredRows(FEATURES * 1e3, TARGETS)
    with pytest.raises(DataError, match=r"at alpha 1e-14 cannot be computed .* raise the smallest of probes\.alphas"):
        rows.solve(1e-14, np.zeros((30, 3)), tolerance=1e-9)


def test_a_penalty_lost_in_rounding_is_refused() -> None:
    dense = FEATURES.toarray()
    dense[:, 5] = dense[:, 4]
    with pytest.raises(DataError, match=r"alpha 1e-30 is too small .* raise the smallest of probes\.alphas"):
        fit_ridge(sp.csr_array(dense), TARGETS, FOLDS, n_folds=N_FOLDS, alphas=(1e-30,))


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(DataError, match="fold 2 of 5 has no row"):
        fit_folded_ridge(FEATURES, TARGETS, np.where(FOLDS == 2, 3, FOLDS), n_folds=N_FOLDS, alphas=ALPHAS)
    with pytest.raises(DataError, match=r"set probes\.alphas"):
        fit_folded_ridge(FEATURES, TARGETS, FOLDS, n_folds=N_FOLDS, alphas=(0.0,))


def test_every_layer_gets_unit_mean_square_norm() -> None:
    features = sparse_features(240, 30)
    place_of = np.array([2] * 10 + [5] * 15 + [7] * 5)
    uneven = sp.csr_array(features.multiply(np.where(place_of == 5, 1e3, 1.0)))
    scales = place_scales(uneven, place_of)
    scaled = uneven.toarray() * scales
    for layer in (2, 5, 7):
        assert (scaled[:, place_of == layer] ** 2).sum(1).mean() == pytest.approx(1.0)
        assert np.ptp(scales[place_of == layer]) == 0


def test_a_silent_layer_stays_finite() -> None:
    scales = place_scales(sp.csr_array(np.array([[1.0, 0.0], [2.0, 0.0]])), np.array([0, 1]))
    assert np.isfinite(scales).all()
