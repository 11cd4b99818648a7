"""The map of features: its density in cells, for any number of them, and clusters named by their distinctive words."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from lfp.bundle.queries.features import FeatureFilter, conditions
from lfp.bundle.store.connection import Store
from lfp.texts.words import words_of
from lfp.util.types import UNLABELLED, Floats

CELLS = 128
"""Cells of the density along each side of the map."""
MOST_NAMED, LEAST_HOLDERS = 20_000, 3
"""Features whose names are read for the names of clusters, and how many of a cluster must share a word."""
_STEPS = 40
_RULE_WORDS = frozenset(word.word for word in words_of(
    UNLABELLED + "nearly every token many tokens such as promotes demotes after before at the start of a text and or "
    "words forms strongest weaker never active"))  # fmt: skip
"""Words of the offline rule's sentences, which say nothing of a cluster."""


@dataclass(frozen=True, eq=False)
class Density:
    """Features by cell: `counts` [CELLS, CELLS] by row (y) and column (x), and the centres of columns and rows."""

    counts: Floats
    xs: Floats
    ys: Floats


@dataclass(frozen=True)
class Cluster:
    """A region of the map: its centre, how many features are nearest to it, and the words that set them apart."""

    x: float
    y: float
    n: int
    name: str


def density(store: Store, wanted: FeatureFilter) -> Density | None:
    """Count the features that pass in each cell of the map of all features; None where none has a place on it."""
    (ends,) = store.rows(
        'SELECT min(x) AS "left", max(x) AS "right", min(y) AS bottom, max(y) AS top FROM feature_table '
        "WHERE isfinite(x) AND isfinite(y)"
    )
    if ends["left"] is None:
        return None
    where, values = conditions(store, wanted)
    rows = store.query(_CELLS.format(where=where), {**values, **ends, "cells": CELLS})
    counts = np.zeros((CELLS, CELLS))
    counts[rows["y_cell"].to_numpy(), rows["x_cell"].to_numpy()] = rows["n"].to_numpy()
    middles = (np.arange(CELLS) + 0.5) / CELLS
    sides = ((ends["left"], ends["right"]), (ends["bottom"], ends["top"]))
    xs, ys = (low + middles * (high - low) for low, high in sides)
    return Density(counts, xs, ys)


def clusters(store: Store, *, n: int = 8) -> tuple[Cluster, ...]:
    """Divide the map into at most `n` clusters by k-means over the cells of its density, and name them.

    A name is the words that the names of most of its features share, weighed down by how many features elsewhere have
    them (TF-IDF over clusters); of the MOST_NAMED features that contribute most. A cluster without such a word is
    left out. The same bundle gives the same clusters.
    """
    whole = density(store, FeatureFilter())
    if whole is None:
        return ()
    rows, columns = np.nonzero(whole.counts)
    cells, sizes = np.column_stack([whole.xs[columns], whole.ys[rows]]), whole.counts[rows, columns]
    centres = k_means(cells, sizes, n)
    members = np.bincount(nearest(cells, centres), sizes, minlength=len(centres))
    named = store.query(_NAMES, {"limit": MOST_NAMED})
    places = np.column_stack([named["x"].to_numpy(), named["y"].to_numpy()])
    counts = [Counter[str]() for _ in centres]
    for at, name in zip(nearest(places, centres).tolist(), named["description_words"].to_pylist(), strict=True):
        counts[at].update({word.word for word in words_of(name or "")} - _RULE_WORDS)
    total = Counter[str]()
    for held in counts:
        total.update(held)
    found = []
    for (x, y), size, held in zip(centres.tolist(), members.tolist(), counts, strict=True):
        scores = {word: times * math.log(1 + named.num_rows / total[word] * times / total[word])
                  for word, times in held.items() if times >= LEAST_HOLDERS and len(word) > 1}  # fmt: skip
        words = sorted(scores, key=lambda word: (-scores[word], word))[:2]
        if words:
            found.append(Cluster(x, y, int(size), ", ".join(words)))
    return tuple(found)


def k_means(points: Floats, sizes: Floats, n: int) -> Floats:
    """Return the centres of at most `n` clusters of points [n, 2] that weigh `sizes`, started by k-means++ (seed 0)."""
    draw = np.random.default_rng(0)
    centres = points[[int(np.argmax(sizes))]]
    while len(centres) < min(n, len(points)):
        far = sizes * _squared(points, centres).min(axis=1)
        if not far.sum():
            break
        centres = np.vstack([centres, points[draw.choice(len(points), p=far / far.sum())]])
    for _ in range(_STEPS):
        at = nearest(points, centres)
        weight = np.bincount(at, sizes, minlength=len(centres))
        sums = [np.bincount(at, sizes * points[:, axis], minlength=len(centres)) for axis in (0, 1)]
        moved = np.where(weight[:, None] > 0, np.column_stack(sums) / np.maximum(weight, 1e-12)[:, None], centres)
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres


def nearest(points: Floats, centres: Floats) -> np.ndarray:
    """Return for each point the number of the centre that is nearest."""
    return np.argmin(_squared(points, centres), axis=1)


def _squared(points: Floats, centres: Floats) -> Floats:
    distances: Floats = ((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2)
    return distances


_CELLS = """
SELECT least(floor((x - $left) / greatest($right - $left, 1e-9) * $cells), $cells - 1)::INTEGER AS x_cell,
    least(floor((y - $bottom) / greatest($top - $bottom, 1e-9) * $cells), $cells - 1)::INTEGER AS y_cell,
    count(*) AS n
FROM feature_table WHERE isfinite(x) AND isfinite(y) AND {where} GROUP BY ALL
"""
_NAMES = """
SELECT x, y, description_words FROM feature_table
WHERE isfinite(x) AND isfinite(y) AND description_words IS NOT NULL
ORDER BY mean_abs_contribution DESC NULLS LAST, feature_id LIMIT $limit
"""
