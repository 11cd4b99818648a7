"""The source of all tables: a lexicon, film reviews, the features that fire on them, and probe weights."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lfp.probes.pooling import token_shares
from lfp.util.types import Place

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

_PIECES = re.compile(r"\s?[^\W\d_]+|\s?[^\s]|\s+")


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


@dataclass(frozen=True)
class Corpus:
    """Texts cut into tokens; arrays run over all tokens of all texts."""

    texts: Sequence[str]
    pieces: Sequence[str]
    words: Sequence[str]
    word_value: Array  # [n_words] lexicon value, NaN where it has none
    offsets: Array  # [n_texts + 1] first token of each text
    sizes: Array  # [n_texts] tokens of each text
    starts: Array  # [n_tokens] first character
    type: Array  # [n_tokens] index into pieces
    word: Array  # [n_tokens] index into words
    is_last: Array  # [n_tokens] last token of its word
    text: Array  # [n_tokens] index into texts
    position: Array  # [n_tokens] position in its text
    feedback: Array  # [n_tokens] true feedback, NaN where there is none


def cut(texts: Sequence[str]) -> Corpus:
    """Cut texts as byte-pair tokenizers do: a leading space belongs to its word, a long word is two tokens."""
    pieces: dict[str, int] = {}
    words = {word: number for number, word in enumerate(LEXICON)}
    columns: list[tuple[int, int, int, bool]] = []
    ends = [0]
    for text in texts:
        for match in _PIECES.finditer(text):
            word = words.setdefault(match.group().strip().casefold(), len(words))
            cuts = [match.start(), match.start() + 6, match.end()] if len(match.group()) > 9 else [*match.span()]
            for start, end in itertools.pairwise(cuts):
                columns.append((start, pieces.setdefault(text[start:end], len(pieces)), word, end == match.end()))
        ends.append(len(columns))
    starts, type_, word_, last = np.array(columns, dtype=np.int64).reshape(-1, 4).T
    offsets, is_last = np.array(ends), last.astype(bool)
    sizes = np.diff(offsets)
    word_value = np.array([LEXICON.get(word, np.nan) for word in words], dtype=np.float64)
    return Corpus(
        texts, list(pieces), list(words), word_value, offsets, sizes, starts, type_, word_, is_last,
        text=np.repeat(np.arange(len(texts)), sizes),
        position=np.arange(len(type_)) - np.repeat(offsets[:-1], sizes),
        feedback=np.where(is_last, word_value[word_], np.nan),
    )  # fmt: skip


D_IN, FOLDS = 16, 5
"""Width of what features read, and folds of words and triples."""
N_SPLIT = 400
"""Texts, the first, whose implicit reward is split over modules."""
STANDING = 2
"""Words that stand out from the others."""
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
    by_feature: Array  # its order by feature, then token
    places: Array  # feature times n_tokens plus token, sorted: where each feature is active


@dataclass(frozen=True)
class Made:
    """The source of all tables. Estimates are the headline probe's; raw ones are those of the raw probe."""

    corpus: Corpus
    activity: Activity
    places: tuple[Place, ...]
    pooling: str
    n_pairs: int
    place: Array  # [n_features] index into places
    theme: Array  # [n_features] index into corpus.words
    weights: Array  # [n_probes, n_features] float32
    raw_weights: Array  # [n_features] float32, near the headline's
    intercepts: Array  # [n_probes]
    implicit: Array  # [n_tokens] NaN where undefined
    token_predicted: Array  # [n_tokens] estimate of each token
    token_misses: Array  # [n_tokens] part of the raw estimate that the autoencoders do not reconstruct
    predicted: Array  # [n_texts] estimate of each text
    predicted_raw: Array  # [n_texts] raw estimate of each text: the second ledger's sum
    misses: Array  # [n_texts] the part that is not reconstructed
    response_start: Array  # [n_texts] a third into the text where the probe pools responses, else 0
    kept: Array  # texts whose activations are kept
    weightiest: list[int]  # features that are ablated one by one


