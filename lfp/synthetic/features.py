"""Tables of what features are: `features`, `decoders`, `histograms`, `neighbours`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from lfp.synthetic.arrays import Array, Random, list_offsets, listed, ranked, token_values
from lfp.synthetic.made import D_IN, Made

N_BINS = 24


def feature_columns(made: Made, random: Random) -> dict[str, Any]:
    """What both models make of each feature; features of one theme lie near each other on the map."""
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


def _top_tokens(made: Made) -> pa.Array:
    """The six tokens with most of each feature's activation."""
    n_types, active = max(len(made.corpus.pieces), 1), made.activity
    key, at = np.unique(active.feature * n_types + made.corpus.type[active.token], return_inverse=True)
    weight = np.bincount(at, active.value, len(key))
    feature, type_ = key // n_types, key % n_types
    share = weight / np.bincount(feature, weight, len(made.layer))[feature] if len(key) else weight
    order, rank = ranked(feature, share)
    order = order[rank < 6]
    tokens = token_values(made.corpus.pieces, type_[order], share[order])
    return listed(list_offsets(feature[order], len(made.layer)), tokens)


def _logits(made: Made, random: Random, *, sign: int) -> pa.Array:
    n = len(made.layer)
    types = random.integers(0, max(len(made.corpus.pieces), 1), (n, 8))
    values = -np.sort(-random.gamma(2, 0.12, (n, 8)), axis=1) * sign
    if not made.corpus.pieces:
        return listed(np.zeros(n + 1, int), token_values([""], np.zeros(0, int), np.zeros(0)))
    return listed(np.arange(n + 1) * 8, token_values(made.corpus.pieces, types.ravel(), values.ravel()))


def decoder_columns(made: Made, random: Random) -> dict[str, Any]:
    """A direction for each feature."""
    rows = _directions(made, random)
    flat = pa.array(rows.astype(np.float16).ravel(), pa.float16())
    return {"feature_id": np.arange(len(rows)), "vector": listed(np.arange(len(rows) + 1) * D_IN, flat)}


def _directions(made: Made, random: Random) -> Array:
    """Unit vectors, near each other where features share a theme."""
    centres = random.normal(size=(len(made.corpus.words), D_IN))
    rows = centres[made.theme] + 0.6 * random.normal(size=(len(made.theme), D_IN))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def histogram_columns(made: Made, random: Random) -> dict[str, Any]:
    """How strongly each feature fires, over bins spaced evenly in the logarithm."""
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
        "feature_id": np.arange(n), "edges": listed(rows * (N_BINS + 1), edges.ravel()),
        "counts": listed(rows * N_BINS, counts), "base_counts": listed(rows * N_BINS, np.round(base).astype(int)),
    }  # fmt: skip


def neighbour_columns(made: Made, random: Random) -> dict[str, Any]:
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
