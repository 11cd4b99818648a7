"""Merge the statistics of many shards into one result, under a limit of memory, and time every part of it.

    nice python -m tests.benchmarks.merging --shards 10000 --tokens 512 --memory-gb 4

Each shard is drawn from the seed and its number: features with log-normal densities, `--active` of them on a token. It
goes through the real pass (`FeatureStats.update`), is merged by the real merge, and is gone. A row is printed whenever
the number of shards is a power of ten times one or three, and at the end; seconds are of the processor.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lfp.config import StatsConfig
from lfp.ml.features.active import Active
from lfp.ml.features.grouping import Places
from lfp.ml.features.statistics import FeatureStats
from lfp.util.types import Floats

_TEXT_TOKENS, _VOCABULARY = 64, 50_000
_SPREAD = 1.8
"""Standard deviation of the logarithm of a feature's density: a tenth of the features has most of the activations."""
_PARTS = ("tuned", "base", "top", "sample", "silent", "sketches")


def main() -> None:
    """Print the JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a shard, a multiple of 64")
    parser.add_argument("--active", type=int, default=50, help="active features per token")
    parser.add_argument("--seconds", type=float, default=270.0, help="stop after the shard that ends past this time")
    parser.add_argument("--memory-gb", type=float, help="limit the process's memory, which fails beyond it")
    arguments = vars(parser.parse_args())
    limit = arguments.pop("memory_gb")
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 2**30), int(limit * 2**30)))
    for row in merging(**arguments):
        sys.stdout.write(json.dumps({"benchmark": "merging", "memory_gb": limit, **row}) + "\n")
        sys.stdout.flush()


def merging(
    *, shards: int, features: int = 100_000, tokens: int = 512, active: int = 50, seconds: float = 270.0
) -> Iterator[dict[str, Any]]:
    """Merge the shards one after another; yield a row at some numbers of shards, and one for the finished result."""
    cumulative = draw_densities(features)
    total, merge_s = FeatureStats(features, StatsConfig()), list[float]()
    spent = _time_parts(total)
    started, draw_s, pass_s, sent = time.perf_counter(), 0.0, 0.0, 0
    for number in range(shards):
        clock = time.process_time()
        places, entries = draw_shard(number, cumulative, tokens=tokens, active=active)
        drawn = time.process_time()
        shard = FeatureStats(features, StatsConfig())
        shard.update(places, entries, entries)
        shard.flush()
        passed = time.process_time()
        total.merge(shard)
        merge_s.append(time.process_time() - passed)
        draw_s, pass_s, done = draw_s + drawn - clock, pass_s + passed - drawn, number + 1
        is_last = done == shards or time.perf_counter() - started > seconds
        if is_last or done in (1, 10, 30, 100, 300, 1000, 3000, 10_000):
            sent = sent or len(pickle.dumps(shard, protocol=5))
            yield {
                "shards": done, "features": features, "tokens": tokens * done, "activations": active * tokens * done,
                "merge_s": round(sum(merge_s), 2), "merge_ms": round(1000.0 * sum(merge_s) / done, 2),
                "last_tenth_ms": round(1000.0 * float(np.mean(merge_s[done - max(1, done // 10) :])), 2),
                "slowest_ms": round(1000.0 * max(merge_s)), "median_ms": round(1000.0 * float(np.median(merge_s)), 2),
                "parts_s": {name: round(spent[name], 2) for name in _PARTS},
                "draw_s": round(draw_s, 1), "pass_s": round(pass_s, 1), "shard_mb": round(sent / 1e6, 1),
                "wall_s": round(time.perf_counter() - started, 1), "peak_mb": _peak_mb(),
            }  # fmt: skip
        del shard, places, entries
        if is_last:
            break
    clock = time.process_time()
    held = _finish(total)
    finish_s = time.process_time() - clock
    yield {
        "shards": done, "finish_s": round(finish_s, 2), "result_mb": held, "peak_mb": _peak_mb(),
        "sha256": _digest(total),
    }  # fmt: skip


def draw_densities(n_features: int) -> Floats:
    """Return the cumulative shares of activations that the features have, in the same order for every shard."""
    shares = np.exp(np.random.default_rng(0).normal(0.0, _SPREAD, n_features))
    cumulative: Floats = np.cumsum(shares) / shares.sum()
    return cumulative


def draw_shard(number: int, cumulative: Floats, *, tokens: int, active: int) -> tuple[Places, Active]:
    """Draw the tokens of a shard's texts and what is active there, from the shard's number."""
    rng, n_features = np.random.default_rng([1, number]), len(cumulative)
    features = np.searchsorted(cumulative, rng.random(tokens * active)).clip(max=n_features - 1)
    cells = np.unique(np.repeat(np.arange(tokens), active) * n_features + features)
    of_token, features = np.divmod(cells, n_features)
    values = rng.exponential(size=len(cells)).astype(np.float32) + np.float32(0.01)
    offsets = np.searchsorted(of_token, np.arange(tokens + 1))
    index = np.arange(tokens)
    places = Places(
        number * (tokens // _TEXT_TOKENS) + index // _TEXT_TOKENS,
        index % _TEXT_TOKENS,
        rng.integers(_VOCABULARY, size=tokens),
    )
    return places, Active(n_features, offsets, features.astype(np.int32), values)


def _time_parts(stats: FeatureStats) -> dict[str, float]:
    """Add up the processor's seconds in the merge of each part of some statistics, from now on."""
    spent: dict[str, float] = defaultdict(float)

    def time_merge(name: str, merge: Callable[[Any], None]) -> Callable[[Any], None]:
        def timed(other: Any) -> None:
            started = time.process_time()
            merge(other)
            spent[name] += time.process_time() - started

        return timed

    for name in _PARTS:
        part: Any = getattr(stats, name)
        part.merge = time_merge(name, part.merge)
    return spent


def _finish(stats: FeatureStats) -> dict[str, float]:
    """Sort what waits; return the megabytes of each part of the result."""
    top, sample = stats.top.examples(), stats.sample.examples()
    arrays = {
        "histograms": [stats.tuned.counts, stats.base.counts],
        "sketches": [stats.sketches.hashes],
        **{
            name: [*(value for value in vars(part).values() if isinstance(value, np.ndarray)),
                   *(value for value in vars(part.windows).values() if isinstance(value, np.ndarray))]
            for name, part in (("top", top), ("sample", sample))
        },
    }  # fmt: skip
    return {name: round(sum(array.nbytes for array in held) / 1e6, 1) for name, held in arrays.items()}


def _digest(stats: FeatureStats) -> str:
    """Hash counts, sketches and examples, which do not depend on the order of merging."""
    sha, top, sample = hashlib.sha256(), stats.top.examples(), stats.sample.examples()
    for array in (stats.tuned.counts, stats.tuned.fixed_sum, stats.sketches.hashes, top.text_ids, sample.text_ids):
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()[:12]


def _peak_mb() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0)


if __name__ == "__main__":
    main()
