"""Rows read one by one: a page of them at a time, each opened by a click, and steps from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import streamlit as st

from app.components.html import panels
from app.components.html.numbers import count
from app.session import permalinks


@dataclass(frozen=True)
class Listing:
    """A page of a list: the numbers of its rows, and of those just before and after it where there are some."""

    ids: list[int]
    before: int | None = None
    after: int | None = None

    @classmethod
    def of(cls, ids: Sequence[int], *, page: int, size: int) -> Listing:
        """From the rows that `window` asked for."""
        first = 1 if page > 1 else 0
        shown = list(ids[first : first + size])
        after = ids[first + size] if len(ids) > first + size else None
        return cls(shown, ids[0] if first and ids else None, after)


def window(page: int, size: int) -> dict[str, int]:
    """Limit and offset of a page of a list with the rows just before and after it."""
    first = 1 if page > 1 else 0
    return {"limit": size + 1 + first, "offset": (page - 1) * size - first}


def one_page(
    n: int, *, size: int, key: str, noun: str, number: str, rows: Callable[..., pa.Table], table: Callable[..., None]
) -> Listing:
    """One of the pages of `n` rows, which the widget `key` turns. Returns what is on it.

    `rows(limit=, offset=)` gives the rows, `number` is the column of their numbers, `table` draws them.
    """
    st.html(panels.note(f"{count(n)} {noun}{'s' if n != 1 else ''}. Click a row to read it."))
    slot = st.container()
    page = st.pagination(-(-n // size), key=key, bind="query-params", max_visible_pages=5)
    around = rows(**window(page, size))
    found = Listing.of(around[number].to_pylist(), page=page, size=size)
    with slot:
        table(around.slice(page > 1, len(found.ids)))
    return found


def table(shown: pa.Table, ids: Sequence[int], *, name: str, opens: str, columns: Mapping[str, Any]) -> None:
    """Rows of these numbers on screen; a click on one puts its number into the widget of the key `opens`."""
    key = permalinks.key_for(name, ids)
    st.dataframe(
        shown, hide_index=True, placeholder="–", key=key, selection_mode="single-cell",
        on_select=lambda: _open(key, ids, opens), height="content", row_height=36, column_config=columns,
    )  # fmt: skip


def _open(key: str, ids: Sequence[int], opens: str) -> None:
    cells = st.session_state[key].selection.cells
    if cells and cells[0][0] < len(ids):
        st.session_state[opens] = ids[cells[0][0]]


def choose(found: Listing, label: str, *, key: str, page_key: str, values_key: str) -> int | None:
    """The number of the row that is open: chosen here or in the list; until then the first of the list's page.

    Beside it stand the steps to its neighbours and the switch `values_key`, which shows numbers.
    """
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    first = found.ids[0] if found.ids else None
    shown = "" if first is None else str(first)
    number = {"min_value": 0, "value": None, "step": 1, "placeholder": shown, "width": 165}
    chosen = row.number_input(label, key=key, bind="query-params", **number)
    here = first if chosen is None else chosen
    with row:
        steps(found, here, key=key, page_key=page_key)
    row.toggle("Show numbers", key=values_key, bind="query-params")
    return here


def steps(listing: Listing, here: int | None, *, key: str, page_key: str) -> None:
    """Buttons to the row before and after the one that is open, over the ends of the list's page too."""
    around = [(listing.before, -1), *((number, 0) for number in listing.ids), (listing.after, 1)]
    numbers = [number for number, _ in around]
    at = numbers.index(here) if here is not None and here in numbers else 0
    previous, following = (around[i] if 0 <= i < len(around) else (None, 0) for i in (at - 1, at + 1))
    sides = (("Previous", "chevron_left", previous, "left"), ("Next", "chevron_right", following, "right"))
    for label, icon, (number, pages), side in sides:
        st.button(
            label, icon=f":material/{icon}:", icon_position=side, disabled=number is None, on_click=_step,
            args=(key, number, page_key, pages),
        )  # fmt: skip


def _step(key: str, number: int, page_key: str, pages: int) -> None:
    st.session_state[key] = number
    if pages:
        st.session_state[page_key] = st.session_state.get(page_key, 1) + pages
