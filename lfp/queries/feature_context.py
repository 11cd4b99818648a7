"""Questions about what surrounds one feature: its neighbours, its drift, its ablations, the texts it weighs in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lfp.queries.common import columns, headline, headline_id
from lfp.queries.pooled import pooled_of_feature
from lfp.store import Store


@dataclass(frozen=True)
class Neighbour:
    """A feature near another: by `kind`, with its value, and what is said of it."""

    kind: str
    rank: int
    neighbour_id: int
    value: float
    layer: int
    description: str | None
    top_token: str | None
    weight: float | None


@dataclass(frozen=True)
class FeatureDrift:
    """A row of `drift`: what tuning did to a feature; contributions are mean over tokens, in the probe's target."""

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
class TextPart:
    """What a feature adds to one text's estimate, with what the text was paid and is estimated at."""

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
    """The features near one, of both kinds, nearest first."""
    rows = store.rows(_NEIGHBOURS, {"feature_id": feature_id})
    return [Neighbour(**row) for row in rows]


def feature_drift(store: Store, feature_id: int) -> FeatureDrift | None:
    """What tuning did to a feature; None where drift was not measured."""
    rows = store.rows(f"SELECT {columns(FeatureDrift)} FROM drift WHERE feature_id = $id", {"id": feature_id})
    return FeatureDrift(**rows[0]) if rows else None


def feature_ablations(store: Store, feature_id: int) -> list[dict[str, Any]]:
    """Rows of `ablations` that took the feature out, controls aside, the feature by itself first."""
    return store.rows(
        "SELECT * FROM ablations WHERE kind <> 'control' AND list_contains(features, $id) "
        'ORDER BY len(features), "group"',
        {"id": feature_id},
    )


def feature_texts(store: Store, feature_id: int, *, limit: int = 5) -> TextParts | None:
    """Where a feature adds to or takes from the headline estimate; None without a probe that reads it."""
    probe = headline(store)
    if probe is None:
        return None
    kept = store.once("texts with activations", lambda: store.rows(_KEPT_TEXTS)[0])
    values = {"pooling": probe.pooling, "average": kept["average"], "feature_id": feature_id, "limit": limit,
              "weighs": headline_id(store)}  # fmt: skip
    rows = store.rows(_TEXTS, values)
    if not rows:
        return None
    facts = {key: rows[0][key] for key in ("n_active", "mean", "n_against", "n_judged")}
    fields = ("text_id", "text", "contribution", "predicted", "feedback")
    parts = [(row["by"], TextPart(**{key: row[key] for key in fields})) for row in rows if row["by"]]
    largest, against = (tuple(part for by, part in parts if by == kind) for kind in ("largest", "against"))
    return TextParts(**facts, n_texts=kept["n_texts"], largest=largest, against=against)


_NEIGHBOURS = """
SELECT kind, n.rank, neighbour_id, "value", t.layer, description, t.top_tokens[1].token AS top_token, weight
FROM (SELECT * FROM neighbours WHERE feature_id = $feature_id) n
JOIN (SELECT feature_id, layer, description, top_tokens, weight FROM feature_table WHERE feature_id IN
          (SELECT neighbour_id FROM neighbours WHERE feature_id = $feature_id)) t ON t.feature_id = neighbour_id
ORDER BY kind, n.rank
"""


_KEPT_TEXTS = "SELECT count(*) AS n_texts, avg(feedback) AS average FROM texts SEMI JOIN activations USING (text_id)"
_TEXTS = f"""
WITH weighed AS (SELECT weight::DOUBLE AS weight FROM weights WHERE probe_id = $weighs AND feature_id = $feature_id),
parts AS (
    SELECT text_id, weight * pooled AS contribution
    FROM ({pooled_of_feature()}) CROSS JOIN weighed
    WHERE weight * pooled <> 0
), judged AS (
    SELECT p.text_id, contribution, t.predicted::DOUBLE AS predicted, t.feedback::DOUBLE AS feedback,
        contribution * (t.feedback - $average) < 0 AS is_against
    FROM parts p JOIN (SELECT text_id, predicted, feedback FROM texts) t USING (text_id)
), chosen AS (
    (SELECT 'largest' AS "by", * FROM judged ORDER BY abs(contribution) DESC, text_id LIMIT $limit)
    UNION ALL
    (SELECT 'against', * FROM judged WHERE is_against ORDER BY abs(contribution) DESC, text_id LIMIT $limit)
)
SELECT n_active, "mean", n_against, n_judged, "by", c.text_id, texts.text, contribution, c.predicted,
    c.feedback
FROM (SELECT count(*) AS n_active, avg(contribution) AS "mean", count(*) FILTER (is_against) AS n_against,
          count(is_against) AS n_judged FROM judged)
SEMI JOIN weighed ON true
LEFT JOIN chosen c ON true
LEFT JOIN (SELECT text_id, "text" FROM texts WHERE text_id IN (SELECT text_id FROM chosen)) texts
    ON texts.text_id = c.text_id
ORDER BY "by", abs(contribution) DESC, c.text_id
"""
