"""Ridge probes against scikit-learn's, fold by fold, and proof that a fold held out stays out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.model_selection import GroupKFold, cross_val_predict

from lfp.errors import DataError
from lfp.probes import FoldedRidge, Ridge, fit_folded_ridge, layer_scales, word_folds
from tests.lfp.builders import sparse_features

ALPHAS = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)
N_FOLDS = 5
FEATURES = sparse_features(240, 30)
FOLDS = np.random.default_rng(1).choice(N_FOLDS, p=[0.1, 0.15, 0.2, 0.25, 0.3], size=240)


def targets() -> np.ndarray:
    """Three targets of rising noise, the last all noise, so that each wants an alpha of its own; means far from 0."""
    rng = np.random.default_rng(2)
    signal = FEATURES @ rng.normal(size=(30, 3))
    return signal * [1.0, 1.0, 0.0] + rng.normal(size=(240, 3)) * [0.1, 12.0, 1.0] + [5.0, -3.0, 0.0]


TARGETS = targets()


def fit(features: sp.csr_array = FEATURES, y: np.ndarray = TARGETS, folds: np.ndarray = FOLDS) -> FoldedRidge:
    return fit_folded_ridge(features, y, folds, n_folds=N_FOLDS, alphas=ALPHAS)


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


@pytest.fixture(scope="module")
def fitted() -> FoldedRidge:
    return fit()


@pytest.mark.parametrize("target", range(3))
@pytest.mark.parametrize("fold", [*range(N_FOLDS), None])
def test_alpha_and_coefficients_are_scikit_learns(fitted: FoldedRidge, fold: int | None, target: int) -> None:
    """Fold None is the ridge of all rows."""
    rows = np.ones(len(FOLDS), bool) if fold is None else fold != FOLDS
    ridge = fitted.whole if fold is None else fitted.by_fold[fold]
    x, y = FEATURES.toarray()[rows], TARGETS[rows, target]
    assert ridge.alpha[target] == naive_alpha(x, y, FOLDS[rows])
    expected = SklearnRidge(alpha=ridge.alpha[target], solver="cholesky").fit(x, y)
    np.testing.assert_allclose(ridge.coef[:, target], expected.coef_, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(ridge.intercept[target], expected.intercept_, rtol=1e-8)


def test_targets_choose_their_own_alphas(fitted: FoldedRidge) -> None:
    assert fitted.whole.alpha[0] < fitted.whole.alpha[1] < fitted.whole.alpha[2]
    assert len(fitted.by_fold) == N_FOLDS and fitted.whole.coef.shape == (30, 3)


def test_several_targets_at_once_equal_one_at_a_time(fitted: FoldedRidge) -> None:
    for target in range(3):
        alone = fit(y=TARGETS[:, [target]])
        for together, single in zip((*fitted.by_fold, fitted.whole), (*alone.by_fold, alone.whole), strict=True):
            assert together.alpha[target] == single.alpha[0]
            np.testing.assert_allclose(together.coef[:, target], single.coef[:, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fold", range(N_FOLDS))
def test_held_out_rows_leave_no_trace_in_their_folds_ridge(fitted: FoldedRidge, fold: int) -> None:
    """Not even of rounding, however large the change."""
    out = fold == FOLDS
    changed = fit(y=np.where(out[:, None], 1e6 * TARGETS[::-1], TARGETS))
    moved = fit(features=sp.csr_array(FEATURES.multiply(np.where(out, 1e3, 1.0)[:, None])))
    for again in (changed, moved):
        assert same(again.by_fold[fold], fitted.by_fold[fold])
        assert not any(same(again.by_fold[k], fitted.by_fold[k]) for k in range(N_FOLDS) if k != fold)


def test_features_that_never_fire_or_repeat_another_are_no_obstacle() -> None:
    dense = FEATURES.toarray()
    dense[:, 3], dense[:, 5] = 0.0, dense[:, 4]
    found = fit(features=sp.csr_array(dense)).whole
    assert not found.coef[3].any()
    np.testing.assert_allclose(found.coef[4], found.coef[5], rtol=1e-6)


def test_a_fold_without_rows_is_refused() -> None:
    with pytest.raises(DataError, match="fold 2 of 5 has no row"):
        fit(folds=np.where(FOLDS == 2, 3, FOLDS))


def test_one_constant_target_among_others_is_refused() -> None:
    with pytest.raises(DataError, match="same on every row"):
        fit(y=np.column_stack([TARGETS, np.full(len(TARGETS), 0.1)]))


@pytest.mark.parametrize("n_folds", [1, 2])
def test_too_few_folds_to_choose_alpha_on_are_refused(n_folds: int) -> None:
    with pytest.raises(DataError, match=r"set probes\.folds to 3 or more"):
        fit_folded_ridge(FEATURES, TARGETS, FOLDS % n_folds, n_folds=n_folds, alphas=ALPHAS)


def test_every_layer_gets_unit_mean_square_norm() -> None:
    layer_of = np.array([2] * 10 + [5] * 15 + [7] * 5)
    uneven = sp.csr_array(FEATURES.multiply(np.where(layer_of == 5, 1e3, 1.0)))
    scales = layer_scales(uneven, layer_of)
    scaled = uneven.toarray() * scales
    for layer in (2, 5, 7):
        assert (scaled[:, layer_of == layer] ** 2).sum(1).mean() == pytest.approx(1.0)
        assert np.ptp(scales[layer_of == layer]) == 0


def test_a_silent_layer_stays_finite() -> None:
    scales = layer_scales(sp.csr_array(np.array([[1.0, 0.0], [2.0, 0.0]])), np.array([0, 1]))
    assert np.isfinite(scales).all()


def test_words_are_dealt_evenly_whatever_their_order() -> None:
    words = [f"w{i}" for i in range(23)]
    folds = word_folds(words, n_folds=5, seed=3)
    assert sorted(np.bincount(list(folds.values()))) == [4, 4, 5, 5, 5]
    assert folds == word_folds(words[::-1], n_folds=5, seed=3) != word_folds(words, n_folds=5, seed=4)


def test_a_ridge_predicts_what_its_fields_say(fitted: FoldedRidge) -> None:
    """The first target is nearly all signal: out-of-fold predictions must follow it, shuffled features must not."""
    predicted = np.empty(len(FOLDS))
    for fold, ridge in enumerate(fitted.by_fold):
        rows = fold == FOLDS
        predicted[rows] = FEATURES[rows] @ ridge.coef[:, 0] + ridge.intercept[0]
    assert ((predicted - TARGETS[:, 0]) ** 2).mean() < 0.02
    assert replace(fitted.whole).alpha.shape == (3,)
