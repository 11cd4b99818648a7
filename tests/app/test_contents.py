"""The menu: its nine entries, what of them a bundle can fill, and where they lead."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit as st

from app.session import contents
from lfp.bundle.store import connection as store_connection
from lfp.bundle.store.connection import Store
from tests.app.reader import PAGES, whole
from tests.conftest import rewrite

ENTRIES = [entry for entries in contents.MENU.values() for entry in entries]


def empty(path, *, n_bundles=2):
    with Store.open(path) as store:
        return contents.without_content(store, n_bundles=n_bundles)


def test_nine_entries_hold_every_page_once():
    held = [name for entry in ENTRIES for name in (*entry.tabs, *entry.details)]
    assert len(ENTRIES) == 9 and sorted(held) == sorted(PAGES)
    files = {path.stem for path in Path("app/views").glob("*.py")} - {"__init__"}
    assert set(held) == files


def test_a_page_that_the_bundle_cannot_fill_is_not_offered(bundle, paired, copied_bundle, tiny_bundle):
    assert empty(bundle) == {"pairs", "try_it"}, "a synthetic bundle of texts carries no models"
    assert "pairs" not in empty(paired) and "runs" in empty(paired, n_bundles=1)
    assert "try_it" not in empty(tiny_bundle)
    rewrite(copied_bundle, "drift", lambda rows: rows.slice(0, 0))
    assert "drift" in empty(copied_bundle)


@pytest.mark.parametrize("current", ["", "overview", *PAGES])
def test_each_entry_leads_to_the_current_page_or_to_its_first_tab_with_content(current):
    shown = contents.visible_pages(current, {"pairs", "runs", "drift"})
    for entry in ENTRIES:
        (*found,) = [name for name in entry.tabs if name in shown]
        assert found == (
            [current] if current in entry.tabs else [] if entry.title == "Compare" else [next(iter(entry.tabs))]
        )


def test_tabs_are_those_with_content_and_only_where_there_is_a_choice():
    assert list(contents.tabs_beside("inputs", set())) == ["inputs", "pairs"]
    assert contents.tabs_beside("inputs", {"pairs"}) == {} and contents.tabs_beside("feature", set()) == {}
    assert list(contents.tabs_beside("pairs", {"pairs"})) == ["inputs", "pairs"], "an address of an empty page works"


def test_a_page_that_is_not_offered_opens_by_its_address(explorer, bundle, monkeypatch):
    at = explorer("pairs", bundle)
    assert "This bundle holds no preference pairs" in whole(at)
    assert [link.proto.label for link in at.get("page_link")] == ["Inputs", "Pairs"]
    assert not explorer("inputs", bundle).get("page_link")


TYPED = [
    ("Overview", "overview"), ("try-it", "try_it"), ("tryit.py", "try_it"), ("Summary.html", "overview"),
    ("evidense", "accuracy"), ("featuers", "features"), ("Feature", "feature"), ("text", "inputs"),
    ("findingz", "disagreements"), ("reveiw", "queue"), ("comparison", "runs"), ("zzzz", None), ("’;--", None),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "page"), TYPED)
def test_a_misspelled_address_opens_the_page_that_it_is_most_like(typed, page):
    assert contents.likeliest_page(typed) == page


def test_every_page_and_every_title_has_an_address_of_its_own():
    known = contents.addresses("Featuers")
    assert set(known.values()) == set(PAGES) and known["Featuers"] == "features"
    assert all(known[name] == name for name in PAGES)
    first = {entry.title.casefold(): next(iter(entry.tabs)) for entry in ENTRIES}
    assert {title: known[title] for title in first} == first
    leads = [contents.menu_address(name, "evidence") for name in ("overview", "accuracy", "inputs")]
    assert leads == [contents.ROOT, "evidence", "inputs"]


TITLES = [
    ("accuracy", {}, "Accuracy"),
    ("features", {}, "Features"),
    ("feature", {"feature": "3"}, "Feature 3 · "),
    ("inputs", {"text": "2"}, "Text 2 · "),
    ("pairs", {"pair": "1"}, "Pair 1"),
]


@pytest.mark.parametrize(("page", "params", "title"), TITLES)
def test_the_tab_of_the_browser_names_the_view_and_the_row(explorer, paired, monkeypatch, page, params, title):
    named = []
    configure = st.set_page_config
    monkeypatch.setattr(st, "set_page_config", lambda **given: (named.append(given), configure(**given)))
    assert not explorer(page, paired, **params).exception
    shown = [given["page_title"] for given in named if "page_title" in given][-1]
    assert shown.startswith(title) and shown.endswith(" · LFP Explorer")


def test_the_menu_comes_from_the_open_bundle(explorer, bundle, monkeypatch):
    at = explorer("overview", bundle)
    monkeypatch.setattr(store_connection, "check_bundle", lambda path: pytest.fail("a rerun read the manifest"))
    assert not at.run().exception
