"""How figures of the report look: colours, dots with intervals, frames. Every name is escaped and above its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from lfp.bundle.queries.run import DriftedFeature
from lfp.evaluation.results import ResultRow
from lfp.util.sanitize import escaped

POSITIVE, NEGATIVE, TUNED, BASE = "#3b82c4", "#e0852b", "#1a9c8e", "#8d9199"


GRID, NULL = "rgba(141, 145, 153, 0.22)", "rgba(141, 145, 153, 0.55)"


INK = "#7a8089"
"""Grey that is read on light and on dark; the page sets its own colour of text over it."""


DIVERGING = [[0.0, NEGATIVE], [0.5, "rgba(141, 145, 153, 0.35)"], [1.0, POSITIVE]]


_ROW, _FRAME = 44, 90  # pixels a line of a dot plot, and around it


MODELS = {"tuned": TUNED, "base": BASE, "difference": POSITIVE}


def dots(rows: Sequence[tuple[str, ResultRow]], title: str, *, null: str = "null, mean to 95 %") -> go.Figure | None:
    """A line a figure: a dot with its interval, and its null from mean to 95th percentile as a grey bar."""
    rows = [(name, figure) for name, figure in rows if figure.value is not None]
    if not rows:
        return None
    figures = [figure for _, figure in rows]
    chart, places = go.Figure(), list(range(len(rows)))
    nulls = [i for i in places if figures[i].null_mean is not None and figures[i].null_high is not None]
    if nulls:
        chart.add_bar(
            x=[(figures[i].null_high or 0.0) - (figures[i].null_mean or 0.0) for i in nulls],
            base=[figures[i].null_mean for i in nulls],
            y=nulls,
            orientation="h",
            width=0.28,
            marker_color=NULL,
            name=null,
            hovertemplate=null + ": from %{base:.3f}<extra></extra>",
        )
    chart.add_scatter(
        x=[one.value for one in figures],
        y=places,
        error_x=whiskers(figures),
        mode="markers",
        marker={"size": 10, "color": [MODELS.get(str(one.model), TUNED) for one in figures]},
        name="figure, 95 % interval",
        hovertext=[escaped(name) for name, _ in rows],
        hovertemplate="%{hovertext}: %{x:.3f}<extra></extra>",
    )
    return listed(chart, [name for name, _ in rows], title, legend=bool(nulls))


def whiskers(figures: Sequence[ResultRow]) -> dict[str, Any]:
    """Intervals as plotly's error bars."""

    def reach(one: ResultRow, end: str) -> float:
        known = getattr(one, end) is not None and one.value is not None
        return abs(getattr(one, end) - one.value) if known else 0.0

    return {
        "type": "data",
        "symmetric": False,
        "array": [reach(one, "ci_high") for one in figures],
        "arrayminus": [reach(one, "ci_low") for one in figures],
        "color": INK,
        "thickness": 1.6,
        "width": 4,
    }


def named(figure: ResultRow, *keys: str) -> str:
    """Its keys as a name."""
    return " · ".join(str(getattr(figure, key)) for key in keys if getattr(figure, key) is not None)


def listed(chart: go.Figure, names: Sequence[str], title: str, *, legend: bool = False) -> go.Figure:
    """Lines from top to bottom, each name above its own, so that long ones are read on a narrow screen too."""
    for row, name in enumerate(names):
        chart.add_annotation(
            text=escaped(name),
            x=0,
            xref="paper",
            xanchor="left",
            y=row - 0.38,
            yref="y",
            showarrow=False,
            font={"size": 12},
        )
    framed(chart, x=title, y="", legend=legend)
    chart.update_xaxes(zeroline=True, zerolinecolor=NULL)
    chart.update_yaxes(range=[len(names) - 0.4, -0.8], visible=False)
    return chart.update_layout(height=_FRAME + (40 if legend else 0) + _ROW * len(names))


def framed(chart: go.Figure, *, x: str, y: str, legend: bool = False) -> go.Figure:
    """The frame that all figures share: no background, grey grid, nothing to drag."""
    axis = {"gridcolor": GRID, "zeroline": False, "automargin": True, "fixedrange": True, "exponentformat": "power"}
    chart.update_xaxes(title={"text": x}, **axis)
    chart.update_yaxes(title={"text": y}, **axis)
    return chart.update_layout(
        template="none",
        height=380,
        margin={"l": 12, "r": 12, "t": 40 if legend else 12, "b": 44},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "size": 13},
        hoverlabel={"align": "left"},
        dragmode=False,
    )


@dataclass(frozen=True)
class Material:
    """What figures are drawn from: the report, scored words, sampled texts, and the features that drifted most.

    `words` have word, feedback, implicit_reward, shown (the estimate on the lexicon's range) and n; `texts` pca_x,
    pca_y and feedback.
    """

    report: Mapping[str, Sequence[ResultRow]]
    words: Sequence[Mapping[str, Any]]
    texts: Sequence[Mapping[str, Any]]
    drifted: Sequence[DriftedFeature]
