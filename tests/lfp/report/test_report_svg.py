"""Figures of the report as files: SVG of what was drawn, and what is said where none can be."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest

from lfp.errors import ConfigError
from lfp.report.figures import catalogue
from lfp.report.figures.catalogue import Drawn, write_figures
from tests.app.serving import CHROMIUM

NAMESPACE = "{http://www.w3.org/2000/svg}"


def drawn(name: str, title: str, **layout: object) -> Drawn:
    chart = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], text=["<script>alert(1)</script>", "b"], mode="markers+text"))
    return Drawn(name, title, "reward", chart.update_layout(**layout))


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_each_figure_is_an_svg_with_its_title(tmp_path: Path) -> None:
    figures = [drawn("one", "Mean reward & more"), drawn("two", "Another", height=500)]
    files = write_figures(figures, tmp_path / "figures")
    assert sorted((tmp_path / "figures").iterdir()) == sorted(files) and len(files) == 2
    for file, figure, height in zip(files, figures, (380, 500), strict=True):
        root = ElementTree.parse(file).getroot()
        assert root.tag == f"{NAMESPACE}svg" and int(root.attrib["height"]) == height + 46
        words = ["".join(text.itertext()) for text in root.iter(f"{NAMESPACE}text")]
        assert figure.title in words and "b" in words
        assert not list(root.iter(f"{NAMESPACE}script"))
    assert figures[0].chart.layout.title.text is None, "the figure itself is left as it was"


def test_without_a_browser_it_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    def none(*_: object, **__: object) -> None:
        raise ChromeNotFoundError

    monkeypatch.setattr(kaleido, "write_fig_from_object_sync", none)
    with pytest.raises(ConfigError, match="Chromium or Chrome, and none was found; install one, or write --html"):
        write_figures([drawn("one", "Title")], tmp_path / "figures")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, said in ((tmp_path / "no" / "figures", "there is no folder"), (tmp_path / "file", "File exists")):
        with pytest.raises(ConfigError, match=said):
            write_figures([], folder)


def test_plotly_brings_what_draws_them() -> None:
    assert catalogue._PLOTLY_JS.is_file()
