"""Two commands timed in turn, as someone with a stopwatch would: the ratio of their costs a step, the median of pairs.

A command names its number of steps as {steps}. Its cost a step is (wall at 600 steps - wall at 300) / 300, so that what
a program takes to start is in neither. Both are run in each pair, so that a busy machine is busy for both.

    python -m tests.benchmarks.paired "python -m precompute bench sae --steps {steps}" "python other.py --steps {steps}"
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time

import numpy as np

_FEW, _MANY = 300, 600


def main() -> None:
    """Prints a JSON line a pair, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs=2, metavar="COMMAND", help="ours, then the other's, each with {steps} in it")
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    steps_ms = np.array([[_step_ms(command) for command in arguments.commands] for _ in range(arguments.pairs)])
    for ours, theirs in steps_ms:
        _say({"ours_step_ms": ours, "theirs_step_ms": theirs, "ratio": theirs / ours})
    ours, theirs = np.median(steps_ms, axis=0)
    ratio = np.median(steps_ms[:, 1] / steps_ms[:, 0])
    _say({"pairs": arguments.pairs, "ours_step_ms": ours, "theirs_step_ms": theirs, "median_ratio": ratio})


def _step_ms(command: str) -> float:
    few, many = (_seconds(command.format(steps=steps)) for steps in (_FEW, _MANY))
    return (many - few) / (_MANY - _FEW) * 1000.0


def _seconds(command: str) -> float:
    started = time.perf_counter()
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    return time.perf_counter() - started


def _say(figures: dict[str, float]) -> None:
    sys.stdout.write(json.dumps({name: round(float(value), 3) for name, value in figures.items()}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
