"""Held-out pairs in bins: how often the side predicted to win was chosen, against the probability stated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 10
_Z95 = 1.959964


@dataclass(frozen=True)
class Bin:
    """Pairs of like probability: how many, the mean stated, the share chosen, and its 95 % (Wilson) interval."""

    n: int
    stated: float
    chosen: float
    low: float
    high: float


def reliability(margins: Sequence[float], *, bins: int = BINS) -> list[Bin]:
    """Bins of margins (log-odds that the chosen side wins), as many pairs in each; weakest first.

    A pair is folded to the side predicted to win, so that probabilities run from a half to 1; a margin of 0 counts as
    half won. Equal probabilities share a bin, so that the order of pairs does not matter.
    """
    values = np.asarray(margins, np.float64)
    if not len(values):
        return []
    won, sizes = 0.5 + 0.5 * np.sign(values), np.abs(values)
    _, group, times = np.unique(sizes, return_inverse=True, return_counts=True)
    middle = (np.cumsum(times) - 0.5 * times)[group]
    bin_of = (middle * bins / len(values)).astype(int)
    stated = 1.0 / (1.0 + np.exp(-sizes))
    return [
        _bin(int(mine.sum()), float(stated[mine].mean()), float(won[mine].mean()))
        for mine in (bin_of == place for place in range(bins))
        if mine.any()
    ]


def _bin(n: int, stated: float, share: float) -> Bin:
    """Wilson (1927): an interval that keeps to [0, 1] also for few pairs."""
    centre = (share + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n)) / (1 + _Z95**2 / n)
    return Bin(n, stated, share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))
