"""What a reviewer judges a feature by: where it fires from strong to weak, and where it is silent. No label shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.components import panels, tokens
from app.components.numbers import plain
from lfp.labels.evidence import NEAR_MISS

STRONGEST, WEAKER, QUIET = 6, 6, 2
"""Examples of each kind that are shown at most."""
_SILENT = {-1: "silent here", NEAR_MISS: "silent, though expected"}

Row = Mapping[str, Any]


def examples(rows: Sequence[Row], limit: float, href: Callable[[int], str]) -> str:
    """Examples of one feature, `limit` its largest activation, each with a link to its text."""
    best = [row for row in rows if row["bucket"] == 0][:STRONGEST]
    drawn = [row for row in rows if row["bucket"] > 0]
    spread = sorted(drawn[:: max(1, len(drawn) // WEAKER)][:WEAKER], key=_activation, reverse=True)
    named = [*((row, "strongest") for row in best), *((row, "weaker") for row in spread)]
    for bucket, name in _SILENT.items():
        named += [(row, name) for row in rows if row["bucket"] == bucket][:QUIET]
    legend = tokens.strength_legend(limit, "activation, scaled; the example’s token is underlined")
    return legend + tokens.examples([_example(row, limit, name, href) for row, name in named], numbers=False)


def _activation(row: Row) -> float:
    value: float = row["window_values"][row["position"] - row["window_start"]]
    return value


def _example(row: Row, limit: float, name: str, href: Callable[[int], str]) -> str:
    text = panels.anchor(href(row["text_id"]), f"text {row['text_id']}")
    return tokens.example(
        tokens.pieces(row["text"], row["token_starts"]),
        row["window_values"],
        first=row["window_start"],
        position=row["position"],
        limit=limit,
        caption=f"<b>{plain(_activation(row))}</b>{panels.text(name)}<br>{text}",
    )
