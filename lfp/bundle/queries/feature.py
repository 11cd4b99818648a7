"""Queries on one feature: its numbers, labels and histogram, and what surrounds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfp.bundle.queries.common import columns, headline, headline_id, no_such
from lfp.bundle.queries.excerpts import read_texts
from lfp.bundle.queries.run import report_ablations
from lfp.bundle.store import views
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import CONTROL


@dataclass(frozen=True)
class Feature:
    """A row of `features` with its weight in the headline probe; weight fields are None where no probe reads it."""

    feature_id: int
    description: str | None
    """Its name: the label that predicts held-out texts best, or what it fires on."""
    layer: int
    site: str
    index: int
    density: float
    n_active: int
    mean_activation: float
    max_activation: float
    base_density: float
    base_mean_activation: float
    shift: float
    stability: float | None
    scale_tuned: float | None
    scale_base: float | None
    scale_tuned_error: float | None
    scale_base_error: float | None
    is_tuned_only: bool | None
    base_cosine: float | None
    top_tokens: list[dict[str, Any]]
    pos_logits: list[dict[str, Any]]
    neg_logits: list[dict[str, Any]]
    weight: float | None
    ci_low: float | None
    ci_high: float | None
    mean_contribution: float | None
    mean_abs_contribution: float | None
    share: float | None
    rank: int | None
    null_high: float | None
    q: float | None
    beats_null: bool | None


@dataclass(frozen=True)
class Label:
    """A description of a feature by one labeller."""

    labeller: str
    model: str | None
    description: str | None
    related: bool | None
    confidence: float | None
    reason: str | None
    agreement: float | None
    score_detection: float | None
    score_fuzzing: float | None
    score_ci_low: float | None
    score_ci_high: float | None
    score_n: int | None
    score_swapped: float | None
    score_q: float | None
    status: str
    failure: str | None
    prompt_version: str
    prompt_sha256: str | None
    task: str | None
    examples_used: list[str]
    created_at: str | None
    cost_usd: float | None


@dataclass(frozen=True)
class Histogram:
    """Active tokens by activation: `edges` has one more than `counts` and `base_counts`."""

    edges: list[float]
    counts: list[int]
    base_counts: list[int]


def feature(store: Store, feature_id: int) -> Feature:
    """Select one feature. Raises NotInBundleError."""
    rows = store.rows(
        f"SELECT {columns(Feature)} FROM feature_table WHERE feature_id = $feature_id", {"feature_id": feature_id}
    )
    if not rows:
        raise no_such(store, "feature", feature_id)
    return Feature(**rows[0])


def strongest_feature(store: Store) -> int | None:
    """Return the feature with the largest mean absolute contribution, else the first; None where there is none."""
    rows = store.rows(
        "SELECT feature_id FROM feature_table ORDER BY mean_abs_contribution DESC NULLS LAST, feature_id LIMIT 1"
    )
    return rows[0]["feature_id"] if rows else None


def labels(store: Store, feature_id: int) -> list[Label]:
    """Select the labels of a feature, the one that names it first, then by the lower bound of their detection."""
    rows = store.rows(
        f"SELECT {columns(Label)} FROM ({views.standings('feature_id = $feature_id')}) ORDER BY {views.BEST_FIRST}",
        {"feature_id": feature_id},
    )
    return [Label(**row) for row in rows]


def histogram(store: Store, feature_id: int) -> Histogram | None:
    """Select the histogram of a feature's activations in both models; None where it was never counted."""
    rows = store.rows(
        f"SELECT {columns(Histogram)} FROM histograms WHERE feature_id = $feature_id", {"feature_id": feature_id}
    )
    return Histogram(**rows[0]) if rows else None


@dataclass(frozen=True)
class Neighbour:
    """A feature near another: by which `kind` of similarity, its value, and the neighbour's label and weight."""

    kind: str
    rank: int
    neighbour_id: int
    value: float
    layer: int
    site: str
    description: str | None
    top_token: str | None
    weight: float | None


