"""Draw places where a feature is inactive, from one random set of contexts that serves all features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lfp.ml.features.active import Active
from lfp.ml.features.examples import Batch, Examples, no_examples, windows
from lfp.ml.features.grouping import NO_HASH, Places, hash_with_feature, run_starts
from lfp.util.types import Hashes, Ints

RESERVOIR = 256
"""Contexts kept. A feature active on a share d of all tokens is inactive in about (1 - d) of them."""
_CHUNK_ENTRIES = 2**21


class SilentPlaces:
    """The contexts with the lowest hashes, each where it first occurs, with all that is active in its window.

    The lowest hashes of the whole are among those of its parts, so `merge` is exact; memory does not grow with tokens.
    """

    def __init__(self, n_features: int, window: int, size: int = RESERVOIR) -> None:
        self._window, self._size = window, size
        none = np.zeros(0, np.int64)
        self._contexts = np.zeros(0, np.uint64)
        self._places = Places(none, none, none)
        self._around = Active(n_features, np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        self._bounds = np.zeros((0, 2), np.int64)
        """First and last token of the window within the text, relative to its middle."""

    def update(self, batch: Batch) -> None:
        """Offer a batch's tokens."""
        full = len(self._contexts) == self._size
        limit = self._contexts[-1] if full else NO_HASH
        tokens = np.flatnonzero(batch.contexts <= limit)
        tokens = tokens[_lowest(batch.contexts[tokens], batch.places, tokens, self._size)]
        low, high = batch.places.bounds
        bounds = np.stack([low[tokens] - tokens, high[tokens] - 1 - tokens], axis=1)
        offsets = np.arange(-self._window, self._window + 1)
        inside = (offsets >= bounds[:, :1]) & (offsets <= bounds[:, 1:])
        around = np.where(inside, tokens[:, None] + offsets, -1)
        places = Places(*(getattr(batch.places, name)[tokens] for name in Places.__dataclass_fields__))
        self._add(batch.contexts[tokens], places, batch.active.take(around.ravel()), bounds)

    def merge(self, other: SilentPlaces) -> None:
        """Offer the places of another part of the tokens."""
        self._add(other._contexts, other._places, other._around, other._bounds)

    def examples(self, per_feature: int) -> Examples:
        """Draw up to `per_feature` places per feature where it is inactive, ordered by feature and key."""
        n_features, r = self._around.n_features, len(self._contexts)
        if not r:
            return no_examples(self._window)
        middle = np.arange(r) * (2 * self._window + 1) + self._window
        at_middle = self._around.take(middle)
        step = max(1, _CHUNK_ENTRIES // r)
        chosen = [
            self._choose(at_middle, first, min(first + step, n_features), per_feature)
            for first in range(0, n_features, step)
        ]
        features, which, keys = (np.concatenate([part[i] for part in chosen]) for i in range(3))
        return self._as_examples(features.astype(np.int64), which.astype(np.int64), keys.astype(np.uint64), middle)

    def _choose(
        self, at_middle: Active, first: int, last: int, per_feature: int
    ) -> tuple[Ints, NDArray[np.intp], Hashes]:
        """Choose places for the features from `first` up to `last`: features, places and keys."""
        features = np.arange(first, last)
        keys = hash_with_feature(self._contexts[None, :], features[:, None])
        of_place = np.repeat(np.arange(at_middle.n_tokens), np.diff(at_middle.offsets))
        here = (at_middle.features >= first) & (at_middle.features < last)
        keys[at_middle.features[here] - first, of_place[here]] = NO_HASH
        order = np.argsort(keys, axis=1)[:, :per_feature]
        sorted_keys = np.take_along_axis(keys, order, axis=1)
        row, column = np.nonzero(sorted_keys != NO_HASH)
        return features[row], order[row, column], sorted_keys[row, column]

    def _as_examples(self, features: Ints, which: Ints, keys: Hashes, middle: Ints) -> Examples:
        entries = self._around.by_feature
        n = self._around.n_tokens
        at = np.searchsorted(self._around.flat_indices, features * n + middle[which])
        low, high = np.zeros(n, np.int64), np.zeros(n, np.int64)
        low[middle], high[middle] = middle + self._bounds[:, 0], middle + self._bounds[:, 1] + 1
        return Examples(
            features=features,
            keys=keys,
            activations=np.zeros(len(features), np.float32),
            text_ids=self._places.text_ids[which],
            positions=self._places.positions[which],
            token_ids=self._places.token_ids[which],
            contexts=self._contexts[which],
            windows=windows(entries, (low, high), (features, middle[which], at), self._window),
        )

    def _add(self, contexts: Hashes, places: Places, around: Active, bounds: Ints) -> None:
        """Keep the lowest of those here and the new ones."""
        contexts = np.concatenate([self._contexts, contexts])
        places = Places.concatenate([self._places, places])
        kept = _lowest(contexts, places, np.arange(len(contexts)), self._size)
        width = 2 * self._window + 1
        rows = (kept[:, None] * width + np.arange(width)).ravel()
        self._around = Active.concatenate([self._around, around]).take(rows)
        self._bounds = np.concatenate([self._bounds, bounds])[kept]
        self._contexts = contexts[kept]
        self._places = Places(*(getattr(places, name)[kept] for name in Places.__dataclass_fields__))


def _lowest(contexts: Hashes, places: Places, tokens: Ints, size: int) -> NDArray[np.intp]:
    """Return which of `tokens` hold the `size` lowest different `contexts`, each at its earliest place."""
    order = np.lexsort((places.positions[tokens], places.text_ids[tokens], contexts))
    return order[run_starts(contexts[order])][:size]
