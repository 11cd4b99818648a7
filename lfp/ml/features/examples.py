"""Keep the best examples of every feature by some key, with windows of values around them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lfp.ml.features.active import Active, ByFeature
from lfp.ml.features.grouping import (
    Places,
    concatenate_offsets,
    concatenate_slices,
    descending_keys,
    grouped_order,
    hash_with_feature,
    rank_within,
    run_starts,
)
from lfp.util.types import Floats32, Hashes, Indices, Ints

_SLACK = 4
"""Candidates are collected until there are a quarter as many as examples kept."""


@dataclass(frozen=True)
class Examples:
    """Examples of features, parallel arrays [n], and their windows.

    The smaller of two `keys` is the better example; `contexts` are hashes of the tokens up to each example's.
    """

    features: Ints
    keys: Hashes
    activations: Floats32
    text_ids: Ints
    positions: Ints
    token_ids: Ints
    contexts: Hashes
    windows: Windows

    def take(self, rows: Indices) -> Examples:
        """Select rows, in the order given."""
        return Examples(*(getattr(self, name).take(rows) for name in self.__dataclass_fields__))

    @staticmethod
    def concatenate(parts: Sequence[Examples]) -> Examples:
        """Concatenate the rows of all parts."""
        arrays = [name for name in Examples.__dataclass_fields__ if name != "windows"]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
        return Examples(**columns, windows=Windows.concatenate([part.windows for part in parts]))


@dataclass(frozen=True)
class Batch:
    """Consecutive tokens of whole texts: their places, the hashes of their contexts, and the features active there."""

    places: Places
    contexts: Hashes
    active: Active


class BestExamples(ABC):
    """The k best examples of every feature, one per context; the best of parts are the best of the whole.

    A candidate must reach its feature's k-th best so far, which few do once the first tokens are seen. Windows are
    computed for the k best of a batch only. Candidates are collected until they are worth a sort.
    """

    def __init__(self, n_features: int, k: int, window: int) -> None:
        self.k = k
        self._window = window
        self._limits = np.full(n_features, np.uint32(2**32 - 1))
        """The upper half of the k-th best key of each feature."""
        self._kept = no_examples(window)
        self._waiting: list[Examples] = []

    @staticmethod
    @abstractmethod
    def keys(batch: Batch) -> Hashes:
        """Return the keys of a batch's active entries, ordered by feature."""

    @staticmethod
    @abstractmethod
    def is_new(features: Ints, keys: Hashes, contexts: Hashes) -> NDArray[np.bool_]:
        """Mark the first example of each feature and context, given examples in the order of feature and key."""

    def update(self, batch: Batch) -> None:
        """Offer a batch's active entries."""
        entries, keys = batch.active.by_feature, self.keys(batch)
        good = np.flatnonzero(_upper(keys) <= entries.spread(self._limits))
        features = np.searchsorted(entries.offsets, good, side="right") - 1
        tokens, keys = entries.tokens[good].astype(np.int64), keys[good]
        places, contexts = batch.places, batch.contexts[tokens]
        best = self.best(features, keys, contexts, (places.text_ids[tokens], places.positions[tokens]))
        features, tokens, good = features[best], tokens[best], good[best]
        self.add(
            Examples(
                features=features,
                keys=keys[best],
                activations=entries.values[good],
                text_ids=places.text_ids[tokens],
                positions=places.positions[tokens],
                token_ids=places.token_ids[tokens],
                contexts=contexts[best],
                windows=windows(entries, places.bounds, (features, tokens, good), self._window),
            )
        )

    def add(self, examples: Examples) -> None:
        """Offer examples built elsewhere."""
        self._waiting.append(examples)
        if sum(len(part.features) for part in self._waiting) * _SLACK > len(self._kept.features):
            self.examples()

    def merge(self, other: BestExamples) -> None:
        """Offer the best examples of another part of the tokens."""
        self.add(other.examples())

    def examples(self) -> Examples:
        """Return the best so far, by feature, best first; ties go to the earlier text and position."""
        if self._waiting:
            pool = Examples.concatenate([self._kept, *self._waiting])
            rows = self.best(pool.features, pool.keys, pool.contexts, (pool.text_ids, pool.positions))
            self._kept, self._waiting = pool.take(rows), []
            last = rank_within(self._kept.features) == self.k - 1
            self._limits[self._kept.features[last]] = _upper(self._kept.keys[last])
        return self._kept

    def may_keep(self, features: Ints, keys: Hashes) -> NDArray[np.bool_]:
        """Mark examples [n] that are not worse than the k-th best so far of their features."""
        return _upper(keys) <= self._limits[features]

    def best(self, features: Ints, keys: Hashes, contexts: Hashes, ties: tuple[Ints, Ints]) -> Indices:
        """Return the indices of the k best of each feature, one per context, by feature and best first."""
        order = grouped_order(features, keys, *ties)
        order = order[self.is_new(features[order], keys[order], contexts[order])]
        return order[rank_within(features[order]) < self.k]


