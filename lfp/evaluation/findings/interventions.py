"""Interventions that test credits: what taking a feature out of what tuning changed does, against what predicts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    """What taking a feature out does: effects [texts] in nats on their counted tokens, and on rewards.

    `rewards` [completions] are after minus before on the same prefixes, None where it was not measured; `clusters`
    number the prefixes.
    """

    feature: int
    control_of: int | None
    effects: Floats
    rewards: Floats | None = None


def intervention_rows(
    measured: Sequence[Measured],
    predictions: Mapping[str, Floats],
    *,
    n_tokens: Ints,
    groups: Ints,
    clusters: Ints | None,
    places: Sequence[Place],
    energy: Floats,
    draws: Draws,
) -> list[dict[str, Any]]:
    """Compute the rows of the table `interventions`; `predictions` [features] say what taking each out would do.

    `n_tokens` [texts] are the tokens that count; intervals draw the texts of one of the `groups` [texts] together.
    """
    rows = []
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
        if found.rewards is not None:
            low, high = mean_interval(found.rewards, n=draws.bootstraps, rng=draws.rng(), groups=clusters)
            row |= {"reward_effect": float(found.rewards.mean()), "reward_ci_low": low, "reward_ci_high": high,
                    "n_completions": len(found.rewards)}  # fmt: skip
        rows.append(row)
    return sorted(rows, key=lambda row: (row["kind"], row["feature_id"], row["control_of"] or 0))


def intervention_results(rows: Sequence[Mapping[str, Any]], draws: Draws) -> list[ResultRow]:
    """Return rows `interventions`: rank correlations of predicted and measured effects, and sizes beside controls.

    Nulls permute the measured effects over features, and p is two-sided. Sizes on rewards are of what is beyond the
    mean of the controls, of a control beyond that of the others: all effects share the luck of the clean run. A feature
    that is the control of several counts once.
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
    luck = np.array([row["reward_effect"] for row in controls if row.get("reward_effect") is not None])
    for kind, of_kind in ((FEATURE, features), (CONTROL, controls)):
        by_reward = np.array([row["reward_effect"] for row in of_kind if row.get("reward_effect") is not None])
        for metric, effects in (
            ("size", np.array([row["effect"] for row in of_kind])),
            ("reward_size", _beyond_controls(by_reward, luck, own=kind == CONTROL)),
        ):
            sizes = np.abs(effects)
            if len(sizes):
                low, high = mean_interval(sizes, n=draws.bootstraps, rng=draws.rng())
                value = Estimate(float(sizes.mean()), len(sizes), low, high)
                found.append(ResultRow.from_estimate("interventions", metric, value, group=kind))
    return found


def _beyond_controls(effects: Floats, controls: Floats, *, own: bool) -> Floats:
    """Subtract the mean of the controls from effects, of the other controls where they are the controls' `own`.

    Empty where there are fewer than two controls.
    """
    n = len(controls)
    if n < 2:
        return np.zeros(0)
    return np.asarray((effects - controls.mean()) * (n / (n - 1) if own else 1.0))


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
