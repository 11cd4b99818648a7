"""The benchmarks, a JSON line each: `make bench`. Ratios against a ceiling of the same run; nothing here is a test."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Runs every benchmark."""
    from tests.benchmarks.asking import asking
    from tests.benchmarks.probe_stage import stage_of_probes
    from tests.benchmarks.probes import logistic_probe, ridge_probe

    for benchmark in (queries, statistics, ridge_probe, logistic_probe, stage_of_probes, asking):
        sys.stdout.write(json.dumps({"benchmark": benchmark.__name__, **benchmark()}) + "\n")
        sys.stdout.flush()
    from tests.benchmarks.nulls import nulls

    for figures in nulls():
        sys.stdout.write(json.dumps({"benchmark": "nulls", **figures}) + "\n")
        sys.stdout.flush()


def queries(n_features: int = 2000) -> dict[str, float]:
    """One feature and its examples from a bundle of `n_features`, warm, a cursor a call."""
    from lfp.bundle.queries.feature import examples, feature
    from lfp.bundle.store.connection import Store
    from lfp.testing.synthetic import make_bundle

    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(make_bundle(Path(folder) / "b", n_features=n_features)) as s,
    ):
        return {
            "features": n_features,
            **_percentiles("feature", lambda i: feature(s, i % n_features)),
            **_percentiles("examples", lambda i: examples(s, i % n_features, bucket=0)),
        }


def statistics(n_tokens: int = 16_384, d_in: int = 128, n_features: int = 2048) -> dict[str, float]:
    """The statistics pass over random activations, as a share of the encoder's matrix product in the same run."""
    import torch

    from lfp.config import StatsConfig
    from lfp.ml.features.grouping import Places
    from lfp.ml.features.statistics import FeatureStats

    torch.manual_seed(0)
    outputs, rows = torch.randn(n_tokens, d_in), torch.randn(n_features, d_in) / d_in**0.5
    product_s = _seconds(lambda: outputs @ rows.T)
    values = (outputs @ rows.T - 2.0).relu()
    index = np.arange(n_tokens)
    places = Places(index // 64, index % 64, index * 7919 % 5000)
    stats_s = _seconds(lambda: FeatureStats(n_features, StatsConfig()).update(places, values, values))
    return {
        "token_features_per_s": n_tokens * n_features / (product_s + stats_s),
        "gemm_share": product_s / (product_s + stats_s),
        "density": float((values > 0).float().mean()),
    }


def _percentiles(name: str, call: Callable[[int], object], *, n: int = 200) -> dict[str, float]:
    call(0)
    times = [_seconds(lambda i=i: call(i * 37)) for i in range(n)]
    low, high = np.quantile(times, [0.5, 0.95]) * 1000.0
    return {f"{name}_p50_ms": round(float(low), 2), f"{name}_p95_ms": round(float(high), 2)}


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
