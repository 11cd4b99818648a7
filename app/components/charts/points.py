"""Scatters: words, texts, features; a point's `customdata` is its number or name, so that a click can open it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import plotly.graph_objects as go

from app.components.charts.charts import BASE, DIVERGING, GRID, STRENGTH, drawn
from app.components.html.numbers import count, plain, signed
from lfp.bundle.queries.run import AblatedFeature
from lfp.util.sanitize import escaped, shortened

EDGE = {"width": 0.6, "color": "rgba(120,120,120,.6)"}


@dataclass(frozen=True)
class Axis:
    """One axis of a scatter: its title, and a value a point, None where there is none."""

    title: str
    values: Sequence[float | None]


def words(names: Sequence[str], across: Axis, up: Axis, feedback: Sequence[float], n: Sequence[int]) -> go.Figure:
    """A point a word, coloured by true feedback; common words are larger."""
    largest = math.sqrt(max(n, default=1) or 1)
    hover = [
        f"<b>{escaped(name)}</b><br>{across.title} {plain(x, 2)}<br>{up.title} {plain(y, 3)}<br>{count(times)} times"
        for name, x, y, times in zip(names, across.values, up.values, n, strict=True)
    ]
    marker = {
        "size": [6 + 16 * math.sqrt(times) / largest for times in n],
        "color": list(feedback),
        "colorscale": DIVERGING,
        "cmid": 0,
        "opacity": 0.78,
        "line": EDGE,
    }
    return _drawn(across, up, hover, names, marker=marker, height=430)


def texts(
    ids: Sequence[int], across: Axis, up: Axis, colour: Axis, begins: Sequence[str], *, is_signed: bool
) -> go.Figure:
    """A point a sampled text, coloured by one of its scores; texts without it are grey."""
    hover = [
        f"<b>text {id_}</b><br>{escaped(shortened(text, 70))}<br>{colour.title} {plain(value, 3)}"
        for id_, text, value in zip(ids, begins, colour.values, strict=True)
    ]
    known = [abs(value) for value in colour.values if value is not None]
    limit = float(np.quantile(known, 0.98)) if known else 1.0
    marker = {
        "size": 9,
        "color": [math.nan if value is None else value for value in colour.values],
        "colorscale": DIVERGING if is_signed else [[0, "rgba(26,156,142,.12)"], [1, STRENGTH]],
        "colorbar": {"title": {"text": colour.title, "side": "right"}, "thickness": 10, "outlinewidth": 0},
        "line": EDGE,
        "opacity": 0.85,
    }
    if is_signed:
        marker |= {"cmin": -(limit or 1.0), "cmax": limit or 1.0}
    return _drawn(across, up, hover, ids, marker=marker, height=440)


def beliefs(
    ids: Sequence[int], belief: Sequence[float], size: Sequence[float], descriptions: Sequence[str | None]
) -> go.Figure:
    """How surely features are called related against the size of their weight: a point a feature that has one."""
    hover = [
        f"<b>#{id_}</b> {escaped(shortened(text or 'not described', 60))}<br>related, from −1 to 1: {signed(sure)}<br>"
        f"size of weight {plain(weight, 4)}"
        for id_, sure, weight, text in zip(ids, belief, size, descriptions, strict=True)
    ]
    marker = {
        "size": 7,
        "color": [STRENGTH if sure > 0 else BASE for sure in belief],
        "opacity": 0.6,
        "line": {"width": 0},
    }
    return _drawn(
        Axis("surely unrelated  ←   →  surely related", list(belief)),
        Axis("size of weight, logarithmic", [value or None for value in size]),
        hover,
        ids,
        marker=marker,
        height=400,
        x={"range": [-1.05, 1.05]},
        y={"type": "log", "dtick": 1, "tickformat": "~g"},
    )


def effects(features: Sequence[AblatedFeature]) -> go.Figure:
    """Predicted against measured effect of taking one feature out; the band holds 95 % of single controls."""
    known = [one for one in features if one.predicted_effect is not None]
    hover = [
        f"<b>#{one.feature_id}</b> {escaped(shortened(one.description or 'not described', 60))}<br>predicted "
        f"{signed(one.predicted_effect, 4)}<br>measured {signed(one.effect, 4)} [{plain(one.ci_low, 3)}, "
        f"{plain(one.ci_high, 3)}]"
        for one in known
    ]
    predicted = Axis("effect predicted (estimate a token)", [one.predicted_effect for one in known])
    measured = Axis("effect measured (reward)", [one.effect for one in known])
    bars = {
        "array": [one.ci_high - one.effect for one in known],
        "arrayminus": [one.effect - one.ci_low for one in known],
        "color": "rgba(26,156,142,.35)",
        "thickness": 1.4,
        "width": 0,
    }
    reach = next((one.null_high for one in known if one.null_high is not None), None)
    return _drawn(
        predicted,
        measured,
        hover,
        [one.feature_id for one in known],
        marker={"size": 9, "color": STRENGTH, "line": {"width": 0}},
        height=400,
        error_y=bars,
        shapes=[] if reach is None else [_band(reach)],
    )


def _band(reach: float) -> dict[str, object]:
    """A grey band over the whole width, as far from 0 as `reach`."""
    return {
        "type": "rect", "xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": -reach, "y1": reach,
        "line": {"width": 0}, "fillcolor": "rgba(141,145,153,.16)", "layer": "below",
    }  # fmt: skip


def reliability(stated: Sequence[float], seen: Sequence[float], ends: Sequence[tuple[float, float]]) -> go.Figure:
    """How often the side predicted to win was chosen, against the probability stated, a point a bin of pairs."""
    as_stated = {
        "type": "scatter", "x": [0.5, 1], "y": [0.5, 1], "mode": "lines", "line": {"color": BASE, "dash": "dot"},
        "hoverinfo": "skip", "name": "as often as stated",
    }  # fmt: skip
    bins = {
        "type": "scatter", "x": list(stated), "y": list(seen), "mode": "markers+lines", "name": "held-out pairs",
        "marker": {"size": 9, "color": STRENGTH},
        "line": {"color": STRENGTH, "width": 1},
        "error_y": {
            "array": [high - at for (_, high), at in zip(ends, seen, strict=True)],
            "arrayminus": [at - low for (low, _), at in zip(ends, seen, strict=True)],
            "color": "rgba(26,156,142,.45)", "width": 0,
        },
        "hovertemplate": "stated %{x:.2f}<br>chosen %{y:.2f} of the time<extra></extra>",
    }  # fmt: skip
    far = min(1.0, max([0.6, *stated]) + 0.05)
    x = {"title": "probability stated", "gridcolor": GRID, "zeroline": False, "range": [0.49, far + 0.01]}
    y = {"title": "share chosen", "gridcolor": GRID, "zeroline": False}
    return drawn([as_stated, bins], x, y, height=400, legend=True)


def _drawn(
    across: Axis,
    up: Axis,
    hover: Sequence[str],
    which: Sequence[object],
    *,
    marker: Mapping[str, object],
    height: int,
    x: Mapping[str, object] = MappingProxyType({}),
    y: Mapping[str, object] = MappingProxyType({}),
    error_y: Mapping[str, object] | None = None,
    shapes: Sequence[Mapping[str, object]] = (),
) -> go.Figure:
    trace = {
        "type": "scatter",
        "x": list(across.values),
        "y": list(up.values),
        "mode": "markers",
        "customdata": list(which),
        "hovertext": list(hover),
        "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": marker,
        "error_y": error_y,
    }
    axis = {"gridcolor": GRID, "zeroline": True, "zerolinecolor": GRID}
    sides = {"title": across.title, **axis, **x}, {"title": up.title, **axis, **y}
    return drawn([trace], *sides, height=height, shapes=list(shapes))
