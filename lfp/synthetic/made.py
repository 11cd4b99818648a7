"""What every table is filled from: a corpus, which features fire on it, and what the probes give them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lfp.pooling import token_shares
from lfp.synthetic.arrays import Array, Random, ranked
from lfp.synthetic.corpus import Corpus

D_IN, FOLDS = 16, 5
"""Width of what features read, and folds of words and triples."""
RAW_INTERCEPT, RAW_BIAS = 0.02, -0.015
"""The raw probe's intercept, and what the decoders' biases add to its estimate of a token."""
UNKEPT_SHARE = 0.15
"""Share of texts whose activations are not kept, as if only an example named them."""


@dataclass(frozen=True)
class Activity:
    """Which feature is active on which token, sorted by token, then feature."""

    token: Array
    feature: Array
    value: Array  # float32
    n_tokens: int
    n_features: int

    @cached_property
    def by_feature(self) -> Array:
        """Its order by feature, then token."""
        return np.argsort(self.feature * self.n_tokens + self.token)

    @cached_property
    def places(self) -> Array:
        """Feature times n_tokens plus token, sorted: where each feature is active."""
        return (self.feature * self.n_tokens + self.token)[self.by_feature]


@dataclass(frozen=True)
class Made:
    """What tables are filled from."""

    corpus: Corpus
    activity: Activity
    layer: Array  # [n_features]
    theme: Array  # [n_features] index into corpus.words
    weights: Array  # [n_probes, n_features] float32
    intercepts: Array  # [n_probes]
    implicit: Array  # [n_tokens] NaN where undefined
    n_layers: int
    pooling: str
    n_pairs: int

    @cached_property
    def kept(self) -> Array:
        """Texts whose activations are kept."""
        n = len(self.corpus.texts)
        return np.arange(n - int(n * UNKEPT_SHARE))

    @cached_property
    def token_predicted(self) -> Array:
        """The headline's estimate of each token."""
        made = self.weights[0].astype(np.float64)[self.activity.feature] * self.activity.value
        return np.bincount(self.activity.token, made, self.activity.n_tokens) + self.intercepts[0]

    @cached_property
    def response_start(self) -> Array:
        """First token of each text's response: a third into it where the probe reads responses, else 0."""
        return self.corpus.sizes // 3 if self.pooling == "response" else np.zeros_like(self.corpus.sizes)

    @cached_property
    def shares(self) -> Array:
        """What each token counts for; not defined for max."""
        corpus = self.corpus
        return token_shares(corpus.text, self.pooling, corpus.position >= self.response_start[corpus.text])

    @cached_property
    def credits(self) -> Array:
        """What each activation adds to its feature's pooled value."""
        active = self.activity
        if self.pooling != "max":
            return self.shares[active.token] * active.value
        group = self.corpus.text[active.token] * np.int64(active.n_features) + active.feature
        order, rank = ranked(group, active.value)
        credits = np.zeros(len(group))
        credits[order[rank == 0]] = active.value[order[rank == 0]]
        return credits

    def estimate(self, weights: Array) -> Array:
        """What contributions by these weights [n_features] sum to, text by text."""
        text = self.corpus.text[self.activity.token]
        return np.bincount(text, weights[self.activity.feature] * self.credits, len(self.corpus.texts))

    @cached_property
    def predicted(self) -> Array:
        """The headline's estimate of each text."""
        return self.estimate(self.weights[0].astype(np.float64)) + self.intercepts[0]

    @cached_property
    def raw_weights(self) -> Array:
        """What the raw probe gives each feature, [n_features] float32: near the headline's weights."""
        return (0.9 * self.weights[0] + 0.01 * np.cos(np.arange(len(self.layer)))).astype(np.float32)

    @cached_property
    def token_misses(self) -> Array:
        """What the autoencoders miss of the raw probe's estimate of each token."""
        return np.random.default_rng(len(self.corpus.type)).normal(0, 0.05, len(self.corpus.type))

    @cached_property
    def misses(self) -> Array:
        """The same of each text."""
        shares = 0.2 if self.pooling == "max" else self.shares
        return np.bincount(self.corpus.text, shares * self.token_misses, len(self.corpus.texts))

    @cached_property
    def predicted_raw(self) -> Array:
        """The raw probe's estimate of each text: the second ledger's sum."""
        times = self.corpus.sizes if self.pooling == "sum" else 1
        return self.estimate(self.raw_weights.astype(np.float64)) + RAW_INTERCEPT + RAW_BIAS * times + self.misses

    @cached_property
    def weightiest(self) -> list[int]:
        """The features that are taken out one by one."""
        found: list[int] = np.argsort(-np.abs(self.weights[0]), kind="stable")[:6].tolist()
        return found


def make(corpus: Corpus, *, n_features: int, n_layers: int, pooling: str, random: Random, n_pairs: int) -> Made:
    """Draws everything that tables share: themes of features, what fires, weights, implicit reward."""
    layer = np.sort(np.arange(n_features) % n_layers)
    odds = np.where(np.isnan(corpus.word_value), [float(word.isalpha()) for word in corpus.words], 4.0)
    theme = random.choice(len(odds), n_features, p=odds / odds.sum())
    activity = _activity(corpus, theme, random)
    value = np.nan_to_num(corpus.word_value)[theme]
    noise = random.normal(0, [[0.02], [0.05], [0.06]], (3, n_features))
    weights = (np.array([[0.08], [0.3], [0.25]]) * value * random.uniform(0.2, 1, n_features) + noise).astype(
        np.float32
    )
    implicit = 0.3 * np.nan_to_num(corpus.feedback) + random.normal(0, 0.25, len(corpus.type))
    implicit[corpus.position == 0] = np.nan
    intercepts = np.array([0.0125, -0.04, 0.02])
    return Made(corpus, activity, layer, theme, weights, intercepts, implicit, n_layers, pooling, n_pairs)


def _activity(corpus: Corpus, theme: Array, random: Random) -> Activity:
    """Eight draws a token from the features about its word, four from all features; drawn twice counts once."""
    n_tokens, n_features = len(corpus.type), len(theme)
    if not n_tokens or not n_features:
        none = np.zeros(0, np.int64)
        return Activity(none, none, none.astype(np.float32), n_tokens, n_features)
    by_theme = np.argsort(theme, kind="stable")
    n_about = np.bincount(theme, minlength=len(corpus.words))
    first = np.cumsum(n_about) - n_about
    draw = random.integers(0, 1 << 30, (n_tokens, 8)) % np.maximum(n_about[corpus.word], 1)[:, None]
    about = by_theme[np.minimum(first[corpus.word][:, None] + draw, n_features - 1)]
    is_about = np.broadcast_to((n_about[corpus.word] > 0)[:, None], draw.shape)
    feature = np.concatenate([np.where(is_about, about, -1), random.integers(0, n_features, (n_tokens, 4))], axis=1)
    value = np.concatenate(
        [random.lognormal(0.7, 0.45, draw.shape), random.lognormal(-1.2, 0.6, (n_tokens, 4))], axis=1
    )
    token = np.broadcast_to(np.arange(n_tokens)[:, None], feature.shape)
    present = feature >= 0
    key, kept = np.unique((token * n_features + feature)[present], return_index=True)
    values = value[present][kept].astype(np.float32)
    return Activity(key // n_features, key % n_features, values, n_tokens, n_features)
