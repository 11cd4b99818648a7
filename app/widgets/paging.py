"""A list read page by page: a click on a row opens it, and Previous and Next step through it across pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import streamlit as st

from app.components.html import panels
from app.session import callbacks, permalinks
from app.widgets import frame
from lfp.report.formatting import count


@dataclass(frozen=True)
class Page:
    """The row numbers of one page of a list, and those just before and after it where there are any."""

    ids: list[int]
    before: int | None = None
    after: int | None = None

    @classmethod
    def from_window(cls, ids: Sequence[int], *, page: int, size: int) -> Page:
        """Build a page from the rows in its `window`."""
        first = 1 if page > 1 else 0
        after = ids[first + size] if len(ids) > first + size else None
        return cls(list(ids[first : first + size]), ids[0] if first and ids else None, after)


def window(page: int, size: int) -> dict[str, int]:
    """Return limit and offset of a page with the rows just before and after it."""
    first = 1 if page > 1 else 0
    return {"limit": size + 1 + first, "offset": (page - 1) * size - first}


def show_page(
    n: int,
    *,
    size: int,
    key: str,
    noun: str,
    id_column: str,
    rows: Callable[..., pa.Table],
    table: Callable[[pa.Table], None],
) -> Page:
    """Draw one page of `n` rows, turned by the widget `key`, and return it.

    `rows(limit=, offset=)` returns rows with their numbers in `id_column`; `table` draws them.
    """
    st.html(panels.note(f"{count(n)} {noun}{'s' if n != 1 else ''}. Click a row to open it."))
    slot = st.container()
    number = st.pagination(-(-n // size), key=key, bind="query-params", max_visible_pages=5)
    around = rows(**window(number, size))
    page = Page.from_window(around[id_column].to_pylist(), page=number, size=size)
    with slot:
        table(around.slice(number > 1, len(page.ids)))
    return page


def show_table(shown: pa.Table, ids: Sequence[int], *, name: str, opens: str, columns: Mapping[str, Any]) -> None:
    """Draw rows with these numbers; a click on a row puts its number into the widget with the key `opens`."""
    key = permalinks.widget_key(name, ids)

    def open_row() -> None:
        if cell := frame.first_cell(st.session_state[key], len(ids)):
            st.session_state[opens] = ids[cell[0]]

    st.dataframe(
        shown, hide_index=True, placeholder="–", key=key, on_select=callbacks.guard(open_row),
        selection_mode="single-cell", height="content", row_height=36, column_config=columns,
    )  # fmt: skip


def choose_row(page: Page, label: str, *, key: str, page_key: str, values_key: str) -> int | None:
    """Draw the number of the open row, the steps to its neighbours, and the switch `values_key`, which shows numbers.

    Return the number of the open row: the first of the page until another is chosen here or in the list.
    """
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    first = page.ids[0] if page.ids else None
    shown = "" if first is None else str(first)
    chosen: int | None = row.number_input(
        label, min_value=0, value=None, step=1, placeholder=shown, width=165, key=key, bind="query-params"
    )
    here = first if chosen is None else chosen
    with row:
        _show_steps(page, here, key=key, page_key=page_key)
    row.toggle("Show numbers", key=values_key, bind="query-params")
    return here


def _show_steps(page: Page, here: int | None, *, key: str, page_key: str) -> None:
    """Draw buttons to the rows before and after the open one, across the ends of the page too."""
    around = [(page.before, -1), *((number, 0) for number in page.ids), (page.after, 1)]
    numbers = [number for number, _ in around]
    at = numbers.index(here) if here is not None and here in numbers else 0

    def step(number: int) -> None:
        st.session_state[key] = number
        if pages := dict(around)[number]:
            st.session_state[page_key] = st.session_state.get(page_key, 1) + pages

    before, after = (numbers[i] if 0 <= i < len(around) else None for i in (at - 1, at + 1))
    frame.show_steps(before, after, step)
