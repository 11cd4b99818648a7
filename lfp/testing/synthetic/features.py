"""Tables of features and of what is fitted on them, from `features` and `saes` to `weights` and `drift`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import norm

from lfp.bundle.tables.columns import TOKEN_VALUES
from lfp.evaluation.statistics.discoveries import RATE, adjusted_p
from lfp.testing.synthetic.corpus import (
    D_IN,
    RAW_BIAS,
    RAW_INTERCEPT,
    Array,
    Made,
    Random,
    list_offsets,
    listed,
    nulled,
    ranked,
)

N_BINS = 24


def feature_columns(made: Made, random: Random) -> dict[str, Any]:
    """What both models make of each feature; features of one theme lie near each other on the map."""
    n, active = len(made.place), made.activity
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
        "feature_id": np.arange(n), "layer": np.array([place.layer for place in made.places])[made.place],
        "site": np.array([place.site for place in made.places])[made.place],
        "index": np.arange(n) - np.searchsorted(made.place, made.place),
        "density": density, "n_active": n_active, "mean_activation": mean, "max_activation": highest,
        "base_density": density * change, "base_mean_activation": base_mean,
        "shift": density * mean - density * change * base_mean,
        "stability": pa.array(random.uniform(0.2, 1, n), mask=random.random(n) < 0.05), "decoder_norm": np.ones(n),
        "top_tokens": _top_tokens(made), "pos_logits": draw_logits(made, random, sign=1),
        "neg_logits": draw_logits(made, random, sign=-1),
        "x": np.cos(angle) * 5 + random.normal(0, 0.3, n), "y": np.sin(angle) * 5 + random.normal(0, 0.3, n),
        **_pair_columns(change),
    }  # fmt: skip


def _pair_columns(change: Array) -> dict[str, Any]:
    """What each feature explains of both models, the base's part falling with its density there."""
    ratio = np.clip(change, 0.0, 1.2)
    ones, none = np.ones(len(ratio)), pa.nulls(len(ratio), pa.float64())
    return {
        "scale_tuned": ones, "scale_base": ratio, "scale_tuned_error": ones, "scale_base_error": ratio,
        "is_tuned_only": ratio < 0.2, "base_cosine": none, "base_norm_share": none,
    }  # fmt: skip


def _top_tokens(made: Made) -> pa.Array:
    """The six tokens with most of each feature's activation."""
    n_types, active = max(len(made.corpus.pieces), 1), made.activity
    key, at = np.unique(active.feature * n_types + made.corpus.type[active.token], return_inverse=True)
    weight = np.bincount(at, active.value, len(key))
    feature, type_ = key // n_types, key % n_types
    share = weight / np.bincount(feature, weight, len(made.place))[feature] if len(key) else weight
    order, rank = ranked(feature, share)
    order = order[rank < 6]
    tokens = _token_values(made.corpus.pieces, type_[order], share[order])
    return listed(list_offsets(feature[order], len(made.place)), tokens)


def _token_values(tokens: Sequence[str], which: Array, values: Array) -> pa.StructArray:
    """Build pairs of a token, by its index `which`, and a value."""
    names = pa.array(tokens, pa.string()).take(pa.array(which, pa.int64()))
    return pa.StructArray.from_arrays([names, pa.array(values, pa.float32())], fields=list(TOKEN_VALUES.value_type))


def draw_logits(made: Made, random: Random, *, sign: int) -> pa.Array:
    """Draw eight tokens for each feature, with what it gives their logits, largest first."""
    n = len(made.place)
    types = random.integers(0, max(len(made.corpus.pieces), 1), (n, 8))
    values = -np.sort(-random.gamma(2, 0.12, (n, 8)), axis=1) * sign
    if not made.corpus.pieces:
        return listed(np.zeros(n + 1, int), _token_values([""], np.zeros(0, int), np.zeros(0)))
    return listed(np.arange(n + 1) * 8, _token_values(made.corpus.pieces, types.ravel(), values.ravel()))


def decoder_columns(made: Made, random: Random) -> dict[str, Any]:
    """A direction for each feature: unit vectors, near each other where features share a theme."""
    centres = random.normal(size=(len(made.corpus.words), D_IN))
    rows = centres[made.theme] + 0.6 * random.normal(size=(len(made.theme), D_IN))
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    flat = pa.array(rows.astype(np.float16).ravel(), pa.float16())
    return {"feature_id": np.arange(len(rows)), "vector": listed(np.arange(len(rows) + 1) * D_IN, flat)}


