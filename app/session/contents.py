"""Which pages are offered: nine entries of the menu, some with tabs, without pages that the open bundle cannot fill.

Every page keeps its address, whether it is offered or not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import streamlit as st

from app.session import bundles
from lfp.bundle.manifest import Manifest, has_models, read_manifest
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
        return without_content(path, read_manifest(path), n_bundles=len(offered))
    except (BundleError, OSError, pa.ArrowException):
        return frozenset()


def without_content(path: Path, manifest: Manifest, *, n_bundles: int) -> frozenset[str]:
    """Name the pages that a bundle has nothing for, out of `n_bundles` on offer."""
    n_rows = {name: info.rows for name, info in manifest.tables.items()}
    has_content = {
        "drift": n_rows.get("drift", 0) > 0,
        "pairs": has_pairs(path),
        "runs": n_bundles > 1,
        "try_it": has_models(manifest),
    }
    return frozenset(name for name, is_there in has_content.items() if not is_there)


def has_pairs(path: Path) -> bool:
    """Tell from the file's statistics whether any text of a bundle is of a pair; True where they do not say."""
    found = pq.read_metadata(path / "texts.parquet")
    groups = [found.row_group(number) for number in range(found.num_row_groups)]
    columns = [group.column(at) for group in groups for at in range(group.num_columns)]
    of_pairs = [column for column in columns if column.path_in_schema == "pair_id"]
    known = [column.statistics for column in of_pairs]
    return any(facts is None or not facts.has_null_count or facts.num_values > 0 for facts in known)


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


def current_page() -> str:
    """Return the file name of the page in the browser's address, as far as that is known."""
    address = (st.context.url or "").partition("?")[0].partition("#")[0]
    return address.rstrip("/").rpartition("/")[2]
