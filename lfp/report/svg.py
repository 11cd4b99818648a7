"""Figures of the report as SVG, drawn by Kaleido in a browser of this machine; nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly
import plotly.graph_objects as go

from lfp.errors import ConfigError
from lfp.report.figures.catalogue import Drawn

_WIDTH = 760
_HEIGHT = 380
"""Of figures that state none."""
_TITLE = 46
"""Pixels above a figure for its title."""
_INK = "#24221d"
_PLOTLY_JS = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def write_figures(drawn: Sequence[Drawn], folder: Path) -> list[Path]:
    """Write each figure as NAME.svg, on white, with its title; make the folder where its parent exists.

    Raises ConfigError where that cannot be done, or no Chromium or Chrome is at hand to draw them.
    """
    if not folder.parent.is_dir():
        raise ConfigError(f"--figures {folder}: there is no folder {folder.parent}; make it first or name another")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--figures {folder}: {error.strerror}; name a folder you may write to") from error
    files = [folder / f"{figure.name}.svg" for figure in drawn]
    _draw([_on_paper(figure) for figure in drawn], files, folder)
    return files


def _draw(charts: Sequence[go.Figure], files: Sequence[Path], folder: Path) -> None:
    import kaleido
    from kaleido.errors import ChromeNotFoundError, KaleidoError

    jobs = [
        {"fig": chart, "path": str(file), "opts": {"format": "svg", **_size(chart)}}
        for chart, file in zip(charts, files, strict=True)
    ]
    options: dict[str, Any] = {"plotlyjs": str(_PLOTLY_JS), "mathjax": False}
    try:
        kaleido.write_fig_from_object_sync(jobs, kopts=options, cancel_on_error=True)
    except ChromeNotFoundError as error:
        raise ConfigError(
            f"--figures {folder}: SVG is drawn in Chromium or Chrome, and none was found; install one, or write --html"
        ) from error
    except (KaleidoError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(f"--figures {folder}: the browser did not draw them ({reason}); write --html") from error


def _on_paper(figure: Drawn) -> go.Figure:
    """The figure on white in dark ink, its title above it: a page's own style sheet is not there to set them."""
    chart, height = go.Figure(figure.chart), _size(figure.chart)["height"]
    top = chart.layout.margin.t or 0
    return chart.update_layout(
        template="none",
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"color": _INK, "family": "sans-serif"},
        title={"text": figure.title, "x": 0, "xref": "paper", "y": 1, "yref": "container", "yanchor": "top",
               "pad": {"t": 14}, "font": {"size": 16}},
        height=height + _TITLE,
        margin={"t": top + _TITLE},
    )  # fmt: skip


def _size(chart: go.Figure) -> dict[str, int]:
    return {"width": _WIDTH, "height": int(chart.layout.height or _HEIGHT)}
