"""Progress of a job on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from lfp.util.types import Progress

_LINE_EVERY_S = 10.0


def silent(what: str, done: int, total: int, value: float) -> None:
    """Report no progress."""


@contextmanager
def progress_to_stderr() -> Iterator[Progress]:
    """Yield a function that shows progress on stderr until the block ends."""
    if not sys.stderr.isatty():
        yield _print_lines()
        return
    columns = TextColumn("{task.description:<32}"), BarColumn(), TextColumn("{task.fields[value]:>10.4g}")
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:

        def update_bar(what: str, done: int, total: int, value: float) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, value=value)
            bars.update(tasks[what], completed=done, total=total, value=value)

        yield update_bar


def _print_lines() -> Progress:
    """Return a function that prints a line when something starts or ends, and every ten seconds between.

    In between, a line has the rate since the first one and the time that is left at that rate.
    """
    started = time.monotonic()
    first: dict[str, tuple[float, int]] = {}
    last: dict[str, tuple[float, int]] = {}

    def print_line(what: str, done: int, total: int, value: float) -> None:
        now = time.monotonic()
        shown_at, shown = last.get(what, (now, total))
        if done < shown:  # it starts, or starts again
            first[what] = now, done
        elif done < total and now - shown_at < _LINE_EVERY_S:
            return
        began, done_then = first.setdefault(what, (now, done))
        last[what] = now, done
        line = f"{now - started:7.1f} s  {what}  {done}/{total}  {value:.4g}"
        if done_then < done < total and now > began:
            rate = (done - done_then) / (now - began)
            line += f"  {rate:.3g}/s, {(total - done) / rate:.0f} s left"
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    return print_line
