"""The command line: `python -m precompute COMMAND`. Exit codes: 0 done, 1 the work failed, 2 wrong arguments or config.

Every command parses, calls the function of its name in `precompute.commands.VERBS`, and prints what it returns.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from types import FrameType

from lfp.errors import LfpError
from lfp.util.dependencies import jobs_packages
from lfp.util.disk import find_refusal
from precompute.cli import exchange, runs, studies
from precompute.cli.options import Interrupted, app

__all__ = ["app", "exchange", "main", "runs", "studies"]


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (a signal handler's form)
    raise Interrupted


def main() -> None:
    """Run a command; an LfpError becomes one sentence on stderr and its exit code."""
    if "OMP_WAIT_POLICY" not in os.environ:  # spinning threads are slow beside another program
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="1000")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with jobs_packages("this command"):
            app()
    except LfpError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        refusal = find_refusal(error)
        if refusal is None:
            raise
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        sys.stderr.write(f"error: {place}{refusal}; make room there, or name a place that you may write to\n")
        sys.exit(1)
    except Interrupted:
        sys.stderr.write("interrupted; add --resume to continue after the last finished stage\n")
        sys.exit(1)
