"""The page: whole, escaped, nothing fetched, and read from bundles of any age."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from lfp.bundle.manifest import MANIFEST, check_bundle
from lfp.bundle.queries.drift import drifted_features
from lfp.bundle.queries.run import AblatedFeature
from lfp.bundle.store.connection import Store
from lfp.bundle.validation import validate
from lfp.errors import ConfigError
from lfp.evaluation.results import ROWS, ResultRow, report_as_json
from lfp.report.figures.catalogue import Material, draw_all
from lfp.report.html import page, prepare, write_page
from lfp.report.rows import build_report
from lfp.report.summary import summarise
from tests.app.serving import CHROMIUM, browser
from tests.conftest import rewrite
from tests.lfp.result_rows import result_rows

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e"


class _Page(HTMLParser):
    """Tags that are open, ids, what would be fetched, and the text outside of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "data") and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def read(html: str) -> _Page:
    parser = _Page()
    parser.feed(html)
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def written(bundle: Path) -> str:
    with Store.open(bundle) as store:
        return page(prepare(store))


def test_the_page_has_a_section_a_row_and_fetches_nothing(written: str) -> None:
    parsed = read(written)
    assert parsed.fetched == [] and not {"link", "img", "iframe"} & set(parsed.tags)
    assert re.findall(r'<section id="(\w+)">', written)[: len(ROWS)] == list(ROWS)
    assert written.count("plotly.js v") == 1  # the library itself, once
    assert parsed.tags.count("figure") == len(re.findall(r'id="figure-', written)) > 2
    assert "prefers-color-scheme: dark" in written and "width=device-width" in written


def test_figures_hold_what_the_tables_hold(bundle: Path) -> None:
    with Store.open(bundle) as store:
        prepared = prepare(store)
    drawn = {figure.name: figure.chart for figure in prepared.drawn}
    stated = pq.read_table(bundle / "layers.parquet")["divergence"].to_pylist()
    drawn_ = [float(y) for trace in drawn["divergence"].data for y in trace.y]
    assert sorted(drawn_) == pytest.approx(sorted(stated))


def test_names_from_a_corpus_are_only_text(copied_bundle: Path) -> None:
    """In a title, a word, a group of figures and a description."""

    def hostile(table, column):
        values = [HOSTILE if value is not None else None for value in table[column].to_pylist()]
        at = table.schema.get_field_index(column)
        return table.set_column(at, table.schema.field(at), [values])

    rewrite(copied_bundle, "results", lambda table: hostile(table, "group"))
    rewrite(copied_bundle, "vocabulary", lambda table: hostile(table, "word"))
    manifest = json.loads((copied_bundle / MANIFEST).read_text())
    (copied_bundle / MANIFEST).write_text(json.dumps(manifest | {"title": HOSTILE, "notes": HOSTILE}))
    with Store.open(copied_bundle) as store:
        html = page(prepare(store))
    parsed = read(html)
    assert "img" not in parsed.tags and "alert(1)" in parsed.text and "⟨U+202E⟩" in parsed.text
    assert "<script>alert" not in html and "\u202e" not in html


@pytest.mark.parametrize("table", ["drift", "tuning"])
def test_a_bundle_made_before_a_table_opens_and_reports(copied_bundle: Path, table: str) -> None:
    (copied_bundle / f"{table}.parquet").unlink()
    manifest = json.loads((copied_bundle / MANIFEST).read_text())
    del manifest["tables"][table]
    (copied_bundle / MANIFEST).write_text(json.dumps(manifest))
    assert table not in check_bundle(copied_bundle).tables and validate(copied_bundle) == []
    with Store.open(copied_bundle) as store:
        assert (drifted_features(store) == []) == (table == "drift")
        assert read(page(prepare(store))).text


def test_a_table_that_the_manifest_names_must_be_there(copied_bundle: Path) -> None:
    (copied_bundle / "drift.parquet").unlink()
    assert "table drift is missing" in validate(copied_bundle)


def test_an_empty_bundle_has_a_page(empty_bundle: Path) -> None:
    with Store.open(empty_bundle) as store:
        assert "This run has no such figure." in read(page(prepare(store))).text