class TopExamples(BestExamples):
    """The k largest activations of every feature."""

    @staticmethod
    def keys(batch: Batch) -> Hashes:
        """Return keys that decrease as activations increase."""
        return descending_keys(batch.active.by_feature.values)

    @staticmethod
    def is_new(features: Ints, keys: Hashes, contexts: Hashes) -> NDArray[np.bool_]:  # noqa: ARG004 (the signature of the base)
        """Mark the first of each feature and context."""
        groups = hash_with_feature(contexts, features)
        order = np.argsort(groups)
        is_first = np.zeros(len(groups), bool)
        is_first[np.minimum.reduceat(order, run_starts(groups[order]))] = True
        return is_first


class SampledExamples(BestExamples):
    """A uniform random sample of the contexts in which each feature is active: the k whose hashes are lowest.

    The hash of a context is the same for all features, and in all parts of a run.
    """

    @staticmethod
    def keys(batch: Batch) -> Hashes:
        """Return the hashes of the contexts themselves."""
        return batch.contexts.take(batch.active.by_feature.tokens)

    @staticmethod
    def is_new(features: Ints, keys: Hashes, contexts: Hashes) -> NDArray[np.bool_]:  # noqa: ARG004 (the signature of the base)
        """Mark the first of each feature and context; equal contexts are adjacent."""
        is_first = np.ones(len(keys), bool)
        is_first[1:] = (keys[1:] != keys[:-1]) | (features[1:] != features[:-1])
        return is_first


def _upper(keys: Hashes) -> NDArray[np.uint32]:
    """Return the upper halves of keys."""
    return (keys >> np.uint64(32)).astype(np.uint32)


def no_examples(window: int) -> Examples:
    """Return examples without rows."""
    ints, floats, hashes = np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.uint64)
    return Examples(ints, hashes, floats, ints, ints, ints, hashes, no_windows(window))


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
        """Select places, in the order given."""
        offsets, entries = concatenate_slices(self.offsets[rows], self.offsets[rows + 1])
        return Windows(self.reach, offsets, self.away[entries], self.values[entries], self.low[rows], self.high[rows])

    @staticmethod
    def concatenate(parts: Sequence[Windows]) -> Windows:
        """Concatenate the places of one or more parts with the same reach."""
        return Windows(
            parts[0].reach,
            concatenate_offsets([part.offsets for part in parts]),
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("away", "values", "low", "high")),
        )

    def lists(self) -> tuple[Ints, Floats32]:
        """Return where each window starts [n + 1] and all values within the text, zeros too, window after window."""
        starts = np.concatenate([[0], np.cumsum(self.high.astype(np.int64) - self.low + 1)])
        values = np.zeros(starts[-1], np.float32)
        sizes = np.diff(self.offsets)
        values[np.repeat(starts[:-1] - self.low, sizes) + self.away] = self.values
        return starts, values


def no_windows(reach: int) -> Windows:
    """Return windows around no place."""
    short = np.zeros(0, np.int16)
    return Windows(reach, np.zeros(1, np.int64), short, np.zeros(0, np.float32), short, short)


def windows(entries: ByFeature, bounds: tuple[Ints, Ints], centres: tuple[Ints, Ints, Ints], reach: int) -> Windows:
    """Return the windows of features around centres.

    `centres` holds each window's feature, its middle token, and the first of the feature's entries at or after that
    token; `bounds` [tokens] holds the first token of each token's text and the first after it.
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
    offsets, inside = concatenate_slices(start, stop)
    away = entries.tokens[inside] - np.repeat(tokens, stop - start)
    short = np.int16
    found = entries.values[inside]
    return Windows(
        reach, offsets, away.astype(short), found, (low - tokens).astype(short), (high - tokens).astype(short)
    )
