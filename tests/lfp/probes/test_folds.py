"""Folds are even and keep groups together, and what cannot be fitted is refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from lfp.errors import DataError
from lfp.probes.folds import check_fit, group_folds, row_folds
from lfp.texts.vocabulary import word_folds
from tests.lfp.builders import sparse_features

X = sparse_features(12, 4)
Y = np.random.default_rng(0).normal(size=(12, 2))
FOLDS = np.arange(12) % 3
ALPHAS = (1.0,)


def test_words_are_spread_evenly_whatever_their_order() -> None:
    words = [f"w{i}" for i in range(23)]
    folds = word_folds(words, n_folds=5, seed=3)
    assert sorted(np.bincount(list(folds.values()))) == [4, 4, 5, 5, 5]
    assert folds == word_folds(words[::-1], n_folds=5, seed=3) != word_folds(words, n_folds=5, seed=4)


@given(st.integers(5, 80), st.integers(3, 5), st.integers(0, 9))
def test_rows_are_spread_evenly(n_rows: int, n_folds: int, seed: int) -> None:
    folds = row_folds(n_rows, n_folds=n_folds, seed=seed)
    assert np.ptp(np.bincount(folds, minlength=n_folds)) <= 1
    np.testing.assert_array_equal(folds, row_folds(n_rows, n_folds=n_folds, seed=seed))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60), st.integers(0, 9))
def test_no_group_is_in_two_folds(groups: list[str], seed: int) -> None:
    names = sorted(set(groups))
    if len(names) < 3:
        with pytest.raises(DataError, match=rf"{len(names)} words or pairs cannot fill 3 folds"):
            group_folds(groups, n_folds=3, seed=seed)
        return
    folds = group_folds(groups, n_folds=3, seed=seed)
    of_name = {name: set(folds[np.array(groups) == name].tolist()) for name in names}
    assert all(len(folds_of) == 1 for folds_of in of_name.values())
    assert np.ptp(np.bincount([min(folds_of) for folds_of in of_name.values()], minlength=3)) <= 1


@pytest.mark.parametrize("n_folds", [1, 2])
def test_too_few_folds_to_choose_alpha_on_are_refused(n_folds: int) -> None:
    with pytest.raises(DataError, match=r"set probes\.folds to 3 or more"):
        check_fit(X, Y, FOLDS % n_folds, n_folds, ALPHAS)


def test_a_fold_without_rows_is_refused() -> None:
    with pytest.raises(DataError, match="fold 1 of 3 has no row, so no word of it is held out"):
        check_fit(X, Y, np.where(FOLDS == 1, 2, FOLDS), 3, ALPHAS)


def test_a_fold_too_many_is_refused() -> None:
    with pytest.raises(DataError, match="row 5 is in fold 7, but the last of 3 is 2"):
        check_fit(X, Y, np.where(np.arange(12) == 5, 7, FOLDS), 3, ALPHAS)


def test_rows_that_differ_in_number_are_refused() -> None:
    with pytest.raises(DataError, match="12 rows of features, 11 of targets and 12 of folds"):
        check_fit(X, Y[:11], FOLDS, 3, ALPHAS)


def test_a_constant_target_is_named_with_its_value() -> None:
    with pytest.raises(DataError, match=r"target 1 of 2, counted from 0\) is the same on every row, 0\.1"):
        check_fit(X, np.column_stack([Y[:, 0], np.full(12, 0.1)]), FOLDS, 3, ALPHAS)


def test_feedback_that_is_no_number_is_named_by_its_row() -> None:
    with pytest.raises(DataError, match=r"the feedback of row 4 \(target 0 of 2"):
        check_fit(X, np.where(np.arange(12)[:, None] == 4, np.nan, Y), FOLDS, 3, ALPHAS)


def test_a_feature_that_is_no_number_is_named_by_its_row() -> None:
    dense = X.toarray()
    dense[7, 2] = np.inf
    with pytest.raises(DataError, match="feature 2 of row 7 is not a finite number"):
        check_fit(sp.csr_array(dense), Y, FOLDS, 3, ALPHAS)


@pytest.mark.parametrize("alphas", [(), (0.0, 1.0), (1.0, -1.0), (float("nan"),)])
def test_alphas_that_penalise_nothing_are_refused(alphas: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match=r"set probes\.alphas"):
        check_fit(X, Y, FOLDS, 3, alphas)
