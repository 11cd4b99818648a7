"""Drift: how tuning changed each feature, as counts with chance, base against tuned, and a table."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from app.components.feature import columns, drift
from app.components.html import panels
from app.session import cache, names, permalinks
from app.session.cache import ask
from app.session.option_words import words_for
from app.widgets import filters, frame
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import ResultRow
from lfp.report.figures.frame import CONFIG
from lfp.report.formatting import count
from lfp.util.types import SITES

PAGE_SIZE, MOST_POINTS = 25, 2000


def show_counts(store: Store, figures: Sequence[ResultRow]) -> None:
    frame.show_title("How features changed", drift.counts_title(figures))
    heads, rows, beyond = drift.status_table(ask(queries.drift.drift_counts, store), figures)
    says = (
        "[95 % interval] over features. Chance for counts: the average with tuned and base exchanged; how counts would "
        "differ in another tuning is not known from one. Chance for shares and flips: probes of shuffled feedback "
        "(older bundles: weights shuffled among features). Bold: beyond chance."
    )
    st.html(panels.table(heads, rows, strong=beyond) + panels.note(says))


def show_scatter(store: Store, figures: Sequence[ResultRow]) -> int | None:
    """Draw base against tuned; return the feature that was clicked."""
    frame.show_title("Base against tuned", drift.carried_title(figures))
    plane = frame.choose_one("Show", drift.PLANES, key="plane")
    rows = names.name_rows(store, ask(queries.drift.drift_points, store, limit=MOST_POINTS))
    event = st.plotly_chart(
        drift.scatter(rows.to_pydict(), plane=plane), config=CONFIG, key=f"drift_chart_{plane}",
        on_select="rerun", selection_mode="points",
    )  # fmt: skip
    total = store.manifest.tables["drift"].rows
    which = f"all {count(total)}"
    if total > MOST_POINTS:
        which = f"the {count(MOST_POINTS)} of {count(total)} that changed most"
    says = f"Each point is a feature ({which}). On the dotted line nothing changed; a dark rim marks a flipped sign. "
    st.html(panels.note(says + "Click a point to open it."))
    data = frame.first_point(event)
    return data[0] if data else None


def show_filters(store: Store) -> permalinks.DriftView:
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    row.text_input("Find", key="drift_find", type="search", placeholder=filters.FIND_HINT, **filters.BOUND)
    filters.show_layers(store, row, layer="drift_layer", site="drift_site", **filters.BOUND)
    bound: dict[str, Any] = {"bind": "query-params", "width": 170}
    statuses = ["any", *drift.STATUS_NAMES, "flipped"]
    row.selectbox("Change", statuses, key="became", format_func=words_for("became"), **bound)
    sorts = "Change, unexplained and contributions sort by size; “change” by the signed change."
    row.selectbox(
        "Sort by",
        list(queries.drift.DRIFT_SORTS),
        key="drift_by",
        help=sorts,
        format_func=words_for("drift_by"),
        **bound,
    )
    row.selectbox("Order", ["descending", "ascending"], key="drift_order", **bound)
    return permalinks.current_view(permalinks.DriftView)


def table_columns() -> dict[str, Any]:
    number, words = st.column_config.NumberColumn, st.column_config.TextColumn
    small: dict[str, Any] = {"format": "%+.2g", "width": 105}
    return {
        "feature_id": number("Feature", format="#%d", width=75, pinned=True),
        "layer": number("Layer", width=58),
        "site": words("Site", width=115),
        "description": words("Label", width=215),
        "top_tokens": st.column_config.ListColumn("Top tokens", width=150),
        "status": words("Change", width=105),
        "sign_flipped": words("Sign", width=65),
        "drifted_contribution": number(
            "Contribution change", help="Per token, tuned minus base", **small | {"width": 150}
        ),
        "drifted_null": number("Chance", format="%.2g", width=80, help="95 % of shuffles are below this at its rank"),
        "contribution_base": number("Base", help="Mean contribution per token in the base model", **small),
        "contribution": number("Tuned", help="Mean contribution per token in the tuned model", **small),
        "weight_base": number("Weight, base", format="%+.3f", width=105, help="In the base model’s probe"),
        "weight": number("Weight", format="%+.3f", width=75, help="In the tuned model’s probe"),
        "base_density": number("Density, base", format="percent", width=110),
        "density": number("Density", format="percent", width=80),
        "unexplained_contribution": number(
            "Unexplained", help="Contribution that the reward does not explain", **small
        ),
        "unexplained_null": number(
            "Chance ", format="%.2g", width=80, help="95 % of shuffles are below this at its rank"
        ),
    }


def show_table(store: Store) -> int | None:
    """Draw the table; return the feature that was clicked or chosen by name."""
    largest = queries.common.Order("drifted", True)
    first = ask(queries.drift.drift, store, queries.drift.DriftFilter(), order=largest, limit=1).to_pylist()
    frame.show_title("Feature by feature", drift.first_title(first[0] if first else None))
    view = show_filters(store)
    sites = tuple(site for site in view.drift_site if site in SITES)
    wanted = queries.drift.DriftFilter(status=view.became, layers=view.drift_layer, sites=sites, search=view.drift_find)
    order = queries.common.Order(view.drift_by, view.drift_order == "descending")
    n = ask(queries.drift.count_drift, store, wanted)
    if not n:
        st.html(panels.note("No matches. Clear filters."))
        return None
    st.html(panels.note(f"{count(n)} feature{'s' if n != 1 else ''}. Click a row to open it."))
    slot = st.container()
    left, right = st.columns([3, 2], vertical_alignment="center")
    with left:
        page = st.pagination(-(-n // PAGE_SIZE), key="drift_page", bind="query-params")
    rows = ask(queries.drift.drift, store, wanted, order=order, limit=PAGE_SIZE, offset=(page - 1) * PAGE_SIZE)
    rows = names.name_rows(store, rows)
    ids, shown = rows["feature_id"].to_pylist(), drift.for_screen(rows, with_site=bool(filters.site_column(store)))
    with slot:
        cell = frame.show_rows(shown, key=permalinks.widget_key("drift_table", ids), columns=table_columns())
    with right:
        named = frame.choose_name(columns.names(rows), "Open a feature of this page", key="open_drifted")
    frame.download(lambda: queries.drift.drift(store, wanted, order=order), name="drift")
    return ids[cell[0]] if cell else named


def show() -> None:
    store = cache.current()
    counts = ask(queries.drift.drift_counts, store)
    if not sum(counts.values()):
        says = "This bundle holds no drift: it has no features, or its run did not measure drift. Run it again."
        st.html(panels.heading(store.manifest.title, "Drift") + panels.note(says))
        return
    figures = ask(queries.run.figures, store, "drift")
    st.html(panels.heading(store.manifest.title, "Drift", drift.summary(counts, figures)))
    show_counts(store, figures)
    point = show_scatter(store, figures)
    chosen = show_table(store)
    opened = chosen if chosen is not None else point
    if opened is not None:
        href = permalinks.feature_href(opened)
        st.html(panels.following(href, f"Open feature {opened}"), unsafe_allow_javascript=True)


show()
