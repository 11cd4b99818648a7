"""Queries on texts and preference pairs: lists of them, and one with its values and features per token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lfp.bundle.queries import common
from lfp.bundle.queries.common import (
    ONE,
    TEXT_GAPS,
    Order,
    active,
    columns,
    direction,
    headline,
    look_up,
    no_such,
    pooling,
    ranked,
)
from lfp.bundle.store.connection import Store
from lfp.errors import NotInBundleError


@dataclass(frozen=True)
class TextFilter:
    """Which texts are wanted: those with every word of `words`; `split` is any, train or held_out; None is no bound."""

    words: str = ""
    split: str = "any"
    is_sampled: bool = False
    """Only texts sampled from the corpus, whose activations are kept; other texts are kept for their examples."""
    is_split: bool = False
    """Only texts whose implicit reward is split over modules or features."""
    rating_low: float | None = None
    rating_high: float | None = None


@dataclass(frozen=True)
class Text:
    """A row of `texts` with its row of `token_scores` (empty lists where there is none)."""

    text_id: int
    source: str
    split: str
    role: str
    pair_id: int | None
    text: str
    token_starts: list[int]
    response_start: int
    feedback: float | None
    rating: float | None
    predicted: float
    predicted_raw: float | None
    sae_miss: float | None
    implicit_reward: float | None
    token_feedback: list[float | None]
    token_implicit_reward: list[float | None]
    token_predicted: list[float | None]
    has_activations: bool


@dataclass(frozen=True)
class ScoreLimits:
    """Large sizes of a token's scores in this bundle; 0 where there are none."""

    feedback: float
    implicit_reward: float
    predicted: float


TEXT_SORTS: Mapping[str, str] = {
    **dict.fromkeys(TEXT_GAPS, "abs(gap)"),
    "predicted": "predicted",
    "feedback": "feedback",
    "implicit_reward": "implicit_reward",
    "rating": "rating",
    "id": "text_id",
}
"""Sorts of a list of texts by name, with their SQL."""


def count_texts(store: Store, wanted: TextFilter) -> int:
    """Count the texts that pass the filter."""
    return int(store.rows(f"SELECT count(*) AS n FROM texts {_TEXTS_WHERE}", _values(wanted))[0]["n"])


def shared_start(store: Store) -> str:
    """Return what nearly all texts begin with; nothing where that is short."""
    return common.shared_start(store, "texts", "text")


def rating_range(store: Store) -> tuple[float, float] | None:
    """Return the lowest and the highest human rating of a text; None where no text has one."""
    row = store.rows("SELECT min(rating)::DOUBLE AS low, max(rating)::DOUBLE AS high FROM texts")[0]
    return None if row["low"] is None else (row["low"], row["high"])


def texts(store: Store, wanted: TextFilter, *, order: Order, limit: int | None = None, offset: int = 0) -> pa.Table:
    """Select the texts that pass, sorted.

    `gap` is the distance of the percentile ranks of prediction and true feedback or, sorted by another gap, of its two
    values; ranks are among the sampled texts where only those are wanted.
    """
    by = look_up(TEXT_SORTS, order.by)
    gaps = ranked(_TEXT_ROWS, *TEXT_GAPS.get(order.by, TEXT_GAPS["gap"]))
    return store.query(
        "SELECT text_id, text, split, role, feedback, implicit_reward, predicted, rating, abs(gap) AS gap "
        f"FROM ({gaps}) {_TEXTS_WHERE} "
        f"ORDER BY {by} {direction(order)} NULLS LAST, text_id LIMIT $limit OFFSET $offset",
        {**_values(wanted), "limit": limit, "offset": offset},
    )


def text(store: Store, text_id: int) -> Text:
    """Select one text with its values per token. Raises NotInBundleError."""
    rows = store.rows(_ONE_TEXT, {"text_id": text_id})
    if not rows:
        raise no_such(store, "text", text_id)
    return Text(**rows[0])


def score_limits(store: Store) -> ScoreLimits:
    """Compute for each score the size that one token in a hundred exceeds, shown in full colour."""
    return ScoreLimits(**store.rows(_SCORE_LIMITS)[0])


def token_activations(store: Store, text_id: int, *, feature_id: int) -> list[float]:
    """Return a feature's activation on each token of a text, zero where it is silent; empty where none were kept."""
    rows = store.rows(_TOKEN_ACTIVATIONS, {"text_id": text_id, "feature_id": feature_id})
    values = [0.0] * (rows[0]["n_tokens"] if rows else 0)
    for row in rows:
        if row["position"] is not None and row["position"] < len(values):
            values[row["position"]] = row["value"]
    return values


def _values(wanted: TextFilter | PairFilter) -> dict[str, Any]:
    """Return the values that a filter binds."""
    return {**vars(wanted), "words": wanted.words.lower().split()}


