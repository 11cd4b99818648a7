"""What all figures share: the palette, the frame, names above lines, and bars that add up.

Text and background are left to whoever shows a figure; `ink` sets the colour of text where a theme does not reach it.
Traces and axes are plain dicts, which Plotly checks once as it makes the whole figure: added one by one they take five
times as long. Every name is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from lfp.report.formatting import signed
from lfp.util.sanitize import escaped, shortened

CONFIG = {
    "displayModeBar": "hover", "modeBarButtons": [["toImage"]], "displaylogo": False, "responsive": True,
    "scrollZoom": False, "toImageButtonOptions": {"format": "png", "scale": 3, "filename": "figure"},
}  # fmt: skip
"""Plotly's own settings, for every place that shows a figure; its only button saves the figure as PNG."""

POSITIVE, NEGATIVE = "#3b82c4", "#e0852b"
STRENGTH, BASE = "#1a9c8e", "#8d9199"
GRID = "rgba(141, 145, 153, 0.22)"
DIVERGING = [[0.0, NEGATIVE], [0.5, "rgba(141, 145, 153, 0.35)"], [1.0, POSITIVE]]


@dataclass(frozen=True)
class Bar:
    """A part of a sum that is no one feature's: the other features, the intercept, the dictionary error, a module.

    It is grey, hatched where it is what was missed, or in the colour of its sign.
    """

    name: str
    value: float
    is_missed: bool = False
    is_signed: bool = False

    @property
    def colour(self) -> str:
        """Return the colour of the bar."""
        return BASE if not self.is_signed else POSITIVE if self.value >= 0 else NEGATIVE


def draw(
    traces: Sequence[Mapping[str, object]],
    x: Mapping[str, object],
    y: Mapping[str, object],
    *,
    height: int,
    legend: bool = False,
    **layout: object,
) -> go.Figure:
    """Return a figure of traces in the frame that all share; `x` and `y` are its axes."""
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
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": BASE, "activecolor": STRENGTH},
            "dragmode": False,
            **layout,
        },
    )


def name_above(text: str, y: float, *, ink: str | None, whole: str | None = None) -> dict[str, object]:
    """Return an annotation: words at the left edge of a figure, at the height `y`; on hover `whole`, if it differs."""
    font: dict[str, Any] = {"size": 13} | ({} if ink is None else {"color": ink})
    return {
        "text": text, "x": 0, "xref": "paper", "xanchor": "left", "y": y, "yref": "y", "showarrow": False,
        "align": "left", "font": font, "hovertext": None if whole is None else escaped(whole),
    }  # fmt: skip


def contributions(
    ids: Sequence[int],
    descriptions: Sequence[str | None],
    values: Sequence[float],
    *,
    ink: str | None,
    others: Sequence[Bar] = (),
    title: str = "",
) -> go.Figure:
    """Draw what each feature adds to a sum, each named above its bar, so that it reads on a narrow screen too.

    Below them `others`: together all bars are the sum. The `customdata` of a
    feature's bar is its number.
    """
    labels = [text or "no label" for text in descriptions]
    shown = [shortened(label, 52) for label in labels]
    names = [f"<b>#{feature}</b>  {escaped(label)}" for feature, label in zip(ids, shown, strict=True)]
    wholes = [label if label != cut else None for label, cut in zip(labels, shown, strict=True)]
    names += [f"<i>{escaped(bar.name)}</i>" for bar in others]
    parts = [*values, *(bar.value for bar in others)]
    bars = {
        "type": "bar",
        "x": parts,
        "y": list(range(len(parts))),
        "orientation": "h",
        "width": 0.42,
        "offset": 0.02,
        "marker": {
            "color": [*(POSITIVE if value >= 0 else NEGATIVE for value in values), *(bar.colour for bar in others)],
            "pattern": {"shape": [*("" for _ in values), *("/" if bar.is_missed else "" for bar in others)]},
        },
        "text": [signed(value, 4) for value in parts],
        "textposition": "outside",
        "textfont": {"size": 12} | ({} if ink is None else {"color": ink}),
        "cliponaxis": False,
        "customdata": [*ids, *(None for _ in others)],
        "hovertext": [f"{name}<br>{signed(value, 5)}" for name, value in zip(names, parts, strict=True)],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    low, high = min([0.0, *parts]), max([0.0, *parts])
    pad = 0.22 * ((high - low) or 1.0)
    span = [low - (pad if low < 0 else 0.02 * pad), high + pad]
    x = {"title": title or None, "range": span, "gridcolor": GRID, "zerolinecolor": GRID, "fixedrange": True}
    y = {"autorange": "reversed", "visible": False, "fixedrange": True}
    wholes += [None] * len(others)
    above = [
        name_above(name, row - 0.22, ink=ink, whole=whole)
        for row, (name, whole) in enumerate(zip(names, wholes, strict=True))
    ]
    return draw([bars], x, y, height=60 + 42 * len(parts), annotations=above)
