"""The grid of a sweep: its points, the folder that their figures are written to, and the table that is printed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from lfp.bundle.manifest import MANIFEST
from lfp.bundle.schema import BY_NAME
from lfp.bundle.writer import conform
from lfp.config import PRETRAIN, RunConfig, SaeConfig, SaeVariant, SweepConfig
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
"""The setting of each variant; the other settings have no effect on it."""

SWEEP = "sweep.json"
"""Marks a folder as a sweep's."""

_FILES = {SWEEP, "saes.parquet", "results.parquet"}
_METRICS = ("fvu", "l0", "dead_fraction", "ce_recovered", "mmcs", "mmcs_seeds")
_COLUMNS = ("layer", "group", "width", *_METRICS)

Rows = Sequence[Mapping[str, Any]]
"""Rows of the table `saes`, each with its `group` and `mmcs_seeds`."""


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
        """Return its name in the column `group` of `results`."""
        return f"variant={self.variant},{self.setting}={self.value},expansion={self.expansion},seed={self.seed}"

    def training(self, config: RunConfig, grid: SweepConfig) -> SaeConfig:
        """Return the run's `[sae]` with the point's own variant, setting and learning rate."""
        rate = getattr(grid.learning_rate, self.variant) or config.sae.learning_rate
        own: dict[str, Any] = {"variant": self.variant, "learning_rate": rate, self.setting: self.value}
        return config.sae.model_copy(update=own)

    def info(self, *, layer: int, d_in: int, scale: float) -> SaeInfo:
        """Return what identifies it in a layer of the tuned model whose MLP output has `d_in` dimensions."""
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


def build_points(config: RunConfig, grid: SweepConfig) -> list[Point]:
    """List every point of the grid; what the grid leaves out is taken from `[sae]`, and the seed from the run."""
    sizes = grid.expansion or tuple(dict.fromkeys(config.sae.expansion))
    return [
        Point(variant, setting, value, size, seed)
        for variant in grid.variants
        for setting in [_SETTINGS[variant]]
        for value in getattr(grid, setting) or (getattr(config.sae, setting),)
        for size in sizes
        for seed in grid.seeds or (config.seed,)
    ]


def check_k(run: Run, points: Sequence[Point]) -> None:
    """Raise ConfigError, before any training, for a k above the number of features of its dictionary."""
    by_k = [point for point in points if point.setting == "k"]
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


def check_replaceable(out: Path) -> None:
    """Raise BundleError unless `out` is missing, an empty folder, or a sweep."""
    if (out / MANIFEST).is_file():
        raise BundleError(f"{out}: a bundle is there, and a sweep would replace it; choose another folder")
    if not out.exists():
        return
    found = {path.name for path in out.iterdir()} if out.is_dir() else None
    if found is None or (found and not (SWEEP in found and found <= _FILES)):
        raise BundleError(f"{out}: something that is not a sweep is there; choose another folder or empty it first")


def write_sweep(out: Path, rows: Rows, facts: Mapping[str, Any]) -> None:
    """Write saes.parquet, results.parquet and sweep.json (`facts`) to a sibling folder, and move it to `out`."""
    new, old = out.parent / f".{out.name}.writing", out.parent / f".{out.name}.old"
    for stale in (new, old):
        shutil.rmtree(stale, ignore_errors=True)
    new.mkdir(parents=True)
    for name, table in (("saes", rows), ("results", [row.as_dict() for row in result_rows(rows)])):
        pq.write_table(conform(BY_NAME[name], table), new / f"{name}.parquet", compression="zstd")
    text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False)
    (new / SWEEP).write_text(text + "\n", encoding="utf-8")
    check_replaceable(out)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def result_rows(rows: Rows) -> list[ResultRow]:
    """Return the rows of `results`: one per metric that is defined, `group` naming the point of the grid."""
    return [
        ResultRow.from_estimate(
            "sae_sweep", metric, row[metric], layer=row["layer"], model=row["model"], group=row["group"]
        )
        for row in rows
        for metric in _METRICS
        if row[metric] is not None
    ]


def format_table(rows: Rows) -> str:
    """Format the rows as text: a line per autoencoder, a dash where a metric is not defined."""
    table = Table(box=None, pad_edge=False, header_style="")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "group" else "right", no_wrap=True)
    for row in rows:
        values = ("-" if row[name] is None else row[name] for name in _COLUMNS)
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in values))
    text = StringIO()
    Console(file=text, width=1000).print(table)
    return text.getvalue().rstrip()
