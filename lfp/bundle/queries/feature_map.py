"""The map of features: its density in cells, for any number of them, and its regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lfp.bundle.queries.features import FeatureFilter, conditions
from lfp.bundle.store.connection import Store
from lfp.util.types import Flags, Floats, Ints

CELLS = 128
"""Cells of the density along each side of the map."""
MOST_NAMED = 3000
"""Features whose names are read for the names of regions."""
_STEPS = 40


@dataclass(frozen=True, eq=False)
class Density:
    """Features by cell: `counts` [CELLS, CELLS] by row (y) and column (x), and the centres of columns and rows."""

    counts: Floats
    xs: Floats
    ys: Floats


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of the map by k-means over its cells: their centres [n, 2], and how many features are nearest to each.

    `feature_ids`, the region `at` of each, and whether they `are_active` anywhere, are of the MOST_NAMED features that
    contribute most.
    """

    centres: Floats
    sizes: Floats
    feature_ids: tuple[int, ...]
    at: Ints
    are_active: Flags


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


def regions(store: Store, *, n: int = 8) -> Regions | None:
    """Divide the map into at most `n` regions; None where no feature has a place. The same bundle gives the same."""
    whole = density(store, FeatureFilter())
    if whole is None:
        return None
    rows, columns = np.nonzero(whole.counts)
    cells, sizes = np.column_stack([whole.xs[columns], whole.ys[rows]]), whole.counts[rows, columns]
    centres = k_means(cells, sizes, n)
    members = np.bincount(nearest(cells, centres), sizes, minlength=len(centres)).astype(np.float64)
    first = store.query(_FIRST, {"limit": MOST_NAMED})
    places = np.column_stack([first["x"].to_numpy(), first["y"].to_numpy()])
    return Regions(
        centres=centres, sizes=members, feature_ids=tuple(first["feature_id"].to_pylist()),
        at=nearest(places, centres), are_active=np.array(first["is_active"].to_pylist(), bool),
    )  # fmt: skip


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
_FIRST = """
SELECT feature_id, x, y, coalesce(max_activation > 0, false) AS is_active FROM feature_table
WHERE isfinite(x) AND isfinite(y)
ORDER BY mean_abs_contribution DESC NULLS LAST, feature_id LIMIT $limit
"""
