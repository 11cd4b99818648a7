"""Call a function in a process of its own, and say what came of it: its value or error, its memory, its time."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lfp.errors import LfpError

_MB = 1e6


@dataclass(frozen=True)
class Outcome:
    """What came of a call: `said` is the sentence of an LfpError, `fault` a traceback, or how the process died."""

    value: Any = None
    said: str = ""
    fault: str = ""
    grown_mb: float = 0.0
    seconds: float = 0.0


def call_apart(function: Callable[..., Any], *arguments: Any, limit_s: float) -> Outcome:
    """Call a function of a module in a process of its own; it and its value can be pickled.

    `grown_mb` is its largest memory less that at its start. Past `limit_s` the process is killed, which is a fault.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lfp.texts.corpus", "lfp.labels.client.client"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        found = receiver.recv() if receiver.poll(limit_s) else Outcome(fault=f"no end after {limit_s:g} s")
    except EOFError:
        process.join()
        found = Outcome(fault=f"the process ended with code {process.exitcode} and said nothing")
    process.kill()
    process.join()
    return found


def _call(answer: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    before, started = _memory_now(), time.perf_counter()
    value, said, fault = None, "", ""
    try:
        value = function(*arguments)
    except LfpError as error:
        said = str(error)
    except BaseException:  # noqa: BLE001 (whatever is raised is what is looked for)
        fault = traceback.format_exc()
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answer.send(Outcome(value, said, fault, (largest - before) / _MB, time.perf_counter() - started))


def _memory_now() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tell(name: str, wrong: str, outcome: Outcome, said: str) -> None:
    """Write a line about a case to stderr."""
    mark = "FAULT" if wrong else "fine"
    spent = f"{outcome.grown_mb:6.0f} MB {outcome.seconds:5.1f} s"
    sys.stderr.write(f"{mark:5} {name[:44]:44} {spent}  {(wrong or said)[:200]}\n")
