"""Queries on drift: features by what tuning changed of their contribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lfp.bundle.queries.common import Order, direction, look_up
from lfp.bundle.store.connection import Store


@dataclass(frozen=True)
class DriftedFeature:
    """A feature whose contribution tuning changed, with its description and the token it fires on most."""

    feature_id: int
    layer: int
    site: str
    status: str
    drifted_contribution: float
    description: str | None
    top_token: str | None


def drifted_features(store: Store, *, limit: int = 20) -> list[DriftedFeature]:
    """Select the features whose contribution changed most; empty where drift was not measured."""
    rows = store.rows(_DRIFTED, {"limit": limit})
    return [DriftedFeature(**row) for row in rows]


def features_by_drift(store: Store) -> list[dict[str, Any]]:
    """Select all features by drifted contribution, with the `words` that they fire on.

    `rank` is by drifted contribution, `unexplained_rank` by their part of the unexplained reward; both count from 1.
    """
    return store.rows(
        "SELECT d.feature_id, d.rank, d.unexplained_rank, "
        "coalesce(list(w.word ORDER BY w.word) FILTER (w.word IS NOT NULL), []) AS words "
        "FROM drift d LEFT JOIN word_features w USING (feature_id) GROUP BY ALL ORDER BY d.rank, d.feature_id"
    )


_DRIFTED = """
SELECT feature_id, f.layer, f.site, status, drifted_contribution, l.description, f.top_tokens[1].token AS top_token
FROM (SELECT * FROM drift WHERE rank <= $limit) d
JOIN features f USING (feature_id)
LEFT JOIN (SELECT feature_id, description FROM feature_table) l USING (feature_id)
ORDER BY d.rank
"""


@dataclass(frozen=True)
class DriftFilter:
    """Which features are wanted: `status` is any, flipped, or of `drift.STATUSES`; no layers or sites means all."""

    status: str = "any"
    layers: tuple[int, ...] = ()
    search: str = ""
    """Found in the description, in a top token, or equal to the feature's number."""
    sites: tuple[str, ...] = ()


DRIFT_SORTS: Mapping[str, str] = {
    "drifted": "abs(drifted_contribution)",
    "risen": "drifted_contribution",
    "unexplained": "abs(unexplained_contribution)",
    "contribution": "abs(contribution)",
    "base_contribution": "abs(contribution_base)",
    "weight": "weight",
    "density": "density",
    "base_density": "base_density",
    "layer": "layer",
    "id": "feature_id",
}
"""Sorts of the table of drift by name, with their SQL; sizes where the sign does not matter."""


def drift_counts(store: Store) -> dict[str, int]:
    """Count the features by status, and those that `flipped` sign; zeros are left out."""
    rows = store.rows(
        "SELECT status, count(*) AS n FROM drift GROUP BY status "
        "UNION ALL SELECT 'flipped', count(*) AS n FROM drift WHERE sign_flipped HAVING count(*) > 0"
    )
    return {row["status"]: row["n"] for row in rows}


def count_drift(store: Store, wanted: DriftFilter) -> int:
    """Count the features with drift that pass the filter."""
    sql, values = _conditions(wanted)
    return int(store.rows(f"SELECT count(*) AS n {sql}", values)[0]["n"])


def drift(store: Store, wanted: DriftFilter, *, order: Order, limit: int | None = None, offset: int = 0) -> pa.Table:
    """Select the features that pass, sorted; without a limit all of them.

    `drifted_null` and `unexplained_null` are what chance reaches at a feature's rank, where the report has it.
    """
    sql, values = _conditions(wanted)
    by, way = look_up(DRIFT_SORTS, order.by), f"{direction(order)} NULLS LAST, feature_id"
    return store.query(
        f"SELECT {_COLUMNS} FROM (SELECT feature_id, contribution, contribution_base, {by} AS place {sql} "
        f"ORDER BY place {way} LIMIT $limit OFFSET $offset) page JOIN feature_table USING (feature_id) {_NULLS} "
        f"ORDER BY page.place {way}",
        {**values, "limit": limit, "offset": offset},
    )


def drift_points(store: Store, *, limit: int = 2000) -> pa.Table:
    """Select the features whose contribution changed most, largest change first, for a scatter."""
    return store.query(
        "SELECT feature_id, layer, site, f.status, f.sign_flipped, d.contribution, contribution_base, density, "
        "base_density, description "
        "FROM (SELECT * FROM drift WHERE rank <= $limit) d JOIN feature_table f USING (feature_id) "
        "ORDER BY d.rank, feature_id",
        {"limit": limit},
    )


def _conditions(wanted: DriftFilter) -> tuple[str, dict[str, Any]]:
    """Return the filter as SQL and the values that it binds; labels are read only for a search."""
    values = {"status": wanted.status, "layers": list(wanted.layers), "sites": list(wanted.sites)}
    search = wanted.search.strip().lower()
    return (f"{_FROM} {_SEARCH}", values | {"search": search}) if search else (_FROM, values)


_FROM = """
FROM drift JOIN (SELECT feature_id, layer, site, density, base_density FROM features) USING (feature_id)
WHERE CASE $status WHEN 'any' THEN true WHEN 'flipped' THEN sign_flipped ELSE status = $status END
  AND (len($layers::INTEGER[]) = 0 OR list_contains($layers::INTEGER[], layer))
  AND (len($sites::VARCHAR[]) = 0 OR list_contains($sites::VARCHAR[], site))
"""

_SEARCH = """
AND feature_id IN (
    SELECT feature_id FROM feature_table
    WHERE contains(lower(description), $search) OR feature_id::VARCHAR = $search
       OR contains(lower(array_to_string([item.token FOR item IN top_tokens], chr(10))), $search)
)
"""

_COLUMNS = """
feature_id, layer, site, description, [item.token FOR item IN top_tokens] AS top_tokens, status, sign_flipped,
drifted_contribution, n.drifted_null, contribution_base, contribution, weight_base, weight, base_density, density,
unexplained_contribution, n.unexplained_null
"""

_NULLS = """
LEFT JOIN (
    SELECT substr("group", 9)::INTEGER AS feature_id,
        max(null_high) FILTER (metric = 'drifted_contribution') AS drifted_null,
        max(null_high) FILTER (metric = 'unexplained_contribution') AS unexplained_null
    FROM results WHERE report_row = 'drift' AND regexp_full_match("group", 'feature:[0-9]{1,9}') GROUP BY ALL
) n USING (feature_id)
"""
