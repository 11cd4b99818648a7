"""SQL that other questions are made of: activations a row each, and what they come to over the tokens pooled."""

from __future__ import annotations

_ACTIVE = """
SELECT text_id, unnest(positions) AS position, unnest(feature_ids) AS feature_id, unnest("values") AS value
FROM activations WHERE {which}
"""


_POOLED = """
SELECT active.text_id, feature_id, CASE $pooling
    WHEN 'sum' THEN sum(value::DOUBLE)
    WHEN 'max' THEN max(value)::DOUBLE
    WHEN 'last' THEN coalesce(sum(value::DOUBLE) FILTER (position = n_tokens - 1), 0)
    WHEN 'response' THEN coalesce(sum(value::DOUBLE) FILTER (position >= first_pooled), 0) / (n_tokens - first_pooled)
    ELSE sum(value::DOUBLE) / n_tokens END AS pooled
FROM ({active}) active
JOIN (SELECT text_id, len(token_starts) AS n_tokens,
          CASE WHEN response_start < len(token_starts) THEN response_start ELSE 0 END AS first_pooled
      FROM texts) sizes ON sizes.text_id = active.text_id
GROUP BY active.text_id, feature_id, n_tokens, first_pooled
"""


EVERY, ONE, OTHER = "true", "text_id = $text_id", "text_id = $other_id"


def active(which: str) -> str:
    """The activations of every text, one or the other, a row each."""
    return _ACTIVE.format(which=which)


def pooled(which: str) -> str:
    """What their features come to over the tokens pooled, a row a text and feature."""
    return _POOLED.format(active=active(which))
