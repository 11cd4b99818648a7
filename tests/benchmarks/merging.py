"""Merge the statistics of many shards into one result, under a limit of memory, and time every part of it.

    nice python -m tests.benchmarks.merging --shards 10000 --tokens 512 --memory-gb 4

Some 64 shards go through the real pass (`FeatureStats.update`): features with log-normal densities, `--active` of them
on a token. Every shard that is merged is one of these with texts, contexts and sizes of activations of its own, drawn
from its number, so that it costs less to make than to merge. One shard is in memory at a time, beside the 64 and the
result. Rows are printed at some numbers of shards and at the end; seconds are of the processor. With `--state` a long
run is made in several short ones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import resource
import sys
import time
from collections.abc import Callable, Iterator
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lfp.config import StatsConfig
from lfp.ml.features.active import Active
from lfp.ml.features.grouping import Places, descending_keys, mix
from lfp.ml.features.statistics import FeatureStats
from lfp.util.types import Floats

_TEXT_TOKENS, _VOCABULARY = 64, 50_000
_SPREAD = 1.8
"""Standard deviation of the logarithm of a feature's density: a tenth of the features has most of the activations."""
_ROWS_AT = frozenset({1, 10, 30, 100, 300, 1000, 3000, 10_000})
_TEMPLATES = 64
_TEXTS_APART = 1_000_000
_PARTS = ("tuned", "base", "top", "sample", "silent", "sketches")


