"""An audit database: its tables, in SQL that every database knows, and how it is opened; failures in one sentence."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Connection, Engine, String, Table, Text, exc
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool, StaticPool

from lfp.audit.records import ANSWERS, VERDICTS
from lfp.errors import AuditError

_TRIES = 5
PUBLIC = "the audits"
"""What messages to the public call the database, whose own words would say things about the host."""
WAIT_S = 10
"""Seconds that a writer waits for another."""
SERVER_WAIT_S = 5
"""Seconds that a database server may take to connect, and for a whole transaction."""
AWAY_S = 30
"""Seconds after a server was silent for which it is not tried again: pages must not wait for it one after another."""

_SAYS = (  # what a database's own words mean, and how to fix it
    ("disk is full", "the disk is full; make room, then save again"),
    ("no space left", "the disk is full; make room, then save again"),
    ("quota", "the disk is full; make room, then save again"),
    ("disk i/o error", "the disk cannot be written; see that there is room and no fault, then save again"),
    ("readonly", "it may only be read; make the file and its folder writable, or set LFP_AUDIT_URL to another place"),
    ("read-only", "it may only be read; make the file and its folder writable, or set LFP_AUDIT_URL to another place"),
    ("locked", "another program holds it; wait a moment, then save again"),
    ("not a database", "it is not an audit database; move that file away, or set LFP_AUDIT_URL to another place"),
    ("malformed", "the file is damaged; put a copy in its place, or set LFP_AUDIT_URL to another place"),
    ("no such table", "its tables are gone; open the page again, which creates them"),
    ("unable to open", "it cannot be opened; see that its folder exists and is writable, or set LFP_AUDIT_URL"),
)

_NO_FOLDER = (FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)


def engine_at(url: str, *, read_only: bool) -> tuple[Engine, str]:
    """Connect to a database and create missing tables; read-only, a missing file reads as empty. Raises AuditError.

    Also returns what messages call it: its address without the password; to the public, nothing about the host.
    """
    try:
        address = make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise AuditError(
            "LFP_AUDIT_URL is no database address; write one like sqlite:////data/audits.sqlite"
        ) from error
    name = address.get_backend_name()
    place = PUBLIC if read_only else f"the audits at {address.render_as_string(hide_password=True)}"
    with failing(place):
        engine = _sqlite(address, read_only=read_only) if name == "sqlite" else _server(address)
        if not read_only or engine.url.database in (None, ":memory:"):
            _create_tables(engine)
        known = sa.inspect(engine)
        for table in METADATA.tables.values():
            if table in _LATER and read_only and not known.has_table(table.name):
                continue
            held = {column["name"] for column in known.get_columns(table.name)}
            lacks = next((column.name for column in table.columns if column.name not in held), None)
            if lacks:
                raise AuditError(
                    f"{place}: table {table.name} has no column {lacks}, so another version of the explorer made it; "
                    "set LFP_AUDIT_URL to another place"
                )
    return engine, place


@contextmanager
def failing(place: str) -> Iterator[None]:
    """Turn a database's errors into an AuditError of one sentence."""
    try:
        yield
    except exc.NoSuchModuleError as error:
        raise AuditError(f"{place}: SQLAlchemy knows no such database; write sqlite, postgresql or mysql") from error
    except ImportError as error:
        missing = error.name or "its driver"
        raise AuditError(f"{place}: the Python package {missing} is missing; install it, and start again") from error
    except exc.NoSuchTableError as error:
        raise AuditError(f"{place}: nothing was ever kept there; make a list where audits may be written") from error
    except (exc.SQLAlchemyError, OSError) as error:
        words = str(getattr(error, "orig", None) or error).lower()
        says = next((says for sign, says in _SAYS if sign in words), None)
        if isinstance(error, _NO_FOLDER):
            says = "its folder is not there and cannot be created; set LFP_AUDIT_URL to another place"
        if says is None:
            is_away = isinstance(error, (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, OSError))
            quoted = f" ({words.splitlines()[0][:120]})" if words and place != PUBLIC else ""
            says = (
                f"{'cannot be reached' if is_away else 'refused'}{quoted}; see that the database runs and that you may "
                "write to it, or set LFP_AUDIT_URL"
            )
        raise AuditError(f"{place}: {says}") from error


def _server(url: sa.URL) -> Engine:
    """Build an engine whose connections are cut where the server is silent: no driver bounds that by itself."""
    waits = {"connect_timeout": SERVER_WAIT_S} if url.get_backend_name() in ("postgresql", "mysql", "mariadb") else {}
    engine = sa.create_engine(url, connect_args=waits, pool_timeout=SERVER_WAIT_S)

    def watch(connection: Any, record: Any, _fairy: Any = None) -> None:
        """Cut the connection unless it is returned in time, then see that it still works."""
        timer = threading.Timer(SERVER_WAIT_S, _cut, (connection, record.info))
        timer.daemon = True
        record.info["timer"] = timer
        timer.start()
        try:
            engine.dialect.do_ping(connection)
        except Exception as error:
            end_watch(connection, record)
            if record.info.pop("is_cut", False):
                raise exc.TimeoutError(f"no answer within {SERVER_WAIT_S} s") from None
            raise exc.DisconnectionError from error  # the server was started again: the pool connects again

    def end_watch(_connection: Any, record: Any) -> None:
        if (timer := record.info.pop("timer", None)) is not None:
            timer.cancel()

    sa.event.listen(engine, "checkout", watch)
    sa.event.listen(engine, "checkin", end_watch)
    return engine


