"""Where one would expect a feature to fire: at its top tokens, and where its nearest neighbours do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lfp.ml.ragged import slices
from lfp.util.types import Ints

_CHUNK_PAIRS = 2**21


@dataclass(frozen=True, eq=False)
class Lists:
    """A list of numbers a key: key k has `values[offsets[k]:offsets[k + 1]]`, ascending. Keys and values < 2**31."""

    offsets: Ints
    values: Ints

    @staticmethod
    def of(keys: Ints, values: Ints, n_keys: int) -> Lists:
        """The lists of `n_keys` keys that hold these pairs [n], given in any order."""
        order = np.lexsort((values, keys))
        return Lists(np.searchsorted(keys[order], np.arange(n_keys + 1)), values[order])

    def pairs(self, keys: NDArray[np.integer]) -> Iterator[tuple[Ints, Ints]]:
        """Every value of every one of `keys` [m]: its row among them, and itself, a bounded number at a time."""
        starts, stops = self.offsets[keys], self.offsets[keys + 1]
        ends = np.concatenate([[0], np.cumsum(stops - starts)])
        cuts = np.searchsorted(ends, np.arange(_CHUNK_PAIRS, ends[-1], _CHUNK_PAIRS))
        for first, last in pairwise([0, *np.unique(cuts).tolist(), len(keys)]):
            offsets, at = slices(starts[first:last], stops[first:last])
            yield np.repeat(np.arange(first, last), np.diff(offsets)), self.values[at]

    def holds(self, keys: Ints, values: Ints) -> NDArray[np.bool_]:
        """Whether each value is in the list of its key [m]."""
        wanted = (keys << 32) | values
        return np.append(self._packed, -1)[np.searchsorted(self._packed, wanted)] == wanted

    @cached_property
    def _packed(self) -> Ints:
        keys = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        return (keys << 32) | self.values


@dataclass(frozen=True, eq=False)
class Expected:
    """The features expected at each token id, and where each other feature is active."""

    at_token: Lists
    at_neighbour: Lists

    @property
    def n_features(self) -> int:
        """Features there are, whether anything is expected of them or not."""
        return len(self.at_neighbour.offsets) - 1
