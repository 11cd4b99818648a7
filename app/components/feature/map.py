"""The map of features: a point a feature, coloured by a column; part of it may be drawn around."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa

from app.components.charts.charts import DIVERGING, GRID, STRENGTH, drawn
from app.components.feature.columns import COLUMNS, SIGNED
from lfp.util.sanitize import escaped_lines

CONFIG = {"displayModeBar": False, "responsive": True, "scrollZoom": False, "doubleClick": False}


STRONG = [[0.0, "rgba(141, 145, 153, 0.45)"], [1.0, STRENGTH]]


FEW = 200
"""Points up to this number are large and outlined."""


CLIPPED = 0.98
"""Share of values within the range of colours: beyond it a point has the colour of the end."""


def figure(
    points: pa.Table, others: pa.Table, *, colour: str, area: Sequence[Point], ink: str, is_drawn_on: bool = True
) -> go.Figure:
    """Points as `lfp.queries.feature_points` gives them, coloured by the column `colour`; `others` in grey behind.

    A point's `customdata` is its feature's number. `ink` draws the line around `area`. A drag draws another area, or
    (not `is_drawn_on`) moves the map: only then are clicks on points reported.
    """
    values = _numbers(points["value"])
    low, high = limits(values, is_signed=colour in SIGNED)
    few = points.num_rows <= FEW
    behind = {
        "type": "scattergl",
        "x": _numbers(others["x"]),
        "y": _numbers(others["y"]),
        "mode": "markers",
        "hoverinfo": "skip",
        "marker": {"size": 3, "color": "rgba(141, 145, 153, 0.28)"},
    }
    passed = {
        "type": "scattergl",
        "x": _numbers(points["x"]),
        "y": _numbers(points["y"]),
        "mode": "markers",
        "customdata": points["feature_id"].to_numpy(),
        "text": np.array(_names(points), dtype=object),
        "hovertemplate": "%{text}<br>" + COLUMNS[colour].title + " %{marker.color:.4~g}<extra></extra>",
        "marker": {
            "size": _size(points.num_rows),
            "color": values,
            "colorscale": DIVERGING if colour in SIGNED else STRONG,
            "cmin": low,
            "cmax": high,
            "opacity": 0.85,
            "line": {"width": 0.8 if few else 0.4, "color": ink if few else "rgba(120, 120, 120, .5)"},
            "colorbar": {
                "orientation": "h", "thickness": 9, "len": 1.0, "y": 1.01, "yanchor": "bottom", "nticks": 5,
                "title": {"text": COLUMNS[colour].title, "side": "top"}, "outlinewidth": 0, "tickformat": "~g",
            },
        },
        "selected": {"marker": {"opacity": 0.85}},
        "unselected": {"marker": {"opacity": 0.85}},
    }  # fmt: skip
    axis = {
        "showgrid": False, "zeroline": False, "showticklabels": False, "title": None, "showline": True,
        "linecolor": GRID, "mirror": True,
    }  # fmt: skip
    return drawn(
        [behind, passed], axis, axis, height=520, margin={"l": 4, "r": 4, "t": 62, "b": 4},
        dragmode="lasso" if is_drawn_on else "pan",
        newselection={"line": {"color": ink, "width": 1.6, "dash": "solid"}},
        shapes=[_outline(area, ink=ink)] if area else [],
    )  # fmt: skip


def _outline(area: Sequence[Point], *, ink: str) -> dict[str, object]:
    """A line around an area that was drawn."""
    path = "M" + "L".join(f"{x},{y}" for x, y in area) + "Z"
    line = {"color": ink, "width": 1.6}
    return {"type": "path", "path": path, "line": line, "fillcolor": "rgba(141, 145, 153, 0.14)"}


def limits(values: np.ndarray, *, is_signed: bool) -> tuple[float, float]:
    """The ends of the colours: signed values about zero; either way all but the outermost two in a hundred."""
    known = values[np.isfinite(values)]
    if not len(known):
        return (-1.0, 1.0) if is_signed else (0.0, 1.0)
    if is_signed:
        end = float(np.quantile(np.abs(known), CLIPPED)) or float(np.abs(known).max()) or 1.0
        return -end, end
    low, high = (float(end) for end in np.quantile(known, [1 - CLIPPED, CLIPPED]))
    return (low, high) if high > low else (float(known.min()), float(known.max()) + 1e-9)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A column as float32, null as NaN."""
    return column.to_numpy().astype(np.float32)


def _names(points: pa.Table) -> list[str]:
    said = escaped_lines([text or "not described" for text in points["description"].to_pylist()])
    return [f"<b>#{id_}</b> {text}" for id_, text in zip(points["feature_id"].to_pylist(), said, strict=True)]


def _size(n: int) -> float:
    """Smaller the more there are, so that thousands do not hide each other."""
    return 9.0 if n <= FEW else 6.5 if n <= 3000 else 4.0


Point = tuple[float, float]


MOST_CORNERS = 24
"""Corners kept of a lasso: with them it fits a URL, and follows the drawn line to a fraction of the map."""


def drawn_corners(selection: Mapping[str, Any]) -> tuple[Point, ...]:
    """The corners of the box or lasso last drawn, as plotly reports it; empty where none was."""
    for shape in reversed(selection.get("lasso") or []):
        return simplified(list(zip(shape["x"], shape["y"], strict=True)))
    for shape in reversed(selection.get("box") or []):
        (left, right), (low, high) = sorted(shape["x"]), sorted(shape["y"])
        return ((left, low), (right, low), (right, high), (left, high))
    return ()


def simplified(line: Sequence[Point], *, most: int = MOST_CORNERS) -> tuple[Point, ...]:
    """A closed line with at most so many corners, those that bend it least left out (Visvalingam and Whyatt, 1993)."""
    corners = list(line)
    while len(corners) > most:
        n = len(corners)
        bends = [_bend(corners[at - 1], corners[at], corners[(at + 1) % n]) for at in range(n)]
        del corners[bends.index(min(bends))]
    return tuple(corners)


def to_text(corners: Sequence[Point]) -> str:
    """Corners as x,y pairs with four digits each, such as 0.1,-2;3,4;5,6."""
    return ";".join(f"{x:.4g},{y:.4g}" for x, y in corners)


def from_text(text: str) -> tuple[Point, ...]:
    """The corners that a text states; empty where it states no area."""
    try:
        corners = tuple((float(x), float(y)) for x, y in (pair.split(",") for pair in text.split(";")))
    except ValueError:
        return ()
    is_area = 3 <= len(corners) <= 2 * MOST_CORNERS and all(math.isfinite(x) and math.isfinite(y) for x, y in corners)
    return corners if is_area else ()


def _bend(a: Point, b: Point, c: Point) -> float:
    """Twice the area of the triangle that a corner makes with the two beside it."""
    return abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1]))
