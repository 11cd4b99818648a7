"""Hostile places: disks that fill up, read-only folders, names that cannot be, and several commands to one place.

`python -m tests.hostile places` needs root for its small disks, and skips those without it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lfp.bundle.manifest import read_manifest
from lfp.bundle.validation import validate

ROOT = Path(__file__).resolve().parents[2]
SIZES = ("200k", "600k", "1m", "1100k", "1500k", "2m", "3m")
"""Disks on which the tiny run does not find room, each too small at another stage."""


def can_mount() -> bool:
    """Return whether this process may mount a small disk."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
        )
        if made.returncode == 0:
            subprocess.run(["umount", folder], check=False)
        return made.returncode == 0


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of memory at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def grow(folder: Path) -> None:
    """Give a small disk room."""
    subprocess.run(["mount", "-o", "remount,size=200m", str(folder)], check=True)


def bad_outs(folder: Path) -> dict[str, Path]:
    """Places that a bundle cannot be written to, by what is wrong."""
    file = folder / "a-file"
    file.write_text("letters", encoding="utf-8")
    (folder / "full").mkdir()
    (folder / "full" / "letters.txt").write_text("letters", encoding="utf-8")
    places = {
        "a file": file,
        "below a file": file / "out",
        "a name of 300 characters": folder / ("n" * 300),
        "below a name of 300 characters": folder / ("n" * 300) / "out",
        "in /proc": Path("/proc/lfp-out"),
        "a folder of other things": folder / "full",
        "a link to itself": folder / "loop",
        "a device": Path("/dev/null"),
    }
    places["a link to itself"].symlink_to(places["a link to itself"])
    return places


def config_file(folder: Path) -> Path:
    """Write the tiny run, brief in its last stages, as a file beside its corpus."""
    from tests.precompute.conftest import BRIEF, TINY, write_reviews

    write_reviews(folder)
    lines = ["threads = 1"]
    values = {name: {**TINY.get(name, {}), **BRIEF.get(name, {})} for name in {*TINY, *BRIEF}  # type: ignore[dict-item]
              if isinstance(TINY.get(name, {}), dict)}  # fmt: skip
    for name, keys in values.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    file = folder / "tiny.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def start(arguments: Sequence[str | Path]) -> subprocess.Popen[str]:
    """Start a command."""
    command = [sys.executable, "-m", "precompute", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def judge(code: int | None, err: str) -> str:
    """Return what is wrong with how a command refused: it must be one sentence, with exit code 1 or 2."""
    if code not in (1, 2):
        return f"exit code {code}: {err[-200:]}"
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    if "Traceback" in err or len(said) != 1 or err.rstrip().splitlines()[-1] != said[0]:
        return f"no sentence: {err[-300:]}"
    return ""


def fill_disks(sizes: Sequence[str], folder: Path) -> list[str]:
    """Run on disks that are too small, then with room, which must give the undisturbed run's hashes; return faults."""
    faults, config = [], config_file(folder)
    undisturbed = folder / "undisturbed"
    if sizes and start(["run", config, "--out", undisturbed]).wait(280):
        return ["the undisturbed run failed"]
    for size in sizes:
        with small_disk(folder / f"disk-{size}", size) as disk:
            out = disk / "out"
            process = start(["run", config, "--out", out])
            err = process.communicate(timeout=280)[1]
            wrong = judge(process.returncode, err)
            if not wrong and out.exists():
                wrong = "half a bundle"
            grow(disk)
            again = start(["run", config, "--out", out, "--resume"])
            rest = again.communicate(timeout=280)[1]
            wrong = wrong or (f"not resumed: {rest[-300:]}" if again.returncode or validate(out) else "")
            if not wrong and read_manifest(out).tables_id != read_manifest(undisturbed).tables_id:
                wrong = "resumed, it gave other hashes"
            sys.stderr.write(f"{'FAULT' if wrong else 'fine '} disk of {size}: {wrong or err.splitlines()[-1][:200]}\n")
            faults += [f"disk of {size}: {wrong}"] if wrong else []
    return faults


def race(n: int, folder: Path) -> list[str]:
    """Start `n` runs to one place within a second or so; one must end well, the others say so; return the faults."""
    config, out, draws = config_file(folder), folder / f"out-{n}", random.Random(n)
    processes = []
    for _ in range(n):
        processes.append(start(["run", config, "--out", out]))
        time.sleep(draws.uniform(0.0, 0.5))
    ended = [(process.communicate(timeout=290)[1], process.returncode) for process in processes]
    refused = [err.rstrip().splitlines()[-1] for err, code in ended if code]
    wrong = [f"race of {n}: {judge(code, err)}" for err, code in ended if code and judge(code, err)]
    if len(refused) != n - 1 or any("is writing there; wait" not in said for said in refused):
        wrong.append(f"race of {n}: {len(refused)} refused: {refused[:2]}")
    if validate(out):
        wrong.append(f"race of {n}: the bundle is not valid")
    sys.stderr.write(f"{'FAULT' if wrong else 'fine '} race of {n}: {refused[0][:160] if refused else ''} {wrong}\n")
    return wrong


def main(seed: int, count: int) -> dict[str, Any]:
    """Fill disks, up to `count`, in an order drawn from the seed, and have 2, 4 and 8 runs race."""
    faults, n = list[str](), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if can_mount():
            sizes = random.Random(seed).sample(SIZES, len(SIZES))[:count]
            faults, n = fill_disks(sizes, folder), len(sizes)
        for runs in (2, 4, 8):
            faults += race(runs, folder)
    return {"cases": n + 3, "faults": faults}
