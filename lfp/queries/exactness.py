"""Questions of the validator: where contributions do not sum to what the bundle states."""

from __future__ import annotations

from typing import Any

from lfp.queries.common import headline, pooling
from lfp.queries.pooled import EVERY, active, pooled
from lfp.store import Store


def prediction_errors(store: Store, *, tolerance: float) -> list[dict[str, Any]]:
    """Texts whose contributions and intercept do not make the prediction stated: text_id, predicted, total."""
    probe = headline(store)
    if probe is None:
        return []
    values = {"intercept": probe.intercept, "tolerance": tolerance}
    return store.rows(_PREDICTION_ERRORS, {**pooling(probe), **values})


def raw_prediction_errors(store: Store, *, tolerance: float) -> list[dict[str, Any]]:
    """Texts whose second ledger does not make the raw estimate stated: text_id, predicted, total.

    The tolerance is relative to the sum of the sizes of the parts where that is above 1.
    """
    probe = headline(store)
    if probe is None:
        return []
    return store.rows(_RAW_PREDICTION_ERRORS, {**pooling(probe), "tolerance": tolerance})


def miss_errors(store: Store, *, tolerance: float) -> list[dict[str, Any]]:
    """Texts whose tokens' misses do not pool to the text's: text_id, sae_miss, total. Max pooling is not looked at."""
    probe = headline(store)
    if probe is None or probe.pooling == "max":
        return []
    return store.rows(_MISS_ERRORS, {"pooling": probe.pooling, "tolerance": tolerance})


def token_prediction_errors(store: Store, *, tolerance: float) -> list[dict[str, Any]]:
    """Texts with tokens whose contributions do not make the prediction stated: text_id, first position, n_tokens."""
    probe = headline(store)
    if probe is None:
        return []
    values = {"probe": probe.probe_id, "intercept": probe.intercept, "tolerance": tolerance}
    return store.rows(_TOKEN_PREDICTION_ERRORS, values)


_PREDICTION_ERRORS = f"""
SELECT t.text_id, t.predicted, coalesce(total, 0) + $intercept AS total
FROM texts t JOIN (SELECT text_id FROM activations) a ON a.text_id = t.text_id
LEFT JOIN (
    SELECT p.text_id, sum(w.weight::DOUBLE * pooled) AS total
    FROM ({pooled(EVERY)}) p JOIN (SELECT * FROM weights WHERE probe_id = $probe) w ON w.feature_id = p.feature_id
    GROUP BY p.text_id
) sums ON sums.text_id = t.text_id
WHERE NOT abs(coalesce(total, 0) + $intercept - t.predicted) <= $tolerance * greatest(1, abs(t.predicted))
ORDER BY t.text_id
"""


_RAW_PREDICTION_ERRORS = f"""
WITH sums AS (
    SELECT p.text_id, sum(w.raw_weight::DOUBLE * pooled) AS total, sum(abs(w.raw_weight::DOUBLE * pooled)) AS size
    FROM ({pooled(EVERY)}) p JOIN (SELECT * FROM weights WHERE probe_id = $probe) w ON w.feature_id = p.feature_id
    GROUP BY p.text_id
), parts AS (
    SELECT text_id, predicted_raw::DOUBLE AS predicted, coalesce(total, 0) AS kept, coalesce(size, 0) AS size,
        raw_intercept AS intercept, sae_miss::DOUBLE AS miss,
        raw_bias * CASE $pooling WHEN 'sum' THEN len(token_starts) ELSE 1 END AS bias
    FROM texts SEMI JOIN activations USING (text_id) LEFT JOIN sums USING (text_id)
    JOIN (SELECT raw_intercept, raw_bias FROM probes WHERE probe_id = $probe) ON true
    WHERE predicted_raw IS NOT NULL AND sae_miss IS NOT NULL AND raw_bias IS NOT NULL
)
SELECT text_id, predicted, kept + bias + intercept + miss AS total FROM parts
WHERE NOT coalesce(abs(kept + bias + intercept + miss - predicted)
    <= $tolerance * greatest(1, size + abs(bias) + abs(intercept) + abs(miss)), false)
ORDER BY text_id
"""


_MISS_ERRORS = """
WITH tokens AS (
    SELECT text_id, t.sae_miss::DOUBLE AS sae_miss, len(token_starts) AS n_tokens,
        CASE WHEN response_start < len(token_starts) THEN response_start ELSE 0 END AS first_pooled,
        generate_subscripts(s.sae_miss, 1) - 1 AS position, unnest(s.sae_miss)::DOUBLE AS miss
    FROM texts t JOIN (SELECT text_id, sae_miss FROM token_scores) s USING (text_id)
    WHERE t.sae_miss IS NOT NULL AND s.sae_miss IS NOT NULL
), parts AS (
    SELECT text_id, sae_miss, CASE $pooling
        WHEN 'sum' THEN miss
        WHEN 'last' THEN miss * (position = n_tokens - 1)::INTEGER
        WHEN 'response' THEN miss * (position >= first_pooled)::INTEGER / (n_tokens - first_pooled)
        ELSE miss / n_tokens END AS part
    FROM tokens
)
SELECT text_id, first(sae_miss) AS sae_miss, sum(part) AS total FROM parts GROUP BY text_id
HAVING NOT coalesce(abs(sum(part) - first(sae_miss)) <= $tolerance * greatest(1, sum(abs(part))), false)
ORDER BY text_id
"""


_TOKEN_PREDICTION_ERRORS = f"""
WITH sums AS (
    SELECT active.text_id, active.position, sum(w.weight::DOUBLE * value) AS total
    FROM ({active(EVERY)}) active
    JOIN (SELECT * FROM weights WHERE probe_id = $probe) w ON w.feature_id = active.feature_id
    GROUP BY active.text_id, active.position
), stated AS (
    SELECT text_id, generate_subscripts(predicted, 1) - 1 AS position, unnest(predicted) AS predicted
    FROM token_scores WHERE text_id IN (SELECT text_id FROM activations)
)
SELECT stated.text_id, first(stated.position ORDER BY stated.position) AS position, count(*) AS n_tokens
FROM stated LEFT JOIN sums USING (text_id, position)
WHERE predicted IS NOT NULL
  AND NOT abs(coalesce(total, 0) + $intercept - predicted) <= $tolerance * greatest(1, abs(predicted))
GROUP BY stated.text_id ORDER BY stated.text_id
"""
