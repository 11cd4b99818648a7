"""Statistics of features in one pass over tokens: exact in any order, bounded by features times k and not by tokens."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch import Tensor

from lfp.config import StatsConfig
from lfp.ml.features.active import Active, ByFeature, active
from lfp.ml.features.examples import Batch, BestExamples, SilentPlaces
from lfp.ml.features.grouping import Places
from lfp.ml.features.neighbours import ContextSketches
from lfp.util.types import Floats, Ints

_WAITING_ENTRIES = 2**19
_WAITING_PER_FEATURE = 16
"""Batches are collected until they hold this many active entries, because some work is done per feature."""
_WORKERS = 2
"""Statistics share no state, and numpy releases the interpreter lock while it works."""
_FIXED_POINT = 2.0**20
"""Sums are kept as integers, so that the order of adding cannot change them."""
_SLACK = 4
"""Histogram cells are collected until there are a quarter as many as the histograms hold."""
_EDGE_LOW, _EDGE_HIGH = 2.0**-10, 2.0**4
"""Inputs and decoder rows have unit norm, so activations are of order 1."""
_PREFIX = 16
"""Low bits of a float32 that are zero in every edge."""


class FeatureStats:
    """Statistics of every feature from one pass over texts in any order, on which the result does not depend.

    `tuned` and `base` are moments of the features on both models, `top` the largest activations, `sample` a uniform
    random sample of the contexts in which a feature is active (all where they are few), `silent` contexts in which it
    is not, and `sketches` show which features are active in the same contexts. Call `flush` before you read them:
    batches are collected until they are worth the work that is done once per feature.
    """

    def __init__(self, n_features: int, config: StatsConfig) -> None:
        self.config = config
        self.tuned = Moments(n_features, config.histogram_bins)
        self.base = Moments(n_features, config.histogram_bins)
        self.top = BestExamples(n_features, config.top_examples, config.window, by="activation")
        self.sample = BestExamples(n_features, config.sampled_activations, config.window, by="hash")
        self.silent = SilentPlaces(n_features, config.silent_examples, config.window)
        self.sketches = ContextSketches(n_features, config.coactivation_contexts)
        self._waiting: list[tuple[Places, Active, Active]] = []
        self._enough = max(_WAITING_ENTRIES, _WAITING_PER_FEATURE * n_features)

    def update(self, places: Places, tuned: Tensor | Active, base: Tensor | Active) -> None:
        """Add the tokens of whole texts, with their features [n, features] on both models or the active ones."""
        entries = [values if isinstance(values, Active) else active(values) for values in (tuned, base)]
        self._waiting.append((places, entries[0], entries[1]))
        if sum(len(tuned.features) + len(base.features) for _, tuned, base in self._waiting) >= self._enough:
            self.flush()

    def merge(self, other: FeatureStats) -> None:
        """Add the statistics of another part of the texts."""
        self.flush()
        other.flush()
        self.tuned.merge(other.tuned)
        self.base.merge(other.base)
        self.top.merge(other.top)
        self.sample.merge(other.sample)
        self.silent.merge(other.silent)
        self.sketches.merge(other.sketches)

    def flush(self) -> None:
        """Add the collected batches to the statistics."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        places = Places.concatenate([places for places, _, _ in waiting])
        tuned = Active.concatenate([tuned for _, tuned, _ in waiting])
        base = Active.concatenate([base for _, _, base in waiting])
        batch = Batch(places, tuned)
        _ = tuned.by_feature, places.bounds, places.contexts  # computed once, before threads share them
        jobs = (
            lambda: self.tuned.update(tuned.n_tokens, tuned.by_feature),
            lambda: self.base.update(base.n_tokens, base.by_feature),
            lambda: self.sample.update(batch),
            lambda: self.top.update(batch),
            lambda: self.sketches.update(batch),
            lambda: self.silent.update(batch),
        )
        with ThreadPoolExecutor(_WORKERS) as pool:
            for future in [pool.submit(job) for job in jobs]:
                future.result()


