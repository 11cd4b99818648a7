"""How often features are active and how strongly, summed over tokens: exact whatever the order of adding."""

from __future__ import annotations

import numpy as np

from lfp.ml.active import Active
from lfp.util.types import Floats

_FIXED_POINT = 2.0**20  # sums are of whole numbers, so that the order of adding cannot change them
_FIXED_POINT_OF_SQUARES = 2.0**28


class FeatureTotals:
    """Active tokens, sums of activations and of their squares of every feature; parts add up."""

    def __init__(self, n_features: int) -> None:
        self.n_tokens = 0
        self._n_active = np.zeros(n_features, np.int64)
        self._sums = np.zeros(n_features)
        self._squares = np.zeros(n_features)

    def update(self, entries: Active) -> None:
        """Adds the active entries of some tokens."""
        n_features = len(self._sums)
        self.n_tokens += entries.n_tokens
        self._n_active += np.bincount(entries.features, minlength=n_features)
        values = entries.values.astype(np.float64)
        whole, squares = np.rint(values * _FIXED_POINT), np.rint(values**2 * _FIXED_POINT_OF_SQUARES)
        self._sums += np.bincount(entries.features, whole, minlength=n_features)
        self._squares += np.bincount(entries.features, squares, minlength=n_features)

    def merge(self, other: FeatureTotals) -> None:
        """Adds another part's totals to these."""
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
