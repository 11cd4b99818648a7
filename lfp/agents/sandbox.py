"""SQL in a process of its own, which is ended where one query takes more time or memory than it may.

DuckDB counts what its buffers hold; a single huge value (`repeat`, `range`) escapes that, and an interrupt as well.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow as pa

from lfp.bundle.store.connection import Limits, Store
from lfp.errors import ConfigError, LfpError

_TO_START_S = 60.0
_GRACE_S = 1.0
"""How long after its time a query may take to stop by itself."""
_MEMORY_BYTES = 1 << 30
"""Address space that a query may add to that of the process."""


@dataclass(frozen=True)
class Query:
    """One SELECT by somebody else, and the rows it may return."""

    sql: str
    limit: int


class Sandbox(AbstractContextManager["Sandbox"]):
    """Answers queries on a bundle, one at a time; the process starts with the first query, and again after a loss."""

    def __init__(self, path: Path | str, *, memory: str, seconds: float) -> None:
        self._path, self._memory, self._seconds = path, memory, seconds
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def select(self, sql: str, *, limit: int) -> pa.Table:
        """Return at most `limit` rows of one SELECT. Raises ConfigError where it is wrong or takes too much."""
        with self._lock:
            pipe = self._pipe or self._start()
            try:
                pipe.send(Query(sql, limit))
                if not pipe.poll(self._seconds + _GRACE_S):
                    self._end()
                    raise ConfigError(f"sql: it took more than {self._seconds:g} s; read fewer rows or smaller values")
                answer = pipe.recv()
            except (EOFError, OSError) as error:
                self._end()
                raise ConfigError(
                    "sql: it needs more memory than a query has here; aggregate, or read fewer rows"
                ) from error
        if isinstance(answer, str):
            raise ConfigError(answer)
        with pa.ipc.open_stream(answer) as stream:
            return stream.read_all()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        path = self._path.resolve() if isinstance(self._path, Path) else self._path
        arguments = (other_end, path, self._memory, self._seconds)
        self._process = context.Process(target=_answer, args=arguments, daemon=True)
        self._process.start()
        other_end.close()
        try:
            ready = self._pipe.poll(_TO_START_S) and self._pipe.recv()
        except EOFError:
            ready = "its process ended"
        if ready is not True:
            self._end()
            raise ConfigError(
                f"sql: the bundle cannot be read any more ({ready or 'no answer'}); start the server again"
            )
        return self._pipe

    def _end(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None


def _answer(pipe: Connection, path: Path | str, memory: str, seconds: float) -> None:
    """Answer queries until the other end closes: Arrow's stream of the rows, or a sentence."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends this process
    try:
        store = Store.open(path, limits=Limits(memory=memory, is_locked=True))
    except LfpError as error:
        pipe.send(str(error))
        return
    _limit_memory()
    pipe.send(True)
    with store:
        while True:
            try:
                query: Query = pipe.recv()
            except EOFError:
                return
            try:
                pipe.send(_as_stream(store.select(query.sql, limit=query.limit, seconds=seconds)))
            except LfpError as error:
                pipe.send(str(error))


def _as_stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def _limit_memory() -> None:
    """Limit the address space of this process to what it has and `_MEMORY_BYTES`; only Linux says what it has."""
    if sys.platform != "linux":
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
