"""Plotly figures of results, drawn alike for the page, the SVG files and the explorer."""
