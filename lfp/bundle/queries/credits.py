"""Queries on credits: the implicit reward of texts and words split over modules, and the features that carry most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lfp.bundle.queries.common import between_words, headline_id
from lfp.bundle.store.connection import Store


def text_credits(store: Store, text_id: int) -> pa.Table:
    """Return a text's credits on both kinds of path, the largest first; empty where it was not split."""
    return store.query(
        "SELECT path, layer, module, credit FROM module_credits WHERE text_id = $text_id "
        "ORDER BY path, abs(credit) DESC, layer, module",
        {"text_id": text_id},
    )


def word_credits(store: Store, word: str) -> pa.Table:
    """Return a word's mean credits on both kinds of path, the largest first; empty where it was not split."""
    return store.query(
        "SELECT path, layer, module, mean, ci_low, ci_high, n FROM word_credits WHERE word = $word "
        "ORDER BY path, abs(mean) DESC, layer, module",
        {"word": word},
    )


def module_shares(store: Store) -> pa.Table:
    """Return the report's figures of modules, one row per metric, layer and kind, the largest share first."""
    return store.query(
        'SELECT metric, layer, "group" AS module, value, ci_low, ci_high, null_mean, null_high, null_p, n '
        "FROM results WHERE report_row = 'module_credits' AND \"group\" IS NOT NULL "
        "ORDER BY metric, layer NULLS FIRST, value DESC, module"
    )


def text_reward(store: Store, text_id: int) -> tuple[float, float] | None:
    """Return the implicit reward that a text's credits sum to, and their error; None where it was not split."""
    rows = store.rows(
        "SELECT credit_reward AS reward, credit_error AS error FROM texts "
        "WHERE text_id = $text_id AND credit_reward IS NOT NULL",
        {"text_id": text_id},
    )
    return (float(rows[0]["reward"]), float(rows[0]["error"])) if rows else None


@dataclass(frozen=True)
class Place:
    """A token in a text, with what is around it."""

    text_id: int
    before: str
    token: str
    after: str


@dataclass(frozen=True)
class LeadingFeature:
    """A feature that carries much of the implicit reward or, without credits, of the headline estimate.

    `value` is its credit in nats per token with a 95 % interval, or its mean absolute contribution without one.
    `promotes` and `demotes` are next tokens by credit, or by its direct effect on logits.
    """

    feature_id: int
    layer: int
    site: str
    description: str | None
    value: float
    ci_low: float | None
    ci_high: float | None
    promotes: list[dict[str, Any]]
    demotes: list[dict[str, Any]]
    example: Place | None


@dataclass(frozen=True)
class Leaders:
    """The leading features, largest first, by credit or by contribution, and their share of all features' sizes."""

    features: tuple[LeadingFeature, ...]
    by_credit: bool
    share: float
    n_features: int


def leading_features(store: Store, *, limit: int = 5) -> Leaders:
    """Select the features of the largest credits by size; without credits, those of the largest contributions.

    The example is the token of the feature's largest credit, or of its strongest activation.
    """
    by_credit = bool(store.rows("SELECT 1 AS n FROM credits WHERE credit <> 0 LIMIT 1"))
    listed, examples = (_CREDITED, _CREDITED_AT) if by_credit else (_CONTRIBUTING, _STRONGEST_AT)
    found = store.rows(listed, {"limit": limit, "probe": None if by_credit else headline_id(store)})
    if not found:
        return Leaders((), by_credit, 0.0, 0)
    ids = [row["feature_id"] for row in found]
    named = {row["feature_id"]: row for row in store.rows(_NAMED, {"ids": ids})}
    bound = {"ids": ids, "around": _AROUND}
    placed = store.rows(_PLACED.format(found=examples), bound)
    places = {row.pop("feature_id"): Place(**between_words(row)) for row in placed}
    size, whole, n = sum(abs(row["value"]) for row in found), found[0]["whole"], found[0]["n"]
    features = [
        LeadingFeature(
            feature_id=row["feature_id"],
            value=row["value"],
            ci_low=row.get("ci_low"),
            ci_high=row.get("ci_high"),
            promotes=row.get("promotes", named[row["feature_id"]]["pos_logits"]),
            demotes=row.get("demotes", named[row["feature_id"]]["neg_logits"]),
            example=places.get(row["feature_id"]),
            **{name: named[row["feature_id"]][name] for name in ("layer", "site", "description")},
        )
        for row in found
    ]
    return Leaders(tuple(features), by_credit, size / whole if whole else 0.0, n)


_AROUND = 60
"""Characters of a text that are shown on either side of a token."""
_CREDITED = """
SELECT feature_id, credit AS value, ci_low, ci_high, promotes, demotes, (SELECT sum(abs(credit)) FROM credits) AS whole,
    (SELECT count(*) FROM credits) AS n
FROM credits WHERE credit <> 0 AND $probe IS NULL ORDER BY "rank", feature_id LIMIT $limit
"""
_CONTRIBUTING = """
SELECT feature_id, mean_abs_contribution AS value,
    (SELECT sum(mean_abs_contribution) FROM weights WHERE probe_id = $probe) AS whole,
    (SELECT count(*) FROM weights WHERE probe_id = $probe) AS n
FROM weights WHERE probe_id = $probe AND mean_abs_contribution > 0
ORDER BY mean_abs_contribution DESC, feature_id LIMIT $limit
"""
_NAMED = """
SELECT feature_id, layer, site, description, pos_logits, neg_logits FROM feature_table
WHERE feature_id IN (SELECT unnest($ids::INTEGER[]))
"""
_CREDITED_AT = """
SELECT feature_id, example_text_ids[1] AS text_id, example_positions[1] AS position FROM credits
WHERE feature_id IN (SELECT unnest($ids::INTEGER[]))
"""
_STRONGEST_AT = """
SELECT feature_id, text_id, position FROM examples
WHERE feature_id IN (SELECT unnest($ids::INTEGER[])) AND bucket = 0
QUALIFY row_number() OVER (PARTITION BY feature_id ORDER BY "rank") = 1
"""
_PLACED = """
WITH found AS ({found}), placed AS (
    SELECT feature_id, found.text_id, t."text" AS words, t.token_starts[position + 1] AS start,
        coalesce(t.token_starts[position + 2], length(t."text")) AS stop
    FROM found JOIN texts t ON t.text_id = found.text_id
)
SELECT feature_id, text_id, substr(words, greatest(start - $around, 0) + 1, least(start, $around)) AS before,
    substr(words, start + 1, stop - start) AS token, substr(words, stop + 1, $around) AS after,
    start <= $around AS starts, stop + $around >= length(words) AS ends
FROM placed
"""
