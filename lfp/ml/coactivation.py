"""Which features are active in the same contexts: sketches of a few hashes a feature, compared by Jaccard's share."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from lfp.ml.contexts import NO_HASH
from lfp.ml.examples import Batch
from lfp.ml.neighbours import Neighbours, best_of, nearest, no_neighbours
from lfp.ml.ordering import rank_within
from lfp.util.types import Hashes, Indices, Ints

_CHUNK_ENTRIES = 2**18  # hashes sorted at a time: what the cache holds
_BLOCK_ENTRIES = 2**21  # pairs of features compared at a time
_WORKERS = 2
_SLACK = 4  # newcomers wait until they are a quarter of what the sketches hold


class ContextSketches:
    """The k lowest hashes of the different contexts in which each feature is active: a bottom-k sketch.

    Kept exactly: the sketch of a union is the k lowest of two sketches' hashes, so that parts merge in any order.
    """

    def __init__(self, n_features: int, k: int) -> None:
        self.k = k
        self._lowest = np.full((n_features, k), NO_HASH)
        """Each row rises; places not yet filled hold `NO_HASH`."""
        self._waiting: list[tuple[Ints, Hashes]] = []

    def update(self, batch: Batch) -> None:
        """Offers a batch's active entries."""
        entries = batch.active.by_feature
        hashes = batch.contexts.take(entries.tokens)
        good = np.flatnonzero(hashes < entries.spread(self._lowest[:, -1]))
        self._add(np.searchsorted(entries.offsets, good, side="right") - 1, hashes[good])

    def merge(self, other: ContextSketches) -> None:
        """Offers another part's hashes."""
        features, places = np.nonzero(other.hashes != NO_HASH)
        self._add(features, other.hashes[features, places])

    @property
    def hashes(self) -> Hashes:
        """The sketches [features, k], rising."""
        if self._waiting:
            features, hashes = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
            self._waiting = []
            self._fold(features, hashes)
        return self._lowest

    def neighbours(self, n: int) -> Neighbours:
        """The `n` features with the largest Jaccard share of common contexts, none whose share is zero.

        J = |A and B| / |A or B| of the two sets of contexts, estimated from the hashes up to the lower of the two
        sketches' last ones (Broder 1997; Beyer et al. 2007): every context up to there is in its sketch. Exact where
        both features have at most k contexts; else the standard error is about sqrt(J (1 - J) / k).
        Time grows with features squared, memory does not.
        """
        return _similar(self.hashes, n)

    def _add(self, features: Ints, hashes: Hashes) -> None:
        self._waiting.append((features, hashes))
        if sum(len(one) for one, _ in self._waiting) * _SLACK > self._lowest.size:
            self._fold(*(np.concatenate(parts) for parts in zip(*self._waiting, strict=True)))
            self._waiting = []

    def _fold(self, features: Ints, hashes: Hashes) -> None:
        """Takes hashes into the sketches: features with like many newcomers side by side, a row each, sorted."""
        order = np.argsort(features, kind="stable")
        features, hashes = features[order], hashes[order]
        counts = np.bincount(features, minlength=len(self._lowest))
        starts = np.cumsum(counts) - counts
        for chosen in _chunks(counts, self.k):
            width = int(counts[chosen].max())
            rows = np.full((len(chosen), self.k + width), NO_HASH)
            rows[:, : self.k] = self._lowest[chosen]
            row = np.repeat(np.arange(len(chosen)), counts[chosen])
            place = rank_within(row)
            rows[row, self.k + place] = hashes[starts[chosen][row] + place]
            self._lowest[chosen] = _lowest_distinct(rows)[:, : self.k]


def _chunks(counts: Ints, k: int) -> Iterator[Indices]:
    """Features that have newcomers, those with the most first, a cache's worth at a time."""
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    start = 0
    while start < len(order):
        size = max(1, _CHUNK_ENTRIES // (k + int(counts[order[start]])))
        yield order[start : start + size]
        start += size


def _lowest_distinct(rows: Hashes) -> Hashes:
    """Each row sorted, repeats put last as `NO_HASH`."""
    rows.sort(axis=1)
    again = rows[:, 1:] == rows[:, :-1]
    again &= rows[:, 1:] != NO_HASH
    if again.any():
        rows[:, 1:][again] = NO_HASH
        rows.sort(axis=1)
    return rows


def _similar(hashes: Hashes, n: int) -> Neighbours:
    """Features in the order of their sketches' last hash; so that of a pair the earlier one sets the limit."""
    order = np.argsort(hashes[:, -1], kind="stable")
    pairs = _Pairs(hashes[order])
    size = max(1, _BLOCK_ENTRIES // max(1, len(order)))
    with ThreadPoolExecutor(_WORKERS) as pool:
        found = list(pool.map(partial(_nearest_of_block, pairs, order, n, size), range(0, len(order), size)))
    return best_of(Neighbours.concatenate([no_neighbours(), *found]), n)


def _nearest_of_block(pairs: _Pairs, order: Indices, n: int, size: int, first: int) -> Neighbours:
    """The nearest among later features to those of a block, and among the block's to the later ones."""
    shares = pairs.shares(first, min(first + size, len(order)))
    block, later = order[first : first + size], order[first:]
    turned = np.ascontiguousarray(shares.T)
    return Neighbours.concatenate([nearest(shares, block, later, n), nearest(turned, later, block, n)])


class _Pairs:
    """Compares sketches whose last hashes rise with their row."""

    def __init__(self, hashes: Hashes) -> None:
        self._n = len(hashes)
        row, place = np.nonzero(hashes != NO_HASH)
        kept = hashes[row, place]
        self._sizes = np.bincount(row, minlength=self._n).astype(np.int32)
        rising = np.argsort(kept)
        context = np.concatenate([[0], np.cumsum(kept[rising][1:] != kept[rising][:-1])])
        column = np.empty(len(row), np.int32)
        column[rising] = context[: len(row)]
        offsets = np.concatenate([[0], np.cumsum(self._sizes)]).astype(np.int32)
        entries = np.ones(len(row), np.int32), column, offsets
        self._incidence = sp.csr_array(entries, shape=(self._n, int(context[-1]) + 1))
        self._row = row[rising]
        self._within = np.searchsorted(hashes[:, -1], kept[rising])
        """Of each entry, rising, the first feature whose last hash is not below it."""

    def shares(self, first: int, last: int) -> NDArray[np.float32]:
        """Estimated Jaccard shares [last - first, features - first] of block features and later ones; else zero."""
        later = self._incidence[first:].T.tocsr()
        both = (self._incidence[first:last] @ later).toarray()
        either = self._up_to_last_of(first, last)
        either += self._sizes[first:last, None]
        either -= both
        shares = both / np.maximum(either, 1).astype(np.float32)
        shares[np.tril_indices(last - first)] = 0.0
        return shares.astype(np.float32, copy=False)

    def _up_to_last_of(self, first: int, last: int) -> NDArray[np.int32]:
        """Of every later feature's hashes those up to each block feature's last one [last - first, later features]."""
        start, stop = np.searchsorted(self._within, [first + 1, last])
        counts = np.zeros((last - first, self._n), np.int32)
        counts[0] = np.bincount(self._row[:start], minlength=self._n)
        np.add.at(counts, (self._within[start:stop] - first, self._row[start:stop]), 1)
        for before, row in pairwise(counts):
            row += before
        return counts[:, first:]
