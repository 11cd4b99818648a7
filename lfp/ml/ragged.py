"""Rows of unequal length, one after another: where each begins, and how they are cut and joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lfp.util.types import Ints


def slices(starts: Ints, stops: Ints) -> tuple[Ints, Ints]:
    """Offsets [n + 1] of n slices laid one after another, and the places that they cover."""
    sizes = stops - starts
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    return offsets, np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)


def joined(parts: Sequence[Ints]) -> Ints:
    """Offsets [n + 1] of the rows of all parts, one after another, from the offsets of each."""
    sizes = np.concatenate([np.diff(part) for part in parts])
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
