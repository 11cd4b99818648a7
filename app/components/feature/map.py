"""The map of features: one point per feature, coloured by a column, and the areas drawn on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa

from app.components.feature.columns import COLUMNS, SIGNED
from app.components.feature.regions import Region
from lfp.bundle.queries.feature_map import Density
from lfp.report.figures import frame
from lfp.report.figures.frame import DIVERGING, GRID, STRENGTH, draw
from lfp.util.sanitize import escaped, escaped_lines

CONFIG = {**frame.CONFIG, "doubleClick": "reset", "scrollZoom": True}
STRONG = [[0.0, "rgba(141, 145, 153, 0.45)"], [1.0, STRENGTH]]
FEW = 500
"""Up to this number points are large and outlined."""
CLIPPED = 0.98
"""Share of values within the colour scale; a value beyond it has the colour of its end."""
MOST_CORNERS = 24
"""Corners kept of a lasso: they fit a URL, and follow the drawn line to a fraction of the map."""
Point = tuple[float, float]


def figure(
    points: pa.Table,
    others: pa.Table | Density,
    *,
    colour: str,
    area: Sequence[Point],
    ink: str,
    is_drawn_on: bool = True,
    regions: Sequence[Region] = (),
) -> go.Figure:
    """Draw points as `feature_points` returns them, coloured by the column `colour`, over `others` in grey.

    `others` are points too, or the density of however many features. Names of `regions` stand at their centres.
    A point's `customdata` is its feature's number. `ink` is the colour of the line around `area`. Dragging draws
    another area, or with `is_drawn_on` False moves the map: only then are clicks on points reported.
    """
    values = _numbers(points["value"])
    low, high = limits(values, is_signed=colour in SIGNED)
    few = points.num_rows <= FEW
    labels = escaped_lines([text or "no label" for text in points["description"].to_pylist()])
    names = [f"<b>#{id_}</b> {text}" for id_, text in zip(points["feature_id"].to_pylist(), labels, strict=True)]
    behind = (
        _density(others)
        if isinstance(others, Density)
        else {
            "type": "scattergl",
            "x": _numbers(others["x"]),
            "y": _numbers(others["y"]),
            "mode": "markers",
            "hoverinfo": "skip",
            "marker": {"size": 3, "color": "rgba(141, 145, 153, 0.28)"},
        }
    )
    passed = {
        "type": "scattergl",
        "x": _numbers(points["x"]),
        "y": _numbers(points["y"]),
        "mode": "markers",
        "customdata": points["feature_id"].to_numpy(),
        "text": np.array(names, dtype=object),
        "hovertemplate": "%{text}<br>" + COLUMNS[colour].title + " %{marker.color:.4~g}<extra></extra>",
        "marker": {
            "size": 9.0 if few else 6.5 if points.num_rows <= 3000 else 4.0,
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
    outline = {
        "type": "path", "path": "M" + "L".join(f"{x},{y}" for x, y in area) + "Z",
        "line": {"color": ink, "width": 1.6}, "fillcolor": "rgba(141, 145, 153, 0.14)",
    }  # fmt: skip
    axis = {
        "showgrid": False, "zeroline": False, "showticklabels": False, "title": None, "showline": True,
        "linecolor": GRID, "mirror": True,
    }  # fmt: skip
    return draw(
        [behind, passed], axis, axis, height=520, margin={"l": 4, "r": 4, "t": 62, "b": 4},
        dragmode="lasso" if is_drawn_on else "pan",
        newselection={"line": {"color": ink, "width": 1.6, "dash": "solid"}},
        shapes=[outline] if area else [], annotations=[_region_name(region, ink) for region in regions],
        uirevision="map",
    )  # fmt: skip


def _density(density: Density) -> dict[str, Any]:
    """Return the trace of a density: darker grey where more features are, on a logarithmic scale."""
    counts = np.where(density.counts > 0, np.log1p(density.counts), np.nan)
    return {
        "type": "heatmap", "x": density.xs, "y": density.ys, "z": counts, "hoverinfo": "skip", "showscale": False,
        "zsmooth": False, "colorscale": [[0, "rgba(141, 145, 153, 0.12)"], [1, "rgba(141, 145, 153, 0.75)"]],
    }  # fmt: skip


def _region_name(region: Region, ink: str) -> dict[str, Any]:
    """Return the annotation that names a region at its centre, and on hover what bears the name out."""
    dark = ink.lower() != "#24221d"
    return {
        "x": region.x, "y": region.y, "text": f"<b>{escaped(region.name)}</b>", "showarrow": False,
        "font": {"size": 12, "color": ink}, "bgcolor": "rgba(23, 22, 19, .72)" if dark else "rgba(253, 252, 247, .78)",
        "hovertext": escaped(region.says), "borderpad": 2,
    }  # fmt: skip


def limits(values: np.ndarray, *, is_signed: bool) -> tuple[float, float]:
    """Return the ends of the colour scale, without the outermost values; about zero for signed values."""
    known = values[np.isfinite(values)]
    if not len(known):
        return (-1.0, 1.0) if is_signed else (0.0, 1.0)
    if is_signed:
        end = float(np.quantile(np.abs(known), CLIPPED)) or float(np.abs(known).max()) or 1.0
        return -end, end
    low, high = (float(end) for end in np.quantile(known, [1 - CLIPPED, CLIPPED]))
    return (low, high) if high > low else (float(known.min()), float(known.max()) + 1e-9)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column as float32, null as NaN."""
    return column.to_numpy().astype(np.float32)


def drawn_corners(selection: Mapping[str, Any]) -> tuple[Point, ...]:
    """Return the corners of the box or lasso drawn last, as plotly reports it; empty if none was."""
    for shape in reversed(selection.get("lasso") or []):
        return simplified(list(zip(shape["x"], shape["y"], strict=True)))
    for shape in reversed(selection.get("box") or []):
        (left, right), (low, high) = sorted(shape["x"]), sorted(shape["y"])
        return ((left, low), (right, low), (right, high), (left, high))
    return ()


def simplified(line: Sequence[Point], *, most: int = MOST_CORNERS) -> tuple[Point, ...]:
    """Reduce a closed line to at most `most` corners, leaving out the flattest ones (Visvalingam and Whyatt, 1993)."""
    corners = list(line)
    while len(corners) > most:
        areas = []
        for at, b in enumerate(corners):
            a, c = corners[at - 1], corners[(at + 1) % len(corners)]
            areas.append(abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])))
        del corners[areas.index(min(areas))]
    return tuple(corners)


def to_text(corners: Sequence[Point]) -> str:
    """Write corners as x,y pairs with four digits each, such as 0.1,-2;3,4;5,6."""
    return ";".join(f"{x:.4g},{y:.4g}" for x, y in corners)


def from_text(text: str) -> tuple[Point, ...]:
    """Read corners written by `to_text`; empty if the text is not an area."""
    try:
        corners = tuple((float(x), float(y)) for x, y in (pair.split(",") for pair in text.split(";")))
    except ValueError:
        return ()
    is_area = 3 <= len(corners) <= 2 * MOST_CORNERS and all(math.isfinite(x) and math.isfinite(y) for x, y in corners)
    return corners if is_area else ()
