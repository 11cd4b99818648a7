"""The evidence of features, from a run's or a bundle's examples: what a labeller may see, and what is kept back."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lfp.errors import LabelError
from lfp.labels.types import Evidence, Excerpt

Tables = Callable[[str], pa.Table]
"""A table of a run or a bundle by its name."""

NEAR_MISS = -2
_LEAST_TOKENS = 4  # a silent stretch shorter than this says nothing to a reader
_ROWS = ("bucket", "text_id", "position", "window_start", "window_values")


def read_evidence(tables: Tables, feature_ids: Sequence[int] | None = None, *, n_scored: int) -> Iterator[Evidence]:
    """The evidence of these features, or of all, in order of their numbers; `n_scored` excerpts are kept back of each.

    A feature without an example has evidence without an excerpt.
    """
    features = tables("features").select(["feature_id", "max_activation"])
    examples = tables("examples").select(["feature_id", *_ROWS])
    if feature_ids is not None:
        wanted = pa.array(list(feature_ids), pa.int32())
        features = features.filter(pc.is_in(features["feature_id"], wanted))
        examples = examples.filter(pc.is_in(examples["feature_id"], wanted))
    texts = {row["text_id"]: row for row in tables("texts").select(["text_id", "text", "token_starts"]).to_pylist()}
    found = {
        feature: [excerpt(row | texts[row["text_id"]]) for row in rows]
        for feature, rows in groupby(_rows(examples.sort_by("feature_id")), key=lambda row: row["feature_id"])
    }
    for row in features.sort_by("feature_id").to_pylist():
        mine = found.get(row["feature_id"], [])
        yield evidence_of(row["feature_id"], mine, max_activation=row["max_activation"], n_scored=n_scored)


def excerpt(row: Mapping[str, Any]) -> Excerpt:
    """An example, as a row of `examples` joined with its text."""
    starts, first, values = [*row["token_starts"], len(row["text"])], row["window_start"], row["window_values"]
    tokens = tuple(row["text"][starts[i] : starts[i + 1]] for i in range(first, first + len(values)))
    return Excerpt(row["text_id"], row["position"], row["bucket"], tokens, tuple(values), row["position"] - first)


def evidence_of(feature_id: int, excerpts: Iterable[Excerpt], *, max_activation: float, n_scored: int) -> Evidence:
    """Excerpts of a feature parted into what is shown and what is kept back, by a draw that its number seeds.

    Kept back are `n_scored` excerpts, half of them firing, from all buckets alike, the others silent in all their
    tokens: half of these near misses, where there are enough. At most half of what fires, and of the near misses, is
    kept back.
    """
    drawn = sorted(excerpts, key=lambda one: _lot(feature_id, one))
    firing = _distinct([one for one in drawn if one.fires])
    read = {one.text for one in firing}
    silent = [one for one in map(silent_stretch, drawn) if one is not None and one.text not in read]
    near = _distinct([one for one in silent if one.bucket == NEAR_MISS])
    far = _distinct([one for one in silent if one.bucket != NEAR_MISS], but={one.text for one in near})
    by_turns = _by_turns(firing)
    n = min(n_scored // 2, len(firing) // 2)
    hard = near[: -(-len(near) // 2)]
    n_far = min(n - min(n // 2, len(hard)), len(far))
    judged = [*by_turns[:n], *hard[: n - n_far], *far[:n_far]]
    return Evidence(
        feature_id,
        max_activation,
        tuple(sorted(by_turns[n:], key=lambda one: (one.bucket != 0, -one.activations[one.at], one.key))),
        tuple(near[len(hard) :]),
        tuple(sorted(judged, key=lambda one: _lot(~feature_id, one))),
    )


def shown(evidence: Evidence, *, n_top: int, per_interval: int, n_silent: int, repeat: int) -> tuple[Excerpt, ...]:
    """What a labeller is shown the `repeat`-th time, drawn anew each time: strongest first, silent ones last.

    `n_top` of the largest activations, `per_interval` of each interval of activation quantiles, `n_silent` look-alikes.
    """
    left: dict[int, int] = defaultdict(lambda: per_interval, {0: n_top, NEAR_MISS: n_silent})
    drawn = []
    for one in sorted(
        (*evidence.firing, *evidence.look_alikes), key=lambda one: _lot(evidence.feature_id, one, repeat)
    ):
        if left[one.bucket] > 0:
            left[one.bucket] -= 1
            drawn.append(one)
    return tuple(sorted(drawn, key=lambda one: (-one.activations[one.at], one.key)))


def kept_excerpts(rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> list[Excerpt]:
    """The excerpts that a label names in `examples_used`, in that order and as they were shown: silent ones cut.

    `rows` are the feature's rows of `examples` joined with their texts. Raises LabelError where they lack one.
    """
    wanted = set(keys)
    kept = {one.key: one if one.fires else silent_stretch(one) for one in map(excerpt, rows) if one.key in wanted}
    for key in keys:
        if kept.get(key) is None:
            raise LabelError(f"example {key}: the bundle no longer holds what was shown; open the one it was made in")
    return [one for key in keys if (one := kept[key]) is not None]


def silent_stretch(one: Excerpt) -> Excerpt | None:
    """The tokens around a silent place up to the nearest ones on which the feature fires; None where few are left."""
    if one.fires:
        return None
    low, high = one.at, one.at + 1
    while low > 0 and one.activations[low - 1] <= 0:
        low -= 1
    while high < len(one.tokens) and one.activations[high] <= 0:
        high += 1
    if high - low < min(_LEAST_TOKENS, len(one.tokens)):
        return None
    return Excerpt(one.text_id, one.position, one.bucket, one.tokens[low:high], one.activations[low:high], one.at - low)


def _rows(examples: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in examples.to_batches(max_chunksize=20_000):
        yield from batch.to_pylist()


def _by_turns(excerpts: Sequence[Excerpt]) -> list[Excerpt]:
    """One of every bucket, then another of every bucket, and so on."""
    turns: dict[int, int] = defaultdict(int)
    numbered = []
    for one in excerpts:
        numbered.append((turns[one.bucket], one.bucket, one))
        turns[one.bucket] += 1
    return [one for _, _, one in sorted(numbered, key=lambda each: each[:2])]


def _distinct(excerpts: Iterable[Excerpt], *, but: Iterable[str] = ()) -> list[Excerpt]:
    """Those that read differently from the ones before, and from the texts named."""
    found = dict.fromkeys(but)
    kept = []
    for one in excerpts:
        if one.text not in found:
            found[one.text] = None
            kept.append(one)
    return kept


def _lot(feature_id: int, one: Excerpt, repeat: int = 0) -> bytes:
    what = f"{feature_id}:{repeat}:{one.bucket}:{one.key}"
    return hashlib.blake2b(what.encode(), digest_size=8).digest()
