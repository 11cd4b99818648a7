"""Stage `trajectory`: credits of modules at the checkpoints that tuning kept, to say when it learned what it did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lfp.bundle.schema import as_table
from lfp.evaluation.statistics.resampling import Draws
from lfp.evaluation.trajectory import Trajectory, trajectory_columns, trajectory_rows
from lfp.util.types import CHECKPOINTS
from precompute.run.inputs import find_role, load_options, load_pair
from precompute.run.work_folder import Output, Run
from precompute.stages.models.credit_shards import read_split_texts, split_alone
from precompute.stages.models.credits import collect_credits

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel


def run(run: Run, output: Output) -> None:
    """Write the table `trajectory` and its rows; both are empty where tuning kept no checkpoints."""
    kept = find_checkpoints(run)
    if not kept:
        output.table("trajectory", as_table("trajectory", []))
        output.results([])
        return
    base, tuned = load_pair(run, exact=True)
    texts = read_split_texts(run, tuned, run.config.credits.checkpoint_texts)
    found, known = [], None
    for done, (step, model) in enumerate(load_checkpoints(run, kept, tuned)):
        split = split_alone(run, (base, model), texts, base_likelihood=known)
        known = split.base
        found.append((step, collect_credits(split, texts)[0]))
        run.progress("trajectory: checkpoints", done + 1, len(kept) + 1, float(step))
    modules = found[-1][1].modules
    values = np.zeros((len(found), *found[-1][1].values.shape))
    for place, (_, credits) in enumerate(found):  # a module that did not move yet has no column
        values[place][:, [modules.index(module) for module in credits.modules]] = credits.values
    last = found[-1][1]
    trajectory = Trajectory(np.array([step for step, _ in found]), modules, values, last.n_tokens, last.groups)
    draws = Draws(run.config.probes.bootstraps, run.config.probes.permutations, run.config.seed)
    output.table("trajectory", as_table("trajectory", trajectory_columns(trajectory, draws)))
    output.results(list(trajectory_rows(trajectory, draws)))


def find_checkpoints(run: Run) -> dict[int, Path]:
    """Return the folders of the models that the tuning kept on its way, by step, without that of the last step."""
    folder = run.folder("tuned") / CHECKPOINTS
    kept = {int(path.name.removeprefix("step-")): path for path in folder.glob("step-*")} if folder.is_dir() else {}
    return {step: kept[step] for step in sorted(kept) if step < run.config.tune.steps}


def load_checkpoints(run: Run, kept: dict[int, Path], tuned: LanguageModel) -> Iterator[tuple[int, LanguageModel]]:
    """Load the checkpoints one after the other, then give the tuned model itself."""
    from lfp.ml.models.loading import describe_model, merge_adapter
    from lfp.ml.models.sources import find_model, load_network

    for step, folder in kept.items():
        source, options = find_model(str(folder), key="tune.keep_every"), load_options(run, exact=True)
        if source.is_adapter:
            yield step, merge_adapter(source, find_role(run, "base"), key="tune.keep_every", **options)
        else:  # kept without the tokenizer, which is the base's
            network = load_network(source, key="tune.keep_every", **options)
            yield step, describe_model(network, tuned.tokenizer, source)
    yield run.config.tune.steps, tuned
