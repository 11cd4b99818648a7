"""Counts, sums, maxima and histograms of features over tokens: exact whatever the order of adding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lfp.ml.active import ByFeature
from lfp.util.types import Floats, Ints

_FIXED_POINT = 2.0**20  # sums are kept as integers, so that the order of adding cannot change them
_EDGE_LOW, _EDGE_HIGH = 2.0**-10, 2.0**4  # inputs have unit norm and decoder rows too, so activations are of order 1
_PREFIX = 16  # bits of a float32 that no edge uses


def histogram_edges(bins: int) -> Floats:
    """Bin edges [bins + 1], log-spaced to within half a per cent; the same for all features, so that histograms add.

    Each is rounded to a mantissa of seven bits: then the first 16 bits of a positive float32 say its bin exactly.
    """
    return _edges(bins).astype(np.float64)


class Moments:
    """Counts, sums, maxima and histograms of features over tokens."""

    def __init__(self, n_features: int, bins: int) -> None:
        self.edges = histogram_edges(bins)
        self.n_tokens = 0
        self.fixed_sum = np.zeros(n_features, np.int64)
        self.max = np.zeros(n_features, np.float32)
        self.counts = np.zeros((n_features, bins), np.int64)
        self._bin_of = _bin_of_prefix(bins)

    def update(self, n_tokens: int, entries: ByFeature) -> None:
        """Adds the active entries of `n_tokens` tokens."""
        n_features, bins = self.counts.shape
        self.n_tokens += n_tokens
        some = np.flatnonzero(entries.counts)
        if len(some):
            starts = entries.offsets[some]
            fixed = np.rint(entries.values * np.float64(_FIXED_POINT))
            self.fixed_sum[some] += np.add.reduceat(fixed, starts).astype(np.int64)
            self.max[some] = np.maximum(self.max[some], np.maximum.reduceat(entries.values, starts))
            cell = self._bin_of.take(entries.values.view(np.int32) >> _PREFIX)
            cell += entries.spread(np.arange(n_features) * bins)
            self.counts += np.bincount(cell, minlength=n_features * bins).reshape(n_features, bins)

    def merge(self, other: Moments) -> None:
        """Adds another part's moments to these."""
        self.n_tokens += other.n_tokens
        self.fixed_sum += other.fixed_sum
        self.counts += other.counts
        np.maximum(self.max, other.max, out=self.max)

    @property
    def n_active(self) -> Ints:
        """Tokens on which each feature is active [features]."""
        return self.counts.sum(axis=1)

    @property
    def sum(self) -> Floats:
        """Sum of activations a feature [features]."""
        return self.fixed_sum / _FIXED_POINT

    @property
    def density(self) -> Floats:
        """Share of tokens on which each feature is active [features]."""
        return self.n_active / max(1, self.n_tokens)

    @property
    def mean_where_active(self) -> Floats:
        """Mean activation where active, 0 for a feature that never is [features]."""
        return self.sum / np.maximum(1, self.n_active)


def _edges(bins: int) -> NDArray[np.float32]:
    exact = np.geomspace(_EDGE_LOW, _EDGE_HIGH, bins + 1).astype(np.float32)
    half = np.uint32(1 << (_PREFIX - 1))
    return (((exact.view(np.uint32) + half) >> np.uint32(_PREFIX)) << np.uint32(_PREFIX)).view(np.float32)


def _bin_of_prefix(bins: int) -> Ints:
    """The bin of every positive float32 by its first 16 bits; what lies beyond the edges is in the first or last."""
    prefixes = np.arange(1 << (32 - _PREFIX - 1))
    found = np.searchsorted(_edges(bins).view(np.int32) >> _PREFIX, prefixes, side="right") - 1
    return np.clip(found, 0, bins - 1)
