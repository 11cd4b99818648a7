"""Questions for reading a text of one's own: what the headline probe weighs, and names of features."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from lfp.queries.common import headline_id
from lfp.store import Store


def probe_weights(store: Store) -> pa.Table:
    """Feature_id and weight of the headline probe, by number; empty without one."""
    return store.query(
        "SELECT feature_id, weight::DOUBLE AS weight FROM weights WHERE probe_id = $probe ORDER BY feature_id",
        {"probe": headline_id(store)},
    )


def named_features(store: Store, feature_ids: Sequence[int]) -> dict[int, str | None]:
    """The description of each of these features that the bundle holds, by number; None where nobody gave one."""
    rows = store.rows(
        "SELECT feature_id, description FROM feature_table WHERE feature_id IN (SELECT unnest($ids::INTEGER[]))",
        {"ids": list(feature_ids)},
    )
    return {row["feature_id"]: row["description"] for row in rows}
