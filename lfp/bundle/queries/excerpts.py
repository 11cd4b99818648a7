"""Queries on the places in texts that show a feature: its examples, and the tokens at which it carries most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lfp.bundle.queries.common import between_words, each_of
from lfp.bundle.store.connection import Store


@dataclass(frozen=True)
class CreditExample:
    """A token at which a feature carries much of a text's implicit reward: what is before, the token, what follows."""

    text_id: int
    position: int
    credit: float
    before: str
    token: str
    after: str


def feature_excerpts(store: Store, feature_id: int) -> list[dict[str, Any]]:
    """Select all examples of a feature, each with its text, by bucket and rank.

    Buckets are 0 top, 1..q intervals from low to high, -1 silent, -2 near miss.
    """
    return store.rows(
        'SELECT bucket, rank, text_id, position, activation, window_start, window_values, "text", token_starts, '
        "feedback FROM (SELECT * FROM examples WHERE feature_id = $feature_id) JOIN texts USING (text_id) "
        "ORDER BY bucket, rank",
        {"feature_id": feature_id},
    )


def strongest_excerpts(
    store: Store, feature_ids: Sequence[int], *, most: int | None = None
) -> dict[int, list[dict[str, Any]]]:
    """Select the strongest examples (bucket 0) of some features, at most `most` of each, with their texts, in order."""
    found: dict[int, list[dict[str, Any]]] = {number: [] for number in feature_ids}
    rows = store.rows(_STRONGEST, {"ids": list(found), "most": most}) if found else []
    texts = read_texts(store, [row["text_id"] for row in rows])
    for row in rows:
        if row["text_id"] in texts:
            found[row["feature_id"]].append(row | texts[row["text_id"]])
    return found


_STRONGEST = """
SELECT feature_id, bucket, text_id, position FROM examples JOIN (SELECT unnest($ids::INTEGER[]) AS feature_id)
    USING (feature_id) WHERE bucket = 0 AND ($most::INTEGER IS NULL OR rank < $most) ORDER BY feature_id, rank
"""


def read_texts(store: Store, text_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Map texts, where the bundle holds them, to their `text` and `token_starts`.

    A query of its own, because an index finds single texts and a join reads all of them.
    """
    ids = sorted(set(text_ids))
    if not ids:
        return {}
    listed, bound = each_of(ids) if len(ids) <= _BY_INDEX else ("(SELECT unnest($ids::BIGINT[]))", {"ids": ids})
    rows = store.rows(f'SELECT text_id, "text", token_starts FROM texts WHERE text_id IN {listed}', bound)
    return {row.pop("text_id"): row for row in rows}


_BY_INDEX = 500
"""Texts up to which the index is faster."""


def credit_examples(store: Store, feature_id: int, *, limit: int = 5) -> list[CreditExample]:
    """Select the tokens at which a feature carries most, largest first."""
    rows = store.rows(_CREDIT_EXAMPLES, {"id": feature_id, "limit": limit})
    texts = read_texts(store, [row["text_id"] for row in rows])
    known = [row for row in rows if row["text_id"] in texts]
    return [CreditExample(**row, **_cut(row["position"], **texts[row["text_id"]])) for row in known]


def _cut(position: int, *, text: str, token_starts: Sequence[int]) -> dict[str, Any]:
    """Return a token and what is `before` and `after` it, cut between words."""
    start, stop = (*token_starts, len(text))[position : position + 2]
    before, after = text[max(start - _AROUND, 0) : start], text[stop : stop + _AROUND]
    ends = {"starts": start <= _AROUND, "ends": stop + _AROUND >= len(text)}
    return between_words({"before": before, "token": text[start:stop], "after": after, **ends})


_AROUND = 70
"""Characters of a text that are shown on either side of a token."""
_CREDIT_EXAMPLES = """
SELECT text_id, position, credit FROM (
    SELECT unnest(example_text_ids) AS text_id, unnest(example_positions) AS position,
        unnest(example_credits)::DOUBLE AS credit, generate_subscripts(example_text_ids, 1) AS place
    FROM credits WHERE feature_id = $id
) WHERE place <= $limit ORDER BY place
"""
