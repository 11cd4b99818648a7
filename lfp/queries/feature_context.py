"""Questions about what surrounds one feature: its neighbours, its drift, its ablations, the texts it weighs in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lfp.queries.common import columns, each_of, headline
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
    shown = _text_parts(store, parts.take(np.concatenate([largest, against])).to_pylist())
    return TextParts(
        n_texts=kept["n_texts"],
        n_active=parts.num_rows,
        mean=float(contribution.mean()) if parts.num_rows else None,
        n_against=int(is_against.sum()),
        n_judged=int(is_judged.sum()),
        largest=shown[: len(largest)],
        against=shown[len(largest) :],
    )


def _text_parts(store: Store, rows: list[dict[str, Any]]) -> tuple[TextPart, ...]:
    """The rows with the words of their texts."""
    if not rows:
        return ()
    listed, bound = each_of([row["text_id"] for row in rows])
    words = store.rows(f'SELECT text_id, "text" FROM texts WHERE text_id IN {listed}', bound)
    texts = {row["text_id"]: row["text"] for row in words}
    return tuple(TextPart(text=texts[row["text_id"]], **row) for row in rows)


_NEIGHBOURS = """
SELECT kind, n.rank, neighbour_id, "value", t.layer, description, t.top_tokens[1].token AS top_token, weight
FROM (SELECT * FROM neighbours WHERE feature_id = $feature_id) n
JOIN (SELECT feature_id, layer, description, top_tokens, weight FROM feature_table WHERE feature_id IN
          (SELECT neighbour_id FROM neighbours WHERE feature_id = $feature_id)) t ON t.feature_id = neighbour_id
ORDER BY kind, n.rank
"""


_KEPT_TEXTS = "SELECT count(*) AS n_texts, avg(feedback) AS average FROM texts SEMI JOIN activations USING (text_id)"
_PARTS = f"""
SELECT text_id, weight * pooled AS contribution, predicted, feedback
FROM (SELECT weight::DOUBLE AS weight FROM weights WHERE probe_id = $probe AND feature_id = $feature_id)
LEFT JOIN (
    SELECT p.text_id, pooled, predicted::DOUBLE AS predicted, feedback::DOUBLE AS feedback
    FROM ({pooled_of_feature()}) p JOIN texts ON texts.text_id = p.text_id
) ON weight * pooled <> 0
"""