@dataclass(frozen=True)
class FeatureDrift:
    """A row of `drift`: what tuning did to a feature. Contributions are means over tokens in units of the target."""

    status: str
    sign_flipped: bool | None
    weight: float
    weight_base: float | None
    contribution: float
    contribution_base: float
    drifted_contribution: float
    rank: int
    share: float


@dataclass(frozen=True)
class FeatureCredit:
    """A row of `credits`: what tuning's change of a feature carries of the implicit reward, in nats per token."""

    credit: float
    ci_low: float
    ci_high: float
    abs_credit: float
    rank: int
    unexplained_credit: float
    unexplained_rank: int
    twin_difference: float | None
    twin_error: float | None
    twin_q: float | None
    beyond_twins: bool | None
    promotes: list[dict[str, Any]]
    demotes: list[dict[str, Any]]


@dataclass(frozen=True)
class Intervention:
    """A row of `interventions`: predicted and measured effect of taking the feature out, in nats per token.

    `control` is the mean size of its controls' effects; `reward_contrast` is the mean reward of completions without the
    feature less that without each of the controls, None in older bundles.
    """

    by_credit: float
    effect: float
    ci_low: float
    ci_high: float
    reward_effect: float | None
    reward_ci_low: float | None
    reward_ci_high: float | None
    reward_contrast: float | None
    reward_contrast_low: float | None
    reward_contrast_high: float | None
    control: float | None


@dataclass(frozen=True)
class TextPart:
    """What a feature adds to one text's estimate, with the text's feedback and estimate."""

    text_id: int
    text: str
    contribution: float
    predicted: float
    feedback: float | None


@dataclass(frozen=True)
class TextParts:
    """What a feature adds to the estimates of the texts whose activations are kept.

    `largest` are by size; `against` are the largest that push a text's estimate to the other side than its true
    feedback is of the average's. `mean` is over the `n_active` texts where it adds anything.
    """

    n_texts: int
    n_active: int
    mean: float | None
    n_against: int
    n_judged: int
    largest: tuple[TextPart, ...]
    against: tuple[TextPart, ...]


def neighbours(store: Store, feature_id: int) -> list[Neighbour]:
    """Select the neighbours of a feature, of both kinds, nearest first."""
    rows = store.rows(_NEIGHBOURS, {"feature_id": feature_id})
    return [Neighbour(**row) for row in rows]


def feature_drift(store: Store, feature_id: int) -> FeatureDrift | None:
    """Select what tuning did to a feature; None where drift was not measured."""
    rows = store.rows(f"SELECT {columns(FeatureDrift)} FROM drift WHERE feature_id = $id", {"id": feature_id})
    return FeatureDrift(**rows[0]) if rows else None


def feature_credit(store: Store, feature_id: int) -> FeatureCredit | None:
    """Select what a feature carries of the implicit reward; None where credits were not split over features."""
    rows = store.rows(f"SELECT {columns(FeatureCredit)} FROM credits WHERE feature_id = $id", {"id": feature_id})
    return FeatureCredit(**rows[0]) if rows else None


def credit_trajectory(store: Store, feature_id: int) -> pa.Table:
    """Select a feature's credit per token at every checkpoint of the tuning, in order; empty where it has none."""
    return store.query(
        "SELECT step, nats, ci_low, ci_high FROM feature_trajectory WHERE feature_id = $id ORDER BY step",
        {"id": feature_id},
    )


def feature_intervention(store: Store, feature_id: int) -> Intervention | None:
    """Select the effect of taking a feature out of what tuning changed; None where it was not measured."""
    rows = store.rows(_INTERVENTION, {"id": feature_id})
    return Intervention(**rows[0]) if rows else None


def feature_ablations(store: Store, feature_id: int) -> list[dict[str, Any]]:
    """Select the ablations that removed the feature, without controls, the feature by itself first."""
    every = store.once("ablations", lambda: report_ablations(store))
    rows = [row for row in every if row["kind"] != CONTROL and feature_id in row["features"]]
    return sorted(rows, key=lambda row: (len(row["features"]), row["group"]))


