"""Plotly figures. Text colour, font and background are left to the theme; every name is escaped.

Traces and axes are plain dicts that Plotly checks once, as it makes the whole figure: added one by one they take
five times as long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from app.components.html.numbers import signed
from lfp.util.sanitize import escaped, shortened

CONFIG = {"displayModeBar": False, "responsive": True, "scrollZoom": False}
"""What st.plotly_chart is given as `config`."""


@dataclass(frozen=True)
class Bar:
    """A part of a prediction that is no one feature's: the other features, the intercept, what was missed."""

    name: str
    value: float
    is_missed: bool = False


def divergence(layers: Sequence[int], values: Sequence[float], selected: Sequence[bool]) -> go.Figure:
    """How far tuning moved each layer; the layers written as features stand out."""
    bars = []
    for kept, name, colour in ((True, "written as features", STRENGTH), (False, "left out", BASE)):
        at = [i for i, flag in enumerate(selected) if flag == kept]
        bars.append(
            {
                "type": "bar",
                "x": [layers[i] for i in at],
                "y": [values[i] for i in at],
                "name": name,
                "marker": {"color": colour},
                "hovertemplate": "layer %{x}<br>divergence %{y:.3f}<extra></extra>",
            }
        )
    x = {"title": "layer", "dtick": 1 if len(layers) <= 24 else None, "showgrid": False}
    y = {"title": "divergence (L2 norm)", "gridcolor": GRID, "zeroline": False, "rangemode": "tozero"}
    return drawn(bars, x, y, height=400, legend=True, bargap=0.35)


def activation_histogram(edges: Sequence[float], counts: Sequence[int], base_counts: Sequence[int]) -> go.Figure:
    """How often a feature is active how strongly, tuned over base, on a logarithmic axis."""
    steps = []
    for name, values, colour, fill in (("base", base_counts, BASE, 0.25), ("tuned", counts, STRENGTH, 0.35)):
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        steps.append(
            {
                "type": "scatter",
                "x": edges,
                "y": [*values, values[-1] if values else 0],
                "name": name,
                "line": {"shape": "hv", "color": colour, "width": 1.8},
                "fill": "tozeroy",
                "fillcolor": f"rgba({red},{green},{blue},{fill})",
                "hovertemplate": f"{name}: %{{y:,}} tokens from %{{x:.3g}}<extra></extra>",
            }
        )
    is_narrow = len(edges) > 1 and edges[0] > 0 and edges[-1] < 1000 * edges[0]
    ticks = {"tickformat": "~g", "dtick": "D2" if is_narrow else 1}
    x = {"type": "log", "title": "activation, scaled", "showgrid": False, **ticks}
    y = {"title": "tokens", "gridcolor": GRID, "rangemode": "tozero", "zeroline": False}
    return drawn(steps, x, y, height=240, legend=True)


def contributions(
    ids: Sequence[int],
    descriptions: Sequence[str | None],
    values: Sequence[float],
    *,
    ink: str,
    others: Sequence[Bar] = (),
) -> go.Figure:
    """What each feature adds to a prediction: names above bars, so that it reads on a narrow screen too.

    Below them, in grey, `others`: together all bars are the prediction. What was missed is hatched. A feature's bar has
    its number as `customdata`; `ink` is the theme's text colour.
    """
    texts = [escaped(shortened(text or "not described", 52)) for text in descriptions]
    names = [f"<b>#{id_}</b>  {text}" for id_, text in zip(ids, texts, strict=True)]
    names += [f"<i>{escaped(bar.name)}</i>" for bar in others]
    whole = [*values, *(bar.value for bar in others)]
    bars = {
        "type": "bar",
        "x": whole,
        "y": list(range(len(whole))),
        "orientation": "h",
        "width": 0.42,
        "offset": 0.02,
        "marker": {
            "color": [*(sign_colour(value) for value in values), *(BASE for _ in others)],
            "pattern": {"shape": [*("" for _ in values), *("/" if bar.is_missed else "" for bar in others)]},
        },
        "text": [signed(value, 4) for value in whole],
        "textposition": "outside",
        "textfont": {"size": 12, "color": ink},
        "cliponaxis": False,
        "customdata": [*ids, *(None for _ in others)],
        "hovertext": names,
        "hovertemplate": "%{hovertext}<br>%{x:+.5f}<extra></extra>",
    }
    low, high = min([0.0, *whole]), max([0.0, *whole])
    pad = 0.22 * ((high - low) or 1.0)
    span = [low - (pad if low < 0 else 0.02 * pad), high + pad]
    x = {"range": span, "gridcolor": GRID, "zerolinecolor": GRID, "fixedrange": True}
    y = {"autorange": "reversed", "visible": False, "fixedrange": True}
    above = [line_name(name, row - 0.22, ink=ink) for row, name in enumerate(names)]
    return drawn([bars], x, y, height=60 + 42 * len(whole), annotations=above)


def line_name(text: str, y: float, *, ink: str) -> dict[str, object]:
    """Words at the left edge of a figure, at the height `y`: an annotation."""
    return {
        "text": text, "x": 0, "xref": "paper", "xanchor": "left", "y": y, "yref": "y", "showarrow": False,
        "align": "left", "font": {"size": 13, "color": ink},
    }  # fmt: skip


def drawn(
    traces: Sequence[Mapping[str, object]],
    x: Mapping[str, object],
    y: Mapping[str, object],
    *,
    height: int,
    legend: bool = False,
    **layout: object,
) -> go.Figure:
    """A figure of traces in the frame that all share; `x` and `y` are its axes."""
    return go.Figure(
        data=list(traces),
        layout={
            "xaxis": x,
            "yaxis": y,
            "height": height,
            "margin": {"l": 8, "r": 8, "t": 34 if legend else 8, "b": 8},
            "showlegend": legend,
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "title": None},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "hoverlabel": {"align": "left"},
            "dragmode": False,
            **layout,
        },
    )


POSITIVE, NEGATIVE = "#3b82c4", "#e0852b"


STRENGTH, BASE = "#1a9c8e", "#8d9199"


GRID = "rgba(141, 145, 153, 0.22)"


DIVERGING = [[0.0, NEGATIVE], [0.5, "rgba(141, 145, 153, 0.35)"], [1.0, POSITIVE]]


def sign_colour(value: float) -> str:
    """The colour of a value's sign."""
    return POSITIVE if value >= 0 else NEGATIVE
