"""Find near misses: places where a feature is expected to fire but is inactive in the whole window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lfp.ml.features.examples import Batch, Examples, SampledExamples, windows
from lfp.ml.features.grouping import concatenate_slices, hash_with_feature, rank_within
from lfp.util.types import Ints

_CHUNK_PAIRS = 2**21


class NearMisses:
    """Up to `n` near misses of every feature, one per context, inactive on `window` tokens to either side.

    The token is one of the feature's top tokens; or it is none of them, and a neighbour of the feature is active there.
    Of either kind the contexts with the lowest hashes are kept, so that parts can be merged in any order.
    """

    def __init__(self, expected: Expected, n: int, window: int) -> None:
        self._expected, self._n, self._window = expected, n, window
        self._at_tokens = SampledExamples(expected.n_features, n, window)
        self._at_neighbours = SampledExamples(expected.n_features, n, window)

    def update(self, batch: Batch) -> None:
        """Offer a batch's tokens."""
        active = batch.active
        for tokens, features in self._expected.at_token.pairs(batch.places.token_ids):
            self._offer(self._at_tokens, batch, (tokens, features))
        of_entry = np.repeat(np.arange(active.n_tokens), np.diff(active.offsets))
        for entries, features in self._expected.at_neighbour.pairs(active.features):
            self._offer(self._at_neighbours, batch, (of_entry[entries], features))

    def merge(self, other: NearMisses) -> None:
        """Offer the near misses of another part of the tokens."""
        self._at_tokens.merge(other._at_tokens)
        self._at_neighbours.merge(other._at_neighbours)

    def examples(self) -> Examples:
        """Return the near misses by feature, those at top tokens first.

        These are half of `n`, rounded up; where there are too few of one kind, the other fills its places.
        """
        tokens, neighbours = self._at_tokens.examples(), self._at_neighbours.examples()
        n_other = np.bincount(neighbours.features, minlength=self._expected.n_features)
        n_tokens = np.bincount(tokens.features, minlength=self._expected.n_features)
        n_tokens = np.minimum(n_tokens, np.maximum((self._n + 1) // 2, self._n - n_other))
        found = Examples.concatenate([_first(tokens, n_tokens), _first(neighbours, self._n - n_tokens)])
        return found.take(np.argsort(found.features, kind="stable"))

    def _offer(self, kept: SampledExamples, batch: Batch, pairs: tuple[Ints, Ints]) -> None:
        """Offer the pairs (token, feature) of the right kind where the feature is inactive in the whole window.

        Most are worse than those kept already, which is therefore checked first.
        """
        tokens, features = pairs
        keys = hash_with_feature(batch.contexts[tokens], features)
        good = np.flatnonzero(kept.may_keep(features, keys))
        at_top = self._expected.at_token.holds(batch.places.token_ids[tokens[good]], features[good])
        good = good[at_top == (kept is self._at_tokens)]
        places, flat = batch.places, batch.active.flat_indices
        low = np.maximum(places.bounds[0][tokens[good]], tokens[good] - self._window)
        stop = np.minimum(places.bounds[1][tokens[good]], tokens[good] + self._window + 1)
        first = features[good] * batch.active.n_tokens
        good = good[np.searchsorted(flat, first + low) == np.searchsorted(flat, first + stop)]
        tokens, features, keys = tokens[good], features[good], keys[good]
        best = kept.best(features, keys, batch.contexts[tokens], (places.text_ids[tokens], places.positions[tokens]))
        tokens, features, keys = tokens[best], features[best], keys[best]
        at = np.searchsorted(flat, features * batch.active.n_tokens + tokens)
        kept.add(
            Examples(
                features=features,
                keys=keys,
                activations=np.zeros(len(tokens), np.float32),
                text_ids=places.text_ids[tokens],
                positions=places.positions[tokens],
                token_ids=places.token_ids[tokens],
                contexts=batch.contexts[tokens],
                windows=windows(batch.active.by_feature, places.bounds, (features, tokens, at), self._window),
            )
        )


def _first(examples: Examples, n: Ints) -> Examples:
    """Select the first `n` [features] of each feature from examples ordered by feature."""
    return examples.take(np.flatnonzero(rank_within(examples.features) < n[examples.features]))


@dataclass(frozen=True, eq=False)
class Lists:
    """Numbers listed by key: key k has `values[offsets[k]:offsets[k + 1]]`, ascending. Keys and values < 2**31."""

    offsets: Ints
    values: Ints

    @staticmethod
    def from_pairs(keys: Ints, values: Ints, n_keys: int) -> Lists:
        """Build the lists of `n_keys` keys from pairs of key and value [n], given in any order."""
        order = np.lexsort((values, keys))
        return Lists(np.searchsorted(keys[order], np.arange(n_keys + 1)), values[order])

    def pairs(self, keys: NDArray[np.integer]) -> Iterator[tuple[Ints, Ints]]:
        """Yield the values of all `keys` [m], in chunks of bounded size: each value's row in `keys`, and the value."""
        starts, stops = self.offsets[keys], self.offsets[keys + 1]
        ends = np.concatenate([[0], np.cumsum(stops - starts)])
        cuts = np.searchsorted(ends, np.arange(_CHUNK_PAIRS, ends[-1], _CHUNK_PAIRS))
        for first, last in pairwise([0, *np.unique(cuts).tolist(), len(keys)]):
            offsets, at = concatenate_slices(starts[first:last], stops[first:last])
            yield np.repeat(np.arange(first, last), np.diff(offsets)), self.values[at]

    def holds(self, keys: Ints, values: Ints) -> NDArray[np.bool_]:
        """Mark values [m] that are in the list of their key."""
        wanted = (keys << 32) | values
        return np.append(self._packed, -1)[np.searchsorted(self._packed, wanted)] == wanted

    @cached_property
    def _packed(self) -> Ints:
        keys = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        return (keys << 32) | self.values


@dataclass(frozen=True, eq=False)
class Expected:
    """The features that are expected at each token id, and where each other feature is active."""

    at_token: Lists
    at_neighbour: Lists

    @property
    def n_features(self) -> int:
        """Number of features, including those that are expected nowhere."""
        return len(self.at_neighbour.offsets) - 1
