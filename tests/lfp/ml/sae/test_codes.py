"""Sparse and dense codes of the same matrix: the same products, whatever is empty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lfp.ml.sae.sparse_codes import Code, DenseCode, SparseCode

D = 3


@dataclass(frozen=True)
class Case:
    """A matrix of small integers, so that no sum is rounded; some of its entries are zero."""

    mask: Tensor
    values: Tensor

    @property
    def sparse(self) -> SparseCode:
        return SparseCode.from_mask(self.mask, self.values)

    @property
    def dense(self) -> DenseCode:
        return DenseCode(self.values * self.mask)


def integers(*shape: int, seed: int) -> Tensor:
    rng = np.random.default_rng([seed, *shape])
    return torch.from_numpy(rng.integers(-3, 4, shape).astype(np.float32))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Random patterns with empty rows and columns, among them no entry at all and no row at all."""
    n, width, seed = draw(st.integers(0, 7)), draw(st.integers(1, 9)), draw(st.integers(0, 999))
    rng = np.random.default_rng(seed)
    mask = rng.random((n, width)) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    mask[rng.random(n) < 0.3] = False
    mask[:, rng.random(width) < 0.3] = False
    return Case(torch.from_numpy(mask), integers(n, width, seed=seed))


def same(found: Tensor, expected: Tensor) -> None:
    """Equal, in shape and type too."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@given(cases())
def test_entries_are_those_of_the_mask_in_order(case: Case) -> None:
    code = case.sparse
    rows, features = case.mask.nonzero(as_tuple=True)
    same(torch.repeat_interleave(code.offsets.diff()), rows)
    same(code.features, features)
    same(code.values, case.values[case.mask])
    assert code.offsets.tolist() == [0, *case.mask.sum(1).cumsum(0).tolist()]
    assert code.width == case.mask.shape[1]


def matrix_of(code: Code, n: int, width: int) -> Tensor:
    """The matrix that a code stands for, by its product with the identity."""
    return code.times(torch.eye(width)).reshape(n, width)


@given(cases())
def test_both_give_the_matrix_back(case: Case) -> None:
    for code in (case.sparse, case.dense):
        same(matrix_of(code, *case.mask.shape), case.values * case.mask)


@given(cases(), st.integers(1, 9))
def test_the_largest_of_each_row_are_kept_where_positive(case: Case, k: int) -> None:
    k, distinct = min(k, case.mask.shape[1]), case.values + torch.rand(case.values.shape) * 0.5
    values, indices = distinct.topk(k, dim=1, sorted=False)
    found = SparseCode.from_largest(values, indices, case.mask.shape[1])
    kept = torch.zeros_like(case.mask).scatter_(1, indices, True) & (distinct > 0)
    expected = SparseCode.from_mask(kept, distinct)
    for name in ("offsets", "features", "values"):
        same(getattr(found, name), getattr(expected, name))


@given(cases())
def test_products_are_those_of_the_matrix(case: Case) -> None:
    (n, width), matrix = case.mask.shape, case.values * case.mask
    of_features, of_rows = integers(width, D, seed=1), integers(n, D, seed=2)
    for code in (case.sparse, case.dense):
        same(code.times(of_features), matrix @ of_features)
        same(code.transposed_times(of_rows), matrix.T @ of_rows)
        same(code.sums(), matrix.sum(0))
        same(code.count_active(), (matrix > 0).sum(0))


@given(cases())
def test_dots_are_taken_at_the_entries_alone(case: Case) -> None:
    n, width = case.mask.shape
    left, matrix = integers(n, D, seed=3), integers(width, D, seed=4)
    same(case.dense.sampled_product(left, matrix), left @ matrix.T)
    same(case.sparse.sampled_product(left, matrix), (left @ matrix.T)[case.mask])


@given(cases())
def test_a_value_a_feature_meets_every_entry_of_that_feature(case: Case) -> None:
    of_feature = integers(case.mask.shape[1], seed=5)
    everywhere = of_feature.expand(case.mask.shape)
    same(case.sparse.columns(of_feature), everywhere[case.mask])
    same(case.dense.columns(of_feature).expand(case.mask.shape), everywhere)


@given(cases())
def test_other_values_take_the_same_places(case: Case) -> None:
    others, right = integers(*case.mask.shape, seed=7), integers(len(case.mask), D, seed=8)
    sparse = case.sparse
    changed = sparse.with_values(others[case.mask])
    same(matrix_of(changed, *case.mask.shape), others * case.mask)
    same(changed.transposed_times(right), (others * case.mask).T @ right)
    same(case.dense.with_values(others).values, others)
    same(sparse.values, case.values[case.mask])


@given(cases())
def test_products_of_fractions_agree_but_for_rounding(case: Case) -> None:
    generator = torch.Generator().manual_seed(9)
    values = torch.randn(case.mask.shape, generator=generator)
    of_features, of_rows = (torch.randn(n, D, generator=generator) for n in reversed(case.mask.shape))
    sparse, dense = SparseCode.from_mask(case.mask, values), DenseCode(values * case.mask)
    for name, right in (("times", of_features), ("transposed_times", of_rows)):
        torch.testing.assert_close(getattr(sparse, name)(right), getattr(dense, name)(right), rtol=1e-6, atol=1e-6)
    dots = dense.sampled_product(of_rows, of_features)[case.mask]
    torch.testing.assert_close(sparse.sampled_product(of_rows, of_features), dots, rtol=1e-6, atol=1e-6)


def test_sums_lose_nothing_to_large_entries_of_the_same_feature() -> None:
    values = torch.tensor([[1e8], [1.0], [-1e8]])
    assert SparseCode.from_mask(values != 0, values).sums().tolist() == [1.0]
