"""The list of features: filtered, sorted and paged in SQL, beside a map of them."""

from dataclasses import replace

import streamlit as st

from app.components.feature import columns as feature_columns
from app.components.feature import map as feature_map
from app.components.html import panels, tables
from app.components.html.numbers import count
from app.session import audits, cache, permalinks
from app.session.cache import ask, ask_large
from app.widgets import filters, frame
from app.widgets import filters as listing
from lfp.bundle import queries

PAGE, MOST_POINTS, MOST_BEHIND = 25, 10_000, 5_000
NAMED_BY = ("description",)
"""Columns that features are chosen by, whether they are shown or not."""


def table(rows, shown):
    """The page's rows; a click on a row opens its feature."""
    ids = rows["feature_id"].to_pylist()
    event = st.dataframe(
        feature_columns.for_screen(rows, shown),
        hide_index=True,
        placeholder="–",
        key=permalinks.key_for("feature_table", ids, shown),
        on_select="rerun",
        selection_mode="single-cell",
        height="content",
        row_height=38,
        column_config={name: column(name) for name in feature_columns.COLUMNS},
    )
    cells = event.selection.cells
    return ids[cells[0][0]] if cells and cells[0][0] < len(ids) else None


def column(name):
    """A column of the catalogue as the table wants it."""
    one, config = feature_columns.COLUMNS[name], st.column_config
    common = {"width": one.width, "help": feature_columns.meaning(name), "pinned": name == "feature_id"}
    if one.kind in ("number", "share"):
        return config.NumberColumn(one.title, format=one.format, **common)
    return (config.ListColumn if one.kind == "tokens" else config.TextColumn)(one.title, **common)


def draw_map(store, wanted):
    """The features that pass on their map; drawing around some filters by them. Returns the feature clicked."""
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    colour = row.selectbox("Map coloured by", list(queries.features.FEATURE_NUMBERS), key="map_colour", **MAP_COLOUR)
    mouse = row.segmented_control("On the map", [DRAWS, OPENS], default=DRAWS, required=True, key="map_mouse")
    if wanted.region:
        row.button("Clear the area", icon=":material/close:", on_click=filters.set_area, args=("",))
    anywhere = replace(wanted, region=())
    n, asked = ask(queries.features.count_features, store, anywhere), {"colour": colour, "limit": MOST_POINTS}
    points = ask_large(queries.features.feature_points, store, anywhere, **asked)
    behind = 0 if anywhere == queries.features.FeatureFilter() else MOST_BEHIND
    others = ask_large(
        queries.features.feature_points, store, queries.features.FeatureFilter(), colour="x", limit=behind
    )
    drawn = {"area": wanted.region, "ink": permalinks.ink(), "is_drawn_on": mouse == DRAWS}
    figure = feature_map.figure(points, others, colour=colour, **drawn)
    key = permalinks.key_for("feature_map", wanted, colour, mouse)
    picked = {"on_select": lambda: pick(key), "selection_mode": ("points", "box", "lasso")}
    st.plotly_chart(figure, config=feature_map.CONFIG, key=key, alt=MAP_ALT, **picked)
    of = f"The {count(points.num_rows)} of {count(n)} that contribute most. " if points.num_rows < n else ""
    st.html(panels.note(f"{of}{MAP}"))
    return st.session_state.pop("picked_point", None)


def pick(key):
    selection = st.session_state[key].selection
    if corners := feature_map.drawn_corners(selection):
        filters.set_area(feature_map.to_text(corners))
    elif selection.points:
        st.session_state.picked_point = selection.points[0].get("customdata")


def chosen_by_name(rows):
    """The same choice without the canvas."""
    names = tables.feature_names(rows)
    choice = {"index": None, "placeholder": "Choose by name", "key": "open_feature"}
    return names.get(st.selectbox("Open a feature of this page", list(names), **choice))


def listed(store, view, wanted, n):
    """One page of the list. Returns the feature that was chosen on it."""
    slot, order = st.container(), listing.order_of(view)
    page = st.pagination(-(-n // PAGE), key="page", max_visible_pages=7, **filters.BOUND)
    columns = feature_columns.in_order([*view.shown, *NAMED_BY])
    found = {"columns": columns, "limit": PAGE, "offset": (page - 1) * PAGE}
    rows = ask(queries.features.features, store, wanted, order=order, **found)
    with slot:
        clicked = table(rows, view.shown)
    named = chosen_by_name(rows)
    frame.download(lambda: queries.features.features(store, wanted, order=order), name="features")
    return clicked if clicked is not None else named


def nothing(store, view):
    """What to say where no feature passes."""
    if not store.manifest.tables["features"].rows:
        st.html(panels.note("This bundle holds no features."))
        return
    if view.has_note and (fault := audits.fault(store)):
        st.html(panels.notice_here("Which features have a note is not known", fault))
    else:
        st.html(panels.note("No feature passes this filter; widen it."))
    if view.area:
        st.button("Clear the area", icon=":material/close:", on_click=filters.set_area, args=("",))
    st.html(panels.anchor(permalinks.to("features", permalinks.FeaturesView()), "Show all features"))


def review(view):
    """The way to a list of these for reviewers."""
    there = permalinks.QueueView(part="Lists and files", made_from=listing.to_walk(view))
    return panels.anchor(permalinks.to("queue", there), "Make a list to review of these")


def show():
    store = cache.current()
    st.html(panels.heading(store.manifest.title, "Features"))
    slot = st.container()
    view = filters.draw(store)
    with slot:
        filters.presets(view)
    wanted = listing.wanted_in(store, view)
    n = ask(queries.features.count_features, store, wanted)
    if not n:
        nothing(store, view)
        return
    where = " within the area drawn on the map" if wanted.region else ""
    st.html(panels.note(f"{count(n)} feature{'s' if n != 1 else ''}{where}. {TABLE}") + review(view))
    left, right = st.columns([13, 8], gap="medium") if view.with_map else (st.container(), None)
    with left:
        opened = listed(store, view, wanted, n)
    if right is not None:
        with right:
            point = draw_map(store, wanted)
        opened = opened if opened is not None else point
    if opened is not None:
        there = permalinks.FeatureView(feature=opened, walk=listing.to_walk(view))
        href = permalinks.to("feature", there)
        st.html(panels.following(href, f"Open feature {opened}"), unsafe_allow_javascript=True)


TABLE = "Click a row to open it. A click on a heading sorts this page only."
DRAWS, OPENS = "draw around", "open"
MAP = "Near features write in like directions. Draw around some to list only them, or open one by a click."
MAP_ALT = "Map of features, coloured by a column. The list beside it holds the same features."
MAP_COLOUR = {"index": queries.features.FEATURE_NUMBERS.index("weight"), "width": 175, **filters.BOUND}

show()
