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

    The work of every product is proportional to the entries, not to the width. Arrays are on the CPU.
    """

    offsets: Tensor
    features: Tensor
    values: Tensor
    width: int

    def with_values(self, values: Tensor) -> SparseCode:
        """The same entries with other values [nnz]."""
        code = SparseCode(self.offsets, self.features, values, self.width)
        code.__dict__["_transpose"] = self._transpose
        return code

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def columns(self, of_feature: Tensor) -> Tensor:
        """A value a feature [width] at every entry [nnz]."""
        return of_feature[self.features]

    def times(self, matrix: Tensor) -> Tensor:
        """The product with a matrix [width, d]: [n, d]."""
        return F.embedding_bag(self.features, matrix, self.offsets[:-1], mode="sum", per_sample_weights=self.values)

    def back_times(self, right: Tensor) -> Tensor:
        """The transpose's product with a matrix [n, d]: [width, d]."""
        rows, order, starts = self._transpose
        return F.embedding_bag(rows, right, starts, mode="sum", per_sample_weights=self.values[order])

    def dots(self, left: Tensor, matrix: Tensor) -> Tensor:
        """At every entry (i, j) the product of row i of `left` [n, d] and row j of `matrix` [width, d]: [nnz]."""
        _silence_beta()
        pattern = torch.sparse_csr_tensor(
            self.offsets,
            self.features,
            torch.zeros_like(self.values),
            (len(left), self.width),
            check_invariants=False,
        )
        return torch.sparse.sampled_addmm(pattern, left, matrix.T, beta=0.0).values()

    def sums(self) -> Tensor:
        """Sum of every column [width]."""
        return torch.bincount(self.features, self.values.double(), minlength=self.width).to(self.values.dtype)

    def n_active(self) -> Tensor:
        """Entries of every column that are above zero [width], int64."""
        return torch.bincount(self.features[self.values > 0], minlength=self.width)

    def keep(self, kept: Tensor) -> SparseCode:
        """Only the entries marked in `kept` [nnz], bool."""
        places = np.flatnonzero(kept.numpy())
        if len(places) == len(kept):
            return self
        offsets = torch.from_numpy(np.searchsorted(places, self.offsets.numpy()))
        taken = torch.from_numpy(places)
        return SparseCode(offsets, self.features[taken], self.values[taken], self.width)

    @property
    def rows(self) -> Tensor:
        """The row of every entry [nnz]."""
        return torch.repeat_interleave(self.offsets.diff())

    def dense(self) -> Tensor:
        """The matrix [n, width], zero elsewhere."""
        full = self.values.new_zeros(len(self), self.width)
        full[self.rows, self.features] = self.values
        return full

    @cached_property
    def _transpose(self) -> tuple[Tensor, Tensor, Tensor]:
        """Entries column by column: their rows, their place in `values`, and where each column starts."""
        numbered = np.arange(len(self.features), dtype=np.int32)
        pattern = (numbered, self.features.numpy().astype(np.int32), self.offsets.numpy().astype(np.int32))
        turned = sp.csr_array(pattern, shape=(len(self), self.width)).tocsc()
        rows, order, starts = (torch.from_numpy(a).long() for a in (turned.indices, turned.data, turned.indptr[:-1]))
        return rows, order, starts


@dataclass(frozen=True, eq=False)
class DenseCode:
    """A matrix of features [n, width]; the same products, as matrix products on any device."""

    values: Tensor

    @property
    def width(self) -> int:
        """Features."""
        return self.values.shape[1]

    def with_values(self, values: Tensor) -> DenseCode:
        """Other values [n, width]."""
        return DenseCode(values)

    def __len__(self) -> int:
        return len(self.values)

    def columns(self, of_feature: Tensor) -> Tensor:
        """A value a feature [width], to be broadcast over tokens."""
        return of_feature

    def times(self, matrix: Tensor) -> Tensor:
        """The product with a matrix [width, d]: [n, d]."""
        return affine(self.values, matrix.T)

    def back_times(self, right: Tensor) -> Tensor:
        """The transpose's product with a matrix [n, d]: [width, d]."""
        return affine(self.values.T, right.T)

    def dots(self, left: Tensor, matrix: Tensor) -> Tensor:
        """The product of every row of `left` [n, d] with every row of `matrix` [width, d]: [n, width]."""
        return affine(left, matrix)

    def sums(self) -> Tensor:
        """Sum of every column [width]."""
        return self.values.sum(0)

    def n_active(self) -> Tensor:
        """Entries of every column that are above zero [width], int64."""
        return (self.values > 0).sum(0)

    def dense(self) -> Tensor:
        """The matrix itself."""
        return self.values


Code = SparseCode | DenseCode


def sparse_code(mask: Tensor, values: Tensor | None = None) -> SparseCode:
    """The entries of a bool matrix [n, width] that are set, with their values in a matrix of that shape, else zeros."""
    n, width = mask.shape
    flat = np.flatnonzero(mask.numpy().reshape(-1))
    firsts = np.arange(n + 1) * width
    offsets = np.searchsorted(flat, firsts)
    features = flat - np.repeat(firsts[:-1], np.diff(offsets))
    taken = torch.zeros(len(flat)) if values is None else values.reshape(-1)[torch.from_numpy(flat)]
    return SparseCode(torch.from_numpy(offsets), torch.from_numpy(features), taken, width)


@lru_cache(maxsize=1)
def _silence_beta() -> None:
    """Torch says once a process that CSR tensors are in beta; nobody who runs a job can act on it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        none = torch.zeros(0, dtype=torch.int64)
        torch.sparse_csr_tensor(none.new_zeros(2), none, torch.zeros(0), (1, 1), check_invariants=False)