def main() -> None:
    """Print the JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a shard, a multiple of 64")
    parser.add_argument("--active", type=int, default=50, help="active features per token")
    parser.add_argument("--neighbours", type=int, nargs="*", help="time the neighbours of so many features instead")
    parser.add_argument("--seconds", type=float, default=270.0, help="stop after the shard that ends past this")
    parser.add_argument("--state", type=Path, help="continue from this file, and leave the state there at the end")
    parser.add_argument("--memory-gb", type=float, help="limit the process's memory, which fails beyond it")
    arguments = vars(parser.parse_args())
    limit = arguments.pop("memory_gb")
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 2**30), int(limit * 2**30)))
    for n_features in arguments.pop("neighbours") or ():
        sys.stdout.write(json.dumps({"benchmark": "neighbours", **neighbours(n_features)}) + "\n")
        arguments["shards"] = 0
    for row in merging(**arguments) if arguments["shards"] else ():
        sys.stdout.write(json.dumps({"benchmark": "merging", "memory_gb": limit, **row}) + "\n")
        sys.stdout.flush()


@dataclass
class _Progress:
    """The result so far, and the processor's seconds that it took."""

    total: FeatureStats
    make_s: float = 0.0
    wall_s: float = 0.0
    merge_s: list[float] = field(default_factory=list)
    parts_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_PARTS, 0.0))

    def row(self, **settings: Any) -> dict[str, Any]:
        """Return the figures so far."""
        done, last = len(self.merge_s), self.merge_s[-max(1, len(self.merge_s) // 10) :]
        return {
            "shards": done, **settings, "merge_s": round(sum(self.merge_s), 2),
            "merge_ms": round(1000.0 * sum(self.merge_s) / done, 2),
            "last_tenth_ms": round(1000.0 * float(np.mean(last)), 2),
            "median_ms": round(1000.0 * float(np.median(self.merge_s)), 2),
            "slowest_ms": round(1000.0 * max(self.merge_s)),
            "parts_s": {name: round(spent, 2) for name, spent in self.parts_s.items()},
            "make_s": round(self.make_s, 1), "wall_s": round(self.wall_s, 1), "peak_mb": _peak_mb(),
        }  # fmt: skip


def merging(
    *,
    shards: int,
    features: int = 100_000,
    tokens: int = 512,
    active: int = 50,
    seconds: float = 270.0,
    state: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Merge the shards one after another; yield a row at some numbers of shards, and one for the finished result."""
    cumulative, started, clock = draw_densities(features), time.perf_counter(), time.process_time()
    templates = [
        run_pass(number, cumulative, tokens=tokens, active=active) for number in range(min(_TEMPLATES, shards))
    ]
    pass_ms = 1000.0 * (time.process_time() - clock) / len(templates)
    sent = round(len(pickle.dumps(templates[0], protocol=5)) / 1e6, 1)
    settings = {
        "features": features, "shard_tokens": tokens, "active": active, "shard_mb": sent, "pass_ms": round(pass_ms, 1)
    }  # fmt: skip
    so_far = _Progress(FeatureStats(features, StatsConfig()))
    if state is not None and state.is_file():
        so_far = pickle.loads(state.read_bytes())
        started -= so_far.wall_s
    until = time.perf_counter() + seconds
    _time_parts(so_far)
    while len(so_far.merge_s) < shards and time.perf_counter() < until:
        _merge_next(so_far, templates)
        so_far.wall_s = time.perf_counter() - started
        if len(so_far.merge_s) in _ROWS_AT:
            yield so_far.row(**settings)
    yield so_far.row(**settings)
    for name in _PARTS:
        del vars(getattr(so_far.total, name))["merge"]
    if state is not None:
        state.write_bytes(pickle.dumps(so_far, protocol=5))
    if len(so_far.merge_s) == shards:
        clock = time.process_time()
        megabytes = _finish(so_far.total)
        finish_s = round(time.process_time() - clock, 2)
        yield {"shards": shards, "finish_s": finish_s, "result_mb": megabytes, "sha256": _digest(so_far.total)}
        other, clock = deepcopy(so_far.total), time.process_time()
        so_far.total.merge(other)
        _finish(so_far.total)
        yield {"two_results_s": round(time.process_time() - clock, 2), "features": features, "peak_mb": _peak_mb()}


def neighbours(features: int) -> dict[str, Any]:
    """Compare the full sketches of all pairs of features."""
    from lfp.ml.features.neighbours import ContextSketches

    sketches, rng = ContextSketches(features, StatsConfig().coactivation_contexts), np.random.default_rng(0)
    of_entry = np.repeat(np.arange(features), sketches.k)
    contexts = mix(rng.integers(50 * features, size=len(of_entry)).astype(np.uint64))
    sketches._add(of_entry, contexts)
    _ = sketches.hashes
    clock = time.process_time()
    sketches.neighbours(StatsConfig().neighbours)
    seconds = time.process_time() - clock
    return {"features": features, "seconds": round(seconds, 2), "ns_per_pair": round(2e9 * seconds / features**2)}


def _merge_next(so_far: _Progress, templates: list[FeatureStats]) -> None:
    """Make the next shard and merge it."""
    number, started = len(so_far.merge_s), time.process_time()
    shard = reseed(templates[number % len(templates)], number)
    made = time.process_time()
    so_far.total.merge(shard)
    so_far.merge_s.append(time.process_time() - made)
    so_far.make_s += made - started


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


def run_pass(number: int, cumulative: Floats, *, tokens: int, active: int) -> FeatureStats:
    """Collect the statistics of a shard's texts as a worker does, both models with the same activations."""
    places, entries = draw_shard(number, cumulative, tokens=tokens, active=active)
    shard = FeatureStats(len(cumulative), StatsConfig())
    shard.update(places, entries, entries)
    shard.flush()
    return shard


def reseed(template: FeatureStats, number: int) -> FeatureStats:
    """Return a shard's statistics with other texts, contexts and sizes of activations, drawn from a number."""
    rng, salt = np.random.default_rng([2, number]), mix(np.array([number], np.uint64))
    shard, top, sample = copy(template), template.top.examples(), template.sample.examples()
    texts = number * _TEXTS_APART
    grown = top.activations * rng.uniform(0.5, 2.0, len(top.activations)).astype(np.float32)
    contexts = mix(sample.contexts ^ salt)
    shard.top, shard.sample = copy(template.top), copy(template.sample)
    shard.top._kept = replace(
        top,
        keys=descending_keys(grown),
        activations=grown,
        contexts=mix(top.contexts ^ salt),
        text_ids=top.text_ids + texts,
    )
    shard.sample._kept = replace(sample, keys=contexts, contexts=contexts, text_ids=sample.text_ids + texts)
    shard.sketches = copy(template.sketches)
    shard.sketches._waiting = [(features, mix(hashes ^ salt)) for features, hashes in template.sketches._waiting]
    shard.silent, places = copy(template.silent), template.silent._places
    shard.silent._contexts = mix(template.silent._contexts ^ salt)
    shard.silent._places = replace(places, text_ids=places.text_ids + texts)
    return shard


def _time_parts(so_far: _Progress) -> None:
    """Add the processor's seconds in the merge of each part to `parts_s` from now on."""

    def time_merge(name: str, merge: Callable[[Any], None]) -> Callable[[Any], None]:
        def timed(other: Any) -> None:
            started = time.process_time()
            merge(other)
            so_far.parts_s[name] += time.process_time() - started

        return timed

    for name in _PARTS:
        part: Any = getattr(so_far.total, name)
        part.merge = time_merge(name, part.merge)


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
