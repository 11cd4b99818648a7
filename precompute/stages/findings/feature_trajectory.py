"""Stage `feature_trajectory`: credits of features at the checkpoints that tuning kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from lfp.bundle.schema import as_table
from lfp.evaluation.feature_credits import PATHS
from lfp.evaluation.feature_trajectory import FeatureTrajectory
from lfp.evaluation.statistics.resampling import Draws, number_pairs
from lfp.util.types import Floats, Ints
from precompute.run.inputs import load_dictionary, load_pair, name_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.findings.feature_credits import choose_texts, tokens_of
from precompute.stages.models.trajectory import find_checkpoints, load_checkpoints

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.sae.autoencoders import Dictionary

_N_FEATURES = 50
"""Features of the largest final credit that are followed."""


def run(run: Run, output: Output) -> None:
    """Write the table `feature_trajectory` and its rows; both are empty without checkpoints or credits of features."""
    kept = find_checkpoints(run)
    features = _choose_features(run)
    rows = choose_texts(run)[: run.config.credits.checkpoint_texts] if kept and len(features) else []
    if not rows:
        output.table("feature_trajectory", as_table("feature_trajectory", []))
        output.results([])
        return
    base, tuned = load_pair(run, exact=True)
    dictionary, steps, values = load_dictionary(run, "tuned"), [], []
    for step, model in load_checkpoints(run, kept, tuned):
        is_last = model is tuned  # which the stage `feature_credits` has split
        values.append(
            _read_credits(run, rows, features) if is_last else _split(run, base, model, dictionary, rows)[:, features]
        )
        steps.append(step)
        run.progress("feature trajectory: checkpoints", len(steps), len(kept) + 1, float(step))
    n_tokens, groups = np.array([row["counted"].sum() for row in rows]), number_pairs([row["pair_id"] for row in rows])
    trajectory = FeatureTrajectory(np.array(steps, np.int64), features, np.stack(values), n_tokens, groups)
    draws = Draws(run.config.probes.bootstraps, run.config.probes.permutations, run.config.seed)
    output.table("feature_trajectory", as_table("feature_trajectory", trajectory.columns(draws)))
    output.results(list(trajectory.rows(draws)))


def _choose_features(run: Run) -> Ints:
    """Choose the features of the largest credit, largest first, without those that carry nothing."""
    table = run.table("feature_credits", "credits").sort_by("rank").slice(0, _N_FEATURES)
    found: Ints = table.filter(pc.not_equal(table["credit"], 0.0))["feature_id"].to_numpy().astype(np.int64)
    return found


def _read_credits(run: Run, rows: list[dict[str, Any]], features: Ints) -> Floats:
    """Read the final credits [texts, features] of texts."""
    stored = {row["text_id"]: row for row in run.table("feature_credits", "feature_credits").to_pylist()}
    found = np.zeros((len(rows), len(features)))
    n = int(features.max()) + 1
    for place, row in enumerate(rows):
        entries = stored[row["text_id"]]
        ids, credits = np.array(entries["feature_ids"], np.int64), np.array(entries["credits"], np.float64)
        found[place] = np.bincount(ids, credits, minlength=n)[features]
    return found


def _split(
    run: Run, base: LanguageModel, model: LanguageModel, dictionary: Dictionary, rows: list[dict[str, Any]]
) -> Floats:
    """Split the implicit reward that a checkpoint has of texts over features [texts, features]."""
    from lfp.ml.implicit_reward.feature_credits import feature_credits

    settings, full = run.config.feature_credits, PATHS.index("full")
    split = feature_credits(
        base,
        model,
        dictionary,
        [tokens_of(row) for row in rows],
        nodes=settings.nodes,
        batch_texts=settings.batch_texts,
        prepend_bos=run.config.model.prepend_bos,
        counted=[row["counted"] for row in rows],
    )
    n = dictionary.n_features
    with name_texts([row["text_id"] for row in rows]):
        return np.stack([np.bincount(text.features, text.credits[full], n) for text in split])
