"""What pages share: panels beside each other, figures, ledgers, files of what is on screen, keys, being public."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import plotly.graph_objects as go
import pyarrow as pa
import streamlit as st

from app.components.charts import charts, intervals
from app.components.html import exports, panels, tables
from app.components.text import ledgers
from app.session import permalinks
from lfp.evaluation.results import ResultRow

KEYS = {
    "/": "go to the page’s search",
    "j": "next, in a list or on a page",
    "k": "previous",
    "?": "this help",
}
"""Keys that work on every page."""


def download(rows: Callable[[], pa.Table], *, name: str, label: str = "Download") -> None:
    """Buttons that hand out rows as CSV, Parquet or JSON. `rows` is asked only when one is pressed."""
    with st.popover(label, icon=":material/download:", help="The rows on this page, all that pass its filters"):
        for kind, (make, media_type) in exports.FORMATS.items():
            st.download_button(
                kind,
                data=lambda make=make: make(rows()),
                file_name=f"{name}.{kind.lower()}",
                mime=media_type,
                key=f"download_{name}_{kind}",
                on_click="ignore",
                width="stretch",
            )


def ledger(account: ledgers.Account, *, key: str, on_select: Callable[[], None] | None = None) -> None:
    """A ledger: its bars, and the check that they sum to what the bundle states."""
    figure = charts.contributions(
        account.ids, account.descriptions, account.values, ink=permalinks.ink(), others=account.others
    )
    picks = {"on_select": on_select, "selection_mode": "points"} if on_select else {}
    st.plotly_chart(figure, config=charts.CONFIG, key=key, **picks)
    st.html(account.check)


def every_part(rows: Callable[[], pa.Table], *, key: str, name: str) -> None:
    """A switch that lists all parts of a ledger, and gives them as files."""
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    wanted = row.toggle("List every contribution", key=key, bind="query-params")
    with row:
        download(rows, name=name)
    if wanted:
        number, column = st.column_config.NumberColumn, st.column_config.Column
        fine = dict.fromkeys(ledgers.ADDED, number(format="%+.5f"))
        st.dataframe(
            rows(), hide_index=True, placeholder="–", height=420,
            column_config={"feature_id": number("feature", format="#%d", pinned=True), "pooled": number(format="%.4f"),
                           "description": column(width="medium"), **fine},
        )  # fmt: skip


def explained(sentence: str, rows: Callable[[], pa.Table], *, name: str) -> None:
    """Ends a panel: one plain sentence that says what it shows, and its rows as files."""
    with st.container(horizontal=True, wrap=False, vertical_alignment="top", gap="small"):
        st.html(panels.note(sentence))
        download(rows, name=name)


def reported(sentence: str, figures: Sequence[ResultRow], *, name: str) -> None:
    """Ends a panel that shows figures of the report."""
    explained(sentence, lambda: tables.of_rows(ResultRow, figures), name=name)


def beside(*parts: Callable[[], None], widths: Sequence[int] | None = None) -> None:
    """Panels side by side, of equal width where no widths are given; below each other on a narrow screen."""
    for column, part in zip(st.columns(widths or len(parts), gap="large"), parts, strict=True):
        with column:
            part()


def one_of(label: str, options: Iterable[str], *, key: str) -> str:
    """A choice of one, the first until another is chosen; it is in the URL under `key`."""
    names = list(options)
    chosen: str = st.segmented_control(
        label, names, default=names[0], required=True, wrap=True, key=key, bind="query-params"
    )
    return chosen


def figure(drawn: go.Figure, *, key: str, opens: Callable[[int], str] | None = None, what: str = "it") -> None:
    """A figure; with `opens` a click on a point leaves for the address that it gives for the point's number."""
    if opens is None:
        st.plotly_chart(drawn, config=charts.CONFIG, key=key)
        return
    event = st.plotly_chart(drawn, config=charts.CONFIG, key=key, on_select="rerun", selection_mode="points")
    number = event.selection.points[0].get("customdata") if event.selection.points else None
    if isinstance(number, int):
        st.html(panels.following(opens(number), f"Open {what} {number}"), unsafe_allow_javascript=True)


def lines(shown: Sequence[intervals.Line], names: intervals.Names, *, key: str, zero: bool = True) -> None:
    """A figure of values with their intervals, a line each; with `zero` the axis holds 0."""
    figure(intervals.chart(shown, names, ink=permalinks.ink(), zero=zero), key=key)


def keys() -> None:
    """Makes the keys of KEYS work. The script is constant; it presses what is on the page already.

    A search is an input of type search; next and previous are buttons of those names, or links marked so, else those
    of the list's pages.
    """
    st.html(f"<script>{_SCRIPT}</script>", unsafe_allow_javascript=True)
    with st.sidebar.popover("Keys", icon=":material/keyboard:", help="Keyboard shortcuts"):
        st.html(panels.facts(KEYS))


_SCRIPT = """
(() => {
  if (window.lfpKeys) document.removeEventListener('keydown', window.lfpKeys);
  const named = name => [...document.querySelectorAll('button, a[data-key]')]
    .find(one => !one.disabled && [one.dataset.key, ...one.innerText.split('\\n')].includes(name))
    || document.querySelector(`[data-testid="stMain"] button[aria-label="${name} page"]:not([disabled])`);
  window.lfpKeys = event => {
    const at = document.activeElement;
    const writes = at && (at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName));
    if (event.key === 'Escape' && writes) { at.blur(); return; }
    if (writes || event.ctrlKey || event.metaKey || event.altKey) return;
    const search = document.querySelector('[data-testid="stMain"] input[type="search"]');
    const target = {j: named('Next'), k: named('Previous'), '?': named('Keys')}[event.key];
    if (event.key === '/' && search) { search.focus(); search.select(); event.preventDefault(); }
    else if (target) { target.click(); event.preventDefault(); }
  };
  document.addEventListener('keydown', window.lfpKeys);
})();
"""
