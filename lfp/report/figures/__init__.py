"""Plotly figures of the report, a file a row or a few alike. The page sets the colour of text."""

from lfp.report.figures.by_row import Drawn, draw_all
from lfp.report.figures.drawing import Material

__all__ = ["Drawn", "Material", "draw_all"]
