"""Names of features on every page: labels, unless a feature's strongest examples contradict its label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow as pa

from app.components.feature import naming
from app.components.feature.regions import Region, name_regions
from app.session.cache import ask
from lfp.bundle import queries
from lfp.bundle.store.connection import Store

T = TypeVar("T")


def read_names(store: Store, feature_ids: Iterable[int]) -> Mapping[int, str | None]:
    """Return the names of features by number; None where a feature has neither a label nor examples."""
    return ask(_names, store, tuple(sorted(set(feature_ids))))


def with_names(store: Store, rows: Sequence[T], *, key: str = "feature_id") -> list[T]:
    """Return dataclasses with a `description` of the feature that `key` numbers, this made the feature's name."""
    items: list[Any] = list(rows)
    names = read_names(store, [getattr(row, key) for row in items])
    return [replace(row, description=names[getattr(row, key)]) for row in items]


def name_parts(store: Store, ledgers: Sequence[T]) -> list[T]:
    """Return ledgers, whose `shown` are parts of features, with these named."""
    items: list[Any] = list(ledgers)
    parts = iter(with_names(store, [part for ledger in items for part in ledger.shown]))
    return [replace(ledger, shown=tuple(next(parts) for _ in ledger.shown)) for ledger in items]


def name_rows(store: Store, rows: pa.Table, *, side: str = "") -> pa.Table:
    """Return a table with columns feature_id and description, both with `side` at their end, named alike."""
    ids, column = rows[f"feature_id{side}"].to_pylist(), f"description{side}"
    names = read_names(store, ids)
    at = rows.schema.get_field_index(column)
    return rows.set_column(at, column, pa.array([names[number] for number in ids], pa.string()))


def region_names(store: Store) -> tuple[Region, ...]:
    """Return the named regions of the map of all features."""
    return store.once("named regions", lambda: _region_names(store))


def _region_names(store: Store) -> tuple[Region, ...]:
    found = queries.feature_map.regions(store)
    return () if found is None else name_regions(found, _names(store, found.feature_ids))


_MANY = 2500
"""Features beyond which their first examples alone are read first: they settle most names."""


def _names(store: Store, feature_ids: Sequence[int]) -> dict[int, str | None]:
    """Name features, reading only the examples it takes: a label stands once one of its feature's words is quoted."""
    names = queries.feature.named_features(store, feature_ids)
    doubted = [number for number in feature_ids if (label := names.get(number)) is None or naming.quoted_parts(label)]
    for most in (1, None) if len(doubted) > _MANY else (None,):
        examples = queries.excerpts.strongest_excerpts(store, doubted, most=most)
        words = {number: naming.strongest_words(rows) for number, rows in examples.items()}
        named = {number: naming.name_feature(names.get(number), words[number]) for number in doubted}
        doubted = [number for number in doubted if not words[number] or named[number] != names.get(number)]
    return {number: named.get(number, names.get(number)) for number in feature_ids}
