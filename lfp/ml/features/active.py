"""Find the active entries of dense features, order them by feature, and add up totals of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfp.ml.features.grouping import concatenate_offsets, concatenate_slices
from lfp.ml.models.runtime import Queued, finish_later, to_host
from lfp.util.types import Floats, Floats32, Ints, Place

if TYPE_CHECKING:
    from lfp.ml.sae.autoencoders import Dictionary

_Number = TypeVar("_Number", bound=np.generic)

_BLOCK_ENTRIES = 2**20
"""A dense block of 4 MB is still in the cache when its active entries are searched."""
_DEVICE_BLOCK_ENTRIES = 2**27
"""On a card, whose products of few rows are slow: 512 MB."""
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
        return _start_on_device(values)()
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


def _start_on_device(values: Tensor) -> Callable[[], Active]:
    """Find the active entries on the device of the values, and queue these alone for the host; call it for them."""
    n, n_features = values.shape
    tokens, features = (values > 0).nonzero(as_tuple=True)
    counts = torch.bincount(tokens, minlength=n)
    found = [to_host(part) for part in (counts, features.int(), values[tokens, features].float())]
    queued = Queued([values.device])

    def finish() -> Active:
        queued.wait()
        counts, features, values = (part.numpy() for part in found)
        return Active(n_features, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]), features, values)

    return finish


def encode_active(dictionary: Dictionary, outputs: Mapping[Place, Tensor]) -> Active:
    """Return the active features of tokens with the activations [n, d_in] by place.

    Dense features are computed for one block of tokens at a time; on a card those of a block while the active ones of
    the block before are copied, beside what else the card does.
    """
    n, device = len(outputs[dictionary.places[0]]), dictionary.device
    entries = _BLOCK_ENTRIES if device.type == "cpu" else _DEVICE_BLOCK_ENTRIES
    rows = max(64, entries // dictionary.n_features)
    blocks = (
        dictionary.encode({place: rows_of[start : start + rows] for place, rows_of in outputs.items()})
        for start in range(0, max(n, 1), rows)
    )
    if device.type == "cpu":
        return Active.concatenate([active(block) for block in blocks])
    stream = _side_stream(device)
    if stream is not None and any(rows_of.device == device for rows_of in outputs.values()):
        stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        return Active.concatenate([*finish_later(map(_start_on_device, blocks), ahead=1)])


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return the stream on which a card encodes, so that finding active entries does not wait for a model's pass."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


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