def histogram_edges(bins: int) -> Floats:
    """Return bin edges [bins + 1], log-spaced to within 0.5 %; the same for all features, so that histograms add up.

    Each is rounded to a mantissa of seven bits, so that the first 16 bits of a positive float32 determine its bin.
    """
    exact = np.geomspace(_EDGE_LOW, _EDGE_HIGH, bins + 1).astype(np.float32)
    half = np.uint32(1 << (_PREFIX - 1))
    rounded = ((exact.view(np.uint32) + half) >> np.uint32(_PREFIX)) << np.uint32(_PREFIX)
    return rounded.view(np.float32).astype(np.float64)


class Moments:
    """Counts, sums, maxima and histograms of features over tokens, all [features, ...].

    `n_active` is the number of tokens on which a feature is active, and `fixed_sum` the sum of its activations in fixed
    point. The histograms of a few tokens are a list of cells, so that small parts of the tokens stay small.
    """

    def __init__(self, n_features: int, bins: int) -> None:
        self.edges = histogram_edges(bins)
        self.n_tokens = 0
        self.n_active = np.zeros(n_features, np.int64)
        self.fixed_sum = np.zeros(n_features, np.int64)
        self.max = np.zeros(n_features, np.float32)
        self._counts: Ints | None = None
        """[features * bins]; None as long as all cells wait."""
        self._n_cells = n_features * bins
        self._waiting: list[Ints] = []
        prefixes = np.arange(1 << (32 - _PREFIX - 1))  # of all positive float32; the outer bins have no outer edge
        edge_prefixes = self.edges.astype(np.float32).view(np.int32) >> _PREFIX
        self._bin_of = np.clip(np.searchsorted(edge_prefixes, prefixes, side="right") - 1, 0, bins - 1)

    def update(self, n_tokens: int, entries: ByFeature) -> None:
        """Add the active entries of `n_tokens` tokens."""
        self.n_tokens += n_tokens
        n_active = np.diff(entries.offsets)
        self.n_active += n_active
        seen = np.flatnonzero(n_active)
        if len(seen):
            starts = entries.offsets[seen]
            fixed = np.rint(entries.values * np.float64(_FIXED_POINT))
            self.fixed_sum[seen] += np.add.reduceat(fixed, starts).astype(np.int64)
            self.max[seen] = np.maximum(self.max[seen], np.maximum.reduceat(entries.values, starts))
            cell = self._bin_of.take(entries.values.view(np.int32) >> _PREFIX)
            cell += entries.spread(np.arange(len(n_active)) * (len(self.edges) - 1))
            self._add_cells([cell])

    def merge(self, other: Moments) -> None:
        """Add the moments of another part of the tokens."""
        self.n_tokens += other.n_tokens
        self.n_active += other.n_active
        self.fixed_sum += other.fixed_sum
        np.maximum(self.max, other.max, out=self.max)
        self._add_cells(other._waiting)
        if other._counts is not None:
            self._counts = self._allocated()
            self._counts += other._counts

    @property
    def counts(self) -> Ints:
        """Histogram of each feature's activations between `edges` [features, bins]."""
        self._counts = self._allocated()
        if self._waiting:
            self._counts += np.bincount(np.concatenate(self._waiting), minlength=self._n_cells)
            self._waiting = []
        return self._counts.reshape(len(self.n_active), -1)

    def _allocated(self) -> Ints:
        return np.zeros(self._n_cells, np.int64) if self._counts is None else self._counts

    def _add_cells(self, cells: Sequence[Ints]) -> None:
        """Count a cell of the histograms, feature * bins + bin, for each entry."""
        self._waiting += cells
        if sum(map(len, self._waiting)) * _SLACK > self._n_cells:
            _ = self.counts  # adds what was collected

    @property
    def sum(self) -> Floats:
        """Sum of activations [features]."""
        return self.fixed_sum / _FIXED_POINT

    @property
    def density(self) -> Floats:
        """Share of tokens on which each feature is active [features]."""
        return self.n_active / max(1, self.n_tokens)

    @property
    def mean_where_active(self) -> Floats:
        """Mean activation over the tokens where a feature is active, 0 for one that never is [features]."""
        return self.sum / np.maximum(1, self.n_active)
