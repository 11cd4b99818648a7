"""A part of the map of features drawn around: from a selection to a few corners, and to text short enough for a URL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Point = tuple[float, float]
MOST_CORNERS = 24
"""Corners kept of a lasso: with them it fits a URL, and follows the drawn line to a fraction of the map."""


def drawn(selection: Mapping[str, Any]) -> tuple[Point, ...]:
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
