"""Questions for setting two runs side by side: the features that weigh most, with what they are matched by."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from lfp.store import Store


def weightiest_features(store: Store, *, limit: int) -> pa.Table:
    """The features that contribute most to the headline estimate, largest first, with all that names and matches them.

    Where no probe reads them, the first ones by number.
    """
    return store.query(
        "SELECT feature_id, layer, description, top_tokens, weight, ci_low, ci_high, mean_abs_contribution "
        "FROM feature_table ORDER BY mean_abs_contribution DESC NULLS LAST, feature_id LIMIT $limit",
        {"limit": limit},
    )


def decoder_rows(store: Store, feature_ids: Sequence[int]) -> pa.Table:
    """Feature_id and vector, the decoder row, of the features named, by number; those without one are left out."""
    return store.query(
        "SELECT feature_id, vector FROM decoders WHERE feature_id IN (SELECT unnest($ids::INTEGER[])) "
        "ORDER BY feature_id",
        {"ids": list(feature_ids)},
    )
