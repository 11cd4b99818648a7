"""Values with their intervals, a line each: what chance reaches behind, matched controls as dots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from lfp.evaluation.results import ResultRow
from lfp.report.figures.frame import BASE, GRID, STRENGTH, draw, name_above
from lfp.report.formatting import digits_for, plain, with_interval
from lfp.util.sanitize import escaped, shortened

ROW = 54
"""Height of a line in pixels: its name above, its interval below."""
LONGEST = 60
"""Characters of a line's name."""
LOW = 0.16
"""How far below the middle of its line the interval is, in lines."""
_HATCH = {"shape": "/", "fgcolor": BASE, "size": 6, "solidity": 0.18}


@dataclass(frozen=True)
class Line:
    """One value: its 95 % interval, what chance reaches, controls, and a mark such as a ceiling, where known."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    chance_low: float | None = None
    chance: float | None = None
    dots: tuple[float, ...] = ()
    mark: float | None = None
    is_base: bool = False

    @classmethod
    def from_row(cls, name: str, row: ResultRow, *, two_sided: bool = False, mark: float | None = None) -> Line:
        """Build a line from a row of the report.

        Chance runs from the null's mean to its 95th percentile, or where it is `two_sided` as far below zero as above.
        """
        high = row.null_high
        low = -high if two_sided and high is not None else row.null_mean
        is_base = row.model == "base"
        return cls(name, row.value, row.ci_low, row.ci_high, low, high, mark=mark, is_base=is_base)


@dataclass(frozen=True)
class Legend:
    """What the axis measures, and what chance, dots and marks are called in the legend."""

    axis: str
    chance: str = "chance (95 %)"
    dots: str = "matched controls"
    mark: str = "knowing only the sign"
    is_signed: bool = False


def draw_lines(lines: Sequence[Line], legend: Legend, *, ink: str | None, zero: bool = True) -> go.Figure:
    """Draw lines from top to bottom, each under its name and numbers.

    With `zero` the axis includes 0, and every line has a stroke there, which leaves its name free. The base model's
    values are grey diamonds.
    """
    digits = min((digits_for(line.low, line.high) for line in lines if line.low is not None), default=2)
    says = [with_interval(line.value, line.low, line.high, is_signed=legend.is_signed, digits=digits) for line in lines]
    above = [
        name_above(f"<b>{numbers}</b>  {escaped(shortened(line.name, LONGEST))}", row - 0.2, ink=ink)
        for row, (line, numbers) in enumerate(zip(lines, says, strict=True))
    ]
    x = {
        "title": legend.axis, "gridcolor": GRID, "zeroline": False, "fixedrange": True,
        "range": _range(lines, zero=zero), "nticks": 7,
    }  # fmt: skip
    y = {"visible": False, "range": [len(lines) - 0.5, -0.5], "fixedrange": True}
    ends = {"y0": LOW - 0.16, "y1": LOW + 0.24}
    strokes = [
        {"type": "line", "x0": 0, "x1": 0, **{end: row + at for end, at in ends.items()}, "layer": "below",
         "line": {"color": BASE, "width": 1.2}}
        for row in range(len(lines) if zero else 0)
    ]  # fmt: skip
    points = [_points(lines, says, "base model" if is_base else None, is_base=is_base) for is_base in (False, True)]
    traces = [_chance(lines, legend), _dots(lines, legend), _spans(lines), *points, _marks(lines, legend)]
    return draw(traces, x, y, height=100 + ROW * len(lines), legend=True, annotations=above, shapes=strokes)


def _range(lines: Sequence[Line], *, zero: bool) -> list[float] | None:
    """From the least to the largest of all that is drawn, with a little room."""
    shown = [
        at
        for line in lines
        for at in (line.value, line.low, line.high, line.chance_low, line.chance, line.mark, *line.dots)
        if at is not None
    ]
    if not shown:
        return None
    low, high = min([*shown, *([0.0] if zero else [])]), max([*shown, *([0.0] if zero else [])])
    room = 0.04 * ((high - low) or 1.0)
    return [low - room, high + room]


def _chance(lines: Sequence[Line], legend: Legend) -> dict[str, object]:
    known = [
        (row, line.name, line.chance, line.chance_low) for row, line in enumerate(lines) if line.chance is not None
    ]
    starts = [high if low is None else low for _, _, high, low in known]
    return {
        "type": "bar",
        "x": [high - start for (_, _, high, _), start in zip(known, starts, strict=True)],
        "y": [row + LOW for row, *_ in known],
        "base": starts,
        "orientation": "h",
        "width": 0.3,
        "name": legend.chance,
        "showlegend": bool(known),
        "marker": {"color": "rgba(141,145,153,.14)", "pattern": _HATCH, "line": {"width": 0}},
        "hovertext": [f"{escaped(name)}<br>{legend.chance}: {plain(high, 3)}" for _, name, high, _ in known],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _dots(lines: Sequence[Line], legend: Legend) -> dict[str, object]:
    """Controls, spread a little over the height of their line so that equal ones are apart."""
    at = [(x, row + LOW + 0.05 * (i % 5 - 2)) for row, line in enumerate(lines) for i, x in enumerate(line.dots)]
    return {
        "type": "scatter",
        "x": [x for x, _ in at],
        "y": [y for _, y in at],
        "mode": "markers",
        "name": legend.dots,
        "showlegend": bool(at),
        "marker": {"size": 6, "color": "rgba(0,0,0,0)", "line": {"color": BASE, "width": 1.3}},
        "hovertemplate": legend.dots + " %{x:.4f}<extra></extra>",
    }


def _spans(lines: Sequence[Line]) -> dict[str, object]:
    """Every interval as one trace, the lines apart by gaps."""
    ends: list[tuple[float | None, float | None]] = []
    for row, line in enumerate(lines):
        if line.low is not None and line.high is not None:
            ends += [(line.low, row + LOW), (line.high, row + LOW), (None, None)]
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


def _points(lines: Sequence[Line], says: Sequence[str], name: str | None, *, is_base: bool) -> dict[str, object]:
    rows = [row for row, line in enumerate(lines) if line.is_base == is_base]
    return {
        "type": "scatter",
        "x": [lines[row].value for row in rows],
        "y": [row + LOW for row in rows],
        "mode": "markers",
        "name": name,
        "showlegend": name is not None and bool(rows),
        "marker": {
            "size": 11, "color": BASE if is_base else STRENGTH, "symbol": "diamond" if is_base else "circle",
        },
        "hovertext": [f"<b>{escaped(lines[row].name)}</b><br>{says[row]}" for row in rows],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }  # fmt: skip


def _marks(lines: Sequence[Line], legend: Legend) -> dict[str, object]:
    known = [(row, line.mark) for row, line in enumerate(lines) if line.mark is not None]
    return {
        "type": "scatter",
        "x": [mark for _, mark in known],
        "y": [row + LOW for row, _ in known],
        "mode": "markers",
        "name": legend.mark,
        "showlegend": bool(known),
        "hovertemplate": legend.mark + ": %{x:.3f}<extra></extra>",
        "marker": {"symbol": "line-ns-open", "size": 15, "color": BASE, "line": {"width": 2}},
    }
