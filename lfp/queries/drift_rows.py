"""Questions about drift: what tuning did to how features fire, counted, as points, and a row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lfp.queries.common import Order, direction, sort_key
from lfp.store import Store


@dataclass(frozen=True)
class DriftFilter:
    """Which features are wanted. `status` is any, flipped, or one of `lfp.drift.STATUSES`; no layers means all."""

    status: str = "any"
    layers: tuple[int, ...] = ()
    search: str = ""
    """Found in the description, in a top token, or equal to the feature's number."""


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
"""Names a table of drift may be sorted by, and the expression behind each; sizes where the sign is no matter."""


def drift_counts(store: Store) -> dict[str, int]:
    """How many features have each status, and how many `flipped` sign; only what there is."""
    rows = store.rows(
        "SELECT status, count(*) AS n FROM drift GROUP BY status "
        "UNION ALL SELECT 'flipped', count(*) AS n FROM drift WHERE sign_flipped HAVING count(*) > 0"
    )
    return {row["status"]: row["n"] for row in rows}


def count_drift(store: Store, wanted: DriftFilter) -> int:
    """How many features with drift pass the filter."""
    return int(store.rows(f"SELECT count(*) AS n {_wanted(wanted)}", _values(wanted))[0]["n"])


def drift(store: Store, wanted: DriftFilter, *, order: Order, limit: int | None = None, offset: int = 0) -> pa.Table:
    """The features that pass, sorted; without a limit all of them.

    `drifted_null` and `unexplained_null` are what chance reaches at a feature's rank, where the report says it.
    """
    by, way = sort_key(DRIFT_SORTS, order.by), f"{direction(order)} NULLS LAST, feature_id"
    return store.query(
        f"SELECT {_COLUMNS} FROM (SELECT feature_id, contribution, contribution_base, {by} AS place {_wanted(wanted)} "
        f"ORDER BY place {way} LIMIT $limit OFFSET $offset) page JOIN feature_table USING (feature_id) {_NULLS} "
        f"ORDER BY page.place {way}",
        {**_values(wanted), "limit": limit, "offset": offset},
    )


def drift_points(store: Store, *, limit: int = 2000) -> pa.Table:
    """The features whose contribution changed most, largest change first: what a scatter of them shows."""
    return store.query(
        "SELECT feature_id, layer, f.status, f.sign_flipped, d.contribution, contribution_base, density, base_density, "
        "description FROM (SELECT * FROM drift WHERE rank <= $limit) d JOIN feature_table f USING (feature_id) "
        "ORDER BY d.rank, feature_id",
        {"limit": limit},
    )


def _wanted(wanted: DriftFilter) -> str:
    """What passes; labels are read for a search alone, and the rest of a feature for the rows of one page."""
    return f"{_FROM} {_SEARCH if wanted.search.strip() else ''}"


def _values(wanted: DriftFilter) -> dict[str, Any]:
    values = {"status": wanted.status, "layers": list(wanted.layers)}
    search = wanted.search.strip().lower()
    return values | {"search": search} if search else values


_FROM = """
FROM drift JOIN (SELECT feature_id, layer, density, base_density FROM features) USING (feature_id)
WHERE CASE $status WHEN 'any' THEN true WHEN 'flipped' THEN sign_flipped ELSE status = $status END
  AND (len($layers::INTEGER[]) = 0 OR list_contains($layers::INTEGER[], layer))
"""

_SEARCH = """
AND feature_id IN (
    SELECT feature_id FROM feature_table
    WHERE contains(lower(description), $search) OR feature_id::VARCHAR = $search
       OR contains(lower(array_to_string([item.token FOR item IN top_tokens], chr(10))), $search)
)
"""

_COLUMNS = """
feature_id, layer, description, [item.token FOR item IN top_tokens] AS top_tokens, status, sign_flipped,
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
