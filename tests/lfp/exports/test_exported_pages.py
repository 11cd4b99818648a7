"""Static pages: every feature has one, links lead somewhere, and no text of a bundle is anything but text."""

from __future__ import annotations

import posixpath
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lfp.bundle.queries.whole_features import whole_features
from lfp.bundle.store.connection import Store
from lfp.exports.pages import page_files
from lfp.report import feature_pages
from lfp.util.sanitize import escaped
from precompute.run.progress import silent
from tests.conftest import rewrite, with_column

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """The tags of a page, and where its links lead."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def pages_of(bundle: Path, features: list[int] | None = None) -> dict[str, str]:
    with Store.open(bundle) as store:
        ids = list(range(store.manifest.tables["features"].rows)) if features is None else features
        files = list(page_files(store, ids, progress=silent))
    return {file.name: file.content.decode() for file in files if isinstance(file.content, bytes)}


@pytest.fixture(scope="module")
def pages(hostile_bundle: Path) -> dict[str, tuple[str, Page]]:
    """Pages of some features, each as text and as a browser takes it."""
    return {name: (html, Page(html)) for name, html in pages_of(hostile_bundle, list(range(0, 300, 6))).items()}


def test_every_feature_has_a_page_that_the_list_leads_to(pages: dict[str, tuple[str, Page]]) -> None:
    wanted = {f"features/{number}.html" for number in range(0, 300, 6)}
    assert set(pages) == {"index.html", *wanted}
    assert sorted(pages["index.html"][1].links) == sorted(wanted)


def test_links_lead_to_pages_that_are_there(pages: dict[str, tuple[str, Page]]) -> None:
    for name, (_, page) in pages.items():
        for link in page.links:
            assert posixpath.normpath(posixpath.join(posixpath.dirname(name), link)) in pages, (name, link)


def test_no_page_has_a_script_or_anything_to_fetch(pages: dict[str, tuple[str, Page]]) -> None:
    for html, page in pages.values():
        assert not page.tags & {"script", "img", "link", "iframe", "object", "form"}
        assert not any(name.startswith("on") for name in page.attributes)
        assert "default-src 'none'" in html and "\x1b" not in html and "\u202e" not in html
    assert any("onerror" in html for html, _ in pages.values())


def test_names_labels_and_tokens_are_escaped(copied_bundle: Path) -> None:
    rewrite(copied_bundle, "labels", lambda rows: with_column(rows, "description", [EVIL] * rows.num_rows))
    rewrite(copied_bundle, "labels", lambda rows: with_column(rows, "labeller", [f"human:{EVIL}"] * rows.num_rows))
    tokens = [[{"token": EVIL, "value": 1.0}]]
    for column in ("top_tokens", "pos_logits"):
        rewrite(copied_bundle, "features", lambda rows, name=column: with_column(rows, name, tokens * rows.num_rows))
    html = pages_of(copied_bundle, [3])["features/3.html"]
    assert html.count(escaped(EVIL)) >= 3 and "<script" not in html and "<img" not in html


def test_a_few_features_link_to_each_other_only(bundle: Path) -> None:
    pages = pages_of(bundle, [7, 2])
    assert set(pages) == {"index.html", "features/2.html", "features/7.html"}
    assert set(Page(pages["features/2.html"]).links) <= {"../index.html", "7.html"}


def test_a_page_says_what_the_bundle_holds(bundle: Path) -> None:
    with Store.open(bundle) as store:
        whole = next(iter(whole_features(store, [0])))
    html = pages_of(bundle, [0])["features/0.html"]
    assert escaped(whole.feature.description or "") in html and whole.credit is not None and whole.histogram is not None
    assert all(f"text {row['text_id']}</span>" in html for row in whole.examples if row["bucket"] == 0)
    for said in (
        "nats per token",
        "<svg",
        "weight in the probe",
        "Similar directions",
        escaped(whole.labels[0].labeller),
    ):
        assert said in html


def test_a_long_list_goes_on_to_further_pages(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_pages, "ON_A_PAGE", 4)
    pages = pages_of(bundle, list(range(10)))
    lists = ["index.html", "index-2.html", "index-3.html"]
    found = [link for name in lists for link in Page(pages[name]).links if link.startswith("features/")]
    assert len(found) == len(set(found)) == 10 and set(lists) <= set(pages)


def test_an_older_bundle_and_an_empty_one_have_pages(older_bundle: Path, empty_bundle: Path) -> None:
    assert len(pages_of(older_bundle, [0, 1])) == 3
    assert list(pages_of(empty_bundle)) == ["index.html"]
