"""Sorting in groups: one sort of packed integers, and a careful one of the few that it leaves equal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lfp.util.types import Hashes, Ints


def grouped_order(groups: Ints, keys: Hashes, *ties: Ints) -> NDArray[np.intp]:
    """Order by group, then key, then each of `ties`, then place: what `np.lexsort` says, several times sooner.

    Groups are below 2**31. The upper half of each key is packed with its group into one integer.
    """
    packed = (groups << 32) | (keys >> np.uint64(32)).astype(np.int64)
    order = np.argsort(packed)
    ranked = packed[order]
    alike = ranked[1:] == ranked[:-1]
    unsettled = np.flatnonzero(np.append(alike, False) | np.append(False, alike)) if alike.any() else order[:0]
    rows = order[unsettled]
    careful = np.lexsort((rows, *(tie[rows] for tie in reversed(ties)), keys[rows], ranked[unsettled]))
    order[unsettled] = rows[careful]
    return order


def rank_within(groups: NDArray[np.generic]) -> Ints:
    """Rank of each element within its run of equal, adjacent groups."""
    starts = run_starts(groups)
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))


def run_starts(groups: NDArray[np.generic]) -> Ints:
    """First place of each run of equal, adjacent elements."""
    return np.flatnonzero(np.append(len(groups) > 0, groups[1:] != groups[:-1])[: len(groups)])


def falling(values: NDArray[np.float32]) -> Hashes:
    """Hashes that sort values from the largest; values are not negative, whose bits rise with them."""
    return (~(values + np.float32(0)).view(np.uint32)).astype(np.uint64) << np.uint64(32)
