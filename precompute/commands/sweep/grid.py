"""The grid of a sweep, its points, and the folder that holds what came of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from lfp.bundle.manifest import MANIFEST
from lfp.bundle.schema import BY_NAME
from lfp.bundle.writer import conform
from lfp.config import PRETRAIN, RunConfig, SaeConfig, SaeVariant
from lfp.errors import BundleError, ConfigError
from lfp.evaluation.results import ResultRow
from precompute.run.inputs import load_role
from precompute.run.work_folder import Run

if TYPE_CHECKING:
    from lfp.ml.sae.autoencoders import SaeInfo

_SETTINGS: dict[SaeVariant, str] = {
    "tied_relu": "l1",
    "relu": "l1",
    "topk": "k",
    "batchtopk": "k",
    "jumprelu": "l0_weight",
}
"""What each variant is set by; the other settings do not reach it."""


@dataclass(frozen=True)
class Point:
    """One autoencoder of the grid, in any layer: `setting` (l1, k or l0_weight) has `value`."""

    variant: SaeVariant
    setting: str
    value: float
    expansion: int
    seed: int

    @property
    def group(self) -> str:
        """Its name in the column `group` of `results`."""
        return f"variant={self.variant},{self.setting}={self.value},expansion={self.expansion},seed={self.seed}"

    def training(self, config: RunConfig) -> SaeConfig:
        """How it is trained: the sae section with the point's own variant, setting and learning rate."""
        rate = getattr(config.sweep.learning_rate, self.variant) or config.sae.learning_rate
        own: dict[str, Any] = {"variant": self.variant, "learning_rate": rate, self.setting: self.value}
        return config.sae.model_copy(update=own)

    def info(self, *, layer: int, d_in: int, scale: float) -> SaeInfo:
        """What it is in a layer of the tuned model whose MLP output has `d_in` dimensions."""
        from lfp.ml.sae.autoencoders import SaeInfo

        settings: dict[str, Any] = dict.fromkeys(_SETTINGS.values()) | {self.setting: self.value}
        return SaeInfo(
            layer=layer,
            width=self.expansion * d_in,
            d_in=d_in,
            scale=scale,
            seed=self.seed,
            model="tuned",
            variant=self.variant,
            **settings,
        )


def points(config: RunConfig) -> list[Point]:
    """Every point of the grid; what the sweep section leaves out is the sae section's, and the run's seed."""
    sweep = config.sweep
    sizes = sweep.expansion or tuple(dict.fromkeys(config.sae.expansion))
    return [
        Point(variant, _SETTINGS[variant], value, size, seed)
        for variant in sweep.variants
        for value in _values(config, _SETTINGS[variant])
        for size in sizes
        for seed in sweep.seeds or (config.seed,)
    ]


def check_k(run: Run, grid: Sequence[Point]) -> None:
    """Before any training: raises ConfigError for a k that is more than the features of its dictionary."""
    by_k = [point for point in grid if point.setting == "k"]
    if not by_k:
        return
    config = run.config
    d_in = config.pretrain.d_model if config.model.base == PRETRAIN else load_role(run, "base").d_model
    for point in by_k:
        if point.value > point.expansion * d_in:
            raise ConfigError(
                f"sweep: k {point.value} is more than the {point.expansion * d_in} features of expansion"
                f" {point.expansion} of {d_in} dimensions; lower sweep.k or raise sweep.expansion"
            )


def _values(config: RunConfig, setting: str) -> tuple[float, ...]:
    return getattr(config.sweep, setting) or (getattr(config.sae, setting),)


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
    for name, of_table in (("saes", rows), ("results", [row.as_dict() for row in figures(rows)])):
        pq.write_table(conform(BY_NAME[name], of_table), new / f"{name}.parquet", compression="zstd")
    text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False)
    (new / SWEEP).write_text(text + "\n", encoding="utf-8")
    check_replaceable(out)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def figures(rows: Rows) -> list[ResultRow]:
    """The rows of `results`: a row a metric that is defined, `group` naming the point of the grid."""
    return [
        ResultRow.from_estimate(
            "sae_sweep", metric, row[metric], layer=row["layer"], model=row["model"], group=row["group"]
        )
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
