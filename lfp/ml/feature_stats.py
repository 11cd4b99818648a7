"""Statistics of features in one pass over tokens: mergeable, exact, bounded by features times k and never by tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfp.config import StatsConfig

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_FIXED_POINT = 2.0**20  # sums are kept as integers, so that the order of adding cannot change them
_CONTEXT_TOKENS = 8  # two examples with the same last tokens are the same example to a reader
_EDGE_LOW, _EDGE_HIGH = 2.0**-10, 2.0**4  # inputs have unit norm and decoder rows too, so activations are of order 1


@dataclass(frozen=True)
class TokenFeatures:
    """Features of consecutive tokens of whole texts: `values` [n, features] (tuned), `base_values` the same for base.

    `text_ids`, `positions`, `token_ids` are [n].
    """

    values: Tensor
    base_values: Tensor
    text_ids: Ints
    positions: Ints
    token_ids: Ints


def histogram_edges(bins: int) -> Floats:
    """Log-spaced bin edges [bins + 1], the same for every feature, so that histograms add up."""
    return np.geomspace(_EDGE_LOW, _EDGE_HIGH, bins + 1)


class Moments:
    """Counts, sums, maxima and histograms of features over tokens."""

    def __init__(self, n_features: int, bins: int) -> None:
        self.edges = histogram_edges(bins)
        self.n_tokens = 0
        self.n_active = np.zeros(n_features, np.int64)
        self.fixed_sum = np.zeros(n_features, np.int64)
        self.max = np.zeros(n_features, np.float64)
        self.counts = np.zeros((n_features, bins), np.int64)

    def update(self, n_tokens: int, features: Ints, values: Floats) -> None:
        """Adds the active (feature, value) pairs of `n_tokens` tokens."""
        n_features, bins = self.counts.shape
        self.n_tokens += n_tokens
        self.n_active += np.bincount(features, minlength=n_features)
        fixed = np.rint(values * _FIXED_POINT)
        self.fixed_sum += np.bincount(features, fixed, minlength=n_features).astype(np.int64)
        np.maximum.at(self.max, features, values)
        bin_of = np.clip(np.searchsorted(self.edges, values, side="right") - 1, 0, bins - 1)
        self.counts += np.bincount(features * bins + bin_of, minlength=n_features * bins).reshape(n_features, bins)

    def merge(self, other: Moments) -> None:
        """Adds another part's moments to these."""
        self.n_tokens += other.n_tokens
        self.n_active += other.n_active
        self.fixed_sum += other.fixed_sum
        self.counts += other.counts
        np.maximum(self.max, other.max, out=self.max)

    @property
    def sum(self) -> Floats:
        """Sum of activations a feature [features]."""
        return self.fixed_sum / _FIXED_POINT

    @property
    def density(self) -> Floats:
        """Share of tokens on which each feature is active [features]."""
        return self.n_active / max(1, self.n_tokens)

    @property
    def mean_where_active(self) -> Floats:
        """Mean activation where active, 0 for a feature that never is [features]."""
        return self.sum / np.maximum(1, self.n_active)


