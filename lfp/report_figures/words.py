"""Figures of rows about words: true feedback against an estimate, errors by frequency."""

from __future__ import annotations

import math
from collections.abc import Callable

import plotly.graph_objects as go

from lfp.escape import escaped
from lfp.report_cells import in_order
from lfp.report_figures.drawing import BASE, DIVERGING, TUNED, framed, whiskers
from lfp.report_figures.material import Material


def scatter(value: str, title: str) -> Callable[[Material], go.Figure | None]:
    """True feedback against an estimate, a point a word; common words are larger."""

    def draw(material: Material) -> go.Figure | None:
        words = [word for word in material.words if word[value] is not None]
        if not words:
            return None
        largest = math.sqrt(max(word["n"] for word in words) or 1)
        chart = go.Figure(
            go.Scatter(
                x=[word["feedback"] for word in words],
                y=[word[value] for word in words],
                mode="markers",
                text=[f"<b>{escaped(word['word'])}</b>" for word in words],
                customdata=[[word["n"], word["shown"], word["implicit_reward"]] for word in words],
                hovertemplate="%{text}<br>true %{x:.2f}<br>estimate, rescaled %{customdata[1]:.2f}"
                "<br>implicit reward %{customdata[2]:.2f}<br>%{customdata[0]:,} times<extra></extra>",
                marker={
                    "size": [5 + 15 * math.sqrt(word["n"]) / largest for word in words],
                    "color": [word["feedback"] for word in words],
                    "colorscale": DIVERGING,
                    "cmid": 0,
                    "opacity": 0.75,
                    "line": {"width": 0},
                },
            )
        )
        return framed(chart, x="true feedback (lexicon value)", y=title)

    return draw


def errors(material: Material) -> go.Figure | None:
    """How far the estimate is off, by how often the model writes a word, beside estimates dealt anew."""
    rows = [one for one in in_order(material.report["error_by_frequency"], "group") if one.get("group", "all") != "all"]
    if not rows:
        return None
    names = [f"{one['group']} times" for one in rows]
    chart = go.Figure()
    chart.add_scatter(
        x=names,
        y=[one["value"] for one in rows],
        error_y=whiskers(rows),
        mode="lines+markers",
        name="error",
        line={"color": TUNED},
        hovertemplate="%{x}: %{y:.3f}<extra></extra>",
    )
    chart.add_scatter(
        x=names,
        y=[one.get("null_mean") for one in rows],
        mode="lines",
        name="estimates dealt anew",
        line={"color": BASE, "dash": "dot"},
        hovertemplate="dealt anew, %{x}: %{y:.3f}<extra></extra>",
    )
    chart.update_yaxes(rangemode="tozero")
    return framed(chart, x="written by the tuned model", y="mean absolute error", legend=True)
