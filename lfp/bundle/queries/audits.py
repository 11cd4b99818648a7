"""Queries for audits: which features to review, and the share of all contributions that the reviewed ones carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lfp.bundle.queries.common import headline_id, sort_key
from lfp.bundle.store.connection import Store


@dataclass(frozen=True)
class AuditedFeature:
    """A feature as a list of an audit shows it."""

    feature_id: int
    layer: int
    description: str | None
    related: bool | None
    weight: float | None
    mean_abs_contribution: float | None
    beats_null: bool | None


RANDOM = "random sample"
PICKS: Mapping[str, str] = {
    "largest contributions": "true",
    "label and weight disagree": "t.related <> t.beats_null",
    "no label, or no better than a guess": "(t.description IS NULL OR l.score_ci_low <= 0.5)",
    RANDOM: "true",
}
"""Ways to pick features for review by name, each with its condition."""


def pick_features(store: Store, pick: str, *, limit: int, seed: int = 0) -> list[int]:
    """Pick features to review by a name from PICKS, largest contribution first; a random sample in random order.

    The sample is the same for the same seed and bundle. Raises ConfigError for another name.
    """
    condition = sort_key(PICKS, pick)
    order, values = "t.mean_abs_contribution DESC NULLS LAST", {"limit": limit}
    if pick == RANDOM:
        order, values = "hash(t.feature_id::VARCHAR || ':' || $seed::VARCHAR)", {**values, "seed": seed}
    sql = f"SELECT t.feature_id {_PICKED_FROM} WHERE {condition} ORDER BY {order}, t.feature_id LIMIT $limit"
    return [row["feature_id"] for row in store.rows(sql, values)]


def count_picked(store: Store, pick: str) -> int:
    """Count the features to pick from. Raises ConfigError for another name."""
    return int(store.rows(f"SELECT count(*) AS n {_PICKED_FROM} WHERE {sort_key(PICKS, pick)}")[0]["n"])


_PICKED_FROM = """
FROM feature_table t
LEFT JOIN (SELECT feature_id, labeller, score_ci_low FROM labels) l
    ON l.feature_id = t.feature_id AND l.labeller = t.labeller
"""


def audited_features(store: Store, feature_ids: Sequence[int]) -> list[AuditedFeature]:
    """Select the features of a list that the bundle holds, in the given order."""
    rows = store.rows(
        "SELECT feature_id, layer, description, related, weight, mean_abs_contribution, beats_null "
        "FROM feature_table WHERE feature_id IN (SELECT unnest($ids::BIGINT[]))",
        {"ids": list(feature_ids)},
    )
    found = {row["feature_id"]: AuditedFeature(**row) for row in rows}
    return [found[feature_id] for feature_id in feature_ids if feature_id in found]


def contribution_share(store: Store, feature_ids: Sequence[int]) -> float | None:
    """Compute the share of these features in the headline's mean absolute contributions; None without a probe."""
    rows = store.rows(
        "SELECT sum(mean_abs_contribution) FILTER (WHERE chosen IS NOT NULL) AS part, "
        "sum(mean_abs_contribution) AS whole FROM weights "
        "LEFT JOIN (SELECT DISTINCT unnest($ids::BIGINT[]) AS chosen) ON chosen = feature_id WHERE probe_id = $probe",
        {"ids": list(feature_ids), "probe": headline_id(store)},
    )
    part, whole = rows[0]["part"], rows[0]["whole"]
    return (part or 0.0) / whole if whole else None
