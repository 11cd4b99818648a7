"""Which pages are offered: nine entries of the menu, some with tabs, without pages that the open bundle cannot fill.

Every page keeps its address, whether it is offered or not.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

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

PAGES: Mapping[str, Entry] = {
    name: entry for entries in MENU.values() for entry in entries for name in (*entry.tabs, *entry.details)
}
"""All pages by file name, with their entry of the menu."""
TITLES: Mapping[str, str] = {
    entry.title.casefold(): next(iter(entry.tabs)) for entries in MENU.values() for entry in entries
}
"""The first page of each entry, by the title that people type as an address."""
START, ROOT = "overview", "."
"""The page at the root, and what stands for its empty address, which no browser sends."""


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
        "pairs": store.once("has pairs", lambda: queries.texts.has_whole_pairs(store)),
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
    """Return the last part of the browser's address, which names the page, as far as that is known."""
    address = unquote(urlsplit(st.context.url or "").path)
    return address.rstrip("/").rpartition("/")[2]


def addresses(typed: str) -> dict[str, str]:
    """Return all addresses with the page that each opens: titles too, and what was typed in this session.

    Streamlit opens only the exact address of a page, and for all others says that there is none.
    """
    read: dict[str, str] = st.session_state.setdefault("addresses_typed", {})
    own = {ROOT if name == START else name: name for name in PAGES}
    known = own | {START: START} | {title: page for title, page in TITLES.items() if title not in own}
    if typed and typed not in known:
        read[typed] = likeliest_page(typed) or START
    return known | read


def menu_address(name: str, typed: str) -> str:
    """Return the address that the menu leads to for a page: the typed one where it is its title, else its own."""
    return typed if TITLES.get(typed) == name else ROOT if name == START else name


def likeliest_page(typed: str) -> str | None:
    """Return the page with the name or title that is most like what was typed; None if none is like it."""
    names = {_letters(name): page for name, page in (*zip(PAGES, PAGES, strict=True), *TITLES.items())}
    found = difflib.get_close_matches(_letters(typed), names, n=1)
    return names[found[0]] if found else None


def _letters(name: str) -> str:
    return re.sub(r"\.(py|html?)$|[^a-z]", "", name.casefold())