def test_every_figure_can_be_drawn() -> None:
    """From a report with a figure of every kind; each has points, and survives JSON."""
    full = {"ci_low": 0.1, "ci_high": 0.3, "null_mean": 0.0, "null_high": 0.05, "null_p": 0.01, "n": 9}
    probe = {"target": "delta", "inputs": "sae", "model": "tuned", "words": "all"}
    given = [
        ("reward", "reward", {"model": "base"}), ("implicit_reward", "tau", {"words": "all"}),
        ("kendall_tau", "tau", probe), ("kendall_tau", "tau", probe | {"model": "difference"}),
        ("sign_accuracy", "accuracy", probe), ("preference_accuracy", "accuracy", probe),
        ("preference_accuracy", "accuracy", probe | {"model": "difference"}),
        ("error_by_frequency", "mean_absolute_error", {"group": "1-3"}),
        ("divergence_by_layer", "divergence", {"layer": 1}),
        ("drift", "share", {"inputs": "sae", "group": "born"}), ("label_agreement", "kappa", {"group": "x"}),
        ("activation_frequency", "per_token", {"group": "all_high"}), ("ablation", "effect", {"group": "related"}),
        ("ablation", "effect", {"group": "feature:3"}), ("ablation", "predicted", {"group": "feature:3"}),
        ("sae_quality", "fvu", {"layer": 1, "model": "tuned"}), ("sae_quality", "l0", {"layer": 1, "model": "tuned"}),
    ]  # fmt: skip
    report = build_report(
        [ResultRow(report_row=row, metric=metric, value=0.2, **keys, **full) for row, metric, keys in given]
    )
    words = {"word": ["good"], "feedback": [1.0], "implicit_reward": [0.5], "shown": [0.7], "n": [0]}
    layers = {"layer": [1], "divergence": [0.5], "selected": [True]}
    texts = {"text_id": [1], "pca_x": [0.0], "pca_y": [1.0], "feedback": [0.5], "begins": ["A film"]}
    removed = {
        "group": "related", "kind": "related", "features": [3], "scale": 0.0, "effect": -0.2, "ci_low": -0.3,
        "ci_high": -0.1, "contrast": -0.2, "contrast_low": -0.3, "contrast_high": -0.1, "contrast_reach": 0.1,
        "perplexity": 5.0,
    }  # fmt: skip
    single = AblatedFeature(3, 1, "mlp_out", -0.1, -0.2, 0.0, -0.1, -0.2, 0.0, 0.1, 0.3, -0.05, 200, 0.5, None)
    material = Material(report, words, layers, texts, [_drifted()], [removed], [single])
    drawn = {figure.name: figure.chart for figure in draw_all(material)}
    assert len(drawn) == 18
    assert all(any(len(trace.x) for trace in chart.data) for chart in drawn.values())
    assert all(json.loads(chart.to_json()) for chart in drawn.values())
    assert draw_all(Material(build_report([]))) == []


@given(result_rows())
def test_any_figures_can_be_drawn_and_summed_up(rows: list[ResultRow]) -> None:
    report = build_report(rows)
    assert all(json.loads(figure.chart.to_json()) for figure in draw_all(Material(report)))
    assert all(isinstance(said, str) for said in summarise(report, "delta"))


def _drifted():
    from lfp.bundle.queries.drift import DriftedFeature

    return DriftedFeature(3, 1, "mlp_out", "born", 0.25, None, " good")


def test_what_cannot_be_written_is_named(bundle: Path, tmp_path: Path) -> None:
    with Store.open(bundle) as store:
        prepared = prepare(store)
    with pytest.raises(ConfigError, match="there is no folder"):
        write_page(prepared, tmp_path / "no" / "page.html")


def test_a_copy_of_the_bundle_gives_the_same_page(bundle: Path, tmp_path: Path) -> None:
    with Store.open(bundle) as one, Store.open(Path(shutil.copytree(bundle, tmp_path / "other"))) as other:
        assert page(prepare(one)) == page(prepare(other))


def test_figures_that_are_not_numbers_are_dashes() -> None:
    report = build_report([ResultRow.from_estimate("sae_quality", "fvu", np.nan, layer=0, model="tuned")])
    assert report_as_json(report)["sae_quality"][0]["value"] is None
    assert draw_all(Material(report)) == []


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
@pytest.mark.parametrize(("scheme", "ink"), [("light", "rgb(31, 35, 40)"), ("dark", "rgb(227, 230, 234)")])
def test_a_browser_draws_it_narrow_in_light_and_dark(scheme: str, ink: str, written: str, tmp_path: Path) -> None:
    """Figures in the page's ink, nothing wider than a telephone, no error, no request but for the page."""
    (tmp_path / "report.html").write_text(written, encoding="utf-8")
    errors: list[str] = []
    asked: list[str] = []
    with browser() as chromium:
        opened = chromium.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(f"file://{tmp_path}/report.html")
        opened.wait_for_function(f"document.querySelector('.xtick text').style.fill === '{ink}'", timeout=15_000)
        drawn = opened.evaluate("document.querySelectorAll('.main-svg').length")
        width = opened.evaluate("document.documentElement.scrollWidth")
    assert errors == [] and len(asked) == 1 and drawn > 2 and width == 390