_TEXTS_WHERE = """
WHERE coalesce(list_bool_and([contains(lower("text"), word) FOR word IN $words::VARCHAR[]]), true)
  AND ($split = 'any' OR split = $split)
  AND ($rating_low IS NULL OR rating >= $rating_low) AND ($rating_high IS NULL OR rating <= $rating_high)
  AND (NOT $is_sampled OR text_id IN (SELECT text_id FROM activations))
  AND (NOT $is_split OR text_id IN (SELECT text_id FROM module_credits UNION ALL SELECT text_id FROM feature_credits))
"""

_TEXT_ROWS = """
SELECT text_id, "text", split, role, feedback, implicit_reward, predicted, rating FROM texts
WHERE NOT $is_sampled OR text_id IN (SELECT text_id FROM activations)
"""

_ONE_TEXT = """
SELECT t.text_id, source, split, role, pair_id, t."text", token_starts, response_start, t.feedback, rating, t.predicted,
    predicted_raw, t.sae_miss, t.implicit_reward,
    coalesce(s.feedback, []) AS token_feedback, coalesce(s.implicit_reward, []) AS token_implicit_reward,
    coalesce(s.predicted, []) AS token_predicted, a.text_id IS NOT NULL AS has_activations
FROM (SELECT * FROM texts WHERE text_id = $text_id) t
LEFT JOIN (SELECT * FROM token_scores WHERE text_id = $text_id) s ON true
LEFT JOIN (SELECT text_id FROM activations WHERE text_id = $text_id) a ON true
"""

_SCORE_LIMITS = """
SELECT coalesce(quantile_cont(abs(feedback), 0.99), 0)::DOUBLE AS feedback,
    coalesce(quantile_cont(abs(implicit_reward), 0.99), 0)::DOUBLE AS implicit_reward,
    coalesce(quantile_cont(abs(predicted), 0.99), 0)::DOUBLE AS predicted
FROM (SELECT unnest(feedback) AS feedback, unnest(implicit_reward) AS implicit_reward, unnest(predicted) AS predicted
      FROM token_scores)
"""

_TOKEN_ACTIVATIONS = f"""
SELECT len(t.token_starts) AS n_tokens, active.position, active.value
FROM (SELECT text_id, token_starts FROM texts SEMI JOIN activations USING (text_id) WHERE text_id = $text_id) t
LEFT JOIN (SELECT * FROM ({active(ONE)}) WHERE feature_id = $feature_id) active ON active.text_id = t.text_id
"""


@dataclass(frozen=True)
class TokenPart:
    """What one feature adds to a text's prediction at one token."""

    feature_id: int
    description: str | None
    part: float


@dataclass(frozen=True)
class TokenLedger:
    """What a token adds to its text's prediction: `shown` are the largest of `n_features` parts, `total` their sum."""

    shown: tuple[TokenPart, ...] = ()
    n_features: int = 0
    total: float = 0.0


def token_contributions(store: Store, text_id: int) -> list[float] | None:
    """Compute what each token adds to its text's prediction; with the intercept they sum to it. None as for `ledger`.

    Under mean pooling that is the token's weight times activation over the number of tokens; under max a feature's
    activation counts at the first token that has its largest.
    """
    probe = headline(store)
    if probe is None:
        return None
    rows = store.rows(_TOKEN_CONTRIBUTIONS, {**pooling(probe), "text_id": text_id})
    return rows[0]["contributions"] if rows else None


def token_ledgers(store: Store, text_id: int, *, limit: int = 4) -> list[TokenLedger]:
    """Split what each token adds over features, largest part first; empty where `ledger` is None."""
    probe, totals = headline(store), token_contributions(store, text_id)
    if probe is None or totals is None:
        return []
    values = {**pooling(probe), "text_id": text_id, "limit": limit}
    shown: list[list[TokenPart]] = [[] for _ in totals]
    counts = [0] * len(totals)
    for row in store.rows(_TOKEN_PARTS, values):
        shown[row["position"]].append(TokenPart(row["feature_id"], row["description"], row["part"]))
        counts[row["position"]] = row["n_features"]
    return [TokenLedger(tuple(parts), n, total) for parts, n, total in zip(shown, counts, totals, strict=True)]


_PARTS = f"""
sizes AS (
    SELECT text_id, n_tokens, is_pooled, n_pooled FROM responses
    SEMI JOIN activations USING (text_id) WHERE text_id = $text_id
), parts AS (
    SELECT position, feature_id, weight::DOUBLE * value::DOUBLE * CASE $pooling
        WHEN 'sum' THEN 1
        WHEN 'max' THEN (row_number() OVER (PARTITION BY feature_id ORDER BY value DESC, position) = 1)::INTEGER
        WHEN 'last' THEN (position = n_tokens - 1)::INTEGER
        WHEN 'response' THEN is_pooled[position + 1]::INTEGER / n_pooled
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
LEFT JOIN (SELECT feature_id, description FROM feature_table) USING (feature_id)
ORDER BY position, abs(part) DESC, feature_id
"""


