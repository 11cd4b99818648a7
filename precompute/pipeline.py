"""The stages of a run in order, each skipped where it is done; the bundle written when all are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lfp.bundle.writer import check_replaceable
from lfp.config import RunConfig
from lfp.errors import ConfigError
from lfp.util.types import Progress
from precompute.run.bundle import write_bundle
from precompute.run.sitting import Sitting
from precompute.run.work_folder import Output, Run, stage_key
from precompute.stages.features import features, rollouts, saes, texts
from precompute.stages.findings import ablations, findings, labels
from precompute.stages.models import base, completions, corpus, layers, tuned
from precompute.stages.probes import probes


@dataclass(frozen=True)
class Stage:
    """A job with a name, the sections or keys of the config it reads, and a function of run and output folder."""

    name: str
    sections: tuple[str, ...]
    job: Callable[[Run, Output], None]


_PAIRS = ("tune.method", "tune.pairs", "tune.pairs_split", "tune.pairs_revision")

STAGES = (
    Stage("corpus", ("corpus", *_PAIRS), corpus.run),
    Stage("base", ("model", "pretrain"), base.run),
    Stage("tuned", ("model", "tune", "feedback"), tuned.run),
    Stage("completions", ("tune", "probes"), completions.run),
    Stage("layers", ("layers",), layers.run),
    Stage("saes", ("sae",), saes.run),
    Stage("features", ("stats", "probes"), features.run),
    Stage("rollouts", ("probes",), rollouts.run),
    Stage("probes", ("probes", "language_model.model"), probes.run),
    Stage("texts", ("stats",), texts.run),
    Stage("labels", ("labels",), labels.run),
    Stage("findings", ("probes", "labels"), findings.run),
    Stage("ablations", ("ablation",), ablations.run),
)


def run_pipeline(
    config: RunConfig,
    out: Path,
    *,
    beside: Path | None,
    resume: bool,
    progress: Progress,
    sitting: Sitting | None = None,
) -> Path:
    """Runs every stage that is not done and writes the bundle to `out`; returns `out`.

    What the stages make is kept in a hidden folder beside `out` until the bundle is whole, so that an interrupted run
    goes on with `resume`. Raises ConfigError where a model or more is done and `resume` was not asked for, and
    SittingOver where the rest is for another sitting; after the last stage the bundle is written whatever the time.
    """
    from lfp.ml.models.runtime import set_threads

    check_replaceable(out)
    work = out.parent / f".{out.name}.run"
    run = Run(config, work, beside, progress)
    if not resume and set(run.finished()) - {"corpus"}:  # texts are read again in a moment; models are not
        raise ConfigError(
            f"{work}: an interrupted run, {len(run.finished())} stages done; add --resume to go on, or delete it"
        )
    set_threads(config.threads)
    run_until(STAGES[-1].name, run, sitting=sitting)
    write_bundle(run, out, [stage.name for stage in STAGES])
    shutil.rmtree(work)
    return out


def run_until(name: str, run: Run, *, only: Collection[str] | None = None, sitting: Sitting | None = None) -> str:
    """Runs every stage that is not done, up to and with the one named; returns that one's key.

    With `only` the others are left out, though keys are those of the whole pipeline. Raises SittingOver where the
    sitting ends first.
    """
    sitting, names, is_first, key = sitting or Sitting(), [stage.name for stage in STAGES], True, ""
    for at, stage in enumerate(STAGES):
        key = stage_key(stage.name, run.config, stage.sections, key)
        if (only is None or stage.name in only) and not run.is_done(stage.name, key):
            sitting.check_room(names, at, run.config.budget, is_first=is_first)
            _execute(stage, run, key, sitting)
            is_first = False
        if stage.name == name:
            break
    return key


def _execute(stage: Stage, run: Run, key: str, sitting: Sitting) -> None:
    facts: dict[str, Any] = {}
    run.progress(stage.name, 0, 1, 0.0)
    with run.writing(stage.name, key, facts) as output:
        with sitting.watching(stage.name, run.config.budget, output.scratch) as cost:
            stage.job(run, output)
        facts |= asdict(cost())
    run.progress(stage.name, 1, 1, facts["seconds"])
