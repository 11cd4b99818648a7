"""Figures of the row about ablations: groups against their controls, predicted against measured."""

from __future__ import annotations

import plotly.graph_objects as go

from lfp.escape import escaped
from lfp.report_cells import Figure, is_single
from lfp.report_figures.drawing import BASE, GRID, TUNED, dots, framed, whiskers
from lfp.report_figures.material import Material


def groups(material: Material) -> go.Figure | None:
    """Effects of groups; the bar is what their controls reach either way."""
    rows = [one for one in material.report["ablation"] if one["metric"] == "effect" and not is_single(one)]
    banded = [one if one.get("null_high") is None else {**one, "null_mean": -one["null_high"]} for one in rows]
    named = [(str(one.get("group")), one) for one in banded]
    return dots(named, "effect on the mean reward", null="95 % of controls")


def singles(material: Material) -> go.Figure | None:
    """The effect predicted of each single feature against the one measured, and what single controls reach."""
    by_group: dict[str, dict[str, Figure]] = {}
    for one in material.report["ablation"]:
        if is_single(one) and one["value"] is not None:
            by_group.setdefault(str(one["group"]), {})[one["metric"]] = one
    known = {name: told for name, told in by_group.items() if {"predicted", "effect"} <= told.keys()}
    if not known:
        return None
    measured = [told["effect"] for told in known.values()]
    chart = go.Figure(
        go.Scatter(
            x=[told["predicted"]["value"] for told in known.values()],
            y=[one["value"] for one in measured],
            error_y=whiskers(measured),
            mode="markers",
            text=[escaped(name) for name in known],
            marker={"size": 9, "color": [BASE if "inert" in told else TUNED for told in known.values()]},
            hovertemplate="%{text}<br>predicted %{x:.4f}<br>measured %{y:.3f}<extra></extra>",
        )
    )
    high = measured[0].get("null_high")
    if high is not None:
        chart.add_hrect(y0=-high, y1=high, fillcolor=GRID, line_width=0)
    return framed(chart, x="effect predicted (probe target a token)", y="effect measured on the mean reward")
