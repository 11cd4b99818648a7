"""Conjugate gradients against a dense solver, and principal components against a singular value decomposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.probes.linear_algebra import conjugate_gradients, dots, factor_roughly, norms, principal_components


def definite(n: int, seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(n, n))
    return root @ root.T + np.eye(n)


def solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """To eleven digits, the diagonal as preconditioner."""
    return conjugate_gradients(
        lambda v: matrix @ v,
        right,
        precondition=lambda v: v / matrix.diagonal()[:, None],
        is_small=lambda residual, _: norms(residual) <= 1e-11 * norms(right),
    )


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_it_solves_what_a_dense_solver_solves(n: int, n_right: int, seed: int) -> None:
    matrix, right = definite(n, seed), np.random.default_rng(seed + 1).normal(size=(n, n_right))
    np.testing.assert_allclose(solved(matrix, right), np.linalg.solve(matrix, right), rtol=1e-6, atol=1e-8)


def test_a_right_side_of_nothing_gives_nothing_beside_others() -> None:
    right = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, -1.0]])
    found = solved(definite(3, 0), right)
    assert not found[:, 0].any()
    np.testing.assert_allclose(definite(3, 0) @ found[:, 1], right[:, 1], atol=1e-9)


def test_what_is_small_already_stays_where_it_is() -> None:
    right = np.ones((3, 2))
    found = conjugate_gradients(
        lambda v: 2.0 * v,
        right,
        precondition=lambda v: v,
        is_small=lambda r, _: np.array([True, False]) | (norms(r) == 0),
    )
    np.testing.assert_array_equal(found, [[0.0, 0.5]] * 3)


def test_it_ends_where_nothing_is_ever_small_enough() -> None:
    matrix, right = definite(4, 1), np.ones((4, 1))
    found = conjugate_gradients(
        lambda v: matrix @ v, right, precondition=lambda v: v, is_small=lambda r, _: np.zeros(1, bool)
    )
    np.testing.assert_allclose(matrix @ found, right, atol=1e-9)


def test_inner_products_are_of_columns() -> None:
    a, b = np.arange(6.0).reshape(3, 2), np.ones((3, 2))
    np.testing.assert_array_equal(dots(a, b), [6.0, 9.0])
    np.testing.assert_allclose(norms(a), [np.sqrt(20.0), np.sqrt(35.0)])


@pytest.mark.parametrize("build", [sp.csr_array, np.asarray], ids=["sparse", "dense"])
def test_principal_components_are_those_of_a_singular_value_decomposition(build: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    rows = np.abs(rng.normal(size=(80, 30)) * np.linspace(3, 0.5, 30)) * (rng.random((80, 30)) < 0.5)
    places = principal_components(build(rows))
    u, s, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    expected = u[:, :2] * s[:2]
    expected *= np.sign(expected[np.abs(expected).argmax(axis=0), [0, 1]])
    np.testing.assert_allclose(places, expected, atol=1e-9)
    assert (places[np.abs(places).argmax(axis=0), [0, 1]] > 0).all()
    np.testing.assert_allclose(principal_components(build(rows[::-1].copy()))[::-1], places, atol=1e-9)


@pytest.mark.parametrize("build", [sp.csr_array, np.asarray], ids=["sparse", "dense"])
@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (5, 1), (4, 0), (6, 3), (2, 3)])
def test_rows_that_are_equal_have_no_principal_components(shape: tuple[int, int], build: Callable[..., Any]) -> None:
    np.testing.assert_array_equal(principal_components(build(np.ones(shape))), np.zeros((shape[0], 2)))


@pytest.mark.parametrize("build", [sp.csr_array, np.asarray], ids=["sparse", "dense"])
@pytest.mark.parametrize("shape", [(4, 1), (2, 3)])
def test_one_component_leaves_the_second_coordinate_0(shape: tuple[int, int], build: Callable[..., Any]) -> None:
    places = principal_components(build(np.arange(np.prod(shape), dtype=float).reshape(shape)))
    assert places[:, 0].max() > 0
    np.testing.assert_allclose(places[:, 1], 0.0, atol=1e-12)


def test_a_rough_factor_solves_to_single_precision_whatever_the_size_of_the_residual() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 20))
    products = rows.T @ rows
    right = np.random.default_rng(1).normal(size=(20, 2)) * [1.0, 1e-60]
    found = factor_roughly(products.astype(np.float32), 0.5)(right)
    np.testing.assert_allclose(found, np.linalg.solve(products + 0.5 * np.eye(20), right), rtol=1e-3, atol=1e-70)
    assert not factor_roughly(products.astype(np.float32), 0.5)(np.zeros((20, 1))).any()


def test_a_penalty_lost_in_single_precision_is_raised() -> None:
    ones = np.ones((20, 20), np.float32)
    assert np.isfinite(factor_roughly(ones, 1e-30)(np.ones((20, 1)))).all()
