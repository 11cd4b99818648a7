"""The source of all tables: a lexicon, film reviews, the features that fire on them, and probe weights."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from lfp.bundle.schema import TOKEN_VALUES
from lfp.probes.pooling import token_shares

Array = np.ndarray[Any, Any]


Random = np.random.Generator


def ranked(group: Array, score: Array) -> tuple[Array, Array]:
    """Return indices sorted by group, then by falling score, and the rank of each within its group."""
    order = np.lexsort((-score, group))
    return order, counts_up(group[order])


def counts_up(group: Array) -> Array:
    """Count 0, 1, 2, ... within each run of equal values."""
    first = np.flatnonzero(np.diff(group, prepend=-1)) if len(group) else group
    return np.arange(len(group)) - np.repeat(first, np.diff(np.append(first, len(group))))


def list_offsets(group: Array, n_groups: int) -> Array:
    """Return the list offsets of values sorted by group."""
    return np.concatenate([[0], np.cumsum(np.bincount(group.astype(np.int64), minlength=n_groups))])


def listed(offsets: Array, values: Array | pa.Array) -> pa.Array:
    """Build lists from their offsets and their concatenated values."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


def nulled(values: Array) -> pa.Array:
    """Turn NaN into null."""
    return pa.array(values, mask=np.isnan(values))


def token_values(tokens: Sequence[str], which: Array, values: Array) -> pa.StructArray:
    """Build pairs of a token, by its index `which`, and a value."""
    names = pa.array(tokens, pa.string()).take(pa.array(which, pa.int64()))
    return pa.StructArray.from_arrays([names, pa.array(values, pa.float32())], fields=list(TOKEN_VALUES.value_type))


LEXICON: Mapping[str, float] = {
    "good": 1.9, "great": 3.1, "wonderful": 2.7, "brilliant": 2.8, "charming": 2.8, "funny": 1.9, "beautiful": 2.9,
    "superb": 3.1, "perfect": 2.7, "delightful": 2.8, "clever": 2.0, "honest": 2.3, "warm": 0.9, "fresh": 1.3,
    "bad": -2.5, "awful": -2.0, "terrible": -2.1, "boring": -1.3, "dull": -1.7, "stupid": -2.4, "weak": -1.9,
    "disappointing": -2.2, "painful": -1.9, "ugly": -2.3, "lazy": -1.5, "ridiculous": -1.5, "horrible": -2.5,
    "annoying": -1.7, "loved": 2.9, "enjoyed": 2.3, "admired": 2.1, "hated": -3.2, "resented": -1.6, "regretted": -1.7,
    "masterpiece": 3.1, "triumph": 2.1, "treasure": 1.2, "mess": -1.5, "disaster": -3.1, "failure": -2.3,
}  # fmt: skip


_WORDS = list(LEXICON)


PRAISE_AND_BLAME: Mapping[str, tuple[list[str], list[str]]] = {
    "adjective": (_WORDS[:14], _WORDS[14:28]), "verb": (_WORDS[28:31], _WORDS[31:34]),
    "thing": (_WORDS[34:37], _WORDS[37:]),
}  # fmt: skip


PLAIN: Mapping[str, tuple[str, ...]] = {
    "noun": ("film", "movie", "plot", "script", "acting", "cast", "story", "ending", "pacing", "score", "scene"),
    "opener": ("I thought", "To my mind", "From the first scene", "By the end", "After an hour", "In truth"),
}  # fmt: skip


_PATTERNS = (
    "The {noun} was {adjective}", "{opener} the {noun} felt {adjective}", "A {adjective}, {adjective} {noun}",
    "My friends found the {noun} {adjective} and the {noun} {adjective}", "It is a {noun} about a family by the sea",
    "The {noun} is {adjective}, but the {noun} never quite arrives", "We saw it on a rainy afternoon in town",
    "There is not one {adjective} minute in this {noun}", "I {verb} the {noun} and {verb} the {noun}",
    "What a {thing}", "The {noun} alone makes it a {thing}", "Nobody in our row {verb} it",
)  # fmt: skip


def reviews(n: int, random: Random) -> list[str]:
    """Write `n` reviews of a few sentences, each in one mood."""
    texts = []
    for _ in range(n):
        mood = random.uniform(0.1, 0.9)
        sentences = [_sentence(mood, random) for _ in range(random.integers(2, 5))]
        ended = (f"{sentence}{random.choice(['.', '.', '.', '!', '...' + chr(10)])} " for sentence in sentences)
        texts.append("".join(ended).strip())
    return texts


def _sentence(mood: float, random: Random) -> str:
    """Fill in a pattern: praise with probability `mood`, blame otherwise."""

    def fill(slot: re.Match[str]) -> str:
        name = slot.group(1)
        if name in PRAISE_AND_BLAME:
            praise, blame = PRAISE_AND_BLAME[name]
            return str(random.choice(praise if random.random() < mood else blame))
        return str(random.choice(PLAIN[name]))

    return re.sub(r"\{(\w+)\}", fill, str(random.choice(_PATTERNS)))


_PIECES = re.compile(r"\s?[^\W\d_]+|\s?[^\s]|\s+")


