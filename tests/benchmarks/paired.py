"""Two commands timed in turn: the ratio of their times per step, the median of pairs.

A command contains its number of steps as {steps}. Its time per step is (wall at 600 steps - wall at 300) / 300, which
leaves out the start of the program. Each pair runs both, so that a busy machine is busy for both.

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
    """Print a JSON line per pair, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs=2, metavar="COMMAND", help="two commands, each with {steps} in it")
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    steps_ms = np.array([[_step_ms(command) for command in arguments.commands] for _ in range(arguments.pairs)])
    for first, second in steps_ms:
        _say({"first_step_ms": first, "second_step_ms": second, "ratio": second / first})
    first, second = np.median(steps_ms, axis=0)
    ratio = np.median(steps_ms[:, 1] / steps_ms[:, 0])
    _say({"pairs": arguments.pairs, "first_step_ms": first, "second_step_ms": second, "median_ratio": ratio})


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