def make(
    corpus: Corpus, *, n_features: int, places: Sequence[Place], pooling: str, random: Random, n_pairs: int
) -> Made:
    """Draw everything that tables share: themes of features, activations, weights, implicit reward, estimates."""
    n_tokens, n_texts = len(corpus.type), len(corpus.texts)
    odds = np.where(np.isnan(corpus.word_value), [float(word.isalpha()) for word in corpus.words], 4.0)
    theme = random.choice(len(odds), n_features, p=odds / odds.sum())
    active = _activity(corpus, theme, random)
    value = np.nan_to_num(corpus.word_value)[theme]
    noise = random.normal(0, [[0.02], [0.05], [0.06]], (3, n_features))
    sizes = np.array([[0.08], [0.3], [0.25]])
    weights = (sizes * value * random.uniform(0.2, 1, n_features) + noise).astype(np.float32)
    raw_weights = (0.9 * weights[0] + 0.01 * np.cos(np.arange(n_features))).astype(np.float32)
    implicit = 0.3 * np.nan_to_num(corpus.feedback) + random.normal(0, 0.25, n_tokens)
    implicit[corpus.position == 0] = np.nan
    intercepts = np.array([0.0125, -0.04, 0.02])

    response_start = corpus.sizes // 3 if pooling == "response" else np.zeros_like(corpus.sizes)
    text = corpus.text[active.token]
    if pooling == "max":  # a feature's largest activation counts, at the first token that has it
        shares = np.full(n_tokens, 0.2)
        order, rank = ranked(text * np.int64(n_features) + active.feature, active.value)
        largest = order[rank == 0]
        credits = np.zeros(len(text))
        credits[largest] = active.value[largest]
    else:
        shares = token_shares(corpus.text, pooling, corpus.position >= response_start[corpus.text])
        credits = shares[active.token] * active.value

    def estimate(weights: Array) -> Array:
        return np.bincount(text, weights.astype(np.float64)[active.feature] * credits, n_texts)

    token_misses = np.random.default_rng(n_tokens).normal(0, 0.05, n_tokens)
    misses = np.bincount(corpus.text, shares * token_misses, n_texts)
    biases = corpus.sizes if pooling == "sum" else 1
    by_token = weights[0].astype(np.float64)[active.feature] * active.value
    return Made(
        corpus, active, tuple(places), pooling, n_pairs, np.sort(np.arange(n_features) % len(places)), theme, weights,
        raw_weights, intercepts, implicit,
        token_predicted=np.bincount(active.token, by_token, n_tokens) + intercepts[0],
        token_misses=token_misses,
        predicted=estimate(weights[0]) + intercepts[0],
        predicted_raw=estimate(raw_weights) + RAW_INTERCEPT + RAW_BIAS * biases + misses,
        misses=misses,
        response_start=response_start,
        kept=np.arange(n_texts - int(n_texts * UNKEPT_SHARE)),
        weightiest=np.argsort(-np.abs(weights[0]), kind="stable")[:6].tolist(),
    )  # fmt: skip


def _activity(corpus: Corpus, theme: Array, random: Random) -> Activity:
    """Draw eight features per token about its word and four of all; a feature drawn twice counts once."""
    n_tokens, n_features = len(corpus.type), len(theme)
    if not n_tokens or not n_features:
        none = np.zeros(0, np.int64)
        return Activity(none, none, none.astype(np.float32), n_tokens, n_features, none, none)
    by_theme = np.argsort(theme, kind="stable")
    n_about = np.bincount(theme, minlength=len(corpus.words))
    first = np.cumsum(n_about) - n_about
    draw = random.integers(0, 1 << 30, (n_tokens, 8)) % np.maximum(n_about[corpus.word], 1)[:, None]
    about = by_theme[np.minimum(first[corpus.word][:, None] + draw, n_features - 1)]
    is_about = np.broadcast_to((n_about[corpus.word] > 0)[:, None], draw.shape)
    feature = np.concatenate([np.where(is_about, about, -1), random.integers(0, n_features, (n_tokens, 4))], axis=1)
    about_value, other_value = random.lognormal(0.7, 0.45, draw.shape), random.lognormal(-1.2, 0.6, (n_tokens, 4))
    value = np.concatenate([about_value, other_value], axis=1)
    token = np.broadcast_to(np.arange(n_tokens)[:, None], feature.shape)
    present = feature >= 0
    key, kept = np.unique((token * n_features + feature)[present], return_index=True)
    values = value[present][kept].astype(np.float32)
    token, feature = key // n_features, key % n_features
    places = feature * n_tokens + token
    by_feature = np.argsort(places)
    return Activity(token, feature, values, n_tokens, n_features, by_feature, places[by_feature])
