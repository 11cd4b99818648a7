"""A sweep on disk and on paper: its two tables, sweep.json, figures of the report, and lines to read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lfp.bundle.manifest import MANIFEST
from lfp.bundle.schema import BY_NAME
from lfp.bundle.writer import conform
from lfp.errors import BundleError
from lfp.evaluation.results import result

SWEEP = "sweep.json"
"""Tells a sweep's folder from others."""
_FILES = {SWEEP, "saes.parquet", "results.parquet"}
_METRICS = ("fvu", "l0", "dead_fraction", "ce_recovered", "mmcs", "mmcs_seeds")
_COLUMNS = ("layer", "group", "width", *_METRICS)

Rows = Sequence[Mapping[str, Any]]
"""Rows of `saes`, each with its `group` and `mmcs_seeds` beside."""


def check_replaceable(out: Path) -> None:
    """Raises BundleError unless a sweep may be written at `out`: nothing there, an empty folder, or a sweep."""
    if (out / MANIFEST).is_file():
        raise BundleError(f"{out}: a bundle is there, and a sweep would replace it; choose another folder")
    if not out.exists():
        return
    found = {path.name for path in out.iterdir()} if out.is_dir() else None
    if found is None or (found and not (SWEEP in found and found <= _FILES)):
        raise BundleError(f"{out}: something that is not a sweep is there; choose another folder or empty it first")


def write_sweep(out: Path, rows: Rows, facts: Mapping[str, Any]) -> None:
    """Writes saes.parquet, results.parquet and sweep.json (`facts`) to a sibling folder, and moves it to `out`."""
    new, old = out.parent / f".{out.name}.writing", out.parent / f".{out.name}.old"
    for stale in (new, old):
        shutil.rmtree(stale, ignore_errors=True)
    new.mkdir(parents=True)
    for name, of_table in (("saes", rows), ("results", figures(rows))):
        pq.write_table(conform(BY_NAME[name], of_table), new / f"{name}.parquet", compression="zstd")
    text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False)
    (new / SWEEP).write_text(text + "\n", encoding="utf-8")
    check_replaceable(out)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def figures(rows: Rows) -> list[dict[str, Any]]:
    """The rows of `results`: a row a metric that is defined, `group` naming the point of the grid."""
    return [
        result("sae_sweep", metric, row[metric], layer=row["layer"], model=row["model"], group=row["group"])
        for row in rows
        for metric in _METRICS
        if row[metric] is not None
    ]


def lines(rows: Rows) -> list[str]:
    """A table in plain text: a line an autoencoder, a dash where a figure is not defined."""
    cells = [list(_COLUMNS), *([_cell(row[name]) for name in _COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(_padded, line, widths)).rstrip() for line in cells]


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _padded(cell: str, width: int) -> str:
    """Numbers to the right, names to the left."""
    return cell.ljust(width) if "=" in cell or cell == "group" else cell.rjust(width)
