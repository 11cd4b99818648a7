"""Questions about texts: the list of them, and one with its values a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lfp.queries.common import Order, direction, no_such, sort_key
from lfp.queries.gaps import TEXT_GAPS, ranked
from lfp.queries.pooled import ONE, active
from lfp.store import Store


@dataclass(frozen=True)
class TextFilter:
    """Which texts are wanted: every word of `words` occurs; `split` is any, train or held_out; None is no bound."""

    words: str = ""
    split: str = "any"
    is_sampled: bool = False
    """Only texts sampled from the corpus, whose activations are kept; the others are there for an example's sake."""
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
    """Sizes of a token's scores, the bundle over; 0 where there are none."""

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
"""Names a list of texts may be sorted by, and the expression behind each."""


def count_texts(store: Store, wanted: TextFilter) -> int:
    """How many texts pass the filter."""
    return int(store.rows(f"SELECT count(*) AS n FROM texts {_TEXTS_WHERE}", _text_values(wanted))[0]["n"])


def rating_range(store: Store) -> tuple[float, float] | None:
    """The lowest and the highest human rating of a text; None where no text has one."""
    row = store.rows("SELECT min(rating)::DOUBLE AS low, max(rating)::DOUBLE AS high FROM texts")[0]
    return None if row["low"] is None else (row["low"], row["high"])


def texts(store: Store, wanted: TextFilter, *, order: Order, limit: int | None = None, offset: int = 0) -> pa.Table:
    """The texts that pass, sorted.

    `gap` is the distance of two percentile ranks, among the sampled texts where only those are wanted: those of
    prediction and true feedback, or, sorted by another gap, of the two that it is between.
    """
    by = sort_key(TEXT_SORTS, order.by)
    gaps = ranked(_TEXT_ROWS, *TEXT_GAPS.get(order.by, TEXT_GAPS["gap"]))
    return store.query(
        "SELECT text_id, text, split, role, feedback, implicit_reward, predicted, rating, abs(gap) AS gap "
        f"FROM ({gaps}) {_TEXTS_WHERE} "
        f"ORDER BY {by} {direction(order)} NULLS LAST, text_id LIMIT $limit OFFSET $offset",
        {**_text_values(wanted), "limit": limit, "offset": offset},
    )


def text(store: Store, text_id: int) -> Text:
    """One text with its values a token. Raises NotInBundleError."""
    rows = store.rows(_ONE_TEXT, {"text_id": text_id})
    if not rows:
        raise no_such(store, "text", text_id)
    return Text(**rows[0])


def score_limits(store: Store) -> ScoreLimits:
    """For each score, the size that one token in a hundred passes: what full colour stands for."""
    return ScoreLimits(**store.rows(_SCORE_LIMITS)[0])


def token_activations(store: Store, text_id: int, *, feature_id: int) -> list[float]:
    """A feature's activation on each token of a text, zero where it is silent; empty where none were kept."""
    rows = store.rows(_TOKEN_ACTIVATIONS, {"text_id": text_id, "feature_id": feature_id})
    values = [0.0] * (rows[0]["n_tokens"] if rows else 0)
    for row in rows:
        if row["position"] is not None and row["position"] < len(values):
            values[row["position"]] = row["value"]
    return values


def _text_values(wanted: TextFilter) -> dict[str, Any]:
    return {
        "words": wanted.words.lower().split(),
        "split": wanted.split,
        "is_sampled": wanted.is_sampled,
        "rating_low": wanted.rating_low,
        "rating_high": wanted.rating_high,
    }


_TEXTS_WHERE = """
WHERE coalesce(list_bool_and([contains(lower("text"), word) FOR word IN $words::VARCHAR[]]), true)
  AND ($split = 'any' OR split = $split)
  AND ($rating_low IS NULL OR rating >= $rating_low) AND ($rating_high IS NULL OR rating <= $rating_high)
  AND (NOT $is_sampled OR text_id IN (SELECT text_id FROM activations))
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
