"""The features nearest to each: by the cosine of decoder rows, and by the contexts in which they are active."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lfp.ml.features.examples import Batch
from lfp.ml.features.grouping import NO_HASH, falling, grouped_order, rank_within
from lfp.util.types import Floats32, Hashes, Indices, Ints

_CHUNK_ENTRIES = 2**18  # hashes sorted at a time: what the cache holds


_SKETCH_ENTRIES = 2**21  # pairs of features compared at a time


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
    size = max(1, _SKETCH_ENTRIES // max(1, len(order)))
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


_BLOCK_ENTRIES = 2**21


@dataclass(frozen=True)
class Neighbours:
    """Pairs of features, parallel arrays [n]: `ranks` count from 0, nearest first, within a feature."""

    features: Ints
    ranks: Ints
    others: Ints
    values: Floats32

    @staticmethod
    def concatenate(parts: Sequence[Neighbours]) -> Neighbours:
        """All parts' pairs, one after another."""
        return Neighbours(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in Neighbours.__dataclass_fields__)
        )


def no_neighbours() -> Neighbours:
    """Not one pair."""
    none = np.zeros(0, np.int64)
    return Neighbours(none, none, none, np.zeros(0, np.float32))


@torch.no_grad()
def decoder_neighbours(decoders: Sequence[Tensor], n: int) -> Neighbours:
    """For each feature the `n` others of its layer whose decoder rows have the largest cosine with its own.

    `decoders` are a layer's rows [width, d_in] each; features count through the layers. Cosines that are not above zero
    are left out: such rows have nothing in common.
    """
    found, first_of_layer = [no_neighbours()], 0
    for rows in decoders:
        unit = F.normalize(rows.float(), dim=1)
        ids = np.arange(first_of_layer, first_of_layer + len(rows))
        step = max(1, _BLOCK_ENTRIES // len(rows))
        for start in range(0, len(rows), step):
            cosines = unit[start : start + step] @ unit.T
            cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = 0.0
            found.append(nearest(cosines.cpu().numpy(), ids[start : start + step], ids, n))
        first_of_layer += len(rows)
    return Neighbours.concatenate(found)


def nearest(shares: Floats32, features: Indices, others: Indices, n: int) -> Neighbours:
    """The `n` largest positive of each row of `shares` [features, others]; of equals the lower id.

    `features` and `others` are the ids of the rows and the columns.
    """
    n = min(n, shares.shape[1])
    last = torch.from_numpy(shares).topk(n, dim=1).values[:, -1:].numpy()
    tiny = np.float32(np.finfo(np.float32).smallest_subnormal)
    row, column = np.divmod(np.flatnonzero(shares >= np.maximum(last, tiny)), shares.shape[1])
    values, ids = shares[row, column], others[column]
    pairs = Neighbours(features[row].astype(np.int64), np.zeros(len(row), np.int64), ids.astype(np.int64), values)
    return best_of(pairs, n)


def best_of(pairs: Neighbours, n: int) -> Neighbours:
    """The `n` nearest of each feature among pairs listed in any order, ranked anew; of equals the lower id."""
    order = grouped_order(pairs.features, falling(pairs.values), pairs.others)
    rank = rank_within(pairs.features[order])
    kept = order[rank < n]
    return Neighbours(pairs.features[kept], rank[rank < n], pairs.others[kept], pairs.values[kept])
