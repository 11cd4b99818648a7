"""A DuckDB file beside a large bundle: a copy of its tables in which one feature is a cheap read.

It is built from the Parquet files, named by their hashes, and replaced when they change. Deleting it loses nothing.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import time
import uuid
from pathlib import Path

import duckdb

from lfp.bundle.manifest import Manifest
from lfp.bundle.schema import BY_NAME, TABLES
from lfp.bundle.store import views
from lfp.errors import BundleError

NAME = "sidecar"
"""Name of the attached file in SQL."""
LAYOUT = "indexed texts and features, plain words, small tables too"
"""Part of the file's key, so that files of an earlier layout are built again."""
WORTH_BYTES = views.JOINED_BYTES
"""Bundles with smaller tables are as fast without a copy."""
_BUILD = {"memory_limit": "1GB", "threads": 2, "autoinstall_known_extensions": False}
_ABANDONED_S = 3600
_NO_ROOM = (OSError, duckdb.IOException, duckdb.TransactionException, duckdb.OutOfMemoryException)
"""What is raised where nothing, or nothing more, can be written or held: DuckDB commits, or spills, to a full disk."""


def find(path: Path, manifest: Manifest) -> Path | None:
    """Return the file that matches the bundle at `path`; None where none was built."""
    return next((place for place in _places(path, manifest) if place.is_file()), None)


def build(path: Path, manifest: Manifest) -> Path | None:
    """Build the file unless it exists, beside the bundle or, where that cannot be written, in the user's cache.

    Returns None where neither can be written or has room: the Parquet files are read instead. Of processes that build
    at once the last one wins, with the same file. Files of earlier states of the bundle are deleted. Raises BundleError
    where the tables themselves cannot be copied.
    """
    found = find(path, manifest)
    if found is not None:
        return found
    for place in _places(path, manifest):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            _write(place, path, manifest)
        except _NO_ROOM:
            continue
        except duckdb.Error as error:
            raise BundleError(f"{path}: its tables cannot be sorted ({error}); copy the bundle again") from error
        _sweep(place)
        return place
    return None


def attach(connection: duckdb.DuckDBPyConnection, place: Path) -> frozenset[str]:
    """Attach the file read-only, with a view of each table in it; return their names. Raises duckdb.Error."""
    quoted = str(place).replace("'", "''")
    connection.execute(f"ATTACH '{quoted}' AS {NAME} (READ_ONLY)")
    held = connection.sql(f"SELECT table_name FROM duckdb_tables() WHERE database_name = '{NAME}'").fetchall()
    names = frozenset(name for (name,) in held)
    for name in names - views.KEPT.keys():
        connection.execute(f"CREATE VIEW {name} AS FROM {NAME}.{name}")
    views.add_derived(connection, copy=NAME)
    columns = ", ".join(f'"{column.name}"' for column in BY_NAME["features"].columns)
    connection.execute(f"CREATE VIEW features AS SELECT {columns} FROM {NAME}.feature_table")
    return names | {"features"}


def discard(place: Path) -> None:
    """Delete a file that cannot be read."""
    with contextlib.suppress(OSError):
        place.unlink()


def _places(path: Path, manifest: Manifest) -> tuple[Path, Path]:
    """List the places for the file: a hidden sibling of the bundle, and the user's cache, by the folder's hash.

    Both names hold a key: a hash over the tables' hashes and over what is derived from them here.
    """
    path = path.resolve()
    schema = [table.schema.to_string() for table in TABLES]
    derived = [views.FEATURE_TABLE, *views.KEPT.values()]
    made_of = "\n".join([LAYOUT, manifest.key, *derived, duckdb.__version__, *schema])
    key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lfp-explorer"
    folder = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return path.parent / f".{path.name}.{key}.duckdb", cache / f"{path.name}-{folder}.{key}.duckdb"


def _write(place: Path, path: Path, manifest: Manifest) -> None:
    """Write the file beside its place and move it there when it is complete."""
    draft = place.with_name(f"{place.name}.{uuid.uuid4().hex}.writing")
    try:
        with duckdb.connect(str(draft), config={**_BUILD, "temp_directory": f"{draft}.spill"}) as connection:
            connection.execute("CREATE SCHEMA parquet")
            connection.execute("USE parquet")
            views.create(connection, path, manifest, kept=frozenset())
            _write_features(connection)
            connection.execute(views.DERIVED["responses"])
            for name, sql in views.KEPT.items():
                connection.execute(f"CREATE TABLE main.{name} AS {sql}")
            for name in manifest.tables:
                if name in BY_NAME and name != "features":
                    connection.execute(f"CREATE TABLE main.{name} AS FROM parquet.{name}")
                    if BY_NAME[name].sorted_by == ("text_id",):  # examples look up single texts
                        connection.execute(f"CREATE INDEX {name}_by_text ON main.{name} (text_id)")
            connection.execute("USE main")
            connection.execute("DROP SCHEMA parquet CASCADE")
            connection.execute("CHECKPOINT")
        draft.replace(place)
    finally:
        for left in (draft, Path(f"{draft}.wal")):
            left.unlink(missing_ok=True)


def _write_features(connection: duckdb.DuckDBPyConnection) -> None:
    """Write the table of features; the words that every search scans are not compressed, which halves its time."""
    rows = connection.sql(views.FEATURE_TABLE)
    plain = " USING COMPRESSION uncompressed"
    kinds = zip(rows.columns, rows.types, strict=True)
    columns = (f'"{name}" {kind}{plain if name.endswith("_words") else ""}' for name, kind in kinds)
    connection.execute(f"CREATE TABLE main.feature_table ({', '.join(columns)})")
    connection.execute(f"INSERT INTO main.feature_table {views.FEATURE_TABLE}")
    connection.execute("CREATE INDEX features_by_number ON main.feature_table (feature_id)")


def _sweep(place: Path) -> None:
    """Delete the bundle's earlier files, and drafts of processes that died."""
    name, _, _ = place.name.removesuffix(".duckdb").rpartition(".")
    for other in place.parent.glob(f"{glob.escape(name)}.{'[0-9a-f]' * 16}.duckdb*"):
        is_draft = other.name.endswith(".writing")
        with contextlib.suppress(OSError):
            if other != place and (not is_draft or time.time() - other.stat().st_mtime > _ABANDONED_S):
                other.unlink()
