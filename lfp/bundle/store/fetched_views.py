"""The views of a bundle in an object store: created, and their tables fetched, when a query first reads them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import duckdb

from lfp.bundle.manifest import Manifest
from lfp.bundle.remote.mirror import Mirror
from lfp.bundle.schema import BY_NAME
from lfp.bundle.store import views

_FEATURE_TABLE = "feature_table"


class FetchedViews:
    """What of a mirrored bundle one connection can read so far."""

    def __init__(self, mirror: Mirror, manifest: Manifest) -> None:
        self._mirror, self._manifest = mirror, manifest
        self._lock = threading.Lock()
        self._made: set[str] = set()
        self._names: dict[str, frozenset[str]] = {}

    def prepare(self, connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
        """Fetch every table that a query reads, create its view, and return whether one was missing.

        Raises BundleError.
        """
        names = self._names_in(connection, sql)
        files = [file for name in names if (file := f"{name}.parquet") in self._manifest.files]
        if names <= self._made and all(map(self._mirror.has, files)):
            return False
        with self._lock:
            self._mirror.fetch(files)
            new = names - self._made
            views.create(connection, self._mirror.path, self._manifest, kept=frozenset(BY_NAME) - new)
            for name, derived in views.DERIVED.items():  # in order: some read others
                if name in new:
                    connection.execute(derived)
            if _FEATURE_TABLE in new:
                views.create_feature_table(connection, self._manifest)
            self._made |= names
        return True

    def _names_in(self, connection: duckdb.DuckDBPyConnection, sql: str) -> frozenset[str]:
        """Return the tables and derived views that a query reads, and those that these read in turn."""
        if sql not in self._names:
            sources = {**views.DERIVED, _FEATURE_TABLE: views.FEATURE_TABLE}
            found, unseen = set[str](), [sql]
            while unseen:
                named = _named(connection, unseen.pop()) & (BY_NAME.keys() | sources.keys())
                unseen += [sources[name] for name in named - found if name in sources]
                found |= named
            self._names[sql] = frozenset(found)
        return self._names[sql]


def _named(connection: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """Return the names of tables and table functions in a query; all its words where it is no plain SELECT."""
    with connection.cursor() as cursor:
        (text,) = cursor.execute("SELECT json_serialize_sql(?)", [sql]).fetchone() or ("{}",)
    tree = json.loads(text)
    return set(re.findall(r"\w+", sql.lower())) if tree.get("error") else set(_tables_in(tree))


def _tables_in(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            yield str(node["table_name"]).lower()
        elif node.get("type") == "TABLE_FUNCTION":
            yield str(node["function"]["function_name"]).lower()
        for value in node.values():
            yield from _tables_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from _tables_in(value)