def feature_texts(store: Store, feature_id: int, *, limit: int = 5) -> TextParts | None:
    """Find the texts whose estimate a feature raises or lowers most; None without a probe that reads it."""
    probe = headline(store)
    if probe is None:
        return None
    kept = store.once("texts with activations", lambda: store.rows(_KEPT_TEXTS)[0])
    found = store.query(_PARTS, {"pooling": probe.pooling, "feature_id": feature_id, "probe": probe.probe_id})
    if not found.num_rows:
        return None
    parts = found.filter(pc.is_valid(found["text_id"])).sort_by("text_id")
    contribution, feedback = parts["contribution"].to_numpy(), parts["feedback"].to_numpy()
    average = np.nan if kept["average"] is None else kept["average"]
    is_judged = np.isfinite(feedback) & np.isfinite(average)
    is_against = is_judged & (contribution * (feedback - average) < 0)
    by_size = np.argsort(-np.abs(contribution), kind="stable")
    largest, against = by_size[:limit], by_size[is_against[by_size]][:limit]
    rows = parts.take(np.concatenate([largest, against])).to_pylist()
    texts = read_texts(store, [row["text_id"] for row in rows])
    shown = tuple(TextPart(text=texts[row["text_id"]]["text"], **row) for row in rows)
    return TextParts(
        n_texts=kept["n_texts"],
        n_active=parts.num_rows,
        mean=float(contribution.mean()) if parts.num_rows else None,
        n_against=int(is_against.sum()),
        n_judged=int(is_judged.sum()),
        largest=shown[: len(largest)],
        against=shown[len(largest) :],
    )


_NEIGHBOURS = """
SELECT kind, n.rank, neighbour_id, "value", t.layer, t.site, description, t.top_tokens[1].token AS top_token, weight
FROM (SELECT * FROM neighbours WHERE feature_id = $feature_id) n
JOIN (SELECT feature_id, layer, site, description, top_tokens, weight FROM feature_table WHERE feature_id IN
          (SELECT neighbour_id FROM neighbours WHERE feature_id = $feature_id)) t ON t.feature_id = neighbour_id
ORDER BY kind, n.rank
"""

_INTERVENTION = """
SELECT by_credit, effect, ci_low, ci_high, reward_effect, reward_ci_low, reward_ci_high,
    reward_contrast, reward_contrast_low, reward_contrast_high,
    (SELECT avg(abs(effect)) FROM interventions WHERE kind = 'control' AND control_of = $id) AS control
FROM interventions WHERE kind = 'feature' AND feature_id = $id
"""

_KEPT_TEXTS = "SELECT count(*) AS n_texts, avg(feedback) AS average FROM texts SEMI JOIN activations USING (text_id)"

_PARTS = f"""
SELECT text_id, weight * pooled AS contribution, predicted, feedback
FROM (SELECT weight::DOUBLE AS weight FROM weights WHERE probe_id = $probe AND feature_id = $feature_id)
LEFT JOIN (
    SELECT p.text_id, pooled, predicted::DOUBLE AS predicted, feedback::DOUBLE AS feedback
    FROM ({views.pooled("FROM active_of($feature_id)", pooling="$pooling")}) p JOIN texts ON texts.text_id = p.text_id
) ON weight * pooled <> 0
"""


def probe_weights(store: Store) -> pa.Table:
    """Select feature_id and weight of the headline probe by number; empty without a probe."""
    return store.query(
        "SELECT feature_id, weight::DOUBLE AS weight FROM weights WHERE probe_id = $probe ORDER BY feature_id",
        {"probe": headline_id(store)},
    )


def named_features(store: Store, feature_ids: Sequence[int]) -> dict[int, str | None]:
    """Map these features, where the bundle holds them, to their descriptions; None where there is none."""
    rows = store.rows(
        "SELECT feature_id, description FROM feature_table WHERE feature_id IN (SELECT unnest($ids::INTEGER[]))",
        {"ids": list(feature_ids)},
    )
    return {row["feature_id"]: row["description"] for row in rows}
