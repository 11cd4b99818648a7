"""Features: the list, filtered, sorted and paged in SQL, beside a map of the same features."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import streamlit as st

from app.components.feature import columns as feature_columns
from app.components.feature import map as feature_map
from app.components.html import panels
from app.session import audits, cache, callbacks, names, permalinks
from app.session.cache import ask, ask_large
from app.session.option_words import words_for
from app.session.permalinks import FeaturesView
from app.widgets import chips, filters, frame, search
from lfp.bundle import queries
from lfp.bundle.queries.features import FEATURE_NUMBERS, MATCH, FeatureFilter
from lfp.bundle.queries.search import Found
from lfp.bundle.store.connection import Store
from lfp.report.formatting import count

PAGE_SIZE, MOST_POINTS, MOST_BEHIND = 25, 10_000, 5_000
SELECT, OPEN = "select an area", "open"
"""What the mouse does on the map."""


def show_table(rows: pa.Table, shown: tuple[str, ...], view: FeaturesView, found: Found | None) -> None:
    """Draw the page's rows, with what a ranked search found of each; a click opens a feature."""
    ids = rows["feature_id"].to_pylist()
    key = permalinks.widget_key("feature_table", ids, shown, found is not None)
    by, arrow = feature_columns.sorted_column(view.sort), "↑" if view.order == "ascending" else "↓"
    columns = {name: table_column(name, f" {arrow}" if name == by else "") for name in shown}
    table = feature_columns.for_screen(rows, shown)
    if found is not None:
        at = {id_: place for place, id_ in enumerate(found.ids)}
        place = 1 + ("description" in shown)
        scores = pa.array([found.scores[at[id_]] for id_ in ids], pa.float64())
        table = table.add_column(place, "match", scores)
        table = table.add_column(place + 1, "matched", pa.array([found.whys[at[id_]] for id_ in ids], pa.string()))
        columns["match"] = st.column_config.NumberColumn("Match", format="%.3g", width=70, help=found.says)
        columns["matched"] = st.column_config.TextColumn("By", width=150)

    def open_row() -> None:
        if cell := frame.first_cell(st.session_state[key], len(ids)):
            st.session_state.opened_row = ids[cell[0]]

    frame.show_rows(table, key=key, columns=columns, on_select=open_row)


def follow(feature_id: int, view: FeaturesView) -> str:
    """Return the link to a feature that follows itself."""
    href = permalinks.href("feature", permalinks.FeatureView(feature=feature_id, walk=filters.to_walk(view)))
    return panels.following(href, f"Open feature {feature_id}")


def table_column(name: str, arrow: str) -> Any:
    """Return a column of the catalogue as Streamlit configures it, its heading followed by an arrow."""
    column, config = feature_columns.COLUMNS[name], st.column_config
    common: dict[str, Any] = {
        "width": column.width, "help": feature_columns.meaning(name), "pinned": name == "feature_id",
    }  # fmt: skip
    if column.kind in ("number", "share"):
        return config.NumberColumn(column.title + arrow, format=column.format, **common)
    return (config.ListColumn if column.kind == "tokens" else config.TextColumn)(column.title + arrow, **common)


def show_map(store: Store, wanted: FeatureFilter) -> int | None:
    """Draw the matching features on their map; drawing an outline filters by it. Return the feature clicked."""
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    colour = row.selectbox(
        "Map coloured by", list(FEATURE_NUMBERS), index=FEATURE_NUMBERS.index("weight"), key="map_colour", width=175,
        format_func=words_for("map_colour"), **filters.BOUND,
    )  # fmt: skip
    mouse = row.segmented_control("On the map", [SELECT, OPEN], default=SELECT, required=True, key="map_mouse")
    if wanted.region:
        row.button("Clear the area", icon=":material/close:", on_click=callbacks.guard(filters.set_area), args=("",))
    anywhere, everything = replace(wanted, region=()), FeatureFilter()
    n = ask(queries.features.count_features, store, anywhere)
    points = ask_large(queries.features.feature_points, store, anywhere, colour=colour, limit=MOST_POINTS)
    n_all = store.manifest.tables["features"].rows
    is_dense = n_all > MOST_BEHIND and (n > MOST_POINTS or anywhere != everything)
    others: Any = ask(queries.feature_map.density, store, everything) if is_dense else None
    if others is None:
        behind = 0 if anywhere == everything else MOST_BEHIND
        others = ask_large(queries.features.feature_points, store, everything, colour="x", limit=behind)
    key = permalinks.widget_key("feature_map", wanted, colour, mouse)

    def pick() -> None:
        selection = st.session_state[key].selection
        if corners := feature_map.drawn_corners(selection):
            filters.set_area(feature_map.to_text(corners))
        else:
            st.session_state.picked_point = frame.first_point(st.session_state[key])

    st.plotly_chart(
        feature_map.figure(
            names.name_rows(store, points),
            others,
            colour=colour,
            area=wanted.region,
            ink=permalinks.text_colour(),
            is_drawn_on=mouse == SELECT,
            regions=names.region_names(store),
        ),
        config=feature_map.CONFIG,
        key=key,
        alt="Map of features, coloured by a column. The list beside it holds the same features.",
        on_select=callbacks.guard(pick),
        selection_mode=("points", "box", "lasso"),
    )
    part = f"The {count(points.num_rows)} of {count(n)} that contribute most. " if points.num_rows < n else ""
    if is_dense:
        part += f"Grey: how many of all {count(n_all)} features are there. "
    how = "Draw around some to list only these." if mouse == SELECT else "Click a point to open it."
    named = (
        "A region’s name is what its features share, with the share that bears it out; regions that share nothing "
        "beyond chance have none. Scroll to zoom, double-click to reset."
    )
    st.html(panels.note(f"{part}Nearby features have similar decoder directions. {named} {how}"))
    point: int | None = st.session_state.pop("picked_point", None)
    return point


