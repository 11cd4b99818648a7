"""Questions that hold labels against weights, and features against what taking them out did."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from lfp.queries.common import headline_id, main_labeller
from lfp.store import Store


@dataclass(frozen=True)
class AblatedFeature:
    """A single feature taken out: effects in rewards, the predicted one in the probe's target, and what it is.

    `null_high` is the 95th percentile of the sizes of all single controls' effects; None where there are none.
    """

    feature_id: int
    layer: int
    effect: float
    ci_low: float
    ci_high: float
    null_high: float | None
    predicted_effect: float | None
    n_completions: int
    weight: float | None
    description: str | None


def beliefs(store: Store, labeller: str, *, limit: int = 2000) -> pa.Table:
    """How surely a labeller calls features related, beside their weights in the headline probe, by number.

    `belief` is the confidence, negative where the feature is called unrelated; `size` is |weight|. Features that never
    fire are left out, as in the report. Where there are more than `limit`, a sample by the hash of the number.
    """
    bound = {"labeller": labeller, "probe": headline_id(store), "limit": limit}
    return store.query(_BELIEFS, bound)


def count_beliefs(store: Store, labeller: str) -> int:
    """How many features `beliefs` draws from."""
    sql = (
        "SELECT count(*) AS n FROM labels l JOIN features f USING (feature_id) JOIN weights w USING (feature_id) "
        "WHERE l.labeller = $labeller AND l.related IS NOT NULL AND f.n_active > 0 AND w.probe_id = $probe"
    )
    n: int = store.rows(sql, {"labeller": labeller, "probe": headline_id(store)})[0]["n"]
    return n


def ablated_features(store: Store) -> list[AblatedFeature]:
    """Features that were taken out one at a time, the largest predicted effect first."""
    bound = {"probe": headline_id(store), "labeller": main_labeller(store)}
    return [AblatedFeature(**row) for row in store.rows(_ABLATED, bound)]


_BELIEFS = """
SELECT * FROM (
    SELECT l.feature_id, f.layer, l.related, if(l.related, 1, -1) * coalesce(l.confidence, 1)::DOUBLE AS belief,
        w.weight, abs(w.weight) AS size, w.beats_null, l.description
    FROM labels l JOIN features f USING (feature_id) JOIN weights w USING (feature_id)
    WHERE l.labeller = $labeller AND l.related IS NOT NULL AND f.n_active > 0 AND w.probe_id = $probe
    ORDER BY hash(l.feature_id) LIMIT $limit
) ORDER BY feature_id
"""

_ABLATED = """
SELECT feature_id, f.layer, a.effect, a.ci_low, a.ci_high, a.null_high, a.predicted_effect, a.n_completions, w.weight,
    l.description
FROM (SELECT *, features[1] AS feature_id FROM ablations WHERE kind = 'feature') a
JOIN features f USING (feature_id)
LEFT JOIN (SELECT feature_id, weight FROM weights WHERE probe_id = $probe) w USING (feature_id)
LEFT JOIN (SELECT feature_id, description FROM labels WHERE labeller = $labeller) l USING (feature_id)
ORDER BY abs(a.predicted_effect) DESC NULLS LAST, feature_id
"""
