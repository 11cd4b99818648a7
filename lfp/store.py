"""Read-only DuckDB over a bundle: one view a table, a cursor a call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow as pa

from lfp.bundle import Manifest, open_bundle
from lfp.errors import BundleError
from lfp.schema import TABLES, Table

Parameters = Mapping[str, Any] | Sequence[Any]


class Store:
    """An open bundle that answers SQL. Views are named like the tables.

    `feature_table` is all that is said of a feature in one row: its own columns, the headline weight, its drift,
    and the label that is shown.

    Threads may share a store: each call takes a cursor of its own, since one DuckDB connection in several threads
    gives wrong answers.
    """

    def __init__(self, path: Path, manifest: Manifest, connection: duckdb.DuckDBPyConnection) -> None:
        self.path = path
        self.manifest = manifest
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> Store:
        """Checks the bundle at `path` and opens it. Raises BundleError."""
        return cls.unchecked(path, open_bundle(path))

    @classmethod
    def unchecked(cls, path: Path, manifest: Manifest) -> Store:
        """Opens the files as they are, for who checks them itself. Raises BundleError where one cannot be read."""
        connection = duckdb.connect(":memory:", config={"autoinstall_known_extensions": False})
        connection.execute("SET GLOBAL parquet_metadata_cache = true")
        for table in TABLES:
            if table.added_later and table.name not in manifest.tables:
                connection.from_arrow(table.schema.empty_table()).create(table.name)
                continue
            try:
                _view(connection, path / f"{table.name}.parquet", table)
            except duckdb.Error as error:
                connection.close()
                raise BundleError(f"{path}: table {table.name} cannot be read; copy the bundle again") from error
        connection.execute(FEATURE_TABLE)
        return cls(path, manifest, connection)

    @property
    def key(self) -> str:
        """Sixteen hex digits over the tables' hashes: what answers may be cached under."""
        hashes = [f"{name}={info.sha256}" for name, info in sorted(self.manifest.tables.items())]
        return hashlib.sha256("\n".join([self.manifest.bundle_id, *hashes]).encode()).hexdigest()[:16]

    def query(self, sql: str, parameters: Parameters = ()) -> pa.Table:
        """The rows of one SELECT with its parameters bound. Raises BundleError when the files fail under it."""
        with self._connection.cursor() as cursor:
            try:
                return cursor.sql(sql, params=parameters).to_arrow_table()
            except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
                raise  # the question is wrong, not the bundle
            except duckdb.Error as error:
                raise BundleError(
                    f"{self.path}: a table cannot be read any more; copy the bundle again from its source"
                ) from error

    def rows(self, sql: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
        """The same as a list of dicts, for answers of a few rows."""
        return self.query(sql, parameters).to_pylist()

    def close(self) -> None:
        """Lets the files go."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


FEATURE_TABLE = """
CREATE VIEW feature_table AS
SELECT f.*, w.weight, w.ci_low, w.ci_high, w.mean_contribution, w.mean_abs_contribution, w.share, w.rank, w.null_high,
    w.beats_null, d.status, d.sign_flipped, d.weight_base, d.drifted_contribution, d.rank AS drift_rank,
    d.unexplained_contribution, l.labeller, l.description, l.related, l.confidence, l.agreement, l.score_detection,
    l.score_fuzzing
FROM features f
LEFT JOIN (SELECT * FROM weights WHERE probe_id = (SELECT min(probe_id) FROM probes WHERE is_headline)) w
    USING (feature_id)
LEFT JOIN drift d USING (feature_id)
LEFT JOIN (
    SELECT * FROM labels QUALIFY 1 = row_number() OVER (PARTITION BY feature_id ORDER BY
        status = 'ok' DESC, starts_with(labeller, 'human:') DESC, model IS NOT NULL DESC, created_at DESC, labeller)
) l USING (feature_id)
"""
"""The label shown is a person's before a language model's, the latest first, before a rule's."""


def _view(connection: duckdb.DuckDBPyConnection, file: Path, table: Table) -> None:
    """A view of the file; columns that the schema has won since it was written are null."""
    rows = connection.read_parquet(str(file))
    if all(column.name in rows.columns or not column.nullable for column in table.columns):
        rows.create_view(table.name)
        return
    connection.from_arrow(table.schema.empty_table()).create(f"no_{table.name}")
    connection.read_parquet(str(file)).create_view(f"kept_{table.name}")
    connection.sql(f"FROM no_{table.name} UNION ALL BY NAME FROM kept_{table.name}").create_view(table.name)
