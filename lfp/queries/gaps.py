"""SQL of gaps: how far apart two judges rank the same thing."""

from __future__ import annotations

from collections.abc import Mapping

TEXT_GAPS: Mapping[str, tuple[str, str]] = {
    "gap": ("predicted", "feedback"),
    "implicit gap": ("implicit_reward", "feedback"),
    "rating gap": ("feedback", "rating"),
}
"""The three disagreements about texts, by the name they sort by: the columns of `texts` that are ranked."""


def ranked(rows: str, first: str, second: str) -> str:
    """A SELECT's rows with `first_rank` and `second_rank`, from 0 to 1, and `gap`, the first less the second.

    Only rows that both judges speak of are ranked, equal values sharing the middle of their places; others get nulls.
    """
    known = f"({first} IS NOT NULL AND {second} IS NOT NULL)"
    return (
        f"SELECT *, first_rank - second_rank AS gap FROM (SELECT *, {_rank(first, known)} AS first_rank, "
        f"{_rank(second, known)} AS second_rank FROM ({rows}))"
    )


def _rank(column: str, known: str) -> str:
    over = f"cume_dist() OVER (PARTITION BY {known} ORDER BY {column}"
    return f"CASE WHEN {known} THEN (1 + {over}) - {over} DESC)) / 2 END"
