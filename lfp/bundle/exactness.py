"""Check that the sums of a bundle hold: of predictions, and of credits of modules and features."""

from __future__ import annotations

from collections.abc import Iterator

from lfp.bundle.queries.common import EVERY, active, headline, pooled
from lfp.bundle.store.connection import Store

TOLERANCE = 1e-5
"""How far contributions and intercept may be from the stated prediction (relative to it where it is above 1)."""


def module_credit_faults(store: Store) -> Iterator[str]:
    """Check that the credits of modules sum to the implicit reward of every text, up to the error that is stated."""
    found = store.rows(_MODULE_CREDIT_ERRORS, {"tolerance": TOLERANCE})
    if found:
        first = found[0]
        stated = "none" if first["reward"] is None else f"{first['reward']:.6g}"
        yield (
            f"table module_credits: {first['path']} credits do not sum to texts.credit_reward within credit_error in "
            f"{len(found)} cases, such as text {first['text_id']} ({stated} stated, {first['total']:.6g} summed)"
        )


_MODULE_CREDIT_ERRORS = """
WITH sums AS (
    SELECT text_id, path, sum(credit) AS total, sum(abs(credit)) AS size FROM module_credits GROUP BY text_id, path
)
SELECT text_id, path, total, credit_reward::DOUBLE AS reward
FROM sums JOIN texts USING (text_id)
WHERE NOT coalesce(abs(total - credit_reward)
    <= CASE path WHEN 'full' THEN credit_error::DOUBLE ELSE 0 END * size + $tolerance * greatest(1, size), false)
ORDER BY text_id, path
"""


def exactness_faults(store: Store, *, tolerance: float = TOLERANCE) -> Iterator[str]:
    """Check both ledgers: contributions and intercept against the stated predictions, of texts and of tokens.

    The parts of the second ledger may be large and cancel, and are stored in single precision, which leaves less than
    1e-7 of the sum of their sizes: there the tolerance is relative to that sum. The part that the autoencoders do not
    reconstruct is not checked under max pooling, which gives it to no token.
    """
    probe = headline(store)
    if probe is None:
        return
    bound = {"probe": probe.probe_id, "pooling": probe.pooling, "tolerance": tolerance}
    exact = {**bound, "intercept": probe.intercept}
    if texts := store.rows(_PREDICTION_ERRORS, exact):
        yield (
            f"table texts: predicted is not the sum of contributions and intercept in {len(texts)} texts, "
            f"such as {texts[0]['text_id']} ({texts[0]['predicted']:.6g} stated, {texts[0]['total']:.6g} summed)"
        )
    del exact["pooling"]
    if tokens := store.rows(_TOKEN_PREDICTION_ERRORS, exact):
        yield (
            f"table token_scores: predicted is not the sum of contributions and intercept in {len(tokens)} texts, "
            f"such as {tokens[0]['text_id']} at token {tokens[0]['position']}"
        )
    if texts := store.rows(_RAW_PREDICTION_ERRORS, bound):
        yield (
            "table texts: predicted_raw is not the sum of raw contributions, raw_bias, raw_intercept and sae_miss in "
            f"{len(texts)} texts, such as {texts[0]['text_id']} ({texts[0]['predicted']:.6g} stated, "
            f"{texts[0]['total']} summed)"
        )
    del bound["probe"]
    if probe.pooling != "max" and (texts := store.rows(_MISS_ERRORS, bound)):
        yield (
            f"table token_scores: sae_miss does not pool to the text's in {len(texts)} texts, such as "
            f"{texts[0]['text_id']} ({texts[0]['sae_miss']:.6g} stated, {texts[0]['total']} pooled)"
        )


def credit_faults(store: Store, *, tolerance: float = TOLERANCE) -> Iterator[str]:
    """Check that features, bias and residual sum to their module in every text, and that features sum as stated.

    Parts may be large and cancel, so the tolerance is relative to the sum of their sizes.
    """
    for sql, says in ((_MODULE_ERRORS, "features, bias and residual do not sum to the module"),
                      (_CREDIT_ERRORS, "features is not the sum of feature_credits")):  # fmt: skip
        if found := store.rows(sql, {"tolerance": tolerance}):
            row = found[0]
            yield (
                f"table credit_sums: {says} in {len(found)} rows, such as text {row['text_id']}, layer {row['layer']},"
                f" {row['site']} ({row['stated']:.6g} stated, {row['total']:.6g} summed)"
            )


