"""Questions about features: the table of them, and one with its labels, examples and histogram."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lfp.queries.common import Order, columns, direction, headline_id, main_labeller, no_such, sort_key
from lfp.store import Store


@dataclass(frozen=True)
class FeatureFilter:
    """Which features are wanted. An empty tuple of layers means all of them."""

    layers: tuple[int, ...] = ()
    sign: str = "any"
    """any, positive or negative: the sign of the headline probe's weight."""
    related: str = "any"
    """any, yes or no: what the run's labeller says."""
    density_low: float = 0.0
    density_high: float = 1.0
    search: str = ""
    """Found in the description, in a top token, or equal to the feature's number."""


@dataclass(frozen=True)
class Feature:
    """A row of `features` with its weight in the headline probe; weight fields are None where no probe reads it."""

    feature_id: int
    layer: int
    index: int
    density: float
    n_active: int
    mean_activation: float
    max_activation: float
    base_density: float
    base_mean_activation: float
    shift: float
    stability: float | None
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


@dataclass(frozen=True)
class Example:
    """An example of a feature, with the text it is in."""

    bucket: int
    rank: int
    text_id: int
    position: int
    activation: float
    window_start: int
    window_values: list[float]
    text: str
    token_starts: list[int]
    feedback: float | None


FEATURE_SORTS: Mapping[str, str] = {
    "contribution": "w.mean_abs_contribution",
    "weight": "w.weight",
    "strength": "abs(w.weight)",
    "share": "w.share",
    "density": "f.density",
    "base_density": "f.base_density",
    "shift": "f.shift",
    "max_activation": "f.max_activation",
    "description": "lower(l.description)",
    "related": "l.related",
    "layer": "f.layer",
    "id": "f.feature_id",
}
"""Names a feature table may be sorted by, and the expression behind each."""


def feature_layers(store: Store) -> list[int]:
    """Layers that have features."""
    return [row["layer"] for row in store.rows("SELECT DISTINCT layer FROM features ORDER BY layer")]


def count_features(store: Store, wanted: FeatureFilter) -> int:
    """How many features pass the filter."""
    rows = store.rows(f"SELECT count(*) AS n {_FEATURES_FROM}", _feature_values(store, wanted))
    return int(rows[0]["n"])


def features(
    store: Store, wanted: FeatureFilter, *, order: Order, limit: int | None = None, offset: int = 0
) -> pa.Table:
    """The features that pass, sorted, one page of them. Without a limit: all."""
    by = sort_key(FEATURE_SORTS, order.by)
    return store.query(
        f"SELECT {_FEATURE_COLUMNS} {_FEATURES_FROM} "
        f"ORDER BY {by} {direction(order)} NULLS LAST, f.feature_id LIMIT $limit OFFSET $offset",
        {**_feature_values(store, wanted), "limit": limit, "offset": offset},
    )


def feature(store: Store, feature_id: int) -> Feature:
    """One feature. Raises NotInBundleError."""
    rows = store.rows(
        f"SELECT {columns(Feature)} FROM (SELECT * FROM features WHERE feature_id = $feature_id) "
        "LEFT JOIN (SELECT * FROM weights WHERE probe_id = $probe AND feature_id = $feature_id) USING (feature_id)",
        {"feature_id": feature_id, "probe": headline_id(store)},
    )
    if not rows:
        raise no_such(store, "feature", feature_id)
    return Feature(**rows[0])


def strongest_feature(store: Store) -> int | None:
    """The feature with the largest mean absolute contribution, else the first; None in a bundle without features."""
    rows = store.rows(
        "SELECT feature_id FROM features LEFT JOIN (SELECT feature_id, mean_abs_contribution AS size FROM weights "
        "WHERE probe_id = $probe) USING (feature_id) ORDER BY size DESC NULLS LAST, feature_id LIMIT 1",
        {"probe": headline_id(store)},
    )
    return rows[0]["feature_id"] if rows else None


