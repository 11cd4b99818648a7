"""The table of examples: where each feature fires, is silent, and is silent although its neighbour fires."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from lfp.bundle.schema import BY_NAME
from lfp.testing.synthetic.corpus import Array, Corpus, Made, Random, counts_up, listed, ranked

N_TOP, N_INTERVALS, PER_INTERVAL, WINDOW, N_NEAR = 12, 4, 4, 10, 2


@dataclass(frozen=True)
class Places:
    """Examples, sorted by feature, bucket and rank."""

    feature: Array
    bucket: Array
    rank: Array
    token: Array
    value: Array

    def part(self, low: int, high: int) -> Places:
        """Rows `low` to `high`."""
        return Places(*(getattr(self, field.name)[low:high] for field in fields(self)))


def example_places(made: Made, random: Random) -> Places:
    """Top examples (one per text), examples by quantile interval, places where the feature is silent, near misses."""
    active = made.activity
    text = made.corpus.text[active.token]
    best = np.lexsort((-active.value, text, active.feature))
    first = np.flatnonzero(np.diff(active.feature[best] * (1 << 32) + text[best], prepend=-1)) if len(best) else best
    best = best[first]
    order, rank = ranked(active.feature[best], active.value[best])
    top = best[order[rank < N_TOP]]
    order, rank = ranked(active.feature, active.value)
    share = rank / np.bincount(active.feature, minlength=len(made.place))[active.feature[order]]
    interval = N_INTERVALS - np.minimum((share * N_INTERVALS).astype(int), N_INTERVALS - 1)
    within = counts_up(active.feature[order] * (N_INTERVALS + 1) + interval)
    middle, interval = order[within < PER_INTERVAL], interval[within < PER_INTERVAL]
    silent, near = _silent(made, random), _near_misses(made, random.spawn(1)[0])
    feature = np.concatenate([active.feature[top], active.feature[middle], silent[0], near[0]])
    token = np.concatenate([active.token[top], active.token[middle], silent[1], near[1]])
    quiet = np.repeat([-1, -2], [len(silent[0]), len(near[0])])
    value = np.concatenate([active.value[top], active.value[middle], np.zeros(len(quiet), np.float32)])
    bucket = np.concatenate([np.zeros(len(top), int), interval, quiet])
    order, rank = ranked(feature * (N_INTERVALS + 3) + bucket + 2, value)
    return Places(feature[order], bucket[order], rank, token[order], value[order])


def thinned(places: Places, n: int | None) -> Places:
    """So many of the examples, evenly spaced."""
    n_all = len(places.feature)
    if n is None or n >= n_all:
        return places
    at = np.arange(n) * n_all // n
    feature, bucket = places.feature[at], places.bucket[at]
    rank = counts_up(feature * (N_INTERVALS + 3) + bucket + 2)
    return Places(feature, bucket, rank, places.token[at], places.value[at])


def example_parts(made: Made, places: Places) -> Iterator[dict[str, Any]]:
    """The table's columns, some row groups at a time: windows of a million features do not fit in memory at once."""
    size, n = 4 * BY_NAME["examples"].row_group_rows, len(places.feature)
    for low in range(0, max(n, 1), size):
        yield example_columns(made, places.part(low, low + size))


def example_columns(made: Made, places: Places) -> dict[str, Any]:
    """The columns of these examples."""
    start, windows = _windows(made, places.feature, places.token)
    return {
        "feature_id": places.feature, "bucket": places.bucket, "rank": places.rank,
        "text_id": made.corpus.text[places.token], "position": made.corpus.position[places.token],
        "activation": places.value, "window_start": start, "window_values": windows,
    }  # fmt: skip


def _silent(made: Made, random: Random) -> tuple[Array, Array]:
    """Up to two tokens per feature on which it is not active."""
    active, n_tokens = made.activity, max(made.activity.n_tokens, 1)
    feature = np.repeat(np.arange(len(made.place) if active.n_tokens else 0), 2)
    token = random.integers(0, n_tokens, len(made.place) * 2 if active.n_tokens else 0)
    _, first = np.unique(feature * n_tokens + token, return_index=True)
    feature, token = feature[first], token[first]
    if len(active.token):
        keys, key = active.token * active.n_features + active.feature, token * active.n_features + feature
        at = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
        quiet = (keys[at] != key) | (active.value[at] == 0)
        feature, token = feature[quiet], token[quiet]
    return feature, token


def _near_misses(made: Made, random: Random) -> tuple[Array, Array]:
    """Up to `N_NEAR` tokens per feature on which its first neighbour is active and it is silent all around."""
    n, active, n_tokens = len(made.place), made.activity, made.activity.n_tokens
    none = np.zeros(0, np.int64)
    if not len(active.token):
        return none, none
    by_theme, neighbour = np.argsort(made.theme, kind="stable"), np.empty(n, np.int64)
    neighbour[by_theme] = np.roll(by_theme, -1)
    first, stop = (np.searchsorted(active.places, (neighbour + after) * n_tokens) for after in (0, 1))
    drawn = first[:, None] + random.integers(0, 1 << 30, (n, 4 * N_NEAR)) % np.maximum(stop - first, 1)[:, None]
    feature, at = np.nonzero(np.broadcast_to((stop > first)[:, None], drawn.shape))
    place = np.unique(feature * n_tokens + active.places[drawn[feature, at]] % n_tokens)
    feature, token = place // n_tokens, place % n_tokens
    low, high = _bounds(made.corpus, token)
    quiet = np.searchsorted(active.places, feature * n_tokens + low) == np.searchsorted(
        active.places, feature * n_tokens + high
    )
    feature, token = feature[quiet], token[quiet]
    few = counts_up(feature) < N_NEAR
    return feature[few], token[few]


def _bounds(corpus: Corpus, token: Array) -> tuple[Array, Array]:
    """First token of the window around each token, cut at the text's ends, and the first after it."""
    text = corpus.text[token]
    return (
        np.maximum(token - WINDOW, corpus.offsets[:-1][text]),
        np.minimum(token + WINDOW + 1, corpus.offsets[1:][text]),
    )


def _windows(made: Made, feature: Array, token: Array) -> tuple[Array, pa.Array]:
    """First position and activations of the tokens around each example, cut at the text's ends."""
    corpus, active = made.corpus, made.activity
    low, high = _bounds(corpus, token)
    offsets = np.concatenate([[0], np.cumsum(high - low)])
    first, stop = (np.searchsorted(active.places, feature * active.n_tokens + end) for end in (low, high))
    within = np.repeat(np.arange(len(token)), stop - first)
    hits = active.by_feature[counts_up(within) + first[within]]
    values = np.zeros(offsets[-1], np.float32)
    values[offsets[within] + active.token[hits] - low[within]] = active.value[hits]
    return corpus.position[low] if len(low) else low, listed(offsets, values)
