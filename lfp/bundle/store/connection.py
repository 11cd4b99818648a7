"""Read-only DuckDB over a bundle: one view a table, a cursor a call."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from lfp.bundle.manifest import Manifest, check_bundle
from lfp.bundle.store import sorted_copy, views
from lfp.errors import BundleError

Parameters = Mapping[str, Any] | Sequence[Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What one store may use. A server that answers strangers sets both."""

    memory: str | None = None
    """Memory for DuckDB's buffers, such as 128MB; None leaves DuckDB its own limit, 80 % of the machine's memory."""
    threads: int = 2
    """Threads for one query."""


class Store:
    """An open bundle that answers SQL. Views are named like the tables.

    `feature_table` has all that is said of a feature in one row (`FEATURE_TABLE` in `views.py`). A large bundle
    answers from its sorted copy (`sorted_copy.py`) if there is one, else from its Parquet files, with the same result.

    Threads may share a store: each call takes a cursor of its own, since one DuckDB connection in several threads
    gives wrong answers.
    """

    def __init__(self, path: Path, manifest: Manifest, *, limits: Limits, copy: Path | None) -> None:
        self.path = path
        self.manifest = manifest
        self._limits = limits
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._copy = copy
        self._connection = self._connect()

    @classmethod
    def open(cls, path: Path, *, prepare: bool = False, limits: Limits | None = None) -> Store:
        """Checks the bundle at `path` and opens it. Raises BundleError.

        With `prepare` a large bundle is first given its sorted copy, once, which takes about a minute for a million
        features; where nothing can be written it is opened as it is.
        """
        try:
            manifest = check_bundle(path)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror}); make its files readable") from error
        if sorted_copy.is_worth(manifest):
            copy = sorted_copy.build(path, manifest) if prepare else sorted_copy.find(path, manifest)
        else:
            copy = None
        return cls(path, manifest, limits=limits or Limits(), copy=copy)

    @classmethod
    def unchecked(cls, path: Path, manifest: Manifest) -> Store:
        """Opens the files as they are, for who checks them itself. Raises BundleError where one cannot be read."""
        return cls(path, manifest, limits=Limits(), copy=None)

    @property
    def key(self) -> str:
        """Sixteen hex digits over the tables' hashes: what answers may be cached under."""
        return self.manifest.key

    def query(self, sql: str, parameters: Parameters = ()) -> pa.Table:
        """The rows of one SELECT with its parameters bound. Raises BundleError when the files fail under it."""
        connection = self._connection
        try:
            with connection.cursor() as cursor:
                answer = cursor.sql(sql, params=parameters)
                if answer is None:
                    raise duckdb.ParserException("not a SELECT, so there is nothing to return")
                return answer.to_arrow_table()
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
            raise  # the question is wrong, not the bundle
        except duckdb.OutOfMemoryException as error:
            limit = self._limits.memory or "the memory there is"
            raise BundleError(f"{self.path}: this query needs more than {limit}; select fewer rows") from error
        except duckdb.Error as error:
            if self._can_do_without_copy(connection):
                return self.query(sql, parameters)
            raise BundleError(
                f"{self.path}: a table cannot be read any more; copy the bundle again from its source"
            ) from error

    def rows(self, sql: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
        """The same as a list of dicts, for answers of a few rows."""
        return self.query(sql, parameters).to_pylist()

    def once(self, what: str, answer: Callable[[], T]) -> T:
        """An answer that stays while the bundle is open; `answer` is called where `what` was not yet asked for."""
        if what not in self._known:
            self._known[what] = answer()
        known: T = self._known[what]
        return known

    def close(self) -> None:
        """Lets the files go."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """A connection with all views; without the copy where that cannot be opened. Raises BundleError."""
        connection = _connection(self._limits)
        kept: frozenset[str] = frozenset()
        if self._copy is not None:
            try:
                kept = sorted_copy.attach(connection, self._copy)
            except duckdb.Error:
                connection.close()
                sorted_copy.discard(self._copy)
                self._copy = None
                return self._connect()
        try:
            views.create(connection, self.path, self.manifest, kept=kept)
        except BundleError:
            connection.close()
            raise
        if not kept:
            self._add_feature_table(connection)
            views.add_derived(connection)
        return connection

    def _add_feature_table(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Joined once where it is small; a large one without its copy, or a faulty one, is joined at each question."""
        if not sorted_copy.is_worth(self.manifest):
            with contextlib.suppress(duckdb.Error):
                connection.execute(f"CREATE TABLE feature_table AS {views.FEATURE_TABLE}")
                return
        connection.execute(f"CREATE VIEW feature_table AS {views.FEATURE_TABLE}")

    def _can_do_without_copy(self, failed: duckdb.DuckDBPyConnection) -> bool:
        """Goes on with Parquet alone where a copy failed: whether the question is worth asking again."""
        with self._lock:
            if self._connection is failed and self._copy is not None:
                sorted_copy.discard(self._copy)
                self._copy = None
                self._connection = self._connect()
            return self._connection is not failed


def _connection(limits: Limits) -> duckdb.DuckDBPyConnection:
    spill = Path(tempfile.gettempdir()) / f"lfp-{uuid.uuid4().hex}"
    config = {"autoinstall_known_extensions": False, "threads": limits.threads, "temp_directory": str(spill)}
    if limits.memory is not None:
        config["memory_limit"] = limits.memory
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("SET GLOBAL parquet_metadata_cache = true")
    return connection
