"""Figures of the row about drift: what became of features, and which carry the change."""

from __future__ import annotations

import plotly.graph_objects as go

from lfp.escape import escaped
from lfp.report_cells import in_order
from lfp.report_figures.drawing import BASE, NEGATIVE, POSITIVE, TUNED, framed, listed, whiskers
from lfp.report_figures.material import Material


def statuses(material: Material) -> go.Figure | None:
    """What became of features in either model's dictionary, as shares."""
    rows = [one for one in material.report["drift"] if one["metric"] == "share" and "group" in one]
    if not rows:
        return None
    chart = go.Figure()
    for inputs, name, colour in (
        ("sae", "tuned model's dictionary", TUNED),
        ("base_sae", "base model's dictionary", BASE),
    ):
        mine = in_order([one for one in rows if one.get("inputs") == inputs], "group")
        chart.add_bar(
            x=[one["group"] for one in mine],
            y=[one["value"] for one in mine],
            error_y=whiskers(mine),
            name=name,
            marker_color=colour,
            hovertemplate="%{x}: %{y:.1%}<extra>" + name + "</extra>",
        )
    chart.update_yaxes(tickformat=".0%", rangemode="tozero")
    return framed(chart, x="", y="share of live features", legend=True)


def drifted(material: Material) -> go.Figure | None:
    """The features that carry most of the change of the estimate, each named above its bar."""
    top = material.drifted
    names = [f"#{one.feature_id} {one.status}: {_shortened(one.description or one.top_token or '')}" for one in top]
    values = [one.drifted_contribution for one in top]
    if not any(values):
        return None
    chart = go.Figure(
        go.Bar(
            x=values,
            y=list(range(len(top))),
            orientation="h",
            width=0.4,
            marker_color=[POSITIVE if value >= 0 else NEGATIVE for value in values],
            hovertext=[escaped(name) for name in names],
            hovertemplate="%{hovertext}<br>%{x:+.4f}<extra></extra>",
        )
    )
    return listed(chart, names, "change of its mean contribution")


def _shortened(text: str, length: int = 46) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
