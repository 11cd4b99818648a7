"""Statistics of features in one pass over tokens: mergeable, exact, bounded by features times k and never by tokens."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from lfp.config import StatsConfig
from lfp.ml.active import Active, active
from lfp.ml.coactivation import ContextSketches
from lfp.ml.contexts import Places, context_hashes
from lfp.ml.examples import Batch, Examples, SampledExamples, TopExamples
from lfp.ml.moments import Moments
from lfp.ml.neighbours import Neighbours
from lfp.ml.silent import SilentPlaces
from lfp.util.types import Ints

_WAITING_ENTRIES = 2**19  # work a feature is done once for as many active entries, at least
_WAITING_PER_FEATURE = 16
_WORKERS = 2  # statistics share no state, and numpy frees the interpreter while it works


@dataclass(frozen=True)
class TokenFeatures:
    """Features of consecutive tokens of whole texts: `values` (tuned) and `base_values`, [n, features] or active ones.

    `text_ids`, `positions` (from 0), `token_ids` are [n].
    """

    values: Tensor | Active
    base_values: Tensor | Active
    text_ids: Ints
    positions: Ints
    token_ids: Ints


@dataclass(frozen=True)
class _Waiting:
    places: Places
    tuned: Active
    base: Active

    @property
    def n_entries(self) -> int:
        return len(self.tuned.features) + len(self.base.features)


class FeatureStats:
    """What one pass learns of every feature: moments for both models, examples of several kinds, and its neighbours.

    `update` takes whole texts in any order and `merge` joins the statistics of parts: the result depends on neither.
    Active entries wait until there are enough of them for the work that is done once a feature.
    """

    def __init__(self, n_features: int, config: StatsConfig) -> None:
        self.config = config
        self._tuned = Moments(n_features, config.histogram_bins)
        self._base = Moments(n_features, config.histogram_bins)
        self._top = TopExamples(n_features, config.top_examples, config.window)
        self._sample = SampledExamples(n_features, config.sampled_activations, config.window)
        self._silent = SilentPlaces(n_features, config.window)
        self._sketches = ContextSketches(n_features, config.coactivation_contexts)
        self._waiting: list[_Waiting] = []
        self._enough = max(_WAITING_ENTRIES, _WAITING_PER_FEATURE * n_features)

    def update(self, tokens: TokenFeatures) -> None:
        """Adds a batch of whole texts."""
        places = Places(tokens.text_ids, tokens.positions, tokens.token_ids)
        self._waiting.append(_Waiting(places, _as_active(tokens.values), _as_active(tokens.base_values)))
        if sum(one.n_entries for one in self._waiting) >= self._enough:
            self._settle()

    def merge(self, other: FeatureStats) -> None:
        """Adds another part's statistics to these."""
        self._settle()
        other._settle()
        self._tuned.merge(other._tuned)
        self._base.merge(other._base)
        self._top.merge(other._top)
        self._sample.merge(other._sample)
        self._silent.merge(other._silent)
        self._sketches.merge(other._sketches)

    @property
    def tuned(self) -> Moments:
        """Moments of the features on the tuned model."""
        self._settle()
        return self._tuned

    @property
    def base(self) -> Moments:
        """Moments of the same features on the base model."""
        self._settle()
        return self._base

    def top(self) -> Examples:
        """Each feature's largest activations, one a context."""
        self._settle()
        return self._top.examples()

    def sample(self) -> Examples:
        """A uniform random sample of the different contexts in which each feature is active; all where they are few."""
        self._settle()
        return self._sample.examples()

    def silent(self) -> Examples:
        """Random contexts in which each feature is not active."""
        self._settle()
        return self._silent.examples(self.config.silent_examples)

    def coactive(self) -> Neighbours:
        """The features that are active in the same contexts as each, over all layers."""
        self._settle()
        return self._sketches.neighbours(self.config.neighbours)

    def _settle(self) -> None:
        """Takes what waits into the statistics."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        places = Places.concatenate([one.places for one in waiting])
        tuned = Active.concatenate([one.tuned for one in waiting])
        base = Active.concatenate([one.base for one in waiting])
        batch = Batch(places, context_hashes(places.positions, places.token_ids), tuned)
        _ = tuned.by_feature, places.bounds  # made once, before threads share them
        jobs = (
            lambda: self._tuned.update(tuned.n_tokens, tuned.by_feature),
            lambda: self._base.update(base.n_tokens, base.by_feature),
            lambda: self._sample.update(batch),
            lambda: self._top.update(batch),
            lambda: self._sketches.update(batch),
            lambda: self._silent.update(batch),
        )
        with ThreadPoolExecutor(_WORKERS) as pool:
            for done in [pool.submit(job) for job in jobs]:
                done.result()


def _as_active(values: Tensor | Active) -> Active:
    return values if isinstance(values, Active) else active(values)
