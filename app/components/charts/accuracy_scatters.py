"""Scatters of how good the estimate is: words by two of their judges, texts on two components, pairs by probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from app.components.charts import points
from app.components.charts.agreement import Bin
from app.components.html.numbers import count

_TRUE, _IMPLICIT = ("true feedback (lexicon value)", "feedback"), ("implicit reward (nats)", "implicit_reward")
_ESTIMATE = ("estimate, on the lexicon’s range", "shown")
AXES = {
    "implicit reward against true": (_TRUE, _IMPLICIT),
    "estimate against true": (_TRUE, _ESTIMATE),
    "estimate against implicit reward": (_IMPLICIT, _ESTIMATE),
}
"""What a scatter of words may hold against each other: titles and columns of its two axes."""
_COLOURS = {
    "true feedback": ("feedback", True),
    "estimate": ("predicted", True),
    "implicit reward": ("implicit_reward", True),
    "rating": ("rating", False),
}
"""What texts may be coloured by: a column, and whether it has a sign."""


def words(table: pa.Table, axes: str) -> go.Figure:
    """A point a word on one of AXES."""
    rows = table.to_pydict()
    across, up = (points.Axis(title, rows[column]) for title, column in AXES[axes])
    return points.words(rows["word"], across, up, rows["feedback"], rows["n"])


def words_sentence(table: pa.Table, axes: str) -> str:
    """How many words it shows, and how to use it."""
    across, up = (table[column].to_pylist() for _, column in AXES[axes])
    known = sum(None not in pair for pair in zip(across, up, strict=True))
    return f"{count(known)} words, blue where true feedback is positive. Click one to look it up."


def colours(rows: Mapping[str, Sequence[object]]) -> list[str]:
    """What these texts can be coloured by: what any of them has."""
    return [name for name, (column, _) in _COLOURS.items() if any(value is not None for value in rows[column])]


def texts(rows: Mapping[str, Sequence[Any]], colour: str) -> go.Figure:
    """A point a text on its two principal components."""
    column, is_signed = _COLOURS[colour]
    across, up = (points.Axis(f"component {i}", rows[f"pca_{axis}"]) for i, axis in ((1, "x"), (2, "y")))
    coloured = points.Axis(colour, rows[column])
    return points.texts(rows["text_id"], across, up, coloured, rows["begins"], is_signed=is_signed)


def reliability(bins: Sequence[Bin]) -> go.Figure:
    """How often the side predicted to win was chosen, a point a bin."""
    ends = [(one.low, one.high) for one in bins]
    return points.reliability([one.stated for one in bins], [one.chosen for one in bins], ends)
