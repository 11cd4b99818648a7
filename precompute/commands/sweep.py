"""The verb `sweep`: train every autoencoder of a grid on the tuned model's activations, and judge each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from lfp.bundle.manifest import MANIFEST
from lfp.bundle.schema import BY_NAME
from lfp.bundle.writer import conform
from lfp.config import PRETRAIN, RunConfig, SaeConfig, SaeVariant, SweepConfig, load_config, load_section
from lfp.errors import BundleError, ConfigError
from lfp.evaluation.results import ResultRow
from lfp.util.disk import sync
from lfp.util.types import Place, Progress
from precompute.pipeline import check_resumable, open_executor, run_stage, run_stages
from precompute.run.bundle import find_versions
from precompute.run.executor import Report, ShardFunction, Shelf, Task, map_in_order
from precompute.run.inputs import load_role, read_places, sae_folder
from precompute.run.progress import silent
from precompute.run.stage import FileDigests, Stage, compute_key
from precompute.run.work_folder import Output, Run, lock_work_folder
from precompute.stages.features.saes import row as row_of
from precompute.stages.features.subjects import Subject

if TYPE_CHECKING:
    from lfp.ml.sae.activation_sources import ActivationSource
    from lfp.ml.sae.autoencoders import Sae, SaeInfo

_NEEDED = ("corpus", "feedback", "base", "tuned", "layers")
"""Stages of a run that a sweep needs; the completions of its report are not among them."""

_MARK = ".begun-by-sweep"
"""File in a work folder that no run began, and that is deleted when the sweep ends."""

_LIBRARIES = ("torch", "transformers", "trl", "numpy", "scipy", "pyarrow")

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
_COLUMNS = ("layer", "site", "group", "width", *_METRICS)

Rows = Sequence[Mapping[str, Any]]
"""Rows of the table `saes`, each with its `group` and `mmcs_seeds`."""


def sweep(
    config: str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Train and judge the autoencoders that a config's `[sweep]` lists, write their tables to `out`, return the rows.

    `overrides` are `section.key=value`. With `resume` finished stages and places are kept. Raises ConfigError where the
    grid cannot be, or where models are done and `resume` is False; BundleError where `out` holds anything but a sweep.
    """
    file = Path(config)
    run_config = load_config(file, overrides, command="sweep")
    grid = load_section(SweepConfig, "sweep", file, overrides)
    return run_sweep(run_config, grid, Path(out), config_dir=file.parent, resume=resume, progress=progress)


def run_sweep(
    config: RunConfig, grid: SweepConfig, out: Path, *, config_dir: Path | None, resume: bool, progress: Progress
) -> list[dict[str, Any]]:
    """Train and judge every point of a grid at every place that the run reads, and write the tables; see `sweep`.

    The work folder is that of a run to `out`: each finds done what the other has finished.
    """
    import torch

    out = out.resolve()
    check_replaceable(out)
    with lock_work_folder(out) as work:
        run, points = Run(config, work, config_dir, progress), build_points(config, grid)
        check_resumable(run, resume=resume)
        torch.set_num_threads(config.threads)  # sums are split by thread, so results repeat only so
        check_k(run, points)
        mark = work / _MARK
        if not run.finished():
            mark.touch()
        with open_executor(config, work) as executor:
            run = replace(run, executor=executor)
            keys = run_stages(run, _NEEDED)
            comparison = Comparison(run, points, grid, keys)
            rows = comparison.rows()
        write_sweep(out, rows, comparison.facts())
        for folder in [work] if mark.is_file() else list(work.glob("*sweep-layer*")):
            shutil.rmtree(folder)
    return rows


@dataclass(frozen=True)
class Comparison:
    """The points of a grid, and what they share: the tuned model and its activations, loaded once when needed.

    `keys` has the keys of the stages before, and `only` the places that are read where not all of the run's are.
    """

    run: Run
    points: Sequence[Point]
    grid: SweepConfig
    keys: Mapping[str, str]
    only: tuple[Place, ...] = ()

    @cached_property
    def subject(self) -> Subject:
        """Load the tuned model and its held-out activations."""
        return Subject(self.run, "tuned", only=self.only)

    @cached_property
    def source(self) -> ActivationSource:
        """Return training batches of all places, the same for all points."""
        return self.subject.source()

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of all places, which share one reading of the models, or of which workers take one each."""
        places = read_places(self.run)
        load = _LoadComparison(replace(self, run=self.run.for_worker()))
        task = Task("sweep: places", [1] * len(places), load, Shelf(None, ""), self.run.progress)
        found = map_in_order(self.run.executor, self, places, task)
        return [row for of_place in found for row in of_place]

    def __call__(self, place: Place, report: Report) -> list[dict[str, Any]]:
        """Return the rows of a place's points, from disk where they are done."""
        stage = Stage(
            _name_stage(place),
            lambda _, output: self._compare(place, output),
            after=("corpus", "tuned", "layers"),
            reads=("model", "sae", "stats.batch_texts", "seed"),
            facts=self.grid.model_dump_json(),
        )
        digests = FileDigests()
        key = compute_key(stage, self.run.config, self.keys, digests)
        if not self.run.is_done(stage.name, key):
            run_stage(self.run, stage, key, digests)
        rows: list[dict[str, Any]] = self.run.json(stage.name, "rows")
        report(1)
        return rows

    def _compare(self, place: Place, output: Output) -> None:
        """Write rows.json: every point of a place, trained on the same batches and judged."""
        from lfp.ml.sae.quality import quality
        from lfp.ml.sae.training import SaeTrainer, train_saes, unit_scale

        sample = self.source.sample()[place]
        facts: dict[str, Any] = {"place": place, "d_in": sample.shape[1], "scale": unit_scale(sample)}
        config, name, last_step = self.run.config, _name_stage(place), 0

        def report_step(what: str, done: int, total: int, value: float) -> None:  # noqa: ARG001 (a Progress)
            nonlocal last_step
            if done > last_step:  # all trainers take the same step; the first one's loss is shown
                last_step = done
                self.run.progress(f"{name}: trained", done, total, value)

        saes = train_saes(
            [SaeTrainer(point.info(**facts), point.training(config, self.grid), sample) for point in self.points],
            self.source,
            checkpoint=output.scratch / "training.pt",
            progress=report_step,
        )
        likeness, rows = Likeness(self.points, saes), []
        for number, (point, sae) in enumerate(zip(self.points, saes, strict=True)):
            measured = vars(quality(sae, self.subject.held_out[place]))
            judged = row_of(sae, measured | {"ce_recovered": self.subject.recovered_loss.measure(sae)}, is_used=False)
            rows.append(judged | {"group": point.group} | likeness.measure(number))
            self.run.progress(f"{name}: judged", number + 1, len(saes), rows[-1]["fvu"])
        output.json("rows", rows)

    def facts(self) -> dict[str, Any]:
        """Return what was compared and on which weights, without times and places."""
        config = self.run.config
        return {
            "config": config.model_dump(mode="json"),
            "sweep": json.loads(self.grid.model_dump_json()),
            "seed": config.seed,
            "grid": [point.group for point in self.points],
            "models": {"tuned": {"sha256": self.subject.model.sha256}},
            "versions": find_versions(_LIBRARIES),
        }


