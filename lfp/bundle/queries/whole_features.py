"""Everything that a bundle holds of its features, many at once, for exports that write them all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lfp.bundle.queries.common import columns
from lfp.bundle.queries.feature import Feature, FeatureCredit, Histogram, Label, Neighbour
from lfp.bundle.store import views
from lfp.bundle.store.connection import Store

_AT_ONCE = 256
"""Features that are in memory together, with all their examples."""
_SILENT = -1
"""Bucket of places at random where a feature is silent."""


@dataclass(frozen=True)
class WholeFeature:
    """A feature with what is known of it.

    `examples` are as `feature_excerpts` returns them, with the text's `source`, and without silent places at random.
    """

    feature: Feature
    labels: Sequence[Label]
    """The one that names the feature first."""
    examples: Sequence[dict[str, Any]]
    neighbours: Sequence[Neighbour]
    histogram: Histogram | None
    credit: FeatureCredit | None


def whole_features(store: Store, feature_ids: Sequence[int]) -> Iterator[WholeFeature]:
    """Yield features by number, reading a few hundred at a time; numbers that the bundle lacks are left out."""
    wanted = sorted(set(feature_ids))
    for start in range(0, len(wanted), _AT_ONCE):
        yield from _read(store, wanted[start : start + _AT_ONCE])


def _read(store: Store, ids: Sequence[int]) -> Iterator[WholeFeature]:
    found = {row["feature_id"]: Feature(**row) for row in store.rows(_FEATURES, _bound(ids))}
    labels, examples, neighbours = (_grouped(store, sql, ids) for sql in (_LABELS, _EXAMPLES, _NEIGHBOURS))
    histograms, credits = (_grouped(store, sql, ids) for sql in (_HISTOGRAMS, _CREDITS))
    for number, feature in found.items():
        yield WholeFeature(
            feature,
            [Label(**row) for row in labels[number]],
            examples[number],
            [Neighbour(**row) for row in neighbours[number]],
            next((Histogram(**row) for row in histograms[number]), None),
            next((FeatureCredit(**row) for row in credits[number]), None),
        )


def _grouped(store: Store, sql: str, ids: Sequence[int]) -> Mapping[int, list[dict[str, Any]]]:
    """Return rows by their `of_feature`, which is taken off them."""
    groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in store.rows(sql, _bound(ids)):
        groups[row.pop("of_feature")].append(row)
    return groups


def _bound(ids: Sequence[int]) -> dict[str, Any]:
    return {"first": ids[0], "last": ids[-1], "ids": list(ids)}


_WANTED = "feature_id BETWEEN $first AND $last AND feature_id IN (SELECT unnest($ids::INTEGER[]))"
"""The range lets row groups of other features be skipped."""
_FEATURES = f"SELECT {columns(Feature)} FROM feature_table WHERE {_WANTED} ORDER BY feature_id"
_LABELS = f"""
SELECT feature_id AS of_feature, {columns(Label)} FROM ({views.standings(_WANTED)})
ORDER BY feature_id, {views.BEST_FIRST}
"""
_EXAMPLES = f"""
SELECT e.feature_id AS of_feature, bucket, rank, e.text_id, position, activation, window_start, window_values, "text",
    token_starts, feedback, source
FROM (SELECT * FROM examples WHERE {_WANTED} AND bucket <> {_SILENT}) e JOIN texts ON texts.text_id = e.text_id
ORDER BY e.feature_id, bucket, rank
"""
_NEIGHBOURS = f"""
SELECT n.feature_id AS of_feature, kind, n.rank, neighbour_id, "value", t.layer, t.site, description,
    t.top_tokens[1].token AS top_token, weight
FROM (SELECT * FROM neighbours WHERE {_WANTED}) n JOIN feature_table t ON t.feature_id = neighbour_id
ORDER BY n.feature_id, kind, n.rank
"""
_HISTOGRAMS = f"SELECT feature_id AS of_feature, {columns(Histogram)} FROM histograms WHERE {_WANTED}"
_CREDITS = f"SELECT feature_id AS of_feature, {columns(FeatureCredit)} FROM credits WHERE {_WANTED}"
