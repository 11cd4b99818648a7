"""`precompute sweep`: every point of a grid of autoencoders, trained on the tuned model's activations and judged."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lfp.config import RunConfig, load_config
from lfp.util.types import Progress
from precompute.commands.sweep.grid import Point, check_k, check_replaceable, points, write_sweep
from precompute.pipeline import check_resumable, run_stage, run_stages
from precompute.run.bundle import find_versions
from precompute.run.progress import silent
from precompute.run.stage import FileDigests, Stage, compute_key
from precompute.run.work_folder import Output, Run, lock_work_folder
from precompute.stages.features.saes import Subject
from precompute.stages.features.saes import row as row_of

if TYPE_CHECKING:
    from lfp.ml.sae.autoencoders import Sae
    from lfp.ml.sae.batches import ActivationSource
    from lfp.ml.sae.training import SaeTrainer

_NEEDED = ("corpus", "feedback", "base", "tuned", "layers")
"""Stages of a run that a sweep rests on; the completions of its report are not among them."""


_BEGUN = ".begun-by-sweep"
"""Marks a work folder that no run began, and that can go with the sweep's end."""


_LIBRARIES = ("torch", "transformers", "transformer-lens", "trl", "numpy", "scipy", "pyarrow")


def sweep(
    config: str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Train and judge the autoencoders that a config's `[sweep]` lists, write their tables to `out`, return the rows.

    `overrides` are `section.key=value`. With `resume` finished stages and layers are kept.
    """
    file = Path(config)
    return run_sweep(load_config(file, overrides), Path(out), beside=file.parent, resume=resume, progress=progress)


def run_sweep(
    config: RunConfig, out: Path, *, beside: Path | None, resume: bool, progress: Progress
) -> list[dict[str, Any]]:
    """Trains and judges every point of the grid in every chosen layer, writes them to `out`, and returns their rows.

    The work folder is that of a run to `out`: what either finished the other finds done. Raises ConfigError where the
    grid cannot be, or where models are done and `resume` was not asked for; BundleError where `out` holds anything but
    a sweep.
    """
    from lfp.ml.models.runtime import set_threads

    out = out.resolve()
    check_replaceable(out)
    with lock_work_folder(out) as work:
        run, grid = Run(config, work, beside, progress), points(config)
        check_resumable(run, resume=resume)
        set_threads(config.threads)
        check_k(run, grid)
        if not run.finished():
            (work / _BEGUN).touch()
        keys = run_stages(run, _NEEDED)
        sweep = Sweep(run, grid)
        rows = [row for layer in sweep.subject.layers for row in _layer(sweep, layer, keys)]
        write_sweep(out, rows, _facts(sweep))
        _end(run)
    return rows


@dataclass(frozen=True)
class Sweep:
    """A grid, and what its points share: the tuned model and its activations, had once when asked for."""

    run: Run
    grid: Sequence[Point]

    @cached_property
    def subject(self) -> Subject:
        """The tuned model and its held-out activations."""
        return Subject(self.run, "tuned")

    @cached_property
    def source(self) -> ActivationSource:
        """Training batches of all layers, the same for all points."""
        return self.subject.source()


def _end(run: Run) -> None:
    """Removes what the sweep kept to go on from; of a run that was there before it nothing."""
    begun_here = (run.work / _BEGUN).is_file()
    for folder in [run.work] if begun_here else list(run.work.glob("*sweep-layer*")):
        shutil.rmtree(folder)


def _layer(sweep: Sweep, layer: int, keys: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of a layer's points, as they were left on disk where they are done."""
    stage = Stage(
        _name(layer),
        lambda _, output: _compare(sweep, layer, output),  # the sweep holds the activations that all layers share
        after=("corpus", "tuned", "layers"),
        reads=("model", "sae", "sweep", "stats.batch_texts", "seed"),
    )
    digests = FileDigests()
    key = compute_key(stage, sweep.run.config, keys, digests)
    if not sweep.run.is_done(stage.name, key):
        run_stage(sweep.run, stage, key, digests)
    return sweep.run.json(stage.name, "rows")


def _name(layer: int) -> str:
    return f"sweep-layer{layer}"


def _compare(sweep: Sweep, layer: int, output: Output) -> None:
    """Writes rows.json: every point of a layer, trained on the same batches and judged."""
    saes = _trained(sweep, layer, output.scratch / "training.pt")
    likeness = Likeness(sweep.grid, saes)
    rows = []
    for number, (point, sae) in enumerate(zip(sweep.grid, saes, strict=True)):
        rows.append(_judged(sweep, point, sae) | likeness.of(number))
        sweep.run.progress(f"{_name(layer)}: judged", number + 1, len(saes), rows[-1]["fvu"])
    output.json("rows", rows)


def _trained(sweep: Sweep, layer: int, checkpoint: Path) -> list[Sae]:
    from lfp.ml.sae.training import train_saes

    return train_saes(
        _trainers(sweep, layer),
        sweep.source,
        checkpoint=checkpoint,
        progress=_told_once(sweep.run.progress, f"{_name(layer)}: trained"),
    )


def _told_once(tell: Progress, name: str) -> Progress:
    """A progress that tells of each step under one name, with the first trainer's loss; the others do the same step."""
    last = 0

    def told(what: str, done: int, total: int, value: float) -> None:  # noqa: ARG001 (the form of a progress)
        nonlocal last
        if done > last:
            last = done
            tell(name, done, total, value)

    return told


def _trainers(sweep: Sweep, layer: int) -> list[SaeTrainer]:
    from lfp.ml.sae.training import SaeTrainer, unit_scale

    sample = sweep.source.sample()[layer]
    place: dict[str, Any] = {"layer": layer, "d_in": sample.shape[1], "scale": unit_scale(sample)}
    return [SaeTrainer(one.info(**place), one.training(sweep.run.config), sample) for one in sweep.grid]


def _judged(sweep: Sweep, point: Point, sae: Sae) -> dict[str, Any]:
    from lfp.ml.sae.quality import quality

    measured = vars(quality(sae, sweep.subject.held_out[sae.info.layer]))
    judged = row_of(sae, measured | {"ce_recovered": sweep.subject.ce_recovered(sae)}, is_used=False)
    return judged | {"group": point.group}


def _facts(sweep: Sweep) -> dict[str, Any]:
    """What was compared and on which weights; nothing of when or where."""
    config = sweep.run.config
    return {
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "grid": [point.group for point in sweep.grid],
        "models": {"tuned": {"sha256": sweep.subject.model.sha256}},
        "versions": find_versions(_LIBRARIES),
    }


class Likeness:
    """The autoencoders of one layer, in the order of the grid; each pair is matched once."""

    def __init__(self, grid: Sequence[Point], saes: Sequence[Sae]) -> None:
        self._grid, self._saes = grid, saes
        self._found: dict[frozenset[int], float] = {}

    def of(self, number: int) -> dict[str, float | None]:
        """Mean cosines of Hungarian-matched features, null where there is nothing to match with.

        `mmcs`: with the next larger size, the largest with the next smaller; `mmcs_seeds`: the mean over other seeds.
        """
        size, seeds = self._nearest_size(number), self._others(number, "seed")
        return {
            "mmcs": None if size is None else self._mmcs(number, size),
            "mmcs_seeds": fmean(self._mmcs(number, other) for other in seeds) if seeds else None,
        }

    def _nearest_size(self, number: int) -> int | None:
        sizes = sorted([number, *self._others(number, "expansion")], key=lambda i: self._grid[i].expansion)
        if len(sizes) == 1:
            return None
        place = sizes.index(number)
        return sizes[place + 1] if place + 1 < len(sizes) else sizes[place - 1]

    def _others(self, number: int, name: str) -> list[int]:
        """The points that differ from one in `name` alone."""
        one = self._grid[number]
        return [
            i
            for i, other in enumerate(self._grid)
            if i != number and replace(other, **{name: getattr(one, name)}) == one
        ]

    def _mmcs(self, number: int, other: int) -> float:
        from lfp.ml.sae.quality import matched_cosines

        pair = frozenset((number, other))
        if pair not in self._found:
            small, large = sorted((self._saes[i].W_dec.detach() for i in sorted(pair)), key=len)
            self._found[pair] = matched_cosines(small, large)[0].double().mean().item()
        return self._found[pair]
