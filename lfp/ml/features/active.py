"""Find the active entries of dense features, order them by feature, and add up totals of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfp.ml.features.grouping import concatenate_offsets, concatenate_slices
from lfp.util.types import Floats, Floats32, Ints, Place

if TYPE_CHECKING:
    from lfp.ml.sae.autoencoders import Dictionary

_Number = TypeVar("_Number", bound=np.generic)

_BLOCK_ENTRIES = 2**20
"""A dense block of 4 MB is still in the cache when its active entries are searched."""
_FIXED_POINT = 2.0**20
"""Sums are of whole numbers, so that the order of adding cannot change them."""
_FIXED_POINT_OF_SQUARES = 2.0**28


@dataclass(frozen=True, eq=False)
class Active:
    """The active (positive) features of consecutive tokens.

    Token t has `features[offsets[t]:offsets[t + 1]]` (int32, ascending) and their `values` (float32).
    """

    n_features: int
    offsets: Ints
    features: NDArray[np.int32]
    values: Floats32

    @property
    def n_tokens(self) -> int:
        """Number of tokens, including those without an active feature."""
        return len(self.offsets) - 1

    @staticmethod
    def concatenate(parts: Sequence[Active]) -> Active:
        """Concatenate the tokens of one or more parts."""
        return Active(
            parts[0].n_features,
            concatenate_offsets([part.offsets for part in parts]),
            np.concatenate([part.features for part in parts]),
            np.concatenate([part.values for part in parts]),
        )

    def take(self, tokens: Ints) -> Active:
        """Select tokens in the order given; -1 stands for a token on which nothing is active."""
        sizes = np.where(tokens < 0, 0, np.diff(self.offsets, append=self.offsets[-1])[tokens])
        offsets, entries = concatenate_slices(self.offsets[tokens], self.offsets[tokens] + sizes)
        return Active(self.n_features, offsets, self.features[entries], self.values[entries])

    @cached_property
    def by_feature(self) -> ByFeature:
        """The same entries ordered by feature, then token."""
        entries = self.values, self.features, self.offsets.astype(np.int32)
        by_column = sp.csr_array(entries, shape=(self.n_tokens, self.n_features)).tocsc()
        return ByFeature(by_column.indptr.astype(np.int64), by_column.indices, by_column.data)

    @cached_property
    def flat_indices(self) -> Ints:
        """Index of each entry of `by_feature` in a matrix [features, tokens]: feature * n_tokens + token, ascending."""
        entries = self.by_feature
        return entries.spread(np.arange(self.n_features)) * self.n_tokens + entries.tokens


@dataclass(frozen=True, eq=False)
class ByFeature:
    """Active entries by feature: feature f has `tokens[offsets[f]:offsets[f + 1]]` (ascending) and their `values`."""

    offsets: Ints
    tokens: NDArray[np.int32]
    values: Floats32

    def spread(self, per_feature: NDArray[_Number]) -> NDArray[_Number]:
        """Repeat a value per feature [features] for each of its entries."""
        return np.repeat(per_feature, np.diff(self.offsets))


def active(values: Tensor) -> Active:
    """Return the active (positive) entries of dense features [n, features] on any device."""
    n, n_features = values.shape
    if values.device.type != "cpu":
        return _find_on_device(values)
    rows = max(1, _BLOCK_ENTRIES // max(1, n_features))
    dense = values.detach().float().numpy()
    blocks = []
    for start in range(0, max(n, 1), rows):
        block = dense[start : start + rows]
        found = _set_flags((block > 0).reshape(-1))
        firsts = np.arange(len(block) + 1) * n_features
        offsets = np.searchsorted(found, firsts)
        features = (found - np.repeat(firsts[:-1], np.diff(offsets))).astype(np.int32)
        blocks.append(Active(n_features, offsets, features, block.reshape(-1)[found]))
    return blocks[0] if len(blocks) == 1 else Active.concatenate(blocks)


def _find_on_device(values: Tensor) -> Active:
    """Find the active entries on the device of the values, so that only these are transferred."""
    n, n_features = values.shape
    tokens, features = (values > 0).nonzero(as_tuple=True)
    counts = torch.bincount(tokens, minlength=n).cpu().numpy()
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    found = values[tokens, features].float().cpu().numpy()
    return Active(n_features, offsets, features.int().cpu().numpy(), found)


def encode_active(dictionary: Dictionary, outputs: Mapping[Place, Tensor]) -> Active:
    """Return the active features of tokens with the activations [n, d_in] by place.

    Dense features are computed for one block of tokens at a time.
    """
    n = len(outputs[dictionary.places[0]])
    rows = max(64, _BLOCK_ENTRIES // dictionary.n_features)
    return Active.concatenate([
        active(dictionary.encode({place: rows_of[start : start + rows] for place, rows_of in outputs.items()}))
        for start in range(0, max(n, 1), rows)
    ])  # fmt: skip


def _set_flags(flags: NDArray[np.bool_]) -> Ints:
    """Return the indices of set flags: find the words of eight flags that are not empty first, as most are."""
    whole = len(flags) // 8 * 8
    words = np.flatnonzero(flags[:whole].view(np.uint64) != 0)
    inside = np.flatnonzero(flags[:whole].reshape(-1, 8)[words])
    found = (words[inside >> 3] << 3) + (inside & 7)
    return np.concatenate([found, whole + np.flatnonzero(flags[whole:])])


class FeatureTotals:
    """Active tokens, sums of activations and of their squares for every feature, whatever the order of tokens."""

    def __init__(self, n_features: int) -> None:
        self.n_tokens = 0
        self._n_active = np.zeros(n_features, np.int64)
        self._sums = np.zeros(n_features)
        self._squares = np.zeros(n_features)

    def update(self, entries: Active) -> None:
        """Add the active entries of some tokens."""
        n_features = len(self._sums)
        self.n_tokens += entries.n_tokens
        self._n_active += np.bincount(entries.features, minlength=n_features)
        values = entries.values.astype(np.float64)
        whole, squares = np.rint(values * _FIXED_POINT), np.rint(values**2 * _FIXED_POINT_OF_SQUARES)
        self._sums += np.bincount(entries.features, whole, minlength=n_features)
        self._squares += np.bincount(entries.features, squares, minlength=n_features)

    def merge(self, other: FeatureTotals) -> None:
        """Add the totals of another part of the tokens."""
        self.n_tokens += other.n_tokens
        self._n_active += other._n_active
        self._sums += other._sums
        self._squares += other._squares

    @property
    def density(self) -> Floats:
        """Share of tokens on which each feature is active [features]."""
        return self._n_active / max(1, self.n_tokens)

    @property
    def mean(self) -> Floats:
        """Mean activation over all tokens [features]."""
        return self._sums / _FIXED_POINT / max(1, self.n_tokens)

    @property
    def mean_square(self) -> Floats:
        """Mean squared activation over all tokens [features]."""
        return self._squares / _FIXED_POINT_OF_SQUARES / max(1, self.n_tokens)
