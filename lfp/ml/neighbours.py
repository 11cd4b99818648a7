"""The features nearest to each: by the cosine of their decoder rows, and what any such answer is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.ml.ordering import falling, grouped_order, rank_within
from lfp.util.types import Floats32, Indices, Ints

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
