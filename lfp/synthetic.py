"""Bundles of any size made up from a seed, for tests and benchmarks: every table filled, in agreement with the rest."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lfp.bundle import BundleWriter, Description, ModelInfo
from lfp.config import RunConfig
from lfp.labels import prompts
from lfp.labels.evidence import excerpt, silent_stretch
from lfp.labels.protocol import Excerpt
from lfp.labels.tasks import TASKS
from lfp.pooling import token_shares
from lfp.schema import BY_NAME, GROUP_VALUES, TOKEN_VALUES, as_table
from lfp.synthetic_results import drift_rows, frequency_rows, inert_rows, label_rows, single_ablations, word_rows
from lfp.synthetic_results import figure as _figure

Array = np.ndarray[Any, Any]
Random = np.random.Generator

LABELLER = "offline-tokens"
MODEL_LABELLER = "synthetic-model"
D_IN, N_BINS, N_TOP, N_INTERVALS, PER_INTERVAL, WINDOW, FOLDS, N_NEAR = 16, 24, 12, 4, 4, 10, 5, 2
RAW_INTERCEPT, RAW_BIAS = 0.02, -0.015
N_SHOWN, N_PROMPTED = 8, 200
"""Examples a model's label was shown, and features, from the first, whose model labels name them and keep their
prompts' hash: hashing takes too long for a million. The others name prompts that no program knows."""
UNKEPT_SHARE = 0.15
"""Share of texts whose activations are not kept, as if only an example named them."""