def show_list(store: Store, view: FeaturesView, wanted: FeatureFilter, n: int) -> int | None:
    """Draw one page of the list; return the feature that was chosen by name."""
    slot, order = st.container(), filters.order_of(view)
    found = search.find(store, view)
    by = "id" if found is not None and order.by == MATCH else "contribution" if order.by == MATCH else order.by
    shown = feature_columns.in_order((*view.shown, *filters.site_column(store)), sort=by)
    page = st.pagination(-(-n // PAGE_SIZE), key="page", max_visible_pages=7, **filters.BOUND)
    rows = ask(
        queries.features.features, store, wanted, order=order,
        columns=tuple(dict.fromkeys((*shown, "description", "site"))), limit=PAGE_SIZE, offset=(page - 1) * PAGE_SIZE,
    )  # fmt: skip
    rows = names.name_rows(store, rows)
    with slot:
        show_table(rows, shown, view, found)
    named = frame.choose_name(feature_columns.names(rows), "Open a feature of this page", key="open_feature")
    frame.download(lambda: queries.features.features(store, wanted, order=order), name="features")
    return named


def show_nothing(store: Store, view: FeaturesView) -> None:
    """Say that no feature matches, or why that is not known, and offer ways back."""
    if not store.manifest.tables["features"].rows:
        st.html(panels.note("This bundle holds no features."))
        return
    if view.has_note and (fault := audits.noted_features(store)[1]):
        st.html(panels.notice("Which features have a note is not known", fault, is_page=False))
    else:
        st.html(panels.note("No matches."))
    if view.area:
        st.button("Clear the area", icon=":material/close:", on_click=callbacks.guard(filters.set_area), args=("",))
    st.html(panels.anchor(permalinks.href("features", FeaturesView()), "Clear filters"))


def show() -> None:
    store = cache.current()
    st.html(panels.heading(store.manifest.title, "Features"))
    ahead, slot = st.empty(), st.container()
    if (row := st.session_state.pop("opened_row", None)) is not None:  # before the list, which takes as long again
        view = permalinks.current_view(FeaturesView, area=st.query_params.get("area", ""))
        ahead.html(follow(row, view), unsafe_allow_javascript=True)
    view = filters.show_filters(store)
    with slot:
        filters.show_presets(store, view)
    chips.show_chips(view)
    wanted = filters.filter_of(view, store)
    if (found := search.find(store, view)) is not None:
        st.html(panels.note(found.says))
    n = ask(queries.features.count_features, store, wanted)
    if not n:
        show_nothing(store, view)
        return
    where = " within the area drawn on the map" if wanted.region else ""
    says = f"{count(n)} feature{'s' if n != 1 else ''}{where}. Click a row to open it. A heading sorts this page only."
    review = permalinks.QueueView(part="Lists and files", made_from=filters.to_walk(view))
    st.html(panels.note(says) + panels.anchor(permalinks.href("queue", review), "Review these"))
    left, right = st.columns([13, 8], gap="medium") if view.with_map else (st.container(), None)
    with left:
        opened = show_list(store, view, wanted, n)
    if right is not None:
        with right:
            point = show_map(store, wanted)
        opened = opened if opened is not None else point
    if opened is not None:
        st.html(follow(opened, view), unsafe_allow_javascript=True)


show()