@dataclass(frozen=True)
class PairFilter:
    """Which pairs are wanted: those with every word of `words` on one side or the other.

    `verdict` is any, right or wrong: whether the estimate ranks the chosen side higher, and `implicit` whether the
    implicit reward does; `split` any, train or held_out.
    """

    words: str = ""
    split: str = "any"
    verdict: str = "any"
    implicit: str = "any"
    is_sampled: bool = False
    """Only pairs with the activations of both sides kept, whose margin can be split over features."""


@dataclass(frozen=True)
class Pair:
    """One pair: its texts' numbers, the tokens of both responses, and margins, chosen minus rejected."""

    pair_id: int
    split: str
    chosen_id: int
    rejected_id: int
    chosen_tokens: int
    rejected_tokens: int
    length: int
    margin: float
    implicit_margin: float | None
    is_sampled: bool


PAIR_SORTS: Mapping[str, str] = {
    "margin": "margin",
    "size of margin": "abs(margin)",
    "implicit margin": "implicit_margin",
    "length": "length",
    "size of length": "abs(length)",
    "number": "pair_id",
}
"""Sorts of a list of pairs by name, with their SQL: all are chosen minus rejected."""


def has_pairs(store: Store) -> bool:
    """Tell whether any text of the bundle is of a pair."""
    return bool(store.rows("SELECT 1 AS found FROM texts WHERE pair_id IS NOT NULL LIMIT 1"))


def has_whole_pairs(store: Store) -> bool:
    """Tell whether the bundle holds a pair with both its texts."""
    rejected = "SELECT pair_id FROM texts WHERE role = 'rejected'"
    sql = f"SELECT 1 AS found FROM texts WHERE role = 'chosen' AND pair_id IN ({rejected}) LIMIT 1"
    return bool(store.rows(sql))


def count_pairs(store: Store, wanted: PairFilter) -> int:
    """Count the pairs that pass the filter; a pair needs both its texts kept."""
    return int(store.rows(f"SELECT count(*) AS n FROM ({_PAIRS}) {_WHERE}", _values(wanted))[0]["n"])


def pairs(store: Store, wanted: PairFilter, *, order: Order, limit: int | None = None, offset: int = 0) -> pa.Table:
    """Select the pairs that pass, sorted, with the beginnings of both responses."""
    by = look_up(PAIR_SORTS, order.by)
    return store.query(
        "SELECT pair_id, chosen_id, rejected_id, split, chosen_response, rejected_response, margin, implicit_margin, "
        f"chosen_tokens, rejected_tokens, length FROM ({_PAIRS}) {_WHERE} "
        f"ORDER BY {by} {direction(order)} NULLS LAST, pair_id LIMIT $limit OFFSET $offset",
        {**_values(wanted), "limit": limit, "offset": offset},
    )


def pair(store: Store, pair_id: int) -> Pair:
    """Select one pair. Raises NotInBundleError."""
    rows = store.rows(f"SELECT {columns(Pair)} FROM ({_PAIRS}) WHERE pair_id = $pair_id", {"pair_id": pair_id})
    if not rows:
        held = store.rows(f"SELECT min(pair_id) AS low, max(pair_id) AS high FROM ({_PAIRS})")[0]
        has = "none at all" if held["low"] is None else f"numbers {held['low']} to {held['high']}, not all of them"
        raise NotInBundleError(f"there is no pair {pair_id} with both texts kept in this bundle; it holds {has}")
    return Pair(**rows[0])


_SIDE = """
SELECT pair_id, text_id, split, "text", predicted::DOUBLE AS predicted, implicit_reward::DOUBLE AS implicit_reward,
    len(token_starts) - first_token AS tokens,
    substr("text", 1 + coalesce(token_starts[1 + first_token], 0)) AS response,
    text_id IN (SELECT text_id FROM activations) AS is_sampled
FROM (SELECT *, CASE WHEN response_start < len(token_starts) THEN response_start ELSE 0 END AS first_token
      FROM texts WHERE role = '{role}')
"""

_PAIRS = f"""
SELECT pair_id, c.split, c.text_id AS chosen_id, r.text_id AS rejected_id, c.tokens AS chosen_tokens,
    r.tokens AS rejected_tokens, c.tokens - r.tokens AS length, c.predicted - r.predicted AS margin,
    c.implicit_reward - r.implicit_reward AS implicit_margin, c.is_sampled AND r.is_sampled AS is_sampled,
    lower(c."text" || ' ' || r."text") AS both_texts, left(c.response, 200) AS chosen_response,
    left(r.response, 200) AS rejected_response
FROM ({_SIDE.format(role="chosen")}) c JOIN ({_SIDE.format(role="rejected")}) r USING (pair_id)
"""

_WHERE = """
WHERE coalesce(list_bool_and([contains(both_texts, word) FOR word IN $words::VARCHAR[]]), true)
  AND ($split = 'any' OR split = $split) AND (NOT $is_sampled OR is_sampled)
  AND ($verdict = 'any' OR (margin > 0) = ($verdict = 'right'))
  AND ($implicit = 'any' OR (implicit_margin > 0) = ($implicit = 'right'))
"""
