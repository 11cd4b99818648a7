"""Figures with their intervals, a line each: what chance reaches behind, matched controls as dots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from app.components.charts.charts import BASE, GRID, STRENGTH, drawn, line_name
from app.components.html.numbers import digits_for, fixed, plain, signed
from lfp.evaluation.results import ResultRow
from lfp.util.sanitize import escaped, shortened

ROW = 54
"""Height of a line in pixels: its name above, its interval below."""
HATCH = {"shape": "/", "fgcolor": BASE, "size": 6, "solidity": 0.18}
LOW = 0.16
"""How far below the middle of its line the interval is, in lines."""


@dataclass(frozen=True)
class Line:
    """One figure: its 95 % interval, what chance reaches, controls, and a mark such as a ceiling, where known."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    chance_low: float | None = None
    chance: float | None = None
    dots: tuple[float, ...] = ()
    mark: float | None = None
    is_base: bool = False


@dataclass(frozen=True)
class Names:
    """What the axis measures, and what chance, dots and marks are called in the legend."""

    axis: str
    chance: str = "chance reaches"
    dots: str = "matched controls"
    mark: str = "signs alone reach"
    is_signed: bool = False


def line(name: str, figure: ResultRow, *, two_sided: bool = False, mark: float | None = None) -> Line:
    """A figure of the report as a line. The null runs from its mean, or where it is two-sided from minus its end."""
    high = figure.null_high
    low = -high if two_sided and high is not None else figure.null_mean
    return Line(name, figure.value, figure.ci_low, figure.ci_high, low, high, mark=mark, is_base=figure.model == "base")


def chart(lines: Sequence[Line], names: Names, *, ink: str, zero: bool = True) -> go.Figure:
    """Lines from top to bottom, each under its name and numbers; `ink` is the theme's text colour.

    With `zero` the axis holds 0, and every line has a stroke there, which leaves its name free.
    """
    digits = _digits(lines)
    above = []
    for row, one in enumerate(lines):
        says = told(one.value, one.low, one.high, is_signed=names.is_signed, digits=digits)
        above.append(line_name(f"{escaped(shortened(one.name, 46))}  <b>{says}</b>", row - 0.2, ink=ink))
    x = {
        "title": names.axis, "gridcolor": GRID, "zeroline": False, "fixedrange": True,
        "range": _range(lines, zero=zero), "nticks": 7,
    }  # fmt: skip
    y = {"visible": False, "range": [len(lines) - 0.5, -0.5], "fixedrange": True}
    parts = [_chance(lines, names), _dots(lines, names), _spans(lines), _points(lines, names), _marks(lines, names)]
    strokes = [_zero(row) for row in range(len(lines))] if zero else []
    return drawn(parts, x, y, height=100 + ROW * len(lines), legend=True, annotations=above, shapes=strokes)


def told(
    value: float, low: float | None, high: float | None, *, is_signed: bool = False, digits: int | None = None
) -> str:
    """A figure and its interval in words: +0.12 [0.10, 0.14]. Without `digits` the interval says how many."""
    digits = digits_for(low, high) if digits is None else digits
    number = (signed if is_signed else plain)(value, digits)
    return number if low is None or high is None else f"{number} [{fixed(low, digits)}, {fixed(high, digits)}]"


def _digits(lines: Sequence[Line]) -> int:
    """One number of decimals for all: what the widest interval deserves."""
    return min((digits_for(one.low, one.high) for one in lines if one.low is not None), default=2)


def _range(lines: Sequence[Line], *, zero: bool) -> list[float] | None:
    """From the least to the largest of all that is drawn, with a little room."""
    drawn = [
        at
        for one in lines
        for at in (one.value, one.low, one.high, one.chance_low, one.chance, one.mark, *one.dots)
        if at is not None
    ]
    if not drawn:
        return None
    low, high = min([*drawn, *([0.0] if zero else [])]), max([*drawn, *([0.0] if zero else [])])
    room = 0.04 * ((high - low) or 1.0)
    return [low - room, high + room]


def _zero(row: int) -> dict[str, object]:
    ends = {"x0": 0, "x1": 0, "y0": row + LOW - 0.16, "y1": row + LOW + 0.24}
    return {"type": "line", **ends, "layer": "below", "line": {"color": BASE, "width": 1.2}}


def _chance(lines: Sequence[Line], names: Names) -> dict[str, object]:
    known = [(row, one) for row, one in enumerate(lines) if one.chance is not None]
    ends = [one.chance or 0.0 for _, one in known]
    starts = [end if one.chance_low is None else one.chance_low for end, (_, one) in zip(ends, known, strict=True)]
    return {
        "type": "bar",
        "x": [end - start for end, start in zip(ends, starts, strict=True)],
        "y": [row + LOW for row, _ in known],
        "base": starts,
        "orientation": "h",
        "width": 0.3,
        "name": names.chance,
        "showlegend": bool(known),
        "marker": {"color": "rgba(141,145,153,.14)", "pattern": HATCH},
        "hovertext": [f"{escaped(one.name)}<br>{names.chance} {plain(one.chance, 3)}" for _, one in known],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _dots(lines: Sequence[Line], names: Names) -> dict[str, object]:
    at = [(value, row + LOW + 0.05 * (i % 5 - 2)) for row, one in enumerate(lines) for i, value in enumerate(one.dots)]
    return {
        "type": "scatter",
        "x": [x for x, _ in at],
        "y": [y for _, y in at],
        "mode": "markers",
        "name": names.dots,
        "showlegend": bool(at),
        "marker": {"size": 6, "color": "rgba(0,0,0,0)", "line": {"color": BASE, "width": 1.3}},
        "hovertemplate": names.dots + " %{x:.4f}<extra></extra>",
    }


def _spans(lines: Sequence[Line]) -> dict[str, object]:
    ends: list[tuple[float | None, float | None]] = []
    for row, one in enumerate(lines):
        if one.low is not None and one.high is not None:
            ends += [(one.low, row + LOW), (one.high, row + LOW), (None, None)]
    return {
        "type": "scatter",
        "x": [x for x, _ in ends],
        "y": [y for _, y in ends],
        "mode": "lines",
        "name": "95 % interval",
        "showlegend": bool(ends),
        "line": {"color": STRENGTH, "width": 5},
        "opacity": 0.5,
        "hoverinfo": "skip",
    }


def _points(lines: Sequence[Line], names: Names) -> dict[str, object]:
    return {
        "type": "scatter",
        "x": [one.value for one in lines],
        "y": [row + LOW for row in range(len(lines))],
        "mode": "markers",
        "showlegend": False,
        "marker": {
            "size": 11,
            "color": [BASE if one.is_base else STRENGTH for one in lines],
            "symbol": ["diamond" if one.is_base else "circle" for one in lines],
        },
        "hovertext": [
            f"<b>{escaped(one.name)}</b><br>{told(one.value, one.low, one.high, is_signed=names.is_signed)}"
            for one in lines
        ],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _marks(lines: Sequence[Line], names: Names) -> dict[str, object]:
    known = [(row, one.mark) for row, one in enumerate(lines) if one.mark is not None]
    return {
        "type": "scatter",
        "x": [mark for _, mark in known],
        "y": [row + LOW for row, _ in known],
        "mode": "markers",
        "name": names.mark,
        "showlegend": bool(known),
        "hovertemplate": names.mark + " %{x:.3f}<extra></extra>",
        "marker": {"symbol": "line-ns-open", "size": 15, "color": BASE, "line": {"width": 2}},
    }