def _cut(connection: Any, info: dict[str, Any]) -> None:
    """End a connection's socket, so that whoever waits for the server on it is woken by an error."""
    info["is_cut"] = True
    with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def _sqlite(url: sa.URL, *, read_only: bool) -> Engine:
    """Build an engine that opens a connection per transaction: cheap here, and no thread ever shares one."""
    path = None if url.database in (None, "", ":memory:") else Path(str(url.database))
    if path is None or (read_only and not path.is_file()):
        engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    elif read_only:
        still = "" if os.access(path.parent, os.W_OK) else "&immutable=1"  # WAL wants to write beside the file
        engine = sa.create_engine(f"sqlite:///file:{path.resolve()}?mode=ro{still}&uri=true", poolclass=NullPool)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, poolclass=NullPool)

    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 would begin by itself, too late to take the lock
        connection.execute(f"PRAGMA busy_timeout = {WAIT_S * 1000}")
        connection.execute("PRAGMA foreign_keys = ON")
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a verdict reported as saved survives a power cut

    def on_begin(connection: Connection) -> None:
        """Take the write lock at once where the transaction `writes`: of two writers one waits, neither is refused."""
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", on_begin)
    return engine


def _create_tables(engine: Engine) -> None:
    """Create missing tables. A server refuses one of two programs that do so at once, so look again."""
    for tries_left in range(_TRIES - 1, -1, -1):
        if set(METADATA.tables) <= set(sa.inspect(engine).get_table_names()):
            return
        try:
            with engine.execution_options(writes=True).begin() as connection:
                METADATA.create_all(connection)
        except exc.DBAPIError:
            if engine.dialect.name == "sqlite" or not tries_left:
                raise
            time.sleep(0.2)


METADATA = sa.MetaData()

bundles = Table(
    "audit_bundles",
    METADATA,
    Column("bundle", String(80), primary_key=True),
    Column("bundle_id", String(64), nullable=False),
    Column("features_hash", String(64), nullable=False),
    Column("title", Text, nullable=False),
    Column("first_seen", String(32), nullable=False),
)

verdicts = Table(
    "audit_verdicts",
    METADATA,
    Column("row_id", sa.Integer, primary_key=True, autoincrement=True),
    Column("uid", String(36), nullable=False, unique=True),
    Column("bundle", sa.ForeignKey(bundles.c.bundle), nullable=False),
    Column("feature_id", sa.Integer, nullable=False),
    Column("reviewer", String(80), nullable=False),
    Column("verdict", String(16)),
    Column("related", String(16)),
    Column("confidence", sa.Float),
    Column("tags", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("labeller", Text),
    Column("label", Text),
    Column("is_blind", sa.Boolean, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("supersedes", String(36)),
    sa.CheckConstraint(f"verdict IN {VERDICTS}", name="verdict_known"),
    sa.CheckConstraint(f"related IN {ANSWERS}", name="related_known"),
    sa.CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence_share"),
    sa.Index("audit_verdicts_of", "bundle", "feature_id", "reviewer"),
)

successions = Table(
    "audit_successions",
    METADATA,
    Column("bundle", sa.ForeignKey(bundles.c.bundle), primary_key=True),
    Column("feature_id", sa.Integer, primary_key=True, autoincrement=False),
    Column("reviewer", String(80), primary_key=True),
    Column("supersedes", String(36), primary_key=True),
)
"""What each verdict that was given here supersedes, nothing for a reviewer's first: so no two supersede the same."""

lists = Table(
    "audit_lists",
    METADATA,
    Column("uid", String(36), primary_key=True),
    Column("bundle", sa.ForeignKey(bundles.c.bundle), nullable=False),
    Column("name", String(80), nullable=False),
    Column("origin", Text, nullable=False),
    Column("created_by", String(80), nullable=False),
    Column("created_at", String(32), nullable=False),
    sa.UniqueConstraint("bundle", "name", name="audit_lists_names"),
)

items = Table(
    "audit_list_items",
    METADATA,
    Column("list_uid", sa.ForeignKey(lists.c.uid, ondelete="CASCADE"), primary_key=True),
    Column("position", sa.Integer, primary_key=True, autoincrement=False),
    Column("feature_id", sa.Integer, nullable=False),
)

remarks = Table(
    "audit_remarks",
    METADATA,
    Column("row_id", sa.Integer, primary_key=True, autoincrement=True),
    Column("uid", String(36), nullable=False, unique=True),
    Column("bundle", sa.ForeignKey(bundles.c.bundle), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("reviewer", String(80), nullable=False),
    Column("verdict", String(16)),
    Column("note", Text, nullable=False),
    Column("is_blind", sa.Boolean, nullable=False),
    Column("created_at", String(32), nullable=False),
    sa.CheckConstraint(f"verdict IN {VERDICTS}", name="remark_verdict_known"),
)
_LATER = (remarks, successions)
"""Absent from databases that an older explorer made, as long as they are only read."""