@dataclass(frozen=True)
class Examples:
    """Examples of features, parallel arrays [n]; `windows` [n, 2 window + 1] is NaN outside the text."""

    features: Ints
    scores: Floats
    activations: Floats
    text_ids: Ints
    positions: Ints
    token_ids: Ints
    contexts: NDArray[np.uint64]
    windows: NDArray[np.float32]

    def take(self, rows: NDArray[np.intp]) -> Examples:
        """Those rows, in that order."""
        return Examples(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @staticmethod
    def concatenate(parts: Sequence[Examples]) -> Examples:
        """All parts' rows, one after another."""
        return Examples(*(np.concatenate([getattr(p, name) for p in parts]) for name in Examples.__dataclass_fields__))


class BestExamples:
    """The k best-scored examples of every feature, one a context; the best of parts are the best of the whole.

    Candidates wait in a buffer until they outnumber what is kept; a newcomer must reach its feature's `thresholds`.
    """

    def __init__(self, n_features: int, k: int, window: int) -> None:
        self.k = k
        self.thresholds = np.full(n_features, -np.inf)
        self._kept = _no_examples(window)
        self._waiting: list[Examples] = []
        self._n_waiting = 0

    def add(self, examples: Examples) -> None:
        """Offers candidates."""
        self._waiting.append(examples)
        self._n_waiting += len(examples.features)
        if self._n_waiting > max(50_000, len(self._kept.features)):
            self.examples()

    def merge(self, other: BestExamples) -> None:
        """Offers another part's best."""
        self.add(other.examples())

    def examples(self) -> Examples:
        """The best so far, by feature, best first; ties go to the earlier text and position."""
        pool = Examples.concatenate([self._kept, *self._waiting])
        pool = pool.take(_best_of_each_context(pool))
        order = np.lexsort((pool.positions, pool.text_ids, -pool.scores, pool.features))
        rank = _rank_within(pool.features[order])
        self._kept = pool.take(order[rank < self.k])
        self._waiting, self._n_waiting = [], 0
        self._raise_thresholds()
        return self._kept

    def _raise_thresholds(self) -> None:
        last = _rank_within(self._kept.features) == self.k - 1
        self.thresholds[self._kept.features[last]] = self._kept.scores[last]


class FeatureStats:
    """What one pass learns of every feature: moments for both models, top examples, a random sample of active ones.

    `update` takes texts in any order and `merge` joins the statistics of parts: the result depends on neither order.
    """

    def __init__(self, n_features: int, config: StatsConfig) -> None:
        self.config = config
        self.tuned = Moments(n_features, config.histogram_bins)
        self.base = Moments(n_features, config.histogram_bins)
        self.top = BestExamples(n_features, config.top_examples, config.window)
        self.sample = BestExamples(n_features, config.sampled_activations, config.window)

    def update(self, tokens: TokenFeatures) -> None:
        """Adds a batch of whole texts."""
        n = len(tokens.text_ids)
        self.base.update(n, *_active(tokens.base_values)[1:])
        rows, features, values = _active(tokens.values)
        self.tuned.update(n, features, values)
        contexts = context_hashes(tokens)
        drawn = _uniform(contexts[rows], features)
        self._offer(self.top, tokens, contexts, rows, features, values, values)
        self._offer(self.sample, tokens, contexts, rows, features, values, drawn)

    def merge(self, other: FeatureStats) -> None:
        """Adds another part's statistics to these."""
        self.tuned.merge(other.tuned)
        self.base.merge(other.base)
        self.top.merge(other.top)
        self.sample.merge(other.sample)

    def _offer(
        self,
        best: BestExamples,
        tokens: TokenFeatures,
        contexts: NDArray[np.uint64],
        rows: Ints,
        features: Ints,
        values: Floats,
        scores: Floats,
    ) -> None:
        """Offers those active pairs that may be among the best: at or above their feature's threshold."""
        good = scores >= best.thresholds[features]
        rows, features = rows[good], features[good]
        best.add(
            Examples(
                features=features,
                scores=scores[good],
                activations=values[good],
                text_ids=tokens.text_ids[rows],
                positions=tokens.positions[rows],
                token_ids=tokens.token_ids[rows],
                contexts=contexts[rows],
                windows=_windows(tokens, rows, features, self.config.window),
            )
        )


def context_hashes(tokens: TokenFeatures) -> NDArray[np.uint64]:
    """A hash [n] of each token and those before it in its text, up to eight in all."""
    hashes = np.zeros(len(tokens.text_ids), np.uint64)
    for back in range(_CONTEXT_TOKENS):
        shifted = np.zeros_like(hashes)
        same = tokens.positions >= back
        shifted[same] = (tokens.token_ids[np.flatnonzero(same) - back] + 1).astype(np.uint64)
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + shifted
    return _mix(hashes)


def quantile_buckets(sample: Examples, *, intervals: int, per_interval: int) -> tuple[Ints, NDArray[np.intp]]:
    """Bucket 1..intervals and row of the sample's examples to show: up to `per_interval` an interval, drawn at random.

    Intervals are the quantiles of each feature's sampled activations, low to high.
    """
    order = np.lexsort((sample.activations, sample.features))
    rank = _rank_within(sample.features[order])
    size = np.bincount(sample.features)[sample.features[order]]
    bucket = np.empty(len(order), np.int64)
    bucket[order] = 1 + rank * intervals // size
    drawn = np.lexsort((-sample.scores, bucket, sample.features))
    kept = drawn[_rank_within((sample.features * (intervals + 1) + bucket)[drawn]) < per_interval]
    return bucket[kept], kept


def _active(values: Tensor) -> tuple[Ints, Ints, Floats]:
    rows, features = values.nonzero(as_tuple=True)
    return rows.numpy(), features.numpy(), values[rows, features].double().numpy()


def _windows(tokens: TokenFeatures, rows: Ints, features: Ints, window: int) -> NDArray[np.float32]:
    """Values of each example's feature on the tokens around it [n, 2 window + 1]."""
    around = rows[:, None] + np.arange(-window, window + 1)
    inside = np.clip(around, 0, len(tokens.text_ids) - 1)
    values = tokens.values[torch.from_numpy(inside), torch.from_numpy(features)[:, None]].float().numpy()
    same = (inside == around) & (tokens.text_ids[inside] == tokens.text_ids[rows][:, None])
    return np.where(same, values, np.float32("nan"))


def _no_examples(window: int) -> Examples:
    ints, floats = np.zeros(0, np.int64), np.zeros(0, np.float64)
    hashes, windows = np.zeros(0, np.uint64), np.zeros((0, 2 * window + 1), np.float32)
    return Examples(ints, floats, floats, ints, ints, ints, hashes, windows)


def _best_of_each_context(pool: Examples) -> NDArray[np.intp]:
    """Rows of the best example of each feature and context."""
    order = np.lexsort((pool.positions, pool.text_ids, -pool.scores, pool.contexts, pool.features))
    features, contexts = pool.features[order], pool.contexts[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (features[1:] != features[:-1]) | (contexts[1:] != contexts[:-1])
    return order[is_first]


def _rank_within(groups: Ints) -> Ints:
    """Rank of each element within its run of equal, adjacent groups."""
    if not len(groups):
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))


def _uniform(contexts: NDArray[np.uint64], features: Ints) -> Floats:
    """A number in [0, 1) a (context, feature): the same wherever it is met, so that parts draw alike."""
    return _mix(contexts ^ _mix(features.astype(np.uint64))) / 2.0**64


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014)."""
    z = (values + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def ranks(examples: Examples, buckets: Ints) -> Ints:
    """Rank of each example within its feature and bucket [n], from 0, largest activation first."""
    order = np.lexsort((examples.positions, examples.text_ids, -examples.activations, buckets, examples.features))
    group = examples.features[order] * (int(buckets.max(initial=0)) + 1) + buckets[order]
    ranked = np.empty(len(order), np.int64)
    ranked[order] = _rank_within(group)
    return ranked
