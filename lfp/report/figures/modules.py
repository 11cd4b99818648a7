"""Which modules carry the implicit reward: shares by layer and kind, and credits at the checkpoints of the tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lfp.evaluation.results import ResultRow
from lfp.report.credits import NAMES, ledger_parts, ledger_total
from lfp.report.figures.frame import BASE, GRID, NEGATIVE, POSITIVE, STRENGTH, draw
from lfp.report.formatting import estimate

_COLOURS = {
    "mlp": STRENGTH,
    "attention": POSITIVE,
    "norm": BASE,
    "final_norm": BASE,
    "embedding": "#b8912f",
    "unembedding": NEGATIVE,
    "other": "#7d5ba6",
}
_ENDS = {"embedding": "in", "final_norm": "out", "unembedding": "out", "other": "other"}
"""Bars of what stands outside the layers."""


def draw_trajectory(points: Mapping[str, Sequence[Any]]) -> go.Figure | None:
    """Draw the credit per token of each kind of module by step (columns of `queries.run.trajectory`)."""
    if not points["step"]:
        return None
    traces = []
    for kind, name in NAMES.items():
        places = [place for place, module in enumerate(points["module"]) if module == kind]
        if not places:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [0, *(points["step"][place] for place in places)],
                "y": [0.0, *(points["nats"][place] for place in places)],
                "name": name.removeprefix("the "),
                "line": {"color": _COLOURS[kind], "dash": "dot" if kind == "final_norm" else "solid"},
                "hovertemplate": "step %{x}: %{y:.4f}<extra>" + name.removeprefix("the ") + "</extra>",
            }
        )
    x = {"title": "step of the tuning", "gridcolor": GRID, "zeroline": False}
    y = {"title": "credit, nats per token", "gridcolor": GRID, "zerolinecolor": GRID}
    return draw(traces, x, y, height=380, legend=True)


def draw_feature_trajectory(points: Mapping[str, Sequence[Any]]) -> go.Figure | None:
    """Draw a feature's credit per token by step, with intervals (columns of `queries.feature.credit_trajectory`)."""
    if not points["step"]:
        return None
    nats = [0.0, *points["nats"]]
    ends = [[0.0, *points[name]] for name in ("ci_low", "ci_high")]
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [0, *points["step"]],
        "y": nats,
        "line": {"color": STRENGTH},
        "error_y": {
            "type": "data",
            "arrayminus": [value - low for value, low in zip(nats, ends[0], strict=True)],
            "array": [high - value for value, high in zip(nats, ends[1], strict=True)],
            "thickness": 1,
            "width": 3,
        },
        "hovertemplate": "step %{x}: %{y:.5f}<extra></extra>",
    }
    x = {"title": "step of the tuning", "gridcolor": GRID, "zeroline": False}
    y = {"title": "credit, nats per token", "gridcolor": GRID, "zerolinecolor": GRID}
    return draw([trace], x, y, height=240)


def draw_ledger(rows: Sequence[ResultRow]) -> go.Figure | None:
    """Draw the implicit reward as one bar, in nats per token: what each kind of module carries, and a mark at the sum.

    Parts above zero stack to the right, parts below zero to the left.
    """
    parts = ledger_parts(rows)
    if not parts:
        return None
    traces: list[dict[str, Any]] = []
    for row in parts:
        name = NAMES[str(row.group)].removeprefix("the ")
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "x": [row.value],
                "y": [""],
                "name": name,
                "marker": {"color": _COLOURS[str(row.group)], "opacity": 0.6 if row.group == "final_norm" else 1.0},
                "hovertemplate": f"{estimate(row, is_signed=True)} nats per token<extra>{name}</extra>",
            }
        )
    total = sum(row.value for row in parts)
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "x": [total],
            "y": [""],
            "name": f"sum {ledger_total(rows)}",
            "cliponaxis": False,
            "marker": {"symbol": "diamond", "size": 14, "color": "#ffffff", "line": {"width": 2, "color": "#24221d"}},
            "hovertemplate": "%{x:+.4f} nats per token<extra>implicit reward</extra>",
        }
    )
    x = {"title": "nats per token", "gridcolor": GRID, "zerolinecolor": BASE, "zerolinewidth": 2, "fixedrange": True}
    y = {"visible": False, "fixedrange": True}
    return draw(traces, x, y, height=170, legend=True, barmode="relative", bargap=0.45)


def draw_credits(rows: Sequence[ResultRow]) -> go.Figure | None:
    """Draw the share of the implicit reward that each layer's modules carry, and what stands before and after them."""
    shares = [row for row in rows if row.metric == "share" and row.group in NAMES]
    layers = sorted({row.layer for row in shares if row.layer is not None})
    if not layers:
        return None
    shown = [row for row in shares if row.layer is not None or row.group in _ENDS]
    order = ["in", *map(str, layers), "out", "other"]
    traces = []
    for kind, name in NAMES.items():
        of_kind = [row for row in shown if row.group == kind and (row.layer is not None or kind in _ENDS)]
        if not of_kind:
            continue
        traces.append(
            {
                "type": "bar",
                "x": [_ENDS[kind] if row.layer is None else str(row.layer) for row in of_kind],
                "y": [row.value for row in of_kind],
                "name": name.removeprefix("the "),
                "marker": {"color": _COLOURS[kind], "opacity": 0.6 if kind == "final_norm" else 1.0},
                "hovertemplate": "%{x}: %{y:.1%}<extra>" + name.removeprefix("the ") + "</extra>",
            }
        )
    used = {x for trace in traces for x in list(trace["x"])}
    x = {
        "title": "layer",
        "type": "category",
        "categoryorder": "array",
        "categoryarray": [name for name in order if name in used],
        "showgrid": False,
    }
    y = {"title": "share of the implicit reward", "gridcolor": GRID, "tickformat": ".0%", "rangemode": "tozero"}
    return draw(traces, x, y, height=400, legend=True, barmode="stack", bargap=0.3)
