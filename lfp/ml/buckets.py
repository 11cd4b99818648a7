"""How examples of features are shown: in intervals of their activation, ranked within each."""

from __future__ import annotations

import numpy as np

from lfp.ml.examples import Examples
from lfp.ml.ordering import falling, grouped_order, rank_within
from lfp.util.types import Indices, Ints


def quantile_buckets(sample: Examples, *, intervals: int, per_interval: int) -> tuple[Ints, Indices]:
    """Bucket 1..intervals and row of the sample's examples to show: up to `per_interval` an interval, drawn at random.

    Intervals are the quantiles of each feature's sampled activations, low to high: exact where the sample holds every
    context the feature is active in, otherwise off by about sqrt(q (1 - q) / sample size) at the quantile q.
    """
    order = grouped_order(sample.features, ~falling(sample.activations))
    of = sample.features[order]
    bucket = np.empty(len(order), np.int64)
    bucket[order] = 1 + rank_within(of) * intervals // np.bincount(of)[of]
    cell = sample.features * (intervals + 1) + bucket
    drawn = grouped_order(cell, sample.keys)
    kept = drawn[rank_within(cell[drawn]) < per_interval]
    return bucket[kept], kept


def ranks(examples: Examples, buckets: Ints) -> Ints:
    """Rank of each example within its feature and bucket [n], from 0, largest activation first."""
    cell = examples.features * (int(buckets.max(initial=0)) + 2) + buckets + 1
    order = grouped_order(cell, falling(examples.activations), examples.text_ids, examples.positions)
    ranked = np.empty(len(order), np.int64)
    ranked[order] = rank_within(cell[order])
    return ranked
