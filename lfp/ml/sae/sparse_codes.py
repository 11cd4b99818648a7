"""Features of a batch of tokens, sparse or dense, and the products with them that training needs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.ml.models.runtime import affine


@dataclass(frozen=True, eq=False)
class SparseCode:
    """Some entries of a matrix [n, width], row by row: `features` and `values` [nnz]; row i is `offsets[i:i + 2]`.

    The cost of every product is proportional to the entries, not to the width. Arrays are on the CPU.
    """

    offsets: Tensor
    features: Tensor
    values: Tensor
    width: int

    @staticmethod
    def from_mask(mask: Tensor, values: Tensor) -> SparseCode:
        """Take the entries of `values` [n, width] where `mask` [n, width] is set."""
        n, width = mask.shape
        flat = np.flatnonzero(mask.numpy().reshape(-1))
        firsts = np.arange(n + 1) * width
        offsets = np.searchsorted(flat, firsts)
        features = flat - np.repeat(firsts[:-1], np.diff(offsets))
        taken = values.reshape(-1)[torch.from_numpy(flat)]
        return SparseCode(torch.from_numpy(offsets), torch.from_numpy(features), taken, width)

    @staticmethod
    def from_largest(values: Tensor, indices: Tensor, width: int) -> SparseCode:
        """Take the positive ones of the k largest entries of each row: `values` and `indices`, both [n, k]."""
        indices, order = indices.sort(dim=1)
        values = values.gather(1, order)
        active = values > 0
        offsets = F.pad(active.sum(1).cumsum(0), (1, 0))
        return SparseCode(offsets, indices[active], values[active], width)

    def with_values(self, values: Tensor) -> SparseCode:
        """Return the same entries with other values [nnz]."""
        code = SparseCode(self.offsets, self.features, values, self.width)
        code.__dict__["_transpose"] = self._transpose
        return code

    def columns(self, per_feature: Tensor) -> Tensor:
        """Look up a value per feature [width] at every entry [nnz]."""
        return per_feature[self.features]

    def times(self, matrix: Tensor) -> Tensor:
        """Multiply by a matrix [width, d]: [n, d]."""
        return F.embedding_bag(self.features, matrix, self.offsets[:-1], mode="sum", per_sample_weights=self.values)

    def transposed_times(self, right: Tensor) -> Tensor:
        """Multiply the transpose by a matrix [n, d]: [width, d]."""
        rows, order, starts = self._transpose
        return F.embedding_bag(rows, right, starts, mode="sum", per_sample_weights=self.values[order])

    def sampled_product(self, left: Tensor, matrix: Tensor) -> Tensor:
        """Multiply row i of `left` [n, d] by row j of `matrix` [width, d] at every entry (i, j): [nnz]."""
        _silence_beta_warning()
        pattern = torch.sparse_csr_tensor(
            self.offsets,
            self.features,
            torch.zeros_like(self.values),
            (len(left), self.width),
            check_invariants=False,
        )
        return torch.sparse.sampled_addmm(pattern, left, matrix.T, beta=0.0).values()

    def sums(self) -> Tensor:
        """Sum every column [width]."""
        return torch.bincount(self.features, self.values.double(), minlength=self.width).to(self.values.dtype)

    def count_active(self) -> Tensor:
        """Count the entries of every column that are above zero [width], int64."""
        return torch.bincount(self.features[self.values > 0], minlength=self.width)

    @cached_property
    def _transpose(self) -> tuple[Tensor, Tensor, Tensor]:
        """Entries column by column: their rows, their index in `values`, and where each column starts."""
        numbered = np.arange(len(self.features), dtype=np.int32)
        pattern = (numbered, self.features.numpy().astype(np.int32), self.offsets.numpy().astype(np.int32))
        by_column = sp.csr_array(pattern, shape=(len(self.offsets) - 1, self.width)).tocsc()
        rows, order, starts = (
            torch.from_numpy(array).long() for array in (by_column.indices, by_column.data, by_column.indptr[:-1])
        )
        return rows, order, starts


@dataclass(frozen=True, eq=False)
class DenseCode:
    """A matrix of features [n, width]; the same products, as matrix products on any device."""

    values: Tensor

    def with_values(self, values: Tensor) -> DenseCode:
        """Return a code with other values [n, width]."""
        return DenseCode(values)

    def columns(self, per_feature: Tensor) -> Tensor:
        """Return a value per feature [width], which broadcasts over tokens."""
        return per_feature

    def times(self, matrix: Tensor) -> Tensor:
        """Multiply by a matrix [width, d]: [n, d]."""
        return affine(self.values, matrix.T)

    def transposed_times(self, right: Tensor) -> Tensor:
        """Multiply the transpose by a matrix [n, d]: [width, d]."""
        return affine(self.values.T, right.T)

    def sampled_product(self, left: Tensor, matrix: Tensor) -> Tensor:
        """Multiply every row of `left` [n, d] by every row of `matrix` [width, d]: [n, width]."""
        return affine(left, matrix)

    def sums(self) -> Tensor:
        """Sum every column [width]."""
        return self.values.sum(0)

    def count_active(self) -> Tensor:
        """Count the entries of every column that are above zero [width], int64."""
        return (self.values > 0).sum(0)


Code = SparseCode | DenseCode


@lru_cache(maxsize=1)
def _silence_beta_warning() -> None:
    """Trigger torch's warning that CSR tensors are in beta, which it gives once per process, and hide it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        none = torch.zeros(0, dtype=torch.int64)
        torch.sparse_csr_tensor(none.new_zeros(2), none, torch.zeros(0), (1, 1), check_invariants=False)