LEXICON: Mapping[str, float] = {
    "good": 1.9, "great": 3.1, "wonderful": 2.7, "brilliant": 2.8, "charming": 2.8, "funny": 1.9, "beautiful": 2.9,
    "superb": 3.1, "perfect": 2.7, "delightful": 2.8, "clever": 2.0, "honest": 2.3, "warm": 0.9, "fresh": 1.3,
    "bad": -2.5, "awful": -2.0, "terrible": -2.1, "boring": -1.3, "dull": -1.7, "stupid": -2.4, "weak": -1.9,
    "disappointing": -2.2, "painful": -1.9, "ugly": -2.3, "lazy": -1.5, "ridiculous": -1.5, "horrible": -2.5,
    "annoying": -1.7, "loved": 2.9, "enjoyed": 2.3, "admired": 2.1, "hated": -3.2, "resented": -1.6, "regretted": -1.7,
    "masterpiece": 3.1, "triumph": 2.1, "treasure": 1.2, "mess": -1.5, "disaster": -3.1, "failure": -2.3,
}  # fmt: skip
_WORDS = list(LEXICON)
_PRAISE_AND_BLAME: Mapping[str, tuple[list[str], list[str]]] = {
    "adjective": (_WORDS[:14], _WORDS[14:28]), "verb": (_WORDS[28:31], _WORDS[31:34]),
    "thing": (_WORDS[34:37], _WORDS[37:]),
}  # fmt: skip
_PLAIN: Mapping[str, tuple[str, ...]] = {
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


@dataclass(frozen=True)
class _Corpus:
    """Texts cut into tokens; arrays are over all tokens of all texts, one after the other."""

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
        return np.diff(self.offsets)

    @cached_property
    def text(self) -> Array:
        return np.repeat(np.arange(len(self.texts)), self.sizes)

    @cached_property
    def position(self) -> Array:
        return np.arange(len(self.type)) - np.repeat(self.offsets[:-1], self.sizes)

    @cached_property
    def word_value(self) -> Array:
        """Lexicon value a word, NaN where the lexicon is silent."""
        return np.array([LEXICON.get(word, np.nan) for word in self.words], dtype=np.float64)

    @cached_property
    def feedback(self) -> Array:
        """True feedback a token, NaN where there is none."""
        return np.where(self.is_last, self.word_value[self.word], np.nan)


@dataclass(frozen=True)
class _Activity:
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
class _Places:
    """Examples, sorted by feature, bucket and rank."""

    feature: Array
    bucket: Array
    rank: Array
    token: Array
    value: Array

    def part(self, low: int, high: int) -> _Places:
        """Rows `low` to `high`."""
        return _Places(*(getattr(self, field.name)[low:high] for field in fields(self)))


@dataclass(frozen=True)
class _Made:
    """What tables are filled from."""

    corpus: _Corpus
    activity: _Activity
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
        order, rank = _ranked(group, active.value)
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


def make_bundle(
    path: Path,
    *,
    n_features: int = 64,
    n_texts: int = 40,
    n_layers: int = 3,
    seed: int = 0,
    title: str = "Synthetic reviews, praised",
    pooling: str = "mean",
    n_pairs: int = 0,
    extra_texts: Sequence[str] = (),
    n_examples: int | None = None,
) -> Path:
    """Writes a made-up, valid bundle to `path` and returns it.

    The same arguments give the same tables. `pooling` is the probes'; `extra_texts` are put first, word for word; the
    first `n_pairs` twos of texts are pairs, of which the one with more feedback was chosen.
    `n_examples` are kept, evenly over the features, of the examples that the texts give; without it all of them.
    A million features and 20 million examples take minutes and some 5 GB of memory.
    """
    random = np.random.default_rng(seed)
    corpus = _corpus([*extra_texts, *_reviews(n_texts, random)])
    made = _make(corpus, n_features=n_features, n_layers=n_layers, pooling=pooling, random=random, n_pairs=n_pairs)
    with BundleWriter(path, _description(title=title, seed=seed, made=made)) as writer:
        for table, parts in _tables(made, random, n_examples):
            writer.write_parts(table, (as_table(table, rows) for rows in parts))
    return path


def _make(corpus: _Corpus, *, n_features: int, n_layers: int, pooling: str, random: Random, n_pairs: int) -> _Made:
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
    return _Made(corpus, activity, layer, theme, weights, intercepts, implicit, n_layers, pooling, n_pairs)


def _reviews(n: int, random: Random) -> list[str]:
    return [_review(random) for _ in range(n)]


def _review(random: Random) -> str:
    mood = random.uniform(0.1, 0.9)
    sentences = [_sentence(mood, random) for _ in range(random.integers(2, 5))]
    return "".join(s + str(random.choice([".", ".", ".", "!", "...\n"])) + " " for s in sentences).strip()


def _sentence(mood: float, random: Random) -> str:
    """A pattern filled in: praise with probability `mood`, blame otherwise."""

    def fill(slot: re.Match[str]) -> str:
        name = slot.group(1)
        if name in _PRAISE_AND_BLAME:
            praise, blame = _PRAISE_AND_BLAME[name]
            return str(random.choice(praise if random.random() < mood else blame))
        return str(random.choice(_PLAIN[name]))

    return re.sub(r"\{(\w+)\}", fill, str(random.choice(_PATTERNS)))


def _corpus(texts: Sequence[str]) -> _Corpus:
    """Cuts texts as byte-pair tokenizers do: a leading space belongs to its word, a long word is two tokens."""
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
    return _Corpus(texts, list(pieces), list(words), np.array(offsets), starts, type_, word_, last.astype(bool))


def _activity(corpus: _Corpus, theme: Array, random: Random) -> _Activity:
    """Eight draws a token from the features about its word, four from all features; drawn twice counts once."""
    n_tokens, n_features = len(corpus.type), len(theme)
    if not n_tokens or not n_features:
        none = np.zeros(0, np.int64)
        return _Activity(none, none, none.astype(np.float32), n_tokens, n_features)
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
    return _Activity(key // n_features, key % n_features, values, n_tokens, n_features)


def _tables(made: _Made, random: Random, n_examples: int | None) -> Iterator[tuple[str, Iterator[Any]]]:
    """Every table's name, and its columns (or rows, where few) in parts, made as they are asked for."""
    layers, saes, features = _layers(made, random), _saes(made, random), _features(made, random)
    yield "layers", iter([layers])
    yield "saes", iter([saes])
    yield "features", iter([features])
    yield "decoders", iter([_decoders(made, random)])
    yield "histograms", iter([_histograms(made, random)])
    places = _thinned(_places(made, random), n_examples)
    yield "examples", _examples(made, places)
    yield "texts", iter([_texts(made, random)])
    yield "token_scores", iter([_token_scores(made, random)])
    yield "activations", iter([_activations(made)])
    yield "triples", iter([_triples(made, random)])
    yield "vocabulary", iter([_vocabulary(made, random)])
    yield "word_features", iter([_word_features(made)])
    yield "probes", iter([_probes(made)])
    yield "weights", iter([_weights(made, random)])
    drift = _drift(made, features)
    yield "drift", iter([drift])
    pairs = _preference_rows() if made.n_pairs else []
    yield "results", iter([[*_results(layers, saes), *pairs, *_finding_rows(made), *drift_rows(drift)]])
    yield "neighbours", iter([_neighbours(made, random)])
    yield "labels", iter([_labels(made, random, places, features["max_activation"])])
    yield "ablations", iter([_ablations(made, random)])
    yield "completions", iter([_completions(made, random)])


def _layers(made: _Made, random: Random) -> list[dict[str, Any]]:
    """The layers with features, and as many again that were not selected, less divergent."""
    rows = []
    for layer in range(2 * made.n_layers):
        selected = layer < made.n_layers
        whole = float(random.uniform(0.6, 1.1) if selected else random.uniform(0.2, 0.5))
        groups = dict(zip(("attention", "mlp", "norm"), whole * random.dirichlet([4, 5, 1]), strict=True))
        rows.append({
            "layer": layer, "divergence": whole, "divergence_mlp": groups["mlp"],
            "divergence_by_group": [{"group": name, "value": value} for name, value in groups.items()],
            "relative_divergence": whole / 40, "selected": selected, "d_in": D_IN,
            "scale": float(random.uniform(0.1, 2)) if selected else None,
        })  # fmt: skip
    return rows


def _saes(made: _Made, random: Random) -> list[dict[str, Any]]:
    """Two sizes a layer on each model; the larger on the tuned model is the one whose features are the bundle's."""
    if not len(made.layer):
        return []
    size = max(len(made.layer) // made.n_layers // 2, 1)
    return [
        {
            "layer": layer, "variant": "tied_relu", "width": width, "seed": seed, "tied": True, "l1": 1e-3, "k": None,
            "l0_weight": None, "source": "trained",
            "is_used": model == "tuned" and width == 2 * size, "model": model, "fvu": float(random.uniform(0.08, 0.3)),
            "l0": float(random.uniform(8, 14)), "dead_fraction": float(random.uniform(0, 0.1)),
            "ce_recovered": float(random.uniform(0.85, 0.99)), "mmcs": float(random.uniform(0.5, 0.8)),
        }
        for layer in range(made.n_layers) for width in (size, 2 * size) for seed, model in enumerate(("tuned", "base"))
    ]  # fmt: skip


def _features(made: _Made, random: Random) -> dict[str, Any]:
    n, active = len(made.layer), made.activity
    n_active = np.bincount(active.feature, minlength=n)
    total = np.bincount(active.feature, active.value, n)
    highest = np.zeros(n)
    np.maximum.at(highest, active.feature, active.value)
    change = np.exp(random.normal(-0.1, 0.25, n))
    mean = total / np.maximum(n_active, 1)
    density = n_active / max(active.n_tokens, 1)
    base_mean = mean * change**0.5
    angle = 2 * np.pi * made.theme / len(made.corpus.words)
    return {
        "feature_id": np.arange(n), "layer": made.layer,
        "index": np.arange(n) - np.searchsorted(made.layer, made.layer),
        "density": density, "n_active": n_active, "mean_activation": mean, "max_activation": highest,
        "base_density": density * change, "base_mean_activation": base_mean,
        "shift": density * mean - density * change * base_mean,
        "stability": pa.array(random.uniform(0.2, 1, n), mask=random.random(n) < 0.05), "decoder_norm": np.ones(n),
        "top_tokens": _top_tokens(made), "pos_logits": _logits(made, random, sign=1),
        "neg_logits": _logits(made, random, sign=-1),
        "x": np.cos(angle) * 5 + random.normal(0, 0.3, n), "y": np.sin(angle) * 5 + random.normal(0, 0.3, n),
    }  # fmt: skip


def _top_tokens(made: _Made) -> pa.Array:
    """The six tokens with most of each feature's activation."""
    n_types, active = max(len(made.corpus.pieces), 1), made.activity
    key, at = np.unique(active.feature * n_types + made.corpus.type[active.token], return_inverse=True)
    weight = np.bincount(at, active.value, len(key))
    feature, type_ = key // n_types, key % n_types
    share = weight / np.bincount(feature, weight, len(made.layer))[feature] if len(key) else weight
    order, rank = _ranked(feature, share)
    order = order[rank < 6]
    tokens = _token_values(made.corpus.pieces, type_[order], share[order])
    return _lists(_offsets(feature[order], len(made.layer)), tokens)


def _logits(made: _Made, random: Random, *, sign: int) -> pa.Array:
    n = len(made.layer)
    types = random.integers(0, max(len(made.corpus.pieces), 1), (n, 8))
    values = -np.sort(-random.gamma(2, 0.12, (n, 8)), axis=1) * sign
    if not made.corpus.pieces:
        return _lists(np.zeros(n + 1, int), _token_values([""], np.zeros(0, int), np.zeros(0)))
    return _lists(np.arange(n + 1) * 8, _token_values(made.corpus.pieces, types.ravel(), values.ravel()))


def _decoders(made: _Made, random: Random) -> dict[str, Any]:
    rows = _directions(made, random)
    flat = pa.array(rows.astype(np.float16).ravel(), pa.float16())
    return {"feature_id": np.arange(len(rows)), "vector": _lists(np.arange(len(rows) + 1) * D_IN, flat)}


def _directions(made: _Made, random: Random) -> Array:
    """Unit vectors, near each other where features share a theme."""
    centres = random.normal(size=(len(made.corpus.words), D_IN))
    rows = centres[made.theme] + 0.6 * random.normal(size=(len(made.theme), D_IN))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _histograms(made: _Made, random: Random) -> dict[str, Any]:
    n, active = len(made.layer), made.activity
    low, high = np.full(n, np.inf), np.zeros(n)
    np.minimum.at(low, active.feature, active.value)
    np.maximum.at(high, active.feature, active.value)
    low, high = np.where(np.isinf(low), 0.01, low * 0.99), np.where(high == 0, 1.0, high * 1.01)
    edges = low[:, None] * (high / low)[:, None] ** (np.arange(N_BINS + 1) / N_BINS)
    span = np.log(high / low)[active.feature]
    bin_ = np.clip((np.log(active.value / low[active.feature]) / span * N_BINS).astype(int), 0, N_BINS - 1)
    counts = np.bincount(active.feature * N_BINS + bin_, minlength=n * N_BINS)
    base = np.roll(counts.reshape(n, N_BINS), -1, axis=1).ravel() * random.uniform(0.5, 1.1, n * N_BINS)
    rows = np.arange(n + 1)
    return {
        "feature_id": np.arange(n), "edges": _lists(rows * (N_BINS + 1), edges.ravel()),
        "counts": _lists(rows * N_BINS, counts), "base_counts": _lists(rows * N_BINS, np.round(base).astype(int)),
    }  # fmt: skip


def _places(made: _Made, random: Random) -> _Places:
    """Top examples (one a text), examples by quantile interval, places where the feature is silent, near misses."""
    active = made.activity
    text = made.corpus.text[active.token]
    best = np.lexsort((-active.value, text, active.feature))
    first = np.flatnonzero(np.diff(active.feature[best] * (1 << 32) + text[best], prepend=-1)) if len(best) else best
    best = best[first]
    order, rank = _ranked(active.feature[best], active.value[best])
    top = best[order[rank < N_TOP]]
    order, rank = _ranked(active.feature, active.value)
    share = rank / np.bincount(active.feature, minlength=len(made.layer))[active.feature[order]]
    interval = N_INTERVALS - np.minimum((share * N_INTERVALS).astype(int), N_INTERVALS - 1)
    within = _counts_up(active.feature[order] * (N_INTERVALS + 1) + interval)
    middle, interval = order[within < PER_INTERVAL], interval[within < PER_INTERVAL]
    silent, near = _silent(made, random), _near_misses(made, random.spawn(1)[0])
    feature = np.concatenate([active.feature[top], active.feature[middle], silent[0], near[0]])
    token = np.concatenate([active.token[top], active.token[middle], silent[1], near[1]])
    quiet = np.repeat([-1, -2], [len(silent[0]), len(near[0])])
    value = np.concatenate([active.value[top], active.value[middle], np.zeros(len(quiet), np.float32)])
    bucket = np.concatenate([np.zeros(len(top), int), interval, quiet])
    order, rank = _ranked(feature * (N_INTERVALS + 3) + bucket + 2, value)
    return _Places(feature[order], bucket[order], rank, token[order], value[order])


def _thinned(places: _Places, n: int | None) -> _Places:
    """So many of the examples, evenly spaced."""
    n_all = len(places.feature)
    if n is None or n >= n_all:
        return places
    kept = places.part(0, n_all)
    at = np.arange(n) * n_all // n
    feature, bucket = kept.feature[at], kept.bucket[at]
    return _Places(
        feature, bucket, _counts_up(feature * (N_INTERVALS + 3) + bucket + 2), kept.token[at], kept.value[at]
    )


def _examples(made: _Made, places: _Places) -> Iterator[dict[str, Any]]:
    """The table's columns, some row groups at a time: windows of a million features do not fit in memory at once."""
    size, n = 4 * BY_NAME["examples"].row_group_rows, len(places.feature)
    for low in range(0, max(n, 1), size):
        yield _example_columns(made, places.part(low, low + size))


def _example_columns(made: _Made, places: _Places) -> dict[str, Any]:
    start, windows = _windows(made, places.feature, places.token)
    return {
        "feature_id": places.feature, "bucket": places.bucket, "rank": places.rank,
        "text_id": made.corpus.text[places.token], "position": made.corpus.position[places.token],
        "activation": places.value, "window_start": start, "window_values": windows,
    }  # fmt: skip


def _silent(made: _Made, random: Random) -> tuple[Array, Array]:
    """Up to two tokens a feature on which it is not active."""
    n = len(made.layer) if made.activity.n_tokens else 0
    feature = np.repeat(np.arange(n), 2)
    token = random.integers(0, max(made.activity.n_tokens, 1), 2 * n)
    _, one = np.unique(feature * max(made.activity.n_tokens, 1) + token, return_index=True)
    feature, token = feature[one], token[one]
    quiet = _values_at(made, feature, token) == 0
    return feature[quiet], token[quiet]


def _near_misses(made: _Made, random: Random) -> tuple[Array, Array]:
    """Up to `N_NEAR` tokens a feature on which its first neighbour is active and it is silent all around."""
    n, active, n_tokens = len(made.layer), made.activity, made.activity.n_tokens
    none = np.zeros(0, np.int64)
    if not len(active.token):
        return none, none
    by_theme, neighbour = np.argsort(made.theme, kind="stable"), np.empty(n, np.int64)
    neighbour[by_theme] = np.roll(by_theme, -1)
    lies = active.places
    first, stop = (np.searchsorted(lies, (neighbour + after) * n_tokens) for after in (0, 1))
    drawn = first[:, None] + random.integers(0, 1 << 30, (n, 4 * N_NEAR)) % np.maximum(stop - first, 1)[:, None]
    feature, at = np.nonzero(np.broadcast_to((stop > first)[:, None], drawn.shape))
    place = np.unique(feature * n_tokens + lies[drawn[feature, at]] % n_tokens)
    feature, token = place // n_tokens, place % n_tokens
    low, high = _bounds(made.corpus, token)
    quiet = np.searchsorted(lies, feature * n_tokens + low) == np.searchsorted(lies, feature * n_tokens + high)
    feature, token = feature[quiet], token[quiet]
    few = _counts_up(feature) < N_NEAR
    return feature[few], token[few]


def _bounds(corpus: _Corpus, token: Array) -> tuple[Array, Array]:
    """First token of the window around each token, cut at the text's ends, and the first after it."""
    text = corpus.text[token]
    return (
        np.maximum(token - WINDOW, corpus.offsets[:-1][text]),
        np.minimum(token + WINDOW + 1, corpus.offsets[1:][text]),
    )


def _windows(made: _Made, feature: Array, token: Array) -> tuple[Array, pa.Array]:
    """First position and activations of the tokens around each example, cut at the text's ends."""
    corpus, active = made.corpus, made.activity
    low, high = _bounds(corpus, token)
    offsets = np.concatenate([[0], np.cumsum(high - low)])
    first, stop = (np.searchsorted(active.places, feature * active.n_tokens + end) for end in (low, high))
    within = np.repeat(np.arange(len(token)), stop - first)
    hits = active.by_feature[_counts_up(within) + first[within]]
    values = np.zeros(offsets[-1], np.float32)
    values[offsets[within] + active.token[hits] - low[within]] = active.value[hits]
    return corpus.position[low] if len(low) else low, _lists(offsets, values)


def _values_at(made: _Made, feature: Array, token: Array) -> Array:
    """Activation of a feature on a token, zero where it is silent; elementwise."""
    active = made.activity
    if not len(active.token):
        return np.zeros(len(token), np.float32)
    keys, key = active.token * active.n_features + active.feature, token * active.n_features + feature
    at = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
    return np.where(keys[at] == key, active.value[at], 0).astype(np.float32)


def _texts(made: _Made, random: Random) -> dict[str, Any]:
    corpus, n = made.corpus, len(made.corpus.texts)
    total = np.bincount(corpus.text, np.nan_to_num(corpus.feedback), n)
    feedback = np.clip(total / 5, -10, 10)
    implicit = np.bincount(corpus.text, np.nan_to_num(made.implicit), n)
    rating = np.clip(np.round(3 + feedback + random.normal(0, 0.7, n)), 1, 5)
    return {
        "text_id": np.arange(n), "source": pa.array(["synthetic"] * n, pa.string()),
        "split": pa.array(["train" if i % 4 else "held_out" for i in range(n)], pa.string()),
        **_pairs(made.n_pairs, feedback),
        "text": pa.array(corpus.texts, pa.string()), "token_ids": _lists(corpus.offsets, corpus.type),
        "token_starts": _lists(corpus.offsets, corpus.starts), "response_start": made.response_start,
        "feedback": feedback, "rating": pa.array(rating, mask=random.random(n) < 0.2), "predicted": made.predicted,
        "predicted_raw": made.predicted_raw, "sae_miss": made.misses, "implicit_reward": implicit,
        "pca_x": random.normal(size=n) + feedback, "pca_y": random.normal(size=n),
    }  # fmt: skip


def _pairs(n_pairs: int, feedback: Array) -> dict[str, Any]:
    """Roles of the texts and the pairs they are of."""
    n, first = len(feedback), 2 * np.arange(min(n_pairs, len(feedback) // 2))
    role, pair_id = np.full(n, "text", dtype=object), np.full(n, np.nan)
    second_wins = feedback[first + 1] > feedback[first]
    role[first] = np.where(second_wins, "rejected", "chosen")
    role[first + 1] = np.where(second_wins, "chosen", "rejected")
    pair_id[first], pair_id[first + 1] = first // 2, first // 2
    return {
        "role": pa.array(role.tolist(), pa.string()),
        "pair_id": pa.array([None if np.isnan(one) else int(one) for one in pair_id.tolist()], pa.int64()),
    }


def _token_scores(made: _Made, random: Random) -> dict[str, Any]:
    corpus = made.corpus
    advantage = made.implicit + random.uniform(0, 0.1, len(corpus.type))
    columns = {
        "feedback": corpus.feedback, "implicit_reward": made.implicit, "implicit_advantage": advantage,
        "predicted": made.token_predicted, "sae_miss": made.token_misses,
    }  # fmt: skip
    lists = {name: _lists(corpus.offsets, _nulled(values)) for name, values in columns.items()}
    return {"text_id": np.arange(len(corpus.texts)), **lists}


def _activations(made: _Made) -> dict[str, Any]:
    active, n = made.activity, len(made.kept)
    text = made.corpus.text[active.token] if len(active.token) else active.token
    is_kept = text < n
    offsets = _offsets(text[is_kept], n)
    return {
        "text_id": made.kept, "positions": _lists(offsets, made.corpus.position[active.token[is_kept]]),
        "feature_ids": _lists(offsets, active.feature[is_kept]), "values": _lists(offsets, active.value[is_kept]),
    }  # fmt: skip


def _triples(made: _Made, random: Random) -> list[dict[str, Any]]:
    """A few sentences with their target word replaced; the target is the fourth token."""
    n = 20 if len(made.corpus.texts) else 0
    praise_words, blame_words = _PRAISE_AND_BLAME["adjective"]
    rows = []
    for i in range(n):
        noun, praise, blame = (str(random.choice(c)) for c in (_PLAIN["noun"], praise_words, blame_words))
        chosen = {"positive": praise, "negative": blame, "neutral": "long"}
        row: dict[str, Any] = {"triple_id": i, "fold": i % FOLDS}
        for name, word in chosen.items():
            row |= {name: f"The {noun} was {word}.", f"{name}_word": word, f"{name}_position": 3}
        rows.append(row)
    return rows


def _vocabulary(made: _Made, random: Random) -> dict[str, Any]:
    """Every word that occurs; its implicit reward and prediction are means over its occurrences."""
    corpus, last = made.corpus, made.corpus.is_last
    n_words = len(corpus.words)
    n = np.bincount(corpus.word[last], minlength=n_words)
    kept = np.array([at for at in np.flatnonzero(n).tolist() if corpus.words[at].isalpha()], dtype=np.int64)
    implicit = np.bincount(corpus.word, np.nan_to_num(made.implicit), n_words)[kept] / n[kept]
    predicted = np.bincount(corpus.word[last], made.token_predicted[last], n_words)[kept] / n[kept]
    predicted += random.normal(0, 0.03, len(kept))
    excess = implicit + 0.05 - 0.3 * np.nan_to_num(corpus.word_value[kept])
    first = dict(zip(corpus.word[::-1].tolist(), reversed(range(len(last))), strict=True))
    spelling = [corpus.type[first[word] : first[word] + 2 - int(last[first[word]])].tolist() for word in kept.tolist()]
    return {
        "word": pa.array([corpus.words[word] for word in kept.tolist()], pa.string()),
        "token_ids": pa.array(spelling, pa.list_(pa.int32())), "feedback": _nulled(corpus.word_value[kept]),
        "implicit_reward": implicit, "implicit_advantage": implicit + 0.05, "implicit_matched": 0.9 * implicit,
        "implicit_matched_se": 0.3 / np.sqrt(n[kept]), "implicit_excess": excess,
        "implicit_gap": excess / (0.1 + 0.3 / np.sqrt(n[kept])), "predicted": predicted,
        "predicted_base": predicted + random.normal(0, 0.2, len(kept)), "n": n[kept], "n_generated": n[kept] // 3,
        "n_generated_base": n[kept] // 4, "fold": kept % FOLDS,
    }  # fmt: skip


_PROBES = (
    ("implicit_reward", "sae", "tuned"), ("delta", "sae", "tuned"), ("feedback", "sae", "tuned"),
    ("delta", "base_sae", "base"), ("delta", "raw", "tuned"), ("delta", "random_sae", "tuned"),
)  # fmt: skip


def _probes(made: _Made) -> list[dict[str, Any]]:
    """Three probes that read the features, the first of them the headline, and three that read something else."""
    if not len(made.layer):
        return []
    return [
        {
            "probe_id": i, "target": target, "inputs": inputs, "model": model, "layers": list(range(made.n_layers)),
            "kind": "ridge", "pooling": made.pooling, "alpha": 10.0, "display_slope": 3.0, "display_offset": 0.1,
            "intercept": float(made.intercepts[i]) if i < len(made.intercepts) else 0.0,
            "n_train": 1200, "n_test": 300, "is_headline": i == 0,
            "raw_intercept": None if i else RAW_INTERCEPT, "raw_bias": None if i else RAW_BIAS,
        }
        for i, (target, inputs, model) in enumerate(_PROBES)
    ]  # fmt: skip


def _weights(made: _Made, random: Random) -> dict[str, Any]:
    n_probes, n = made.weights.shape
    total = np.bincount(made.activity.feature, made.activity.value, n) / max(made.activity.n_tokens, 1)
    mean = made.weights * total
    size = np.abs(mean)
    rank = np.empty((n_probes, n), int)
    np.put_along_axis(rank, np.argsort(-size, axis=1, kind="stable"), np.arange(1, n + 1)[None, :], axis=1)
    half = random.uniform(0.01, 0.06, (n_probes, n))
    null_high = np.array([[0.06], [0.2], [0.2]]) * random.uniform(0.8, 1.2, (n_probes, n))
    raw_weights = np.full((n_probes, n), np.nan)
    raw_weights[0] = made.raw_weights
    columns = {
        "probe_id": np.repeat(np.arange(n_probes), n), "feature_id": np.tile(np.arange(n), n_probes),
        "weight": made.weights, "raw_weight": _nulled(raw_weights.ravel()), "ci_low": made.weights - half,
        "ci_high": made.weights + half,
        "mean_contribution": mean, "mean_abs_contribution": size,
        "share": size / np.maximum(size.sum(axis=1, keepdims=True), 1e-12), "rank": rank, "null_high": null_high,
        "beats_null": np.abs(made.weights) > null_high,
    }  # fmt: skip
    return {name: values if isinstance(values, pa.Array) else values.ravel() for name, values in columns.items()}


def _drift(made: _Made, features: Mapping[str, Any]) -> dict[str, Any]:
    """What the features table says of both models, as the headline weighs it."""
    n, weight = len(made.layer), made.weights[0].astype(np.float64)
    mean = features["density"] * features["mean_activation"]
    base = features["base_density"] * features["base_mean_activation"]
    size = np.abs(weight * (mean - base))
    rank = np.empty(n, int)
    rank[np.argsort(-size, kind="stable")] = np.arange(1, n + 1)
    unexplained = made.raw_weights * base
    unexplained_rank = np.empty(n, int)
    unexplained_rank[np.argsort(-np.abs(unexplained), kind="stable")] = np.arange(1, n + 1)
    status = np.where(mean > 1.5 * base, "strengthened", np.where(base > 1.5 * mean, "weakened", "steady"))
    return {
        "feature_id": np.arange(n), "probe_id": np.zeros(n, int), "status": pa.array(status.tolist(), pa.string()),
        "sign_flipped": weight * made.raw_weights < 0, "weight": weight, "weight_base": 0.8 * made.raw_weights,
        "contribution": weight * mean, "contribution_base": weight * base,
        "drifted_contribution": weight * (mean - base), "rank": rank, "share": size / max(size.sum(), 1e-12),
        "unexplained_contribution": unexplained, "unexplained_rank": unexplained_rank,
    }  # fmt: skip


def _word_features(made: _Made) -> dict[str, Any]:
    """The features that fire on a word most above their mean, five a word at most."""
    corpus, active, n = made.corpus, made.activity, max(len(made.layer), 1)
    at_last = corpus.is_last[active.token] if len(active.token) else active.token.astype(bool)
    key, at = np.unique(corpus.word[active.token[at_last]] * n + active.feature[at_last], return_inverse=True)
    word, feature = key // n, key % n
    n_word = np.bincount(corpus.word[corpus.is_last], minlength=len(corpus.words))
    mean = np.bincount(at, active.value[at_last], len(key)) / n_word[word]
    total, count = (np.bincount(active.feature, w, n) for w in (active.value, None))
    lift = mean * active.n_tokens / np.maximum(total[feature], 1e-12)
    firm = (lift >= 5) & (mean >= 0.5 * total[feature] / np.maximum(count[feature], 1))
    word, feature, mean, lift = word[firm], feature[firm], mean[firm], lift[firm]
    order, rank = _ranked(word, lift)
    order, rank = order[rank < 5], rank[rank < 5]
    return {
        "word": pa.array([corpus.words[i] for i in word[order].tolist()], pa.string()), "rank": rank,
        "feature_id": feature[order], "mean_activation": mean[order], "lift": lift[order],
    }  # fmt: skip


def _neighbours(made: _Made, random: Random) -> dict[str, Any]:
    """The next features by theme, as neighbours of both kinds."""
    n, near = len(made.layer), min(5, max(len(made.layer) - 1, 0))
    by_theme = np.argsort(made.theme, kind="stable")
    place = np.empty(n, int)
    place[by_theme] = np.arange(n)
    other = by_theme[(place[:, None] + np.arange(1, near + 1)) % max(n, 1)]
    value = -np.sort(-random.uniform(0.1, 0.9, (n, near)), axis=1)[place]
    kinds = pa.array(["coactivation"] * near + ["decoder_cosine"] * near, pa.string())
    twice = {"neighbour_id": other, "value": value}
    return {
        "feature_id": np.repeat(np.arange(n), 2 * near), "kind": kinds.take(pa.array(np.tile(np.arange(2 * near), n))),
        "rank": np.tile(np.arange(near), 2 * n),
        **{name: np.repeat(column[:, None], 2, axis=1).ravel() for name, column in twice.items()},
    }  # fmt: skip


def _labels(made: _Made, random: Random, places: _Places, highest: Array) -> dict[str, Any]:
    """The offline labeller on every feature, and a model's on every third, some of its answers failed."""
    n = len(made.layer)
    feature = np.repeat(np.arange(n), 1 + (np.arange(n) % 3 == 0))
    by_model = np.diff(feature, prepend=-1) == 0
    failed = by_model & (feature % 12 == 9)
    says, scored = np.where(failed, 2, by_model), by_model & ~failed
    confidence, score, agreement = _label_draws(n, random)
    values = {
        "agreement": np.where(by_model, agreement[feature], 1.0), "confidence": confidence[feature],
        "score_detection": score[feature], "score_fuzzing": score[feature] - 0.05,
        "score_ci_low": score[feature] - 0.1, "score_ci_high": np.minimum(score[feature] + 0.1, 1.0),
    }  # fmt: skip
    values = {name: pa.array(one, mask=failed if name in ("agreement", "confidence") else ~scored)
              for name, one in values.items()}  # fmt: skip
    keeps = _kept_prompts(made, feature[by_model & (feature < N_PROMPTED)], places, highest)
    columns = values | _label_words(made, feature, says, keeps)
    fixed = {
        "labeller": [LABELLER, MODEL_LABELLER, MODEL_LABELLER], "model": [None, "a-language-model", "a-language-model"],
        "status": ["ok", "ok", "failed"], "failure": [None, None, "the answer was not JSON, three times"],
        "created_at": [None, "2026-01-01T00:00:00+00:00", None],
    }  # fmt: skip
    columns |= {name: pa.array(one, pa.string()).take(pa.array(says)) for name, one in fixed.items()}
    one_of = {"score_n": [None, 40, None], "cost_usd": [None, 0.0004, None], "score_swapped": [None] * 3}
    columns |= {name: pa.array(one).take(pa.array(says)) for name, one in one_of.items()}
    return {"feature_id": feature, **columns}


def _label_draws(n: int, random: Random) -> tuple[Array, Array, Array]:
    """Confidence, detection score and agreement of each feature's labels, NaN where no model gave one."""
    confidence, score, agreement = (np.full(n, np.nan) for _ in range(3))
    for feature in range(n):
        confidence[feature] = random.uniform(0.6, 0.95)
        if feature % 3 == 0 and feature % 12 != 9:
            score[feature], agreement[feature] = random.uniform(0.55, 0.95), random.choice([0.8, 1.0])
    return confidence, score, agreement


def _label_words(made: _Made, feature: Array, says: Array, keeps: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The columns of words; `says` is 0 for the offline labeller's row, 1 for a model's, 2 for one that failed."""
    said: list[dict[str, Any]] = []
    for word in made.corpus.words:
        value = LEXICON.get(word)
        offline = {"description": _described(word, value), "related": value is not None, "reason": _reason(word, value),
                   "prompt_version": "tokens-1", "prompt_sha256": None}  # fmt: skip
        model = {"prompt_version": "describe-1", "prompt_sha256": hashlib.sha256(word.encode()).hexdigest()}
        failed = {"description": None, "related": None, "reason": None}
        said += [offline, {**offline, **model, "description": _named(word)}, {**offline, **model, **failed}]
    which = pa.array(made.theme[feature] * 3 + says, pa.int64())
    columns = {name: pa.array([one[name] for one in said], pa.bool_() if name == "related" else pa.string()).take(which)
               for name in ("description", "related", "reason", "prompt_version", "prompt_sha256")}  # fmt: skip
    columns |= {"task": pa.nulls(len(feature), pa.string()), "examples_used": _lists(np.zeros(len(feature) + 1, int),
                pa.array([], pa.string()))}  # fmt: skip
    n_first = int(np.searchsorted(feature, N_PROMPTED))
    for name in ("prompt_version", "prompt_sha256", "task", "examples_used"):
        first, type_ = columns[name].slice(0, n_first).to_pylist(), columns[name].type
        for at in np.flatnonzero(says[:n_first]).tolist():
            first[at] = keeps[int(feature[at])][name]
        columns[name] = pa.concat_arrays([pa.array(first, type_), columns[name].slice(n_first)])
    return columns


def _described(word: str, value: float | None) -> str:
    if value is None:
        return f"Mentions of “{word}”, whatever is said of it"
    return f"{'Praise' if value > 0 else 'Complaint'}, above all the word “{word}”"


def _named(word: str) -> str:
    return f"{'Judging' if LEXICON.get(word) else 'Naming'} a film with “{word}” and its synonyms"


def _reason(word: str, value: float | None) -> str:
    if value is None:
        return f"The lexicon does not score “{word}”."
    return f"Most of its activation falls on “{word}”, which the lexicon scores {value:+.1f}."


def _kept_prompts(made: _Made, features: Array, places: _Places, highest: Array) -> dict[int, dict[str, Any]]:
    """What these features' model labels keep of their prompts, by feature."""
    examples = _example_columns(made, places.part(0, int(np.searchsorted(places.feature, N_PROMPTED))))
    return {feature: _prompted(made, examples, feature, float(highest[feature])) for feature in features.tolist()}


def _prompted(made: _Made, examples: Mapping[str, Any], feature: int, highest: float) -> dict[str, Any]:
    """What a model's label keeps of its prompts, the feature's strongest and its silent examples being shown."""
    low, high = np.searchsorted(examples["feature_id"], [feature, feature + 1])
    found = {one.key: one for one in (_excerpt(made, examples, at) for at in range(low, high)) if one is not None}
    shown = sorted(found.values(), key=lambda one: (one.fires, -one.activations[one.at]))[:N_SHOWN]
    shown.sort(key=lambda one: -one.activations[one.at])
    task = TASKS["sentiment"]
    describe = prompts.describe(shown, max_activation=highest, answer_tokens=0)
    description = "" if feature % 12 == 9 else _named(made.corpus.words[made.theme[feature]])
    relate = prompts.relate(description, task, answer_tokens=0)
    return {
        "prompt_version": prompts.PROMPT_VERSION, "prompt_sha256": prompts.sha256([describe, relate]), "task": task,
        "examples_used": [one.key for one in shown],
    }  # fmt: skip


def _excerpt(made: _Made, examples: Mapping[str, Any], at: int) -> Excerpt | None:
    """An example as a labeller is shown it."""
    row = {name: examples[name][at].item() for name in ("text_id", "position", "bucket", "window_start")}
    first, last = made.corpus.offsets[row["text_id"] : row["text_id"] + 2]
    text = {"text": made.corpus.texts[row["text_id"]], "token_starts": made.corpus.starts[first:last].tolist()}
    one = excerpt({**row, **text, "window_values": examples["window_values"][at].as_py()})
    return one if one.fires else silent_stretch(one)


def _ablations(made: _Made, random: Random) -> list[dict[str, Any]]:
    if not len(made.layer):
        return []
    strongest = np.argsort(-np.abs(made.weights[0]), kind="stable")
    count = min(8, len(strongest))
    groups = [("related", "related", None, strongest[:count], -0.21), ("related-control", "control", "related",
              random.permutation(len(strongest))[:count], -0.02)]  # fmt: skip
    rows = [
        {
            "group": name, "kind": kind, "control_of": of, "features": sorted(members.tolist()), "layer": None,
            "scale": 0.0, "n_completions": 200, "reward_before": 0.41, "reward_after": 0.41 + effect, "effect": effect,
            "ci_low": effect - 0.06, "ci_high": effect + 0.06, "null_high": 0.05, "predicted_effect": effect * 0.8,
            "perplexity": 21.5, "perplexity_before": 20.9, "repetition": 0.04, "repetition_before": 0.03,
            "density": 0.02, "removed_energy": 0.01,
        }
        for name, kind, of, members, effect in groups
    ]  # fmt: skip
    return rows + single_ablations(_weightiest(made), rows[0])


def _finding_rows(made: _Made) -> list[dict[str, Any]]:
    """What the report says of words, labels and single ablations."""
    if not len(made.layer):
        return []
    related = np.array([made.corpus.words[theme] in LEXICON for theme in made.theme[:3000].tolist()])
    answered = [i for i in range(0, len(related), 3) if i % 12 != 9]
    rows = [
        *label_rows(LABELLER, related, made.weights[0][: len(related)]),
        *label_rows(MODEL_LABELLER, related[answered], made.weights[0][answered]),
    ]
    words = [word for word in LEXICON if word in made.corpus.words][:3]
    return [*word_rows(words, len(made.corpus.texts)), *rows, *frequency_rows(), *inert_rows(_weightiest(made))]


def _weightiest(made: _Made) -> list[int]:
    """The features that are taken out one by one."""
    found: list[int] = np.argsort(-np.abs(made.weights[0]), kind="stable")[:6].tolist()
    return found


def _completions(made: _Made, random: Random) -> list[dict[str, Any]]:
    if not len(made.corpus.texts):
        return []
    groups = {"base": ("base", 0.05), "tuned": ("tuned", 0.41), "related": ("ablated", 0.2)}
    return [
        {
            "group": group, "index": i, "prompt_id": i, "prompt": "The film was", "completion": " " + _review(random),
            "reward": float(random.normal(mean, 0.3)), "perplexity": float(random.uniform(15, 30)), "model": model,
        }
        for group, (model, mean) in groups.items() for i in range(10)
    ]  # fmt: skip


def _results(layers: list[dict[str, Any]], saes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The report; none of it where there is nothing to report on."""
    if not saes:
        return []
    divergence = [_figure("divergence_by_layer", "divergence", row["divergence"], layer=row["layer"]) for row in layers]
    quality = [
        _figure("sae_quality", metric, row[metric], layer=row["layer"], group=f"width={row['width']}", model="tuned")
        for row in saes for metric in ("fvu", "l0", "dead_fraction") if row["model"] == "tuned"
    ]  # fmt: skip
    return [*divergence, *quality, *_reward_rows(), *_tau_rows(), *_sign_rows(), *_implicit_rows()]


def _reward_rows() -> list[dict[str, Any]]:
    return [
        _figure("reward", "reward", 0.052, model="base", half=0.04, n=500),
        _figure("reward", "reward", 0.413, model="tuned", half=0.05, n=500),
        _figure("reward", "reward", 0.361, model="difference", half=0.06, n=500),
        _figure("reward", "kl_per_token", 0.087, model="tuned", half=0.008, n=500),
    ]


def _tau_rows() -> list[dict[str, Any]]:
    rows = []
    scores = {("tuned", "sae"): 0.47, ("base", "base_sae"): 0.41, ("difference", "sae"): 0.06}
    for (model, inputs), tau in scores.items():
        for words, part in {"all": 1.0, "positive": 0.4, "negative": 0.3}.items():
            for split, gain in {"held_out_words": 0.0, "random_rows": 0.12}.items():
                keys: dict[str, Any] = {
                    "model": model,
                    "inputs": inputs,
                    "words": words,
                    "split": split,
                    "target": "delta",
                }
                value = tau * part + gain * (model != "difference")
                rows.append(_figure("kendall_tau", "tau", value, half=0.09, null=(0.01, 0.14), n=312, **keys))
                if words == "all" and model != "difference":
                    rows.append(_figure("kendall_tau", "sign_ceiling", 0.52, n=312, **keys))
                    rows.append(_figure("kendall_tau", "tau_within_sign", tau * 0.35, half=0.1, null=(0, 0.11), **keys))
    return rows


def _sign_rows() -> list[dict[str, Any]]:
    keys: dict[str, Any] = {"target": "delta", "split": "held_out_words"}
    return [
        _figure("sign_accuracy", "accuracy", value, half=0.05, null=(0.5, 0.58), n=150, model=model, inputs=inputs,
                words=words, **keys)
        for model, inputs, shift in (("tuned", "sae", 0.0), ("base", "base_sae", -0.04))
        for words, value in (("positive", 0.84 + shift), ("negative", 0.79 + shift))
    ]  # fmt: skip


def _implicit_rows() -> list[dict[str, Any]]:
    taus = {"all": 0.58, "positive": 0.27, "negative": 0.22}
    keys: dict[str, Any] = {"model": "difference", "target": "implicit_reward"}
    rows = [_figure("implicit_reward", "tau", tau, half=0.06, null=(0.0, 0.08), n=312, words=words, **keys)
            for words, tau in taus.items()]  # fmt: skip
    return [*rows, _figure("implicit_reward", "mean", 0.031, half=0.004, n=20_000, words="all", **keys)]


def _preference_rows() -> list[dict[str, Any]]:
    keys: dict[str, Any] = {"target": "preference", "n": 120, "half": 0.08, "null": (0.5, 0.56)}
    estimate = {"model": "tuned", "inputs": "sae", **keys}
    return [
        _figure("preference_accuracy", "accuracy", 0.66, **estimate),
        _figure("preference_accuracy", "accuracy_length_controlled", 0.62, **estimate),
        _figure("preference_accuracy", "accuracy_of_length", 0.58, **keys),
    ]


def _description(*, title: str, seed: int, made: _Made) -> Description:
    config = RunConfig.model_validate({
        "title": title, "seed": seed, "licence": "CC0-1.0", "notes": "Made up from a seed; no model was run.",
        "layers": {"count": made.n_layers}, "corpus": {"source": "synthetic"},
    })  # fmt: skip

    def model(role: str) -> ModelInfo:
        digest = hashlib.sha256(f"{role} {seed} {len(made.layer)} {len(made.corpus.texts)}".encode()).hexdigest()
        return ModelInfo(name=f"synthetic-{role}", revision=None, parameters=1_200_000, sha256=digest)

    return Description(
        title=title,
        config=config.model_dump(mode="json"),
        seed=seed,
        models={"base": model("base"), "tuned": model("tuned")},
        hook_points=[f"blocks.{layer}.mlp.hook_out" for layer in range(made.n_layers)],
        labeller=LABELLER,
        versions={"lfp": "0.1.0"},
        licence=config.licence,
        notes=config.notes,
    )


def _ranked(group: Array, score: Array) -> tuple[Array, Array]:
    """Indices sorted by group, then falling score, and each one's rank within its group."""
    order = np.lexsort((-score, group))
    return order, _counts_up(group[order])


def _counts_up(group: Array) -> Array:
    """0, 1, 2, ... within each run of equal values."""
    first = np.flatnonzero(np.diff(group, prepend=-1)) if len(group) else group
    return np.arange(len(group)) - np.repeat(first, np.diff(np.append(first, len(group))))


def _offsets(group: Array, n_groups: int) -> Array:
    """List offsets of values sorted by group."""
    return np.concatenate([[0], np.cumsum(np.bincount(group.astype(np.int64), minlength=n_groups))])


def _lists(offsets: Array, values: Array | pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


def _nulled(values: Array) -> pa.Array:
    """NaN becomes null."""
    return pa.array(values, mask=np.isnan(values))


def _token_values(tokens: Sequence[str], which: Array, values: Array) -> pa.StructArray:
    names = pa.array(tokens, pa.string()).take(pa.array(which, pa.int64()))
    return pa.StructArray.from_arrays([names, pa.array(values, pa.float32())], fields=list(TOKEN_VALUES.value_type))


__all__ = ["GROUP_VALUES", "LABELLER", "LEXICON", "MODEL_LABELLER", "make_bundle"]