@dataclass(frozen=True)
class _LoadComparison:
    """Brings a comparison to another process, which reads the models for each place that it gets."""

    comparison: Comparison

    def __call__(self) -> ShardFunction[Place, list[dict[str, Any]]]:
        """Return what compares the points at a place."""
        return lambda place, report: replace(self.comparison, only=(place,))(place, report)


def _name_stage(place: Place) -> str:
    """Name the stage that compares the points of the grid at a place, and its folder."""
    return sae_folder("sweep", place)


@dataclass(frozen=True)
class Likeness:
    """How alike the autoencoders of one place are, in the order of the points; each pair is matched once."""

    points: Sequence[Point]
    saes: Sequence[Sae]
    found: dict[frozenset[int], float] = field(default_factory=dict)

    def measure(self, number: int) -> dict[str, float | None]:
        """Return mean cosines of Hungarian-matched features, None where there is nothing to match with.

        `mmcs`: with the next larger size, for the largest with the next smaller; `mmcs_seeds`: the mean over other
        seeds.
        """
        sizes = sorted([number, *self._others(number, "expansion")], key=lambda other: self.points[other].expansion)
        seeds, place = self._others(number, "seed"), sizes.index(number)
        size = sizes[place + 1] if place + 1 < len(sizes) else sizes[place - 1]
        return {
            "mmcs": None if size == number else self._match(number, size),
            "mmcs_seeds": fmean(self._match(number, other) for other in seeds) if seeds else None,
        }

    def _others(self, number: int, name: str) -> list[int]:
        """Return the numbers of the points that differ from a point in `name` alone."""
        point = self.points[number]
        same = {name: getattr(point, name)}
        others = enumerate(self.points)
        return [other for other, candidate in others if other != number and replace(candidate, **same) == point]

    def _match(self, number: int, other: int) -> float:
        from lfp.ml.sae.quality import matched_cosines

        pair = frozenset((number, other))
        if pair not in self.found:
            small, large = sorted((self.saes[each].W_dec.detach() for each in sorted(pair)), key=len)
            self.found[pair] = matched_cosines(small, large)[0].double().mean().item()
        return self.found[pair]


@dataclass(frozen=True)
class Point:
    """One autoencoder of the grid, at any place: `setting` (l1, k or l0_weight) has `value`."""

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

    def info(self, *, place: Place, d_in: int, scale: float) -> SaeInfo:
        """Return what identifies it at a place of the tuned model whose activations have `d_in` dimensions."""
        from lfp.ml.sae.autoencoders import SaeInfo

        settings: dict[str, Any] = dict.fromkeys(_SETTINGS.values()) | {self.setting: self.value}
        return SaeInfo(
            layer=place.layer,
            site=place.site,
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
    sync(new)
    check_replaceable(out)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def result_rows(rows: Rows) -> list[ResultRow]:
    """Return the rows of `results`: one per metric that is defined, `group` naming the point of the grid."""
    return [
        ResultRow.from_estimate(
            "sae_sweep",
            metric,
            row[metric],
            layer=row["layer"],
            site=row["site"],
            model=row["model"],
            group=row["group"],
        )
        for row in rows
        for metric in _METRICS
        if row[metric] is not None
    ]


def format_table(rows: Rows) -> str:
    """Format the rows as text: a line per autoencoder, a dash where a metric is not defined.

    Sites are shown unless all read MLP outputs.
    """
    table = Table(box=None, pad_edge=False, header_style="")
    columns = [name for name in _COLUMNS if name != "site" or any(row[name] != "mlp_out" for row in rows)]
    for name in columns:
        table.add_column(name, justify="left" if name in ("site", "group") else "right", no_wrap=True)
    for row in rows:
        values = ("-" if row[name] is None else row[name] for name in columns)
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in values))
    text = StringIO()
    Console(file=text, width=1000).print(table)
    return text.getvalue().rstrip()
