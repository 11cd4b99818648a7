"""Which pages are offered: nine entries of the menu, some with tabs, without pages that the open bundle cannot fill.

Every page keeps its address, whether it is offered or not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import streamlit as st

from app.session import bundles, cache
from lfp.bundle import queries
from lfp.bundle.manifest import has_models
from lfp.bundle.store.connection import Store
from lfp.errors import BundleError


@dataclass(frozen=True)
class Entry:
    """An entry of the menu: title, icon, its pages by file name with the names of their tabs, and pages of one row."""

    title: str
    icon: str
    tabs: Mapping[str, str]
    details: tuple[str, ...] = ()


MENU: Mapping[str, tuple[Entry, ...]] = {
    "Read": (
        Entry("Summary", "insights", {"overview": "Summary"}),
        Entry("Evidence", "fact_check", {"accuracy": "Accuracy", "validation": "Validation"}),
    ),
    "Browse": (
        Entry("Features", "grid_view", {"features": "Features", "drift": "Drift"}, ("feature",)),
        Entry("Texts", "notes", {"inputs": "Inputs", "pairs": "Pairs"}),
        Entry("Findings", "call_split", {"disagreements": "Findings"}),
    ),
    "Work": (
        Entry("Review", "checklist", {"queue": "Review"}),
        Entry("Playground", "edit_note", {"try_it": "Playground"}),
        Entry("Compare", "difference", {"runs": "Compare"}),
        Entry("About", "info", {"about": "About"}),
    ),
}


def empty_pages() -> frozenset[str]:
    """Name the pages that the open bundle has nothing for; none where it cannot be read, since pages then say why."""
    offered = bundles.listed_bundles()
    name = st.session_state.get("bundle", st.query_params.get("bundle"))
    path = offered.get(name, next(iter(offered.values()), None))
    if path is None:
        return frozenset()
    try:
        return without_content(cache.open_store(path), n_bundles=len(offered))
    except BundleError:
        return frozenset()


def without_content(store: Store, *, n_bundles: int) -> frozenset[str]:
    """Name the pages that a bundle has nothing for, out of `n_bundles` on offer."""
    n_rows = {name: info.rows for name, info in store.manifest.tables.items()}
    has_content = {
        "drift": n_rows.get("drift", 0) > 0,
        "pairs": store.once("has pairs", lambda: queries.texts.has_pairs(store)),
        "runs": n_bundles > 1,
        "try_it": has_models(store.manifest),
    }
    return frozenset(name for name, is_there in has_content.items() if not is_there)


def visible_pages(current: str, empty: Collection[str]) -> frozenset[str]:
    """Name the page that each entry of the menu leads to: the current one if it is a tab of it, else the first tab.

    An entry whose tabs are all empty is not shown, unless one of them is the current page.
    """
    shown = set()
    for entries in MENU.values():
        for entry in entries:
            offered = [current] if current in entry.tabs else [name for name in entry.tabs if name not in empty]
            shown |= set(offered[:1])
    return frozenset(shown)


def tabs_beside(current: str, empty: Collection[str]) -> Mapping[str, str]:
    """Return the tabs of a page's entry that have content, with their names; none where it is the only one."""
    for entries in MENU.values():
        for entry in entries:
            if current in entry.tabs:
                tabs = {name: title for name, title in entry.tabs.items() if name == current or name not in empty}
                return tabs if len(tabs) > 1 else {}
    return {}


def view_title(name: str) -> str:
    """Return the title of a page: its tab's, or for a page of one row what the row is."""
    tabs = {tab: title for entries in MENU.values() for entry in entries for tab, title in entry.tabs.items()}
    return tabs.get(name, name.capitalize())


def current_page() -> str:
    """Return the file name of the page in the browser's address, as far as that is known."""
    address = (st.context.url or "").partition("?")[0].partition("#")[0]
    return address.rstrip("/").rpartition("/")[2]