def labels(store: Store, feature_id: int) -> list[Label]:
    """What labellers say of a feature, the run's own labeller first."""
    rows = store.rows(
        f"SELECT {columns(Label)} FROM labels WHERE feature_id = $feature_id ORDER BY labeller = $main DESC, labeller",
        {"feature_id": feature_id, "main": main_labeller(store)},
    )
    return [Label(**row) for row in rows]


def histogram(store: Store, feature_id: int) -> Histogram | None:
    """Where a feature's activations lie in the tuned and the base model; None where it was never counted."""
    rows = store.rows(
        f"SELECT {columns(Histogram)} FROM histograms WHERE feature_id = $feature_id", {"feature_id": feature_id}
    )
    return Histogram(**rows[0]) if rows else None


def example_counts(store: Store, feature_id: int) -> dict[int, int]:
    """How many examples each bucket of a feature holds: 0 top, 1..q intervals from low to high, -1 silent, -2 near."""
    rows = store.rows(
        "SELECT bucket, count(*) AS n FROM examples WHERE feature_id = $feature_id GROUP BY bucket ORDER BY bucket",
        {"feature_id": feature_id},
    )
    return {row["bucket"]: row["n"] for row in rows}


def examples(store: Store, feature_id: int, *, bucket: int, limit: int = 20) -> list[Example]:
    """Examples of a feature in one bucket, strongest first, each with its text."""
    rows = store.rows(
        f"SELECT {columns(Example)} FROM (SELECT * FROM examples WHERE feature_id = $feature_id AND bucket = $bucket) "
        "JOIN texts USING (text_id) ORDER BY rank LIMIT $limit",
        {"feature_id": feature_id, "bucket": bucket, "limit": limit},
    )
    return [Example(**row) for row in rows]


def feature_excerpts(store: Store, feature_id: int) -> list[dict[str, Any]]:
    """All examples of a feature, of every bucket, joined with their texts: what `lfp.labels.evidence` reads."""
    return store.rows(
        "SELECT text_id, position, bucket, window_start, window_values, text, token_starts "
        "FROM (SELECT * FROM examples WHERE feature_id = $feature_id) JOIN texts USING (text_id) ORDER BY bucket, rank",
        {"feature_id": feature_id},
    )


def _feature_values(store: Store, wanted: FeatureFilter) -> dict[str, Any]:
    return {
        "probe": headline_id(store),
        "labeller": main_labeller(store),
        "layers": list(wanted.layers),
        "sign": wanted.sign,
        "related": wanted.related,
        "density_low": wanted.density_low,
        "density_high": wanted.density_high,
        "search": wanted.search.strip().lower(),
    }


_FEATURES_FROM = """
FROM features f
LEFT JOIN (SELECT * FROM weights WHERE probe_id = $probe) w ON w.feature_id = f.feature_id
LEFT JOIN (SELECT * FROM labels WHERE labeller = $labeller) l ON l.feature_id = f.feature_id
WHERE (len($layers::INTEGER[]) = 0 OR list_contains($layers::INTEGER[], f.layer))
  AND CASE $sign WHEN 'positive' THEN w.weight > 0 WHEN 'negative' THEN w.weight < 0 ELSE true END
  AND CASE $related WHEN 'yes' THEN l.related WHEN 'no' THEN NOT l.related ELSE true END
  AND f.density BETWEEN $density_low AND $density_high
  AND ($search = '' OR contains(lower(l.description), $search) OR f.feature_id::VARCHAR = $search
       OR contains(lower(array_to_string([item.token FOR item IN f.top_tokens], chr(10))), $search))
"""


_FEATURE_COLUMNS = """
f.feature_id, f.layer, l.description, l.related, w.weight, w.mean_abs_contribution, w.share, w.beats_null,
f.density, f.base_density, f.shift, f.max_activation, [item.token FOR item IN f.top_tokens] AS top_tokens
"""