_MODULE_ERRORS = """
SELECT text_id, layer, site, module AS stated, features + bias + residual AS total FROM credit_sums
WHERE NOT coalesce(isfinite(features + bias + residual - module) AND abs(features + bias + residual - module)
    <= $tolerance * (abs(features) + abs(bias) + abs(residual)) + 1e-12, false)
ORDER BY text_id, layer, site
"""
_CREDIT_ERRORS = """
WITH entries AS (
    SELECT text_id, unnest(feature_ids) AS feature_id, unnest(credits)::DOUBLE AS credit,
        unnest(next_credits)::DOUBLE AS next_credit FROM feature_credits
), sums AS (
    SELECT e.text_id, f.layer, f.site, sum(credit) AS full_sum, sum(abs(credit)) AS full_size,
        sum(next_credit) AS next_sum, sum(abs(next_credit)) AS next_size
    FROM entries e JOIN features f USING (feature_id) GROUP BY e.text_id, f.layer, f.site
), found AS (
    SELECT s.text_id, s.layer, s.site, s.features AS stated,
        coalesce(CASE s.path WHEN 'full' THEN full_sum ELSE next_sum END, 0) AS total,
        coalesce(CASE s.path WHEN 'full' THEN full_size ELSE next_size END, 0) AS size
    FROM credit_sums s SEMI JOIN feature_credits USING (text_id)
    LEFT JOIN sums t ON t.text_id = s.text_id AND t.layer = s.layer AND t.site = s.site
)
SELECT text_id, layer, site, stated, total FROM found
WHERE NOT coalesce(isfinite(total - stated) AND abs(total - stated) <= $tolerance * size + 1e-12, false)
ORDER BY text_id, layer, site
"""

_PREDICTION_ERRORS = f"""
SELECT t.text_id, t.predicted, coalesce(total, 0) + $intercept AS total
FROM texts t JOIN (SELECT text_id FROM activations) a ON a.text_id = t.text_id
LEFT JOIN (
    SELECT p.text_id, sum(w.weight::DOUBLE * pooled) AS total
    FROM ({pooled(EVERY)}) p JOIN (SELECT * FROM weights WHERE probe_id = $probe) w ON w.feature_id = p.feature_id
    GROUP BY p.text_id
) sums ON sums.text_id = t.text_id
WHERE NOT (isfinite(coalesce(total, 0) + $intercept - t.predicted)
    AND abs(coalesce(total, 0) + $intercept - t.predicted) <= $tolerance * greatest(1, abs(t.predicted)))
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
WHERE NOT coalesce(isfinite(kept + bias + intercept + miss - predicted)
    AND abs(kept + bias + intercept + miss - predicted)
        <= $tolerance * greatest(1, size + abs(bias) + abs(intercept) + abs(miss)), false)
ORDER BY text_id
"""

_MISS_ERRORS = """
WITH tokens AS (
    SELECT text_id, t.sae_miss::DOUBLE AS sae_miss, n_tokens, is_pooled, n_pooled,
        generate_subscripts(s.sae_miss, 1) - 1 AS position, unnest(s.sae_miss)::DOUBLE AS miss
    FROM texts t JOIN responses USING (text_id) JOIN (SELECT text_id, sae_miss FROM token_scores) s USING (text_id)
    WHERE t.sae_miss IS NOT NULL AND s.sae_miss IS NOT NULL
), parts AS (
    SELECT text_id, sae_miss, CASE $pooling
        WHEN 'sum' THEN miss
        WHEN 'last' THEN miss * (position = n_tokens - 1)::INTEGER
        WHEN 'response' THEN miss * is_pooled[position + 1]::INTEGER / n_pooled
        ELSE miss / n_tokens END AS part
    FROM tokens
)
SELECT text_id, first(sae_miss) AS sae_miss, sum(part) AS total FROM parts GROUP BY text_id
HAVING NOT coalesce(isfinite(sum(part) - first(sae_miss))
    AND abs(sum(part) - first(sae_miss)) <= $tolerance * greatest(1, sum(abs(part))), false)
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
  AND NOT (isfinite(coalesce(total, 0) + $intercept - predicted)
    AND abs(coalesce(total, 0) + $intercept - predicted) <= $tolerance * greatest(1, abs(predicted)))
GROUP BY stated.text_id ORDER BY stated.text_id
"""
