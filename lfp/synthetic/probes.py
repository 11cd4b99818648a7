"""Tables of what probes read off features: `probes`, `weights`, `drift`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from lfp.synthetic.arrays import Random, nulled
from lfp.synthetic.made import RAW_BIAS, RAW_INTERCEPT, Made

_PROBES = (
    ("implicit_reward", "sae", "tuned"), ("delta", "sae", "tuned"), ("feedback", "sae", "tuned"),
    ("delta", "base_sae", "base"), ("delta", "raw", "tuned"), ("delta", "random_sae", "tuned"),
)  # fmt: skip


def probe_rows(made: Made) -> list[dict[str, Any]]:
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
    columns = {
        "probe_id": np.repeat(np.arange(n_probes), n), "feature_id": np.tile(np.arange(n), n_probes),
        "weight": made.weights, "raw_weight": nulled(raw_weights.ravel()), "ci_low": made.weights - half,
        "ci_high": made.weights + half,
        "mean_contribution": mean, "mean_abs_contribution": size,
        "share": size / np.maximum(size.sum(axis=1, keepdims=True), 1e-12), "rank": rank, "null_high": null_high,
        "beats_null": np.abs(made.weights) > null_high,
    }  # fmt: skip
    return {name: values if isinstance(values, pa.Array) else values.ravel() for name, values in columns.items()}


def drift_columns(made: Made, features: Mapping[str, Any]) -> dict[str, Any]:
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