def histogram_columns(made: Made, random: Random) -> dict[str, Any]:
    """How strongly each feature fires, over bins spaced evenly in the logarithm."""
    n, active = len(made.place), made.activity
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
    n, near = len(made.place), min(5, max(len(made.place) - 1, 0))
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


def layer_rows(made: Made, random: Random) -> list[dict[str, Any]]:
    """The layers with features, and as many again that were not selected, less divergent."""
    rows, n_layers = [], len({place.layer for place in made.places})
    for layer in range(2 * n_layers):
        selected = layer < n_layers
        whole = float(random.uniform(0.6, 1.1) if selected else random.uniform(0.2, 0.5))
        groups = dict(zip(("attention", "mlp", "norm"), whole * random.dirichlet([4, 5, 1]), strict=True))
        rows.append({
            "layer": layer, "divergence": whole, "divergence_mlp": groups["mlp"],
            "divergence_by_group": [{"group": name, "value": value} for name, value in groups.items()],
            "relative_divergence": whole / 40, "selected": selected, "d_in": D_IN,
            "scale": float(random.uniform(0.1, 2)) if selected else None, "credit": 0.2 * whole,
        })  # fmt: skip
    return rows


def sae_rows(made: Made, random: Random) -> list[dict[str, Any]]:
    """Two sizes per place on each model; the larger on the tuned model is the one whose features are the bundle's."""
    if not len(made.place):
        return []
    size = max(len(made.place) // len(made.places) // 2, 1)
    return [
        {
            **place._asdict(), "variant": "tied_relu", "width": width, "seed": seed, "tied": True, "l1": 1e-3,
            "k": None, "l0_weight": None, "source": "trained", "scale": 0.5,
            "is_used": model == "tuned" and width == 2 * size, "model": model, "fvu": float(random.uniform(0.08, 0.3)),
            "l0": float(random.uniform(8, 14)), "dead_fraction": float(random.uniform(0, 0.1)),
            "ce_recovered": float(random.uniform(0.85, 0.99)), "mmcs": float(random.uniform(0.5, 0.8)),
        }
        for place in made.places for width in (size, 2 * size) for seed, model in enumerate(("tuned", "base"))
    ]  # fmt: skip


_PROBES = (
    ("implicit_reward", "sae", "tuned"), ("delta", "sae", "tuned"), ("feedback", "sae", "tuned"),
    ("delta", "base_sae", "base"), ("delta", "raw", "tuned"), ("delta", "random_sae", "tuned"),
)  # fmt: skip


def probe_rows(made: Made) -> list[dict[str, Any]]:
    """Three probes that read the features, the first of them the headline, and three that read something else."""
    if not len(made.place):
        return []
    return [
        {
            "probe_id": i, "target": target, "inputs": inputs, "model": model,
            "layers": sorted({place.layer for place in made.places}),
            "sites": sorted({place.site for place in made.places}),
            "kind": "ridge", "pooling": made.pooling, "alpha": 10.0, "display_slope": 3.0, "display_offset": 0.1,
            "intercept": float(made.intercepts[i]) if i < len(made.intercepts) else 0.0,
            "n_train": 1200, "n_test": 300, "is_headline": i == 0,
            "raw_intercept": None if i else RAW_INTERCEPT, "raw_bias": None if i else RAW_BIAS,
        }
        for i, (target, inputs, model) in enumerate(_PROBES)
    ]  # fmt: skip


def weight_columns(made: Made, random: Random) -> dict[str, Any]:
    """What the probes that read the features give each, with intervals and nulls."""
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
    p = np.clip(2 * norm.sf(2 * np.abs(made.weights) / null_high), 1e-6, 1.0)
    q = np.array([adjusted_p(of_probe) for of_probe in p])
    columns = {
        "probe_id": np.repeat(np.arange(n_probes), n), "feature_id": np.tile(np.arange(n), n_probes),
        "weight": made.weights, "raw_weight": nulled(raw_weights.ravel()), "ci_low": made.weights - half,
        "ci_high": made.weights + half,
        "mean_contribution": mean, "mean_abs_contribution": size,
        "share": size / np.maximum(size.sum(axis=1, keepdims=True), 1e-12), "rank": rank, "null_high": null_high,
        "null_mean": 0.02 * made.weights, "p": p, "q": q, "beats_null": q <= RATE,
    }  # fmt: skip
    return {name: values if isinstance(values, pa.Array) else values.ravel() for name, values in columns.items()}


def drift_columns(made: Made, features: Mapping[str, Any]) -> dict[str, Any]:
    """What the features table says of both models, as the headline weighs it."""
    n, weight = len(made.place), made.weights[0].astype(np.float64)
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
