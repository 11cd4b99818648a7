"""Find the nearest features of each, by the cosine of decoder rows and by the contexts in which they are active."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lfp.ml.features.examples import Batch
from lfp.ml.features.grouping import NO_HASH, Rows, descending_keys, grouped_order, rank_within
from lfp.util.types import Floats32, Hashes, Indices, Ints

_CHUNK_ENTRIES = 2**18
"""Hashes sorted at a time: as many as fit the cache."""
_BLOCK_ENTRIES = 2**21
"""Pairs of features compared at a time."""
_WORKERS = 2
_SLACK = 4
"""Hashes are collected until there are a quarter as many as the sketches hold."""


class ContextSketches:
    """The k lowest hashes of the different contexts in which each feature is active: a bottom-k sketch.

    The sketch of a union is exactly the k lowest hashes of two sketches, so the order of tokens does not matter. The
    sketches of a few tokens are a list of hashes, so that small parts of the tokens stay small.
    """

    def __init__(self, n_features: int, k: int) -> None:
        self.k = k
        self._lowest: Hashes | None = None
        """[features, k]: each row ascends, places not yet filled hold `NO_HASH`; None as long as all hashes wait."""
        self._limits = np.full(n_features, NO_HASH)
        """The k-th lowest hash of each feature, which those to be kept are below."""
        self._waiting: list[tuple[Ints, Hashes]] = []

    def update(self, batch: Batch) -> None:
        """Offer a batch's active entries."""
        entries = batch.active.by_feature
        hashes = batch.places.contexts.take(entries.tokens)
        good = np.flatnonzero(hashes < entries.spread(self._limits))
        self._add(np.searchsorted(entries.offsets, good, side="right") - 1, hashes[good])

    def merge(self, other: ContextSketches) -> None:
        """Offer the hashes of another part of the tokens: the later a part, the fewer are among the lowest."""
        for features, hashes in other._waiting:
            good = hashes < self._limits[features]
            self._add(features[good], hashes[good])
        if other._lowest is not None:
            features, places = np.nonzero(other._lowest < self._limits[:, None])
            self._add(features, other._lowest[features, places])

    @property
    def hashes(self) -> Hashes:
        """The sketches [features, k], ascending."""
        if self._lowest is None:
            self._lowest = np.full((len(self._limits), self.k), NO_HASH)
        if self._waiting:
            features, hashes = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
            self._waiting.clear()
            self._insert(self._lowest, features, hashes)
            self._limits = self._lowest[:, -1].copy()
        return self._lowest

    def neighbours(self, n: int) -> Neighbours:
        """Return the `n` features with the largest positive Jaccard share of common contexts.

        J = |A and B| / |A or B| of the two sets of contexts, estimated from the hashes up to the lower of the two
        sketches' last ones (Broder 1997; Beyer et al. 2007): every context up to there is in its sketch. Exact where
        both features have at most k contexts; else the standard error is about sqrt(J (1 - J) / k).
        Time grows with features squared, memory does not.
        """
        order = np.argsort(self.hashes[:, -1], kind="stable")  # so that of a pair the earlier one sets the limit
        pairs = _Pairs(self.hashes[order])
        size = max(1, _BLOCK_ENTRIES // max(1, len(order)))

        def compare_block(first: int) -> Neighbours:
            shares = pairs.shares(first, min(first + size, len(order)))
            block, later = order[first : first + size], order[first:]
            transposed = np.ascontiguousarray(shares.T)
            return Neighbours.concatenate([nearest(shares, block, later, n), nearest(transposed, later, block, n)])

        with ThreadPoolExecutor(_WORKERS) as pool:
            found = list(pool.map(compare_block, range(0, len(order), size)))
        return best_of(Neighbours.concatenate([_NONE, *found]), n)

    def _add(self, features: Ints, hashes: Hashes) -> None:
        self._waiting.append((features, hashes))
        if sum(len(features) for features, _ in self._waiting) * _SLACK > len(self._limits) * self.k:
            _ = self.hashes  # inserts what was collected

    def _insert(self, lowest: Hashes, features: Ints, hashes: Hashes) -> None:
        """Insert hashes into the sketches, for features with similar numbers of new hashes at a time."""
        order = np.argsort(features, kind="stable")
        features, hashes = features[order], hashes[order]
        counts = np.bincount(features, minlength=len(lowest))
        starts = np.cumsum(counts) - counts
        by_count = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        done = 0
        while done < len(by_count):
            width = self.k + int(counts[by_count[done]])
            chosen = by_count[done : done + max(1, _CHUNK_ENTRIES // width)]
            done += len(chosen)
            rows = np.full((len(chosen), width), NO_HASH)
            rows[:, : self.k] = lowest[chosen]
            row = np.repeat(np.arange(len(chosen)), counts[chosen])
            place = rank_within(row)
            rows[row, self.k + place] = hashes[starts[chosen][row] + place]
            rows.sort(axis=1)
            repeats = rows[:, 1:] == rows[:, :-1]
            repeats &= rows[:, 1:] != NO_HASH
            if repeats.any():
                rows[:, 1:][repeats] = NO_HASH
                rows.sort(axis=1)
            lowest[chosen] = rows[:, : self.k]


class _Pairs:
    """Compares sketches whose last hashes ascend with their row."""

    def __init__(self, hashes: Hashes) -> None:
        self._n = len(hashes)
        row, place = np.nonzero(hashes != NO_HASH)
        kept = hashes[row, place]
        self._sizes = np.bincount(row, minlength=self._n).astype(np.int32)
        ascending = np.argsort(kept)
        context = np.concatenate([[0], np.cumsum(kept[ascending][1:] != kept[ascending][:-1])])
        column = np.empty(len(row), np.int32)
        column[ascending] = context[: len(row)]
        offsets = np.concatenate([[0], np.cumsum(self._sizes)]).astype(np.int32)
        entries = np.ones(len(row), np.int32), column, offsets
        self._incidence = sp.csr_array(entries, shape=(self._n, int(context[-1]) + 1))
        self._row = row[ascending]
        self._within = np.searchsorted(hashes[:, -1], kept[ascending])
        """For each entry, ascending, the first feature whose last hash is not below it."""

    def shares(self, first: int, last: int) -> NDArray[np.float32]:
        """Estimate Jaccard shares [last - first, features - first] of block features and later ones, else zero."""
        later = self._incidence[first:].T.tocsr()
        both = (self._incidence[first:last] @ later).toarray()
        # later features' hashes up to each block feature's last one [last - first, features]
        up_to_last = np.zeros((last - first, self._n), np.int32)
        start, stop = np.searchsorted(self._within, [first + 1, last])
        up_to_last[0] = np.bincount(self._row[:start], minlength=self._n)
        np.add.at(up_to_last, (self._within[start:stop] - first, self._row[start:stop]), 1)
        for before, row in pairwise(up_to_last):
            row += before
        either = up_to_last[:, first:]
        either += self._sizes[first:last, None]
        either -= both
        shares = both / np.maximum(either, 1).astype(np.float32)
        shares[np.tril_indices(last - first)] = 0.0
        return shares.astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class Neighbours(Rows):
    """Pairs of features, parallel arrays [n]: `ranks` count from 0, nearest first, within a feature."""

    features: Ints
    ranks: Ints
    others: Ints
    values: Floats32


_NONE = Neighbours(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


@torch.no_grad()
def decoder_neighbours(decoders: Sequence[Tensor], n: int) -> Neighbours:
    """Return for each feature the `n` others of its place whose decoder rows have the largest positive cosine with its.

    `decoders` holds each place's rows [width, d_in]; feature ids count through the places.
    """
    found, first_of_place = [_NONE], 0
    for rows in decoders:
        unit = F.normalize(rows.float(), dim=1)
        ids = np.arange(first_of_place, first_of_place + len(rows))
        step = max(1, _BLOCK_ENTRIES // len(rows))
        for start in range(0, len(rows), step):
            cosines = unit[start : start + step] @ unit.T
            cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = 0.0
            found.append(nearest(cosines.cpu().numpy(), ids[start : start + step], ids, n))
        first_of_place += len(rows)
    return Neighbours.concatenate(found)


def nearest(shares: Floats32, features: Indices, others: Indices, n: int) -> Neighbours:
    """Return the `n` largest positive entries of each row of `shares` [features, others]; of equals the lower id.

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
    """Select and rank the `n` nearest of each feature from pairs in any order; of equals the lower id."""
    order = grouped_order(pairs.features, descending_keys(pairs.values), pairs.others)
    rank = rank_within(pairs.features[order])
    kept = order[rank < n]
    return Neighbours(pairs.features[kept], rank[rank < n], pairs.others[kept], pairs.values[kept])
