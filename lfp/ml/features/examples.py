"""Keep the best examples of every feature by some key, with windows of values around them, and silent places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lfp.ml.features.active import Active, ByFeature
from lfp.ml.features.grouping import (
    NO_HASH,
    Places,
    Rows,
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
_RESERVOIR = 256
"""Contexts kept for silent places. A feature active on a share d of all tokens is inactive in about (1 - d) of them."""
_CHUNK_ENTRIES = 2**21


@dataclass(frozen=True, eq=False)
class Examples(Rows):
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


_ORDERED_BY = ("features", "keys", "contexts", "text_ids", "positions")


@dataclass(frozen=True)
class Batch:
    """Consecutive tokens of whole texts, and the features active there."""

    places: Places
    active: Active


class BestExamples:
    """The k best examples of every feature, one per context, whatever the order in which tokens come.

    By "activation" the largest are the best; by "hash" those with the lowest hashes of their contexts, which are a
    uniform random sample, and the same for all features. A candidate must reach its feature's k-th best so far, which
    few do once the first tokens are seen. Windows are computed for the k best of a batch only. Candidates are collected
    until they are worth a sort.
    """

    def __init__(self, n_features: int, k: int, window: int, *, by: Literal["activation", "hash"]) -> None:
        self.k = k
        self._window, self._by = window, by
        self._limits = np.full(n_features, np.uint32(2**32 - 1))
        """The upper half of the k-th best key of each feature."""
        self._kept = no_examples(window)
        self._waiting: list[Examples] = []

    def update(self, batch: Batch) -> None:
        """Offer a batch's active entries."""
        entries = batch.active.by_feature
        by_activation = self._by == "activation"
        keys = descending_keys(entries.values) if by_activation else batch.places.contexts.take(entries.tokens)
        good = np.flatnonzero(_upper(keys) <= entries.spread(self._limits))
        features = np.searchsorted(entries.offsets, good, side="right") - 1
        self.offer(batch, features, entries.tokens[good].astype(np.int64), keys[good], good, entries.values[good])

    def may_keep(self, features: Ints, keys: Hashes) -> NDArray[np.bool_]:
        """Mark examples [n] that are not worse than the k-th best so far of their features."""
        return _upper(keys) <= self._limits[features]

    def offer(
        self, batch: Batch, features: Ints, tokens: Ints, keys: Hashes, at: Indices, activations: Floats32
    ) -> None:
        """Offer tokens of a batch as examples of features, all [n]; `at` as in `windows`."""
        places, contexts = batch.places, batch.places.contexts[tokens]
        best = self._best(features, keys, contexts, (places.text_ids[tokens], places.positions[tokens]))
        features, tokens = features[best], tokens[best]
        self._waiting.append(
            Examples(
                features=features,
                keys=keys[best],
                activations=activations[best],
                text_ids=places.text_ids[tokens],
                positions=places.positions[tokens],
                token_ids=places.token_ids[tokens],
                contexts=contexts[best],
                windows=windows(batch.active.by_feature, places.bounds, (features, tokens, at[best]), self._window),
            )
        )
        self._sort_enough()

    def merge(self, other: BestExamples) -> None:
        """Offer the best examples of another part of the tokens: the later a part, the fewer reach the k-th best."""
        found = other.examples()
        good = self.may_keep(found.features, found.keys)
        self._waiting.append(found if good.all() else found.take(np.flatnonzero(good)))
        self._sort_enough()

    def _sort_enough(self) -> None:
        if sum(len(part.features) for part in self._waiting) * _SLACK > len(self._kept.features):
            self.examples()

    def examples(self) -> Examples:
        """Return the best so far, by feature, best first; ties go to the earlier text and position."""
        if self._waiting:
            parts, self._waiting = [self._kept, *self._waiting], []
            columns = (np.concatenate([getattr(part, name) for part in parts]) for name in _ORDERED_BY)
            features, keys, contexts, *ties = columns
            rows = self._best(features, keys, contexts, (ties[0], ties[1]))
            del features, keys, contexts, ties
            self._kept = Examples.select(parts, rows)
            last = rank_within(self._kept.features) == self.k - 1
            self._limits[self._kept.features[last]] = _upper(self._kept.keys[last])
        return self._kept

    def _best(self, features: Ints, keys: Hashes, contexts: Hashes, ties: tuple[Ints, Ints]) -> Indices:
        """Return the indices of the k best of each feature, one per context, by feature and best first."""
        order = grouped_order(features, keys, *ties)
        features, keys, contexts = features[order], keys[order], contexts[order]
        if self._by == "activation":
            groups = hash_with_feature(contexts, features)
            by_group = np.argsort(groups)
            is_first = np.zeros(len(groups), bool)
            is_first[np.minimum.reduceat(by_group, run_starts(groups[by_group]))] = True
        else:  # equal contexts have equal keys, so they are adjacent
            is_first = np.ones(len(keys), bool)
            is_first[1:] = (keys[1:] != keys[:-1]) | (features[1:] != features[:-1])
        order = order[is_first]
        return order[rank_within(features[is_first]) < self.k]


def _upper(keys: Hashes) -> NDArray[np.uint32]:
    """Return the upper halves of keys."""
    return (keys >> np.uint64(32)).astype(np.uint32)


