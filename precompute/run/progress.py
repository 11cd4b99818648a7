"""Progress of a job: a bar on a terminal, plain lines without one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lfp.util.types import Progress as Tell

_LINE_EVERY_S = 10.0


def silent(what: str, done: int, total: int, value: float) -> None:
    """Report no progress."""


@contextmanager
def progress_to_stderr() -> Iterator[Tell]:
    """Whom a job tells of its progress, for as long as the block lasts."""
    if sys.stderr.isatty():
        with _Bars() as bars:
            yield bars
    else:
        yield _Lines()


class _Bars:
    def __init__(self) -> None:
        columns = TextColumn("{task.description:<32}"), BarColumn(), TextColumn("{task.fields[value]:>10.4g}")
        self._progress = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, total: int, value: float) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, value=value)
        self._progress.update(self._tasks[what], completed=done, total=total, value=value)


class _Lines:
    """A line when something starts or ends, and every ten seconds between."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int, value: float) -> None:
        now = time.monotonic()
        if 0 < done < total and now - self._last.get(what, -_LINE_EVERY_S) < _LINE_EVERY_S:
            return
        self._last[what] = now
        sys.stderr.write(f"{now - self._started:7.1f} s  {what}  {done}/{total}  {value:.4g}\n")
        sys.stderr.flush()
