"""Find near misses: places where a feature is expected to fire but is inactive in the whole window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lfp.ml.features.examples import Batch, BestExamples, Examples
from lfp.ml.features.grouping import concatenate_slices, hash_with_feature, rank_within
from lfp.util.types import Ints

_CHUNK_PAIRS = 2**21


@dataclass(frozen=True, eq=False)
class Lists:
    """Numbers listed by key: key k has `values[offsets[k]:offsets[k + 1]]`, ascending. Keys and values < 2**31."""

    offsets: Ints
    values: Ints
    packed: Ints
    """Each pair of key and value as one integer, ascending."""

    @staticmethod
    def from_pairs(keys: Ints, values: Ints, n_keys: int) -> Lists:
        """Build the lists of `n_keys` keys from pairs of key and value [n], given in any order."""
        order = np.lexsort((values, keys))
        keys, values = keys[order].astype(np.int64), values[order]
        return Lists(np.searchsorted(keys, np.arange(n_keys + 1)), values, (keys << 32) | values)

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
        return np.append(self.packed, -1)[np.searchsorted(self.packed, wanted)] == wanted


class NearMisses:
    """Up to `n` near misses of every feature, one per context, inactive on `window` tokens to either side.

    The token is one of the feature's top tokens, which `at_token` lists features by; or it is none of them, and a
    neighbour of the feature is active there, which `at_neighbour` lists features by. Of either kind the contexts with
    the lowest hashes are kept, so that the order of texts does not matter.
    """

    def __init__(self, at_token: Lists, at_neighbour: Lists, n: int, window: int) -> None:
        self._at_token, self._at_neighbour, self._n, self._window = at_token, at_neighbour, n, window
        self._n_features = len(at_neighbour.offsets) - 1
        self._kept = {kind: BestExamples(self._n_features, n, window, by="hash") for kind in ("token", "neighbour")}

    def update(self, batch: Batch) -> None:
        """Offer a batch's tokens."""
        active = batch.active
        for tokens, features in self._at_token.pairs(batch.places.token_ids):
            self._offer("token", batch, tokens, features)
        of_entry = np.repeat(np.arange(active.n_tokens), np.diff(active.offsets))
        for entries, features in self._at_neighbour.pairs(active.features):
            self._offer("neighbour", batch, of_entry[entries], features)

    def merge(self, other: NearMisses) -> None:
        """Offer the near misses of another part of the tokens."""
        for kind, kept in self._kept.items():
            kept.merge(other._kept[kind])

    def examples(self) -> Examples:
        """Return the near misses by feature, those at top tokens first.

        These are half of `n`, rounded up; where there are too few of one kind, the other fills its places.
        """
        kinds = [kept.examples() for kept in self._kept.values()]
        n_tokens, n_other = (np.bincount(found.features, minlength=self._n_features) for found in kinds)
        n_tokens = np.minimum(n_tokens, np.maximum((self._n + 1) // 2, self._n - n_other))
        found = Examples.concatenate([
            kind.take(np.flatnonzero(rank_within(kind.features) < wanted[kind.features]))
            for kind, wanted in zip(kinds, (n_tokens, self._n - n_tokens), strict=True)
        ])  # fmt: skip
        return found.take(np.argsort(found.features, kind="stable"))

    def _offer(self, kind: str, batch: Batch, tokens: Ints, features: Ints) -> None:
        """Offer the pairs of token and feature of the right kind where the feature is inactive in the whole window.

        Most are worse than those kept already, which is therefore checked first.
        """
        kept, places, flat = self._kept[kind], batch.places, batch.active.flat_indices
        keys = hash_with_feature(batch.places.contexts[tokens], features)
        good = np.flatnonzero(kept.may_keep(features, keys))
        at_top = self._at_token.holds(places.token_ids[tokens[good]], features[good])
        good = good[at_top == (kind == "token")]
        tokens, features, keys = tokens[good], features[good], keys[good]
        low = np.maximum(places.bounds[0][tokens], tokens - self._window)
        stop = np.minimum(places.bounds[1][tokens], tokens + self._window + 1)
        first = features * batch.active.n_tokens
        at = np.searchsorted(flat, first + low)
        silent = np.flatnonzero(at == np.searchsorted(flat, first + stop))
        nothing = np.zeros(len(silent), np.float32)
        kept.offer(batch, features[silent], tokens[silent], keys[silent], at[silent], nothing)
