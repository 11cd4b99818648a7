"""Interventions that test credits: what taking a feature out of what tuning changed does, against what predicts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lfp.evaluation.findings.ablation import contrast_scores
from lfp.evaluation.results import CONTROL, FEATURE, Estimate, ResultRow
from lfp.evaluation.statistics.resampling import Draws, bootstrap, interval_of_sums, mean_interval, with_null
from lfp.evaluation.statistics.scores import spearman
from lfp.util.types import Floats, Ints, Place

PREDICTORS = ("credit", "weight", "drift")
"""What predicts an effect: the credit, the headline's mean contribution, and how far tuning moved that."""
_FEWEST = 4
"""Features that a rank correlation needs."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What taking a feature out does: effects [texts] in nats on their counted tokens, and what is written without it.

    `scores` [completions] are the rewards of completions, None where none were written.
    """

    feature: int
    control_of: int | None
    effects: Floats
    scores: Floats | None = None


@dataclass(frozen=True, eq=False)
class CleanRuns:
    """Scores [runs, completions] of what the intact model writes after the same prefixes.

    The first run has the draws of all that is written without a feature; `clusters` [completions] number the prefixes.
    """

    scores: Floats
    clusters: Ints


def intervention_rows(
    measured: Sequence[Measured],
    predictions: Mapping[str, Floats],
    *,
    n_tokens: Ints,
    groups: Ints,
    clean: CleanRuns | None,
    places: Sequence[Place],
    energy: Floats,
    draws: Draws,
) -> list[dict[str, Any]]:
    """Compute the rows of the table `interventions`; `predictions` [features] say what taking each out would do.

    `n_tokens` [texts] are the tokens that count; intervals draw the texts of one of the `groups` [texts] together.
    Completions without a feature are compared with those of the `clean` runs, and with those without each control.
    """
    rows = []
    controls = {of.feature: of.scores for of in measured if of.control_of is not None and of.scores is not None}
    for found in measured:
        low, high = _rate_interval(found.effects, n_tokens, groups, draws)
        row = {
            "feature_id": found.feature,
            "kind": FEATURE if found.control_of is None else CONTROL,
            "control_of": found.control_of,
            "layer": places[found.feature].layer,
            "site": places[found.feature].site,
            "n_texts": len(n_tokens),
            **{f"by_{name}": _number(predictions[name][found.feature]) for name in PREDICTORS},
            "effect": float(found.effects.sum() / n_tokens.sum()),
            "ci_low": low,
            "ci_high": high,
            "removed_energy": float(energy[found.feature]),
        }
        if found.scores is not None and clean is not None:
            others = [scores for feature, scores in controls.items() if feature != found.feature]
            row |= _compare_scores(found.scores, others, clean, draws)
        rows.append(row)
    return sorted(rows, key=lambda row: (row["kind"], row["feature_id"], row["control_of"] or 0))


def _compare_scores(scores: Floats, others: Sequence[Floats], clean: CleanRuns, draws: Draws) -> dict[str, Any]:
    """Compare completions without a feature with the clean runs', and with those without other, matched features."""
    change, clusters = change_from_runs(scores, clean.scores), clean.clusters
    low, high = mean_interval(change, n=draws.bootstraps, rng=draws.rng(), groups=clusters)
    row = {"reward_effect": float(change.mean()), "reward_ci_low": low, "reward_ci_high": high,
           "n_completions": len(scores), "clean_runs": len(clean.scores)}  # fmt: skip
    if not others:
        return row
    contrast, low, high = contrast_scores(scores, others, clusters=clusters, draws=draws)
    return row | {"reward_contrast": contrast, "reward_contrast_low": low, "reward_contrast_high": high}


def change_from_runs(scores: Floats, runs: Floats) -> Floats:
    """Return how far scores [n] are from those of clean runs [runs, n], of which the first had the same draws.

    The first run's luck is how far it is from the mean of the others. Scores share it as far as the change left what is
    written as it was; the rest is taken off the difference by least squares (a control variate). So completions that
    are equal to the first run's differ by nothing, and independent ones are compared with the mean of all runs.
    """
    change = scores - runs[0]
    if len(runs) == 1:
        return change
    luck = runs[0] - runs[1:].mean(axis=0)
    centred = luck - luck.mean()
    spread = float(centred @ centred)
    slope = float(np.clip(centred @ change / spread, -1.0, 0.0)) if spread else 0.0
    return np.asarray(change - slope * luck)


def intervention_results(rows: Sequence[Mapping[str, Any]], draws: Draws) -> list[ResultRow]:
    """Return rows `interventions`: rank correlations of predicted and measured effects, and sizes beside controls.

    Nulls permute the measured effects over features, and p is two-sided. Sizes on rewards are of what is beyond the
    mean of the controls, of a control beyond that of the others. A feature that is the control of several counts once.
    """
    features = [row for row in rows if row["kind"] == FEATURE]
    controls = list({row["feature_id"]: row for row in rows if row["kind"] == CONTROL}.values())
    found = []
    for metric, effect in (("rank_correlation", "effect"), ("reward_rank_correlation", "reward_effect")):
        for name in PREDICTORS:
            known = [row for row in features if row.get(effect) is not None and row[f"by_{name}"] is not None]
            if len(known) < _FEWEST:
                continue
            value = _correlate(
                np.array([row[effect] for row in known]), np.array([row[f"by_{name}"] for row in known]), draws
            )
            found.append(ResultRow.from_estimate("interventions", metric, value, group=name))
    if features:
        agree = np.mean([np.sign(row["effect"]) == np.sign(row["by_credit"]) for row in features])
        found.append(ResultRow.from_estimate("interventions", "sign_agreement", float(agree), n=len(features)))
    for kind, of_kind in ((FEATURE, features), (CONTROL, controls)):
        for metric, column in (("size", "effect"), ("reward_size", "reward_contrast")):
            sizes = np.array([abs(row[column]) for row in of_kind if row.get(column) is not None])
            if len(sizes):
                low, high = mean_interval(sizes, n=draws.bootstraps, rng=draws.rng())
                value = Estimate(float(sizes.mean()), len(sizes), low, high)
                found.append(ResultRow.from_estimate("interventions", metric, value, group=kind))
    return found


def _correlate(measured: Floats, predicted: Floats, draws: Draws) -> Estimate:
    low, high = bootstrap(spearman, measured, predicted, n=draws.bootstraps, rng=draws.rng())
    rng = draws.rng()
    nulls = np.array([spearman(rng.permutation(measured), predicted) for _ in range(draws.permutations)])
    return with_null(Estimate(spearman(measured, predicted), len(measured), low, high), nulls, two_sided=True)


def _rate_interval(effects: Floats, n_tokens: Ints, groups: Ints, draws: Draws) -> tuple[float, float]:
    """Return the 95 % interval over groups of texts of the effect per token."""
    columns = np.column_stack([effects, n_tokens])
    low, high = interval_of_sums(
        lambda sums: sums[:, :1] / sums[:, 1:], columns, n=draws.bootstraps, rng=draws.rng(), groups=groups
    )
    return float(low[0]), float(high[0])


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