@dataclass(frozen=True)
class Corpus:
    """Texts cut into tokens; arrays run over all tokens of all texts."""

    texts: Sequence[str]
    pieces: Sequence[str]
    words: Sequence[str]
    offsets: Array  # [n_texts + 1] first token of each text
    starts: Array  # [n_tokens] first character
    type: Array  # [n_tokens] index into pieces
    word: Array  # [n_tokens] index into words
    is_last: Array  # [n_tokens] last token of its word

    @cached_property
    def sizes(self) -> Array:
        """Tokens of each text."""
        return np.diff(self.offsets)

    @cached_property
    def text(self) -> Array:
        """Text of each token."""
        return np.repeat(np.arange(len(self.texts)), self.sizes)

    @cached_property
    def position(self) -> Array:
        """Position of each token in its text."""
        return np.arange(len(self.type)) - np.repeat(self.offsets[:-1], self.sizes)

    @cached_property
    def word_value(self) -> Array:
        """Lexicon value of each word, NaN where it has none."""
        return np.array([LEXICON.get(word, np.nan) for word in self.words], dtype=np.float64)

    @cached_property
    def feedback(self) -> Array:
        """True feedback of each token, NaN where there is none."""
        return np.where(self.is_last, self.word_value[self.word], np.nan)


def cut(texts: Sequence[str]) -> Corpus:
    """Cut texts as byte-pair tokenizers do: a leading space belongs to its word, a long word is two tokens."""
    pieces: dict[str, int] = {}
    words = {word: number for number, word in enumerate(LEXICON)}
    columns: list[tuple[int, int, int, bool]] = []
    offsets = [0]
    for text in texts:
        for match in _PIECES.finditer(text):
            word = words.setdefault(match.group().strip().casefold(), len(words))
            cuts = [match.start(), match.start() + 6, match.end()] if len(match.group()) > 9 else [*match.span()]
            for start, end in itertools.pairwise(cuts):
                columns.append((start, pieces.setdefault(text[start:end], len(pieces)), word, end == match.end()))
        offsets.append(len(columns))
    starts, type_, word_, last = np.array(columns, dtype=np.int64).reshape(-1, 4).T
    return Corpus(texts, list(pieces), list(words), np.array(offsets), starts, type_, word_, last.astype(bool))


D_IN, FOLDS = 16, 5
"""Width of what features read, and folds of words and triples."""


RAW_INTERCEPT, RAW_BIAS = 0.02, -0.015
"""The raw probe's intercept, and what the decoders' biases add to its estimate of each token."""


UNKEPT_SHARE = 0.15
"""Share of texts without activations, as if they were kept only for an example."""


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
    """The source of all tables."""

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
        """First token of each text's response: a third into it where the probe pools responses, else 0."""
        return self.corpus.sizes // 3 if self.pooling == "response" else np.zeros_like(self.corpus.sizes)

    @cached_property
    def shares(self) -> Array:
        """Weight of each token in its text; undefined for max."""
        corpus = self.corpus
        return token_shares(corpus.text, self.pooling, corpus.position >= self.response_start[corpus.text])

    @cached_property
    def credits(self) -> Array:
        """Part of each activation in its feature's pooled value."""
        active = self.activity
        if self.pooling != "max":
            return self.shares[active.token] * active.value
        group = self.corpus.text[active.token] * np.int64(active.n_features) + active.feature
        order, rank = ranked(group, active.value)
        credits = np.zeros(len(group))
        credits[order[rank == 0]] = active.value[order[rank == 0]]
        return credits

    def estimate(self, weights: Array) -> Array:
        """Sum the contributions under these weights [n_features] for each text."""
        text = self.corpus.text[self.activity.token]
        return np.bincount(text, weights[self.activity.feature] * self.credits, len(self.corpus.texts))

    @cached_property
    def predicted(self) -> Array:
        """The headline's estimate of each text."""
        return self.estimate(self.weights[0].astype(np.float64)) + self.intercepts[0]

    @cached_property
    def raw_weights(self) -> Array:
        """Raw probe weights [n_features] float32, near the headline's."""
        return (0.9 * self.weights[0] + 0.01 * np.cos(np.arange(len(self.layer)))).astype(np.float32)

    @cached_property
    def token_misses(self) -> Array:
        """Part of the raw probe's estimate of each token that the autoencoders do not reconstruct."""
        return np.random.default_rng(len(self.corpus.type)).normal(0, 0.05, len(self.corpus.type))

    @cached_property
    def misses(self) -> Array:
        """The same for each text."""
        shares = 0.2 if self.pooling == "max" else self.shares
        return np.bincount(self.corpus.text, shares * self.token_misses, len(self.corpus.texts))

    @cached_property
    def predicted_raw(self) -> Array:
        """The raw probe's estimate of each text: the second ledger's sum."""
        times = self.corpus.sizes if self.pooling == "sum" else 1
        return self.estimate(self.raw_weights.astype(np.float64)) + RAW_INTERCEPT + RAW_BIAS * times + self.misses

    @cached_property
    def weightiest(self) -> list[int]:
        """The features that are ablated one by one."""
        found: list[int] = np.argsort(-np.abs(self.weights[0]), kind="stable")[:6].tolist()
        return found


def make(corpus: Corpus, *, n_features: int, n_layers: int, pooling: str, random: Random, n_pairs: int) -> Made:
    """Draw everything that tables share: themes of features, activations, weights, implicit reward."""
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
    """Draw eight features per token about its word and four of all; a feature drawn twice counts once."""
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
