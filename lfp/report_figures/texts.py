"""Figures of rows about texts: where they lie by their features."""

from __future__ import annotations

import plotly.graph_objects as go

from lfp.report_figures.drawing import DIVERGING, framed
from lfp.report_figures.material import Material


def components(material: Material) -> go.Figure | None:
    """Texts on two principal components of their mean features."""
    texts = [text for text in material.texts if text["feedback"] is not None]
    if not texts:
        return None
    chart = go.Figure(
        go.Scatter(
            x=[text["pca_x"] for text in texts],
            y=[text["pca_y"] for text in texts],
            mode="markers",
            customdata=[[text["text_id"], text["feedback"]] for text in texts],
            hovertemplate="text %{customdata[0]}<br>feedback %{customdata[1]:.2f}<extra></extra>",
            marker={
                "size": 7,
                "color": [text["feedback"] for text in texts],
                "colorscale": DIVERGING,
                "cmid": 0,
                "opacity": 0.8,
                "colorbar": {"title": {"text": "feedback"}, "thickness": 10, "outlinewidth": 0},
            },
        )
    )
    return framed(chart, x="first component", y="second component")
