"""Near misses: places where a feature is silent all around although one would expect it to fire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lfp.ml.features.examples import Batch, Examples, SampledExamples, windows
from lfp.ml.features.grouping import of_feature, rank_within, slices
from lfp.util.types import Ints


class NearMisses:
    """Up to `n` near misses of every feature, one a context, silent on `window` tokens to either side.

    At the token is one of the feature's top tokens; or it is none of them, and a neighbour of the feature is active
    there. Of either kind the contexts whose hashes with the feature are lowest are kept, so that those of parts are
    those of the whole, whatever the order.
    """

    def __init__(self, expected: Expected, n: int, window: int) -> None:
        self._expected, self._n, self._window = expected, n, window
        self._at_tokens = SampledExamples(expected.n_features, n, window)
        self._at_neighbours = SampledExamples(expected.n_features, n, window)

    def update(self, batch: Batch) -> None:
        """Offers a batch's tokens."""
        active = batch.active
        for tokens, features in self._expected.at_token.pairs(batch.places.token_ids):
            self._offer(self._at_tokens, batch, (tokens, features))
        of_entry = np.repeat(np.arange(active.n_tokens), np.diff(active.offsets))
        for entries, features in self._expected.at_neighbour.pairs(active.features):
            self._offer(self._at_neighbours, batch, (of_entry[entries], features))

    def merge(self, other: NearMisses) -> None:
        """Offers another part's near misses."""
        self._at_tokens.merge(other._at_tokens)
        self._at_neighbours.merge(other._at_neighbours)

    def examples(self) -> Examples:
        """The near misses by feature, those at top tokens first.

        They are half of `n`, rounded up, and the others the rest; where one kind is short the other fills up for it.
        """
        tokens, neighbours = self._at_tokens.examples(), self._at_neighbours.examples()
        n_other = np.bincount(neighbours.features, minlength=self._expected.n_features)
        n_tokens = np.bincount(tokens.features, minlength=self._expected.n_features)
        n_tokens = np.minimum(n_tokens, np.maximum((self._n + 1) // 2, self._n - n_other))
        found = Examples.concatenate([_first(tokens, n_tokens), _first(neighbours, self._n - n_tokens)])
        return found.take(np.argsort(found.features, kind="stable"))

    def _offer(self, kept: SampledExamples, batch: Batch, pairs: tuple[Ints, Ints]) -> None:
        """Offers those of the pairs (token, feature) that are of the kind, and where the feature is silent all around.

        Most are worse than what is kept already: that is asked first.
        """
        tokens, features = pairs
        keys = of_feature(batch.contexts[tokens], features)
        good = np.flatnonzero(kept.may_keep(features, keys))
        at_top = self._expected.at_token.holds(batch.places.token_ids[tokens[good]], features[good])
        good = good[at_top == (kept is self._at_tokens)]
        good = good[self._is_silent(batch, tokens[good], features[good])]
        tokens, features, keys = tokens[good], features[good], keys[good]
        places = batch.places
        best = kept.best(features, keys, batch.contexts[tokens], (places.text_ids[tokens], places.positions[tokens]))
        kept.add(self._as_examples(batch, (tokens[best], features[best])))

    def _is_silent(self, batch: Batch, tokens: Ints, features: Ints) -> NDArray[np.bool_]:
        low = np.maximum(batch.places.bounds[0][tokens], tokens - self._window)
        stop = np.minimum(batch.places.bounds[1][tokens], tokens + self._window + 1)
        lies, first = batch.active.lies, features * batch.active.n_tokens
        silent: NDArray[np.bool_] = np.searchsorted(lies, first + low) == np.searchsorted(lies, first + stop)
        return silent

    def _as_examples(self, batch: Batch, pairs: tuple[Ints, Ints]) -> Examples:
        tokens, features = pairs
        places, contexts = batch.places, batch.contexts[tokens]
        at = np.searchsorted(batch.active.lies, features * batch.active.n_tokens + tokens)
        return Examples(
            features=features,
            keys=of_feature(contexts, features),
            activations=np.zeros(len(tokens), np.float32),
            text_ids=places.text_ids[tokens],
            positions=places.positions[tokens],
            token_ids=places.token_ids[tokens],
            contexts=contexts,
            windows=windows(batch.active.by_feature, places.bounds, (features, tokens, at), self._window),
        )


def _first(examples: Examples, n: Ints) -> Examples:
    """The first `n` [features] of each feature; examples lie feature by feature."""
    return examples.take(np.flatnonzero(rank_within(examples.features) < n[examples.features]))


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
