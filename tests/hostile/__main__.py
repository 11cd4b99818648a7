"""The long runs of hostile input, a JSON line each: `python -m tests.hostile [--seed 0] [--count 50] [PART ...]`.

A part is a module of this folder with `main(seed, count)`, which returns its counts; `faults` among them lists what
went wrong, and any of it makes the exit code 1. Every module that has such a function takes part.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import tests.hostile

Part = Callable[[int, int], dict[str, Any]]


def parts() -> dict[str, Part]:
    """Return the modules that take part, by name."""
    names = [found.name for found in pkgutil.iter_modules(tests.hostile.__path__)]
    modules = {
        name: importlib.import_module(f"tests.hostile.{name}")
        for name in names
        if not name.startswith(("_", "test_", "conftest"))
    }
    return {name: module.main for name, module in modules.items() if hasattr(module, "main")}


def main(arguments: list[str] | None = None) -> int:
    """Run the named parts, or all of them, and return the exit code."""
    known = parts()
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(known)}; all where none is named")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn")
    parser.add_argument("--count", type=int, default=50, help="cases of each part")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.parts) - known.keys()):
        parser.error(f"there is no part {', '.join(unknown)}; name any of {', '.join(known)}")
    n_faults = 0
    for name in options.parts or known:
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counts = known[name](options.seed, options.count)
        seconds = round(time.perf_counter() - started, 1)
        n_faults += len(counts.get("faults", ()))
        sys.stdout.write(json.dumps({"part": name, "seed": options.seed, "seconds": seconds, **counts}) + "\n")
        sys.stdout.flush()
    return 1 if n_faults else 0


if __name__ == "__main__":
    sys.exit(main())
