"""The evidence for features, read from the examples of a run or a bundle: what a labeller sees, what is held out."""

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
"""Reads a table of a run or a bundle by its name."""

NEAR_MISS = -2
"""Bucket of the table `examples` that holds near misses."""

_LEAST_TOKENS = 4  # a shorter silent stretch says nothing to a reader


def read_evidence(tables: Tables, feature_ids: Sequence[int] | None = None, *, n_scored: int) -> Iterator[Evidence]:
    """Yield the evidence for these features, or for all, by feature id; `n_scored` excerpts of each are held out.

    A feature without examples has evidence without excerpts.
    """
    features = tables("features").select(["feature_id", "max_activation"])
    columns = ["feature_id", "bucket", "text_id", "position", "window_start", "window_values"]
    examples = tables("examples").select(columns)
    if feature_ids is not None:
        wanted = pa.array(list(feature_ids), pa.int32())
        features = features.filter(pc.is_in(features["feature_id"], wanted))
        examples = examples.filter(pc.is_in(examples["feature_id"], wanted))
    texts = {row["text_id"]: row for row in tables("texts").select(["text_id", "text", "token_starts"]).to_pylist()}
    batches = examples.sort_by("feature_id").to_batches(max_chunksize=20_000)
    rows = (row for batch in batches for row in batch.to_pylist())
    found = {
        feature: [read_excerpt(row | texts[row["text_id"]]) for row in group]
        for feature, group in groupby(rows, key=lambda row: row["feature_id"])
    }
    for row in features.sort_by("feature_id").to_pylist():
        excerpts = found.get(row["feature_id"], [])
        yield split_evidence(row["feature_id"], excerpts, max_activation=row["max_activation"], n_scored=n_scored)


def read_excerpt(row: Mapping[str, Any]) -> Excerpt:
    """Cut the window of an example out of its text; `row` is a row of `examples` joined with its text."""
    starts, first, values = [*row["token_starts"], len(row["text"])], row["window_start"], row["window_values"]
    tokens = tuple(row["text"][starts[i] : starts[i + 1]] for i in range(first, first + len(values)))
    return Excerpt(row["text_id"], row["position"], row["bucket"], tokens, tuple(values), row["position"] - first)


def split_evidence(feature_id: int, excerpts: Iterable[Excerpt], *, max_activation: float, n_scored: int) -> Evidence:
    """Split the excerpts of a feature into shown and held-out ones, by a draw seeded with the feature id.

    `n_scored` excerpts are held out: half of them fire and come from all buckets alike, the others are silent in all
    their tokens, and half of these are near misses if there are enough. At most half of the firing excerpts, and of
    the near misses, is held out.
    """
    drawn = sorted(excerpts, key=lambda excerpt: _draw(feature_id, excerpt))
    firing = _drop_repeated([excerpt for excerpt in drawn if excerpt.fires])
    read = {excerpt.text for excerpt in firing}
    silent = [cut for cut in map(cut_silent_stretch, drawn) if cut is not None and cut.text not in read]
    near = _drop_repeated([excerpt for excerpt in silent if excerpt.bucket == NEAR_MISS])
    others = [excerpt for excerpt in silent if excerpt.bucket != NEAR_MISS]
    far = _drop_repeated(others, seen={excerpt.text for excerpt in near})
    turns: dict[int, int] = defaultdict(int)  # excerpts so far, by bucket
    numbered = []
    for excerpt in firing:
        numbered.append((turns[excerpt.bucket], excerpt.bucket, excerpt))
        turns[excerpt.bucket] += 1
    by_turns = [excerpt for *_, excerpt in sorted(numbered, key=lambda each: each[:2])]
    n = min(n_scored // 2, len(firing) // 2)
    hard = near[: -(-len(near) // 2)]
    n_far = min(n - min(n // 2, len(hard)), len(far))
    held_out = [*by_turns[:n], *hard[: n - n_far], *far[:n_far]]
    return Evidence(
        feature_id,
        max_activation,
        tuple(sorted(by_turns[n:], key=lambda each: (each.bucket != 0, -each.activations[each.at], each.key))),
        tuple(near[len(hard) :]),
        tuple(sorted(held_out, key=lambda excerpt: _draw(~feature_id, excerpt))),
        tuple(far[n_far:]),
    )


def sample_excerpts(
    evidence: Evidence, *, n_top: int, per_interval: int, n_silent: int, repeat: int
) -> tuple[Excerpt, ...]:
    """Draw what a labeller is shown, another sample for each `repeat`: strongest first, silent excerpts last.

    The sample has `n_top` of the largest activations, `per_interval` of each interval of activation quantiles, and
    `n_silent` look-alikes.
    """
    left: dict[int, int] = defaultdict(lambda: per_interval, {0: n_top, NEAR_MISS: n_silent})
    excerpts = (*evidence.firing, *evidence.look_alikes)
    drawn = []
    for excerpt in sorted(excerpts, key=lambda excerpt: _draw(evidence.feature_id, excerpt, repeat)):
        if left[excerpt.bucket] > 0:
            left[excerpt.bucket] -= 1
            drawn.append(excerpt)
    return tuple(sorted(drawn, key=lambda excerpt: (-excerpt.activations[excerpt.at], excerpt.key)))


def find_excerpts(rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> list[Excerpt]:
    """Find the excerpts that a label names in `examples_used`, in that order and as they were shown.

    `rows` are the feature's rows of `examples` joined with their texts. Raises LabelError if one is missing.
    """
    wanted, found = set(keys), {}
    for excerpt in map(read_excerpt, rows):
        shown = excerpt if excerpt.fires else cut_silent_stretch(excerpt)
        if excerpt.key in wanted and shown is not None:
            found[excerpt.key] = shown
    if missing := [key for key in keys if key not in found]:
        raise LabelError(f"example {missing[0]}: the bundle no longer holds what was shown; open the bundle labelled")
    return [found[key] for key in keys]


def cut_silent_stretch(excerpt: Excerpt) -> Excerpt | None:
    """Cut the tokens around a silent place, up to the nearest ones on which the feature fires; None if few are left."""
    if excerpt.fires:
        return None
    tokens, activations, low, high = excerpt.tokens, excerpt.activations, excerpt.at, excerpt.at + 1
    while low > 0 and activations[low - 1] <= 0:
        low -= 1
    while high < len(tokens) and activations[high] <= 0:
        high += 1
    if high - low < min(_LEAST_TOKENS, len(tokens)):
        return None
    cut = tokens[low:high], activations[low:high]
    return Excerpt(excerpt.text_id, excerpt.position, excerpt.bucket, *cut, excerpt.at - low)


def _drop_repeated(excerpts: Iterable[Excerpt], *, seen: Iterable[str] = ()) -> list[Excerpt]:
    """Keep the first excerpt of every text that is not among those seen."""
    texts = set(seen)
    kept = []
    for excerpt in excerpts:
        if excerpt.text not in texts:
            texts.add(excerpt.text)
            kept.append(excerpt)
    return kept


def _draw(feature_id: int, excerpt: Excerpt, repeat: int = 0) -> bytes:
    """A random sort key that depends on these values only."""
    what = f"{feature_id}:{repeat}:{excerpt.bucket}:{excerpt.key}"
    return hashlib.blake2b(what.encode(), digest_size=8).digest()
