"""A feature's values on the tokens around a place, read from its active entries alone and kept as sparse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lfp.ml.active import ByFeature
from lfp.ml.ragged import joined, slices
from lfp.util.types import Floats32, Ints


@dataclass(frozen=True, eq=False)
class Windows:
    """Values around n places, up to `reach` tokens on either side and not beyond the place's text.

    Place i has `values[offsets[i]:offsets[i + 1]]` at tokens `away` from it, zero at the others from `low[i]` to
    `high[i]`, both counted from the place (low <= 0 <= high).
    """

    reach: int
    offsets: Ints
    away: NDArray[np.int16]
    values: Floats32
    low: NDArray[np.int16]
    high: NDArray[np.int16]

    def take(self, rows: NDArray[np.intp]) -> Windows:
        """Those places, in that order."""
        offsets, entries = slices(self.offsets[rows], self.offsets[rows + 1])
        return Windows(self.reach, offsets, self.away[entries], self.values[entries], self.low[rows], self.high[rows])

    @staticmethod
    def concatenate(parts: Sequence[Windows]) -> Windows:
        """All parts' places, one after another; one part at least, all of one reach."""
        return Windows(
            parts[0].reach,
            joined([part.offsets for part in parts]),
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("away", "values", "low", "high")),
        )

    def lists(self) -> tuple[Ints, Floats32]:
        """Every value within the text, zeros too, window after window, and where each window starts [n + 1]."""
        starts = np.concatenate([[0], np.cumsum(self.high.astype(np.int64) - self.low + 1)])
        values = np.zeros(starts[-1], np.float32)
        sizes = np.diff(self.offsets)
        values[np.repeat(starts[:-1] - self.low, sizes) + self.away] = self.values
        return starts, values


def no_windows(reach: int) -> Windows:
    """Around not one place."""
    short = np.zeros(0, np.int16)
    return Windows(reach, np.zeros(1, np.int64), short, np.zeros(0, np.float32), short, short)


def windows(entries: ByFeature, bounds: tuple[Ints, Ints], centres: tuple[Ints, Ints, Ints], reach: int) -> Windows:
    """The windows of features around centres.

    `centres` are each window's feature, its middle token, and the first of the feature's entries at or after that
    token; `bounds` [tokens] are the first token of each token's text and the first after it.
    """
    features, tokens, at = centres
    low = np.maximum(bounds[0][tokens], tokens - reach)
    high = np.minimum(bounds[1][tokens] - 1, tokens + reach)
    first, last = entries.offsets[features], entries.offsets[features + 1]
    start, stop, live = at.copy(), at.copy(), np.arange(len(at))
    while len(live):
        live = live[start[live] > first[live]]
        live = live[entries.tokens[start[live] - 1] >= low[live]]
        start[live] -= 1
    live = np.arange(len(at))
    while len(live):
        live = live[stop[live] < last[live]]
        live = live[entries.tokens[stop[live]] <= high[live]]
        stop[live] += 1
    offsets, inside = slices(start, stop)
    away = entries.tokens[inside] - np.repeat(tokens, stop - start)
    short = np.int16
    found = entries.values[inside]
    return Windows(
        reach, offsets, away.astype(short), found, (low - tokens).astype(short), (high - tokens).astype(short)
    )
