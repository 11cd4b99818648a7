"""Questions about a text's tokens: what each adds to the prediction, and by which features."""

from __future__ import annotations

from dataclasses import dataclass

from lfp.queries.common import headline, main_labeller, pooling
from lfp.queries.pooled import ONE, active
from lfp.store import Store


@dataclass(frozen=True)
class TokenPart:
    """What one feature adds to a text's prediction at one token."""

    feature_id: int
    description: str | None
    part: float


@dataclass(frozen=True)
class TokenLedger:
    """What a token adds to its text's prediction: `shown` are the largest of its `n_features` parts, `total` all."""

    shown: tuple[TokenPart, ...] = ()
    n_features: int = 0
    total: float = 0.0


def token_contributions(store: Store, text_id: int) -> list[float] | None:
    """What each token adds to its text's prediction: with the intercept they sum to it. None where `ledger` is None.

    Under mean pooling that is the token's weight times activation over the number of tokens; under max a feature's
    activation counts at the first token that has its largest.
    """
    probe = headline(store)
    if probe is None:
        return None
    rows = store.rows(_TOKEN_CONTRIBUTIONS, {**pooling(probe), "text_id": text_id})
    return rows[0]["contributions"] if rows else None


def token_ledgers(store: Store, text_id: int, *, limit: int = 4) -> list[TokenLedger]:
    """The same a token with the features behind it, largest part first; empty where `ledger` is None."""
    probe, totals = headline(store), token_contributions(store, text_id)
    if probe is None or totals is None:
        return []
    values = {**pooling(probe), "text_id": text_id, "labeller": main_labeller(store), "limit": limit}
    shown: list[list[TokenPart]] = [[] for _ in totals]
    counts = [0] * len(totals)
    for row in store.rows(_TOKEN_PARTS, values):
        shown[row["position"]].append(TokenPart(row["feature_id"], row["description"], row["part"]))
        counts[row["position"]] = row["n_features"]
    return [TokenLedger(tuple(parts), n, total) for parts, n, total in zip(shown, counts, totals, strict=True)]


_PARTS = f"""
sizes AS (
    SELECT text_id, len(token_starts) AS n_tokens,
        CASE WHEN response_start < len(token_starts) THEN response_start ELSE 0 END AS first_pooled
    FROM texts SEMI JOIN activations USING (text_id) WHERE text_id = $text_id
), parts AS (
    SELECT position, feature_id, weight::DOUBLE * value::DOUBLE * CASE $pooling
        WHEN 'sum' THEN 1
        WHEN 'max' THEN (row_number() OVER (PARTITION BY feature_id ORDER BY value DESC, position) = 1)::INTEGER
        WHEN 'last' THEN (position = n_tokens - 1)::INTEGER
        WHEN 'response' THEN (position >= first_pooled)::INTEGER / (n_tokens - first_pooled)
        ELSE 1 / n_tokens END AS part
    FROM ({active(ONE)}) JOIN sizes USING (text_id)
    JOIN (SELECT feature_id, weight FROM weights WHERE probe_id = $probe) USING (feature_id)
)
"""


_TOKEN_CONTRIBUTIONS = f"""
WITH {_PARTS}, summed AS (SELECT position, sum(part) AS part FROM parts GROUP BY position)
SELECT coalesce(list(coalesce(part, 0) ORDER BY position) FILTER (position IS NOT NULL), []) AS contributions
FROM sizes LEFT JOIN (SELECT unnest(range(n_tokens)) AS position FROM sizes) ON true LEFT JOIN summed USING (position)
GROUP BY text_id
"""


_TOKEN_PARTS = f"""
WITH {_PARTS}, largest AS (
    SELECT *, count(*) OVER (PARTITION BY position) AS n_features FROM parts WHERE part <> 0
    QUALIFY row_number() OVER (PARTITION BY position ORDER BY abs(part) DESC, feature_id) <= $limit
)
SELECT position, n_features, feature_id, description, part FROM largest
LEFT JOIN (SELECT feature_id, description FROM labels WHERE labeller = $labeller) USING (feature_id)
ORDER BY position, abs(part) DESC, feature_id
"""
