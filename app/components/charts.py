"""Plotly figures. Text colour, font and background are left to the theme; every name is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from app.components.escape import escaped, shortened
from app.components.numbers import count, signed
from app.components.palette import BASE, DIVERGING, GRID, STRENGTH
from app.components.palette import signed as sign_colour

CONFIG = {"displayModeBar": False, "responsive": True, "scrollZoom": False}
"""What st.plotly_chart is given as `config`."""


def divergence(layers: Sequence[int], values: Sequence[float], selected: Sequence[bool]) -> go.Figure:
    """How far tuning moved each layer; the layers written as features stand out."""
    figure = go.Figure()
    for kept, name, colour in ((True, "written as features", STRENGTH), (False, "left out", BASE)):
        at = [i for i, flag in enumerate(selected) if flag == kept]
        figure.add_bar(
            x=[layers[i] for i in at],
            y=[values[i] for i in at],
            name=name,
            marker_color=colour,
            hovertemplate="layer %{x}<br>divergence %{y:.3f}<extra></extra>",
        )
    figure.update_xaxes(title="layer", dtick=1 if len(layers) <= 24 else None, showgrid=False)
    figure.update_yaxes(title="divergence (L2 norm)", gridcolor=GRID, zeroline=False, rangemode="tozero")
    return _laid_out(figure, height=400, legend=True, bargap=0.35)


def words(
    names: Sequence[str], feedback: Sequence[float], estimate: Sequence[float | None], n: Sequence[int], *, title: str
) -> go.Figure:
    """True feedback against an estimate, a point a word; common words are larger."""
    largest = math.sqrt(max(n, default=1) or 1)
    figure = go.Figure(
        go.Scatter(
            x=feedback,
            y=estimate,
            mode="markers",
            text=[f"<b>{escaped(name)}</b>" for name in names],
            customdata=[[count(times)] for times in n],
            hovertemplate="%{text}<br>true feedback %{x:.2f}<br>"
            + title
            + " %{y:.3f}<br>%{customdata[0]} times<extra></extra>",
            marker={
                "size": [6 + 16 * math.sqrt(times) / largest for times in n],
                "color": feedback,
                "colorscale": DIVERGING,
                "cmid": 0,
                "opacity": 0.78,
                "line": {"width": 0.6, "color": "rgba(120,120,120,.6)"},
            },
        )
    )
    figure.update_xaxes(title="true feedback (lexicon value)", gridcolor=GRID, zeroline=True, zerolinecolor=GRID)
    figure.update_yaxes(title=title, gridcolor=GRID, zeroline=True, zerolinecolor=GRID)
    return _laid_out(figure, height=420)


def activation_histogram(edges: Sequence[float], counts: Sequence[int], base_counts: Sequence[int]) -> go.Figure:
    """How often a feature is active how strongly, tuned over base, on a logarithmic axis."""
    figure = go.Figure()
    for name, values, colour, fill in (("base", base_counts, BASE, 0.25), ("tuned", counts, STRENGTH, 0.35)):
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        figure.add_scatter(
            x=edges,
            y=[*values, values[-1] if values else 0],
            name=name,
            line={"shape": "hv", "color": colour, "width": 1.8},
            fill="tozeroy",
            fillcolor=f"rgba({red},{green},{blue},{fill})",
            hovertemplate=f"{name}: %{{y:,}} tokens from %{{x:.3g}}<extra></extra>",
        )
    figure.update_xaxes(type="log", title="activation, scaled", showgrid=False, tickformat="~g", nticks=6)
    figure.update_yaxes(title="tokens", gridcolor=GRID, rangemode="tozero", zeroline=False)
    return _laid_out(figure, height=240, legend=True)


def contributions(
    ids: Sequence[int],
    descriptions: Sequence[str | None],
    values: Sequence[float],
    *,
    rest: float,
    n_rest: int,
    intercept: float,
    ink: str,
) -> go.Figure:
    """What each feature adds to a prediction: names above bars, so that it reads on a narrow screen too.

    A bar's `customdata` is its feature's number; `ink` is the theme's text colour.
    """
    names = [
        f"<b>#{i}</b>  {escaped(shortened(text or 'not described', 52))}"
        for i, text in zip(ids, descriptions, strict=True)
    ]
    extra = [("Intercept", intercept)]
    if n_rest:
        extra.insert(0, (f"{count(n_rest)} other features together", rest))
    all_names, all_values = [*names, *(name for name, _ in extra)], [*values, *(value for _, value in extra)]
    colours = [*map(sign_colour, values), *[BASE] * len(extra)]
    rows = list(range(len(all_values)))
    figure = go.Figure(
        go.Bar(
            x=all_values,
            y=rows,
            orientation="h",
            width=0.42,
            offset=0.02,
            marker_color=colours,
            text=[signed(value, 4) for value in all_values],
            textposition="outside",
            cliponaxis=False,
            customdata=[*ids, *[-1] * len(extra)],
            hovertext=all_names,
            hovertemplate="%{hovertext}<br>%{x:+.5f}<extra></extra>",
        )
    )
    for row, name in zip(rows, all_names, strict=True):
        figure.add_annotation(
            text=name,
            x=0,
            xref="paper",
            xanchor="left",
            y=row - 0.22,
            yref="y",
            showarrow=False,
            font={"size": 13, "color": ink},
            align="left",
        )
    low, high = min([0.0, *all_values]), max([0.0, *all_values])
    pad = 0.22 * ((high - low) or 1.0)
    figure.update_xaxes(
        range=[low - (pad if low < 0 else 0.02 * pad), high + pad], gridcolor=GRID, zerolinecolor=GRID, fixedrange=True
    )
    figure.update_yaxes(autorange="reversed", visible=False, fixedrange=True)
    return _laid_out(figure, height=60 + 42 * len(rows))


def _laid_out(figure: go.Figure, *, height: int, legend: bool = False, **layout: object) -> go.Figure:
    """The frame that all figures share."""
    return figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 34 if legend else 8, "b": 8},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "title": None},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"align": "left"},
        dragmode=False,
        **layout,
    )