def no_examples(window: int) -> Examples:
    """Return examples without rows."""
    ints, floats, hashes = np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.uint64)
    short = np.zeros(0, np.int16)
    around = Windows(window, np.zeros(1, np.int64), short, floats, short, short)
    return Examples(ints, hashes, floats, ints, ints, ints, hashes, around)


class SilentPlaces:
    """The contexts with the lowest hashes, each where it first occurs, with all that is active in its window.

    One random set of contexts serves all features. Memory does not grow with tokens.
    """

    def __init__(self, n_features: int, per_feature: int, window: int, size: int = _RESERVOIR) -> None:
        self._per_feature, self._window, self._size = per_feature, window, size
        none = np.zeros(0, np.int64)
        self._contexts = np.zeros(0, np.uint64)
        self._places = Places(none, none, none)
        self._around = Active(n_features, np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        self._bounds = np.zeros((0, 2), np.int64)
        """First and last token of the window within the text, relative to its middle."""

    def update(self, batch: Batch) -> None:
        """Offer a batch's tokens."""
        tokens = np.flatnonzero(batch.places.contexts <= self._limit)
        tokens = tokens[_lowest(batch.places.contexts[tokens], batch.places.take(tokens), self._size)]
        low, high = batch.places.bounds
        bounds = np.stack([low[tokens] - tokens, high[tokens] - 1 - tokens], axis=1)
        offsets = np.arange(-self._window, self._window + 1)
        inside = (offsets >= bounds[:, :1]) & (offsets <= bounds[:, 1:])
        around = batch.active.take(np.where(inside, tokens[:, None] + offsets, -1).ravel())
        self._add(batch.places.contexts[tokens], batch.places.take(tokens), around, bounds)

    def merge(self, other: SilentPlaces) -> None:
        """Offer the places of another part of the tokens: the later a part, the fewer are among the lowest."""
        rows = np.flatnonzero(other._contexts <= self._limit)
        if len(rows):
            around = other._around.take(self._tokens_around(rows))
            self._add(other._contexts[rows], other._places.take(rows), around, other._bounds[rows])

    def examples(self) -> Examples:
        """Draw up to `per_feature` places per feature where it is inactive, ordered by feature and key."""
        n_features, n = self._around.n_features, len(self._contexts)
        if not n:
            return no_examples(self._window)
        middle = np.arange(n) * (2 * self._window + 1) + self._window
        at_middle = self._around.take(middle)
        of_place = np.repeat(np.arange(n), np.diff(at_middle.offsets))
        step = max(1, _CHUNK_ENTRIES // n)
        chosen = []
        for first in range(0, n_features, step):
            candidates = np.arange(first, min(first + step, n_features))
            hashes = hash_with_feature(self._contexts[None, :], candidates[:, None])
            here = (at_middle.features >= first) & (at_middle.features < first + step)
            hashes[at_middle.features[here] - first, of_place[here]] = NO_HASH
            order = np.argsort(hashes, axis=1)[:, : self._per_feature]
            ranked = np.take_along_axis(hashes, order, axis=1)
            row, column = np.nonzero(ranked != NO_HASH)
            chosen.append((candidates[row], order[row, column], ranked[row, column]))
        features, which, keys = (np.concatenate(parts) for parts in zip(*chosen, strict=True))

        n_around = self._around.n_tokens
        at = np.searchsorted(self._around.flat_indices, features * n_around + middle[which])
        low, high = np.zeros(n_around, np.int64), np.zeros(n_around, np.int64)
        low[middle], high[middle] = middle + self._bounds[:, 0], middle + self._bounds[:, 1] + 1
        centres = features, middle[which], at
        return Examples(
            features=features,
            keys=keys,
            activations=np.zeros(len(features), np.float32),
            text_ids=self._places.text_ids[which],
            positions=self._places.positions[which],
            token_ids=self._places.token_ids[which],
            contexts=self._contexts[which],
            windows=windows(self._around.by_feature, (low, high), centres, self._window),
        )

    def _add(self, contexts: Hashes, places: Places, around: Active, bounds: Ints) -> None:
        """Keep the lowest of the contexts here and the new ones."""
        contexts = np.concatenate([self._contexts, contexts])
        places = Places.concatenate([self._places, places])
        kept = _lowest(contexts, places, self._size)
        self._around = Active.concatenate([self._around, around]).take(self._tokens_around(kept))
        self._bounds = np.concatenate([self._bounds, bounds])[kept]
        self._contexts, self._places = contexts[kept], places.take(kept)

    @property
    def _limit(self) -> np.uint64:
        """The hash that a context must not exceed to be kept."""
        return self._contexts[-1] if len(self._contexts) == self._size else NO_HASH

    def _tokens_around(self, rows: Indices) -> Ints:
        """Return the tokens of the windows of some places, among those of all."""
        width = 2 * self._window + 1
        return (rows[:, None] * width + np.arange(width)).ravel()


def _lowest(contexts: Hashes, places: Places, size: int) -> Indices:
    """Return which tokens hold the `size` lowest different `contexts`, each at its earliest place."""
    order = np.lexsort((places.positions, places.text_ids, contexts))
    return order[run_starts(contexts[order])][:size]


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
