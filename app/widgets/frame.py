"""What pages share: panels side by side, choices, figures, ledgers and downloads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import plotly.graph_objects as go
import pyarrow as pa
import streamlit as st

from app.components.html import exports, panels
from app.components.text import ledgers
from app.session import callbacks, permalinks
from lfp.evaluation.results import ResultRow
from lfp.report.figures.frame import CONFIG, contributions
from lfp.report.figures.intervals import Legend, Line, draw_lines
from lfp.util.sanitize import shortened

V = TypeVar("V")


def name_tab(*what: str) -> None:
    """Name the browser's tab after what is on screen: the row that is open, or the view."""
    named = " · ".join(shortened(part, 60) for part in what if part)
    st.set_page_config(page_title=f"{named} · LFP Explorer")


def show_title(part: str, finding: str) -> None:
    """Draw the title of a panel: what it is of, and what it shows."""
    st.html(panels.kicker(part))
    st.subheader(finding)


def download(rows: Callable[[], pa.Table], *, name: str, label: str = "Download") -> None:
    """Draw buttons that download rows as CSV, Parquet or JSON; `rows` is called only when a button is pressed."""
    with st.popover(label, icon=":material/download:", help="All rows that match, not only this page"):
        for kind, (write, media_type) in exports.FORMATS.items():
            st.download_button(
                kind,
                data=lambda write=write: write(rows()),  # type: ignore[misc]
                file_name=f"{name}.{kind.lower()}",
                mime=media_type,
                key=f"download_{name}_{kind}",
                on_click="ignore",
                width="stretch",
            )


def show_ledger(account: ledgers.Account, *, key: str, on_select: Callable[[], None] | None = None) -> None:
    """Draw a ledger's bars, and the check that they sum to the value stored in the bundle."""
    figure = contributions(
        account.ids, account.descriptions, account.values, ink=permalinks.text_colour(), others=account.others
    )
    select: dict[str, Any] = (
        {} if on_select is None else {"on_select": callbacks.guard(on_select), "selection_mode": "points"}
    )
    st.plotly_chart(figure, config=CONFIG, key=key, **select)
    st.html(account.check)


def list_contributions(rows: Callable[[], pa.Table], *, key: str, name: str) -> None:
    """Draw a switch that lists all parts of a ledger, and their download."""
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    wanted = row.toggle("List every contribution", key=key, bind="query-params")
    with row:
        download(rows, name=name)
    if wanted:
        number = st.column_config.NumberColumn
        columns: dict[str, Any] = {
            "feature_id": number("feature", format="#%d", pinned=True),
            "pooled": number(format="%.4f"),
            "description": st.column_config.Column("label", width="medium"),
            **{column: number(format="%+.5f") for column in ledgers.SIGNED_COLUMNS},
        }
        st.dataframe(rows(), hide_index=True, placeholder="–", height=420, column_config=columns)


def caption(sentence: str, rows: Callable[[], pa.Table], *, name: str) -> None:
    """End a panel with a sentence that says what it shows, and the download of its rows."""
    with st.container(horizontal=True, wrap=False, vertical_alignment="top", gap="small"):
        st.html(panels.note(sentence))
        download(rows, name=name)


def caption_figures(sentence: str, figures: Sequence[ResultRow], *, name: str) -> None:
    """Do the same for figures of the report."""
    caption(sentence, lambda: exports.as_table(ResultRow, figures), name=name)


def show_tabs(tabs: Mapping[str, st.Page]) -> None:
    """Draw links to the pages of one entry of the menu, by name; each keeps its own address."""
    if tabs:
        with st.container(horizontal=True, gap="small", key="page_tabs"):
            for name, target in tabs.items():
                st.page_link(target, label=name, width="content")


def side_by_side(*parts: Callable[[], None], widths: Sequence[int] | None = None) -> None:
    """Draw panels side by side, of equal width unless `widths` are given; below each other on a narrow screen."""
    for column, draw in zip(st.columns(widths or len(parts), gap="large"), parts, strict=True):
        with column:
            draw()


def choose_one(
    label: str, options: Iterable[str], *, key: str, names: Mapping[str, str] | None = None, collapsed: bool = False
) -> str:
    """Draw a choice of one option, the first by default, and return it; it is in the URL under `key`.

    `names` says how options are shown, where that differs from their values in the URL.
    """
    values = list(options)
    shown = names or {}
    chosen: str | None = st.segmented_control(
        label, values, default=values[0], required=True, wrap=True, key=key, bind="query-params",
        format_func=lambda value: shown.get(value, value), label_visibility="collapsed" if collapsed else "visible",
    )  # fmt: skip
    return values[0] if chosen is None else chosen


def show_figure(figure: go.Figure, *, key: str, href: Callable[[int], str] | None = None, what: str = "it") -> None:
    """Draw a figure; with `href` a click on a point opens the address that it returns for the point's number."""
    if href is None:
        st.plotly_chart(figure, config=CONFIG, key=key)
        return
    event = st.plotly_chart(figure, config=CONFIG, key=key, on_select="rerun", selection_mode="points")
    number = first_point(event)
    if isinstance(number, int):
        st.html(panels.following(href(number), f"Open {what} {number}"), unsafe_allow_javascript=True)


def show_rows(
    rows: pa.Table, *, key: str, columns: Mapping[str, Any], on_select: Callable[[], None] = lambda: None
) -> tuple[int, str] | None:
    """Draw a page of rows, whose words wrap; return the row and the column of the cell that was clicked."""
    event = st.dataframe(
        rows, hide_index=True, placeholder="–", key=key, on_select=callbacks.guard(on_select),
        selection_mode="single-cell",
        height="content", row_height=65, column_config=columns,
    )  # fmt: skip
    return first_cell(event, rows.num_rows)


def show_steps(before: int | None, after: int | None, go: Callable[[int], None]) -> None:
    """Draw Previous and Next, which call `go` with the number before or after; one without a number is disabled."""
    for label, number in (("Previous", before), ("Next", after)):
        side: Literal["left", "right"] = "left" if label == "Previous" else "right"
        icon = f":material/chevron_{side}:"
        st.button(
            label, icon=icon, icon_position=side, disabled=number is None, on_click=callbacks.guard(go), args=(number,)
        )


def first_point(state: Any) -> Any:
    """Return the `customdata` of the first selected point of a chart's state; None if no point is selected."""
    points = state.selection.points
    return points[0].get("customdata") if points else None


def first_cell(state: Any, n_rows: int) -> tuple[int, str] | None:
    """Return the row and column of the selected cell of a table's state; None without one, or beyond `n_rows`."""
    cells = state.selection.cells
    return cells[0] if cells and cells[0][0] < n_rows else None


def choose_name(names: Mapping[str, V], label: str, *, key: str) -> V | None:
    """Draw a choice of a row by its name, which needs no mouse; return what it stands for, or None."""
    name = st.selectbox(label, list(names), index=None, placeholder="Choose by name", key=key)
    return None if name is None else names.get(name)


def show_intervals(lines: Sequence[Line], legend: Legend, *, key: str, include_zero: bool = True) -> None:
    """Draw values with their intervals, one per line; with `include_zero` the axis contains 0."""
    show_figure(draw_lines(lines, legend, ink=permalinks.text_colour(), zero=include_zero), key=key)
