"""SQL that strangers write: one SELECT, over the tables of a bundle alone, with bounded rows, time and memory."""

from __future__ import annotations

import glob
import threading
from pathlib import Path

import duckdb
import pyarrow as pa

from lfp.bundle.schema import TABLES
from lfp.errors import ConfigError, first_line

SETTINGS = {
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "max_temp_directory_size": "0B",
}
"""Of a connection that is to be locked: no extension, no variable of this process, no file for what memory lacks."""


def lock(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Forbid all files but the tables of the bundle at `path`, extensions, and changes of settings, for good."""
    files = [str(path / f"{table.name}.parquet") for table in TABLES]
    allowed = dict.fromkeys([*files, *map(glob.escape, files)])  # views hold patterns, since a folder may be run[1]
    connection.execute("SET allowed_paths = ?", [list(allowed)])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def select(connection: duckdb.DuckDBPyConnection, sql: str, *, limit: int, seconds: float) -> pa.Table:
    """Return at most `limit` rows of one SELECT that takes at most so many seconds.

    It runs in a transaction that cannot write. Raises ConfigError, a sentence that says what to do, for anything else.
    """
    with connection.cursor() as cursor:
        try:
            kinds = [statement.type for statement in cursor.extract_statements(sql)]
        except duckdb.Error as error:
            raise ConfigError(f"sql: {_reason(error)}") from error
        if kinds != [duckdb.StatementType.SELECT]:
            what = "nothing" if not kinds else ", ".join(kind.name for kind in kinds)
            raise ConfigError(f"sql: {what} cannot be run here; send one SELECT over the tables that `tables` lists")
        timer = threading.Timer(seconds, cursor.interrupt)
        timer.start()
        try:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            return cursor.sql(sql).limit(limit).to_arrow_table()
        except duckdb.InterruptException as error:
            raise ConfigError(
                f"sql: it took more than {seconds:g} s; read fewer rows, or join on sorted columns"
            ) from error
        except (duckdb.OutOfMemoryException, MemoryError) as error:
            raise ConfigError(
                "sql: it needs more memory than a query has here; aggregate, or read fewer rows"
            ) from error
        except duckdb.PermissionException as error:
            raise ConfigError(
                "sql: files, folders and extensions are out of reach; read the tables that `tables` lists"
            ) from error
        except duckdb.TransactionException as error:
            raise ConfigError("sql: a bundle is only read; send one SELECT that changes nothing") from error
        except duckdb.Error as error:
            raise ConfigError(f"sql: {_reason(error)}") from error
        finally:
            timer.cancel()


def _reason(error: duckdb.Error) -> str:
    """Return DuckDB's reason and what it proposes, on one line."""
    hints = [line.strip() for line in str(error).splitlines()[1:] if line.startswith(("Candidate", "Did you mean"))]
    return " ".join([first_line(error), *hints])
