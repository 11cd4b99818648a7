"""Questions about preference pairs: the list of them, and the two texts of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lfp.errors import NotInBundleError
from lfp.queries.common import Order, direction, sort_key
from lfp.store import Store


@dataclass(frozen=True)
class PairFilter:
    """Which pairs are wanted: every word of `words` occurs in one side or the other.

    `verdict` is any, right or wrong: whether the estimate ranks the chosen side higher; `split` any, train or held_out.
    """

    words: str = ""
    split: str = "any"
    verdict: str = "any"
    is_sampled: bool = False
    """Only pairs with the activations of both sides kept, whose margin can be split over features."""


@dataclass(frozen=True)
class Pair:
    """One pair: its texts' numbers, the tokens of both responses, and margins, chosen less rejected."""

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
"""Names a list of pairs may be sorted by, and the expression behind each: all are chosen less rejected."""


def count_pairs(store: Store, wanted: PairFilter) -> int:
    """How many pairs pass the filter; a pair counts where both its texts were kept."""
    return int(store.rows(f"SELECT count(*) AS n FROM ({_PAIRS}) {_WHERE}", _values(wanted))[0]["n"])


def pairs(store: Store, wanted: PairFilter, *, order: Order, limit: int | None = None, offset: int = 0) -> pa.Table:
    """The pairs that pass, sorted, with the beginnings of both responses."""
    by = sort_key(PAIR_SORTS, order.by)
    return store.query(
        "SELECT pair_id, chosen_id, rejected_id, split, chosen_response, rejected_response, margin, implicit_margin, "
        f"chosen_tokens, rejected_tokens, length FROM ({_PAIRS}) {_WHERE} "
        f"ORDER BY {by} {direction(order)} NULLS LAST, pair_id LIMIT $limit OFFSET $offset",
        {**_values(wanted), "limit": limit, "offset": offset},
    )


def pair(store: Store, pair_id: int) -> Pair:
    """One pair. Raises NotInBundleError."""
    names = ", ".join(Pair.__dataclass_fields__)
    rows = store.rows(f"SELECT {names} FROM ({_PAIRS}) WHERE pair_id = $pair_id", {"pair_id": pair_id})
    if not rows:
        held = store.rows(f"SELECT min(pair_id) AS low, max(pair_id) AS high FROM ({_PAIRS})")[0]
        has = "none at all" if held["low"] is None else f"numbers {held['low']} to {held['high']}, not all of them"
        raise NotInBundleError(f"there is no pair {pair_id} with both texts kept in this bundle; it holds {has}")
    return Pair(**rows[0])


def _values(wanted: PairFilter) -> dict[str, Any]:
    return {
        "words": wanted.words.lower().split(),
        "split": wanted.split,
        "verdict": wanted.verdict,
        "is_sampled": wanted.is_sampled,
    }


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
"""
