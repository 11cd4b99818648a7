"""Read-only DuckDB over a bundle: one view per table, one cursor per call."""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from lfp.bundle.manifest import Manifest, check_bundle
from lfp.bundle.remote.mirror import Mirror
from lfp.bundle.store import guard, sorted_copy, views
from lfp.bundle.store.fetched_views import FetchedViews
from lfp.errors import BundleError
from lfp.util.object_stores import is_address

Parameters = Mapping[str, Any] | Sequence[Any]
T = TypeVar("T")
_NO_SELECT = "not a SELECT, so there is nothing to return"


@dataclass(frozen=True)
class Limits:
    """What one store may use. A server that answers strangers sets both."""

    memory: str | None = None
    """Memory for DuckDB's buffers, such as 128MB; None leaves DuckDB its own limit, 80 % of the machine's memory."""
    threads: int = 2
    """Threads for one query."""
    is_locked: bool = False
    """Whether no query reaches a file but the bundle's tables, loads an extension or changes a setting."""


WITH_COPY = Limits(memory="128MB")
"""What a store uses by default where it has a sorted copy, of which a page reads little; joins of Parquet take more."""


class Store(AbstractContextManager["Store"]):
    """An open bundle that answers SQL. Views are named like the tables.

    `feature_table` has all columns about a feature in one row (`FEATURE_TABLE` in `views.py`). A large bundle is read
    from its sorted copy (`sorted_copy.py`) where there is one, else from its Parquet files, with the same result.

    Threads may share a store: each call opens its own cursor, because one DuckDB connection used by several threads
    gives wrong answers.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        limits: Limits | None = None,
        copy: Path | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self.path = path
        self.source: Path | str = path if mirror is None else mirror.address
        """What was opened: the folder, or the address of which `path` holds what was fetched."""
        self.manifest = manifest
        self._mirror = mirror
        self._limits = limits or (Limits() if copy is None else WITH_COPY)
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._copy = copy
        self._fetched: FetchedViews | None = None
        self._connection = self._connect()

    @classmethod
    def open(cls, path: Path | str, *, prepare: bool = False, limits: Limits | None = None) -> Store:
        """Check the bundle at `path` and open it. Raises BundleError.

        Of a bundle at an address only the manifest is read; each table is fetched, whole and checked, when a query
        first reads it. With `prepare` the sorted copy of a large bundle in a folder is built first, once, which takes
        about a minute for a million features; where nothing can be written the bundle is opened without.
        """
        if is_address(path):
            mirror = Mirror.open(str(path))
            return cls(mirror.path, mirror.manifest, limits=limits, mirror=mirror)
        path = Path(path)
        try:
            manifest = check_bundle(path)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror}); make its files readable") from error
        copy = None
        if manifest.bytes >= sorted_copy.WORTH_BYTES:
            copy = sorted_copy.build(path, manifest) if prepare else sorted_copy.find(path, manifest)
        return cls(path, manifest, limits=limits, copy=copy)

    def query(self, sql: str, parameters: Parameters = ()) -> pa.Table:
        """Return the rows of one SELECT with its parameters bound. Raises BundleError where a file cannot be read."""
        return self._answer(sql, parameters, _as_table)

    def rows(self, sql: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
        """Return the rows as a list of dicts: faster than `query` for a few, because the SELECT is planned once."""
        return self._answer(sql, parameters, _as_dicts)

    def _answer(
        self, sql: str, parameters: Parameters, read: Callable[[duckdb.DuckDBPyConnection, str, Parameters], T]
    ) -> T:
        connection = self._connection
        try:
            self._prepare(sql)
            with connection.cursor() as cursor:
                return read(cursor, sql, parameters)
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
            raise  # the query is wrong, not the bundle
        except duckdb.OutOfMemoryException as error:
            limit = self._limits.memory or "the memory there is"
            raise BundleError(f"{self.source}: this query needs more than {limit}; select fewer rows") from error
        except duckdb.Error as error:
            if self._can_do_without_copy(connection) or self._prepare(sql):  # a file was deleted to make room
                return self._answer(sql, parameters, read)
            raise BundleError(
                f"{self.source}: a table cannot be read any more; copy the bundle again from its source"
            ) from error

    def select(self, sql: str, *, limit: int, seconds: float) -> pa.Table:
        """Return at most `limit` rows of one SELECT by somebody else; see `lfp.bundle.store.guard`."""
        self._prepare(sql)
        return guard.select(self._connection, sql, limit=limit, seconds=seconds)

    def fetch(self, names: Iterable[str] | None = None) -> None:
        """Bring files of a bundle at an address to `path`, all by default; those of a folder are there."""
        if self._mirror is not None:
            self._mirror.fetch(names)

    def once(self, what: str, answer: Callable[[], T]) -> T:
        """Return the answer cached under `what` while the bundle is open; call `answer` for it the first time."""
        if what not in self._known:
            self._known[what] = answer()
        known: T = self._known[what]
        return known

    def close(self) -> None:
        """Close the files."""
        self._connection.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """Connect and create all views; without the copy where that cannot be opened. Raises BundleError."""
        config = {
            "autoinstall_known_extensions": False,
            "threads": self._limits.threads,
            "temp_directory": str(Path(tempfile.gettempdir()) / f"lfp-{uuid.uuid4().hex}"),
            **({} if self._limits.memory is None else {"memory_limit": self._limits.memory}),
            **(guard.SETTINGS if self._limits.is_locked else {}),
        }
        connection = duckdb.connect(":memory:", config=config)
        connection.execute("SET GLOBAL parquet_metadata_cache = true")
        kept: frozenset[str] = frozenset()
        if self._copy is not None:
            try:
                kept = sorted_copy.attach(connection, self._copy)
            except duckdb.Error:
                connection.close()
                sorted_copy.discard(self._copy)
                self._copy = None
                return self._connect()
        if self._mirror is not None:
            self._fetched = FetchedViews(self._mirror, self.manifest)
        else:
            try:
                views.create(connection, self.path, self.manifest, kept=kept)
            except BundleError:
                connection.close()
                raise
            if not kept:
                views.add_derived(connection)
                views.create_feature_table(connection, self.manifest)
        if self._limits.is_locked:
            guard.lock(connection, self.path)
        return connection

    def _prepare(self, sql: str) -> bool:
        """Fetch the tables that a query reads, of a bundle at an address; return whether one was missing."""
        return self._fetched is not None and self._fetched.prepare(self._connection, sql)

    def _can_do_without_copy(self, failed: duckdb.DuckDBPyConnection) -> bool:
        """Fall back to the Parquet files where a copy failed; return whether the query is worth repeating."""
        with self._lock:
            if self._connection is failed and self._copy is not None:
                sorted_copy.discard(self._copy)
                self._copy = None
                self._connection = self._connect()
            return self._connection is not failed


def _as_table(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters) -> pa.Table:
    answer = cursor.sql(sql, params=parameters)
    if answer is None:
        raise duckdb.ParserException(_NO_SELECT)
    return answer.to_arrow_table()


def _as_dicts(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters) -> list[dict[str, Any]]:
    cursor.execute(sql, parameters)
    if not cursor.description:
        raise duckdb.ParserException(_NO_SELECT)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
