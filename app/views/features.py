"""The list of features: filtered, sorted and paged in SQL, beside a map of them."""

from dataclasses import replace

import streamlit as st

from app import cache, frame, listing, state
from app.cache import ask, ask_large
from app.components import area, feature_columns, feature_map, panels, tables
from app.components.numbers import count
from lfp import queries

PAGE, MOST_POINTS, MOST_BEHIND = 25, 10_000, 5_000
BOUND = {"bind": "query-params"}
DRIFTS = ("born", "strengthened", "steady", "weakened", "gone", queries.FLIPPED)


def first_page():
    st.session_state.page = 1


def filters(store):
    """The widgets above the list; their values make the view."""
    fresh = {**BOUND, "on_change": first_page}
    find, layer = st.columns([3, 2], vertical_alignment="bottom")
    hint = "words of a description, a token, or a number"
    find.text_input("Find", key="find", type="search", placeholder=hint, **fresh)
    layers = ask(queries.feature_layers, store)
    layer.segmented_control("Layers", layers, selection_mode="multi", key="layer", **fresh)
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    row.selectbox("Weight", ["any", "positive", "negative"], key="sign", width=100, **fresh)
    row.selectbox("Related", ["any", "yes", "no"], key="related", width=92, help="What the label shown says", **fresh)
    row.selectbox("Null", ["any", "beats", "within"], key="null", width=98, help=NULL, **fresh)
    more = row.container(width="content")
    row.selectbox("Sort by", list(queries.FEATURE_SORTS), key="sort", width=140, **fresh)
    row.selectbox("Order", ["descending", "ascending"], key="order", width=132, **fresh)
    with row.popover("Columns", icon=":material/view_column:"):
        options = [name for name in feature_columns.COLUMNS if name not in feature_columns.ALWAYS]
        st.multiselect("Columns of the list", options, default=state.COLUMNS, key="shown", **BOUND)
    row.toggle("Map", value=True, key="with_map", **BOUND)
    return more_filters(more, fresh)


def more_filters(slot, fresh):
    """The filters behind a button that says how many of them are set."""
    blank, n = state.FeaturesView(), listing.n_more(state.asked(state.FeaturesView))
    with slot.popover(f"More filters ({n})" if n else "More filters", icon=":material/tune:", key="more_filters"):
        st.text_input("Fires on the token", key="fires_on", placeholder="a whole token, such as good", **fresh)
        st.pills("Drift", DRIFTS, selection_mode="multi", key="drifts", help=DRIFT, **fresh)
        st.selectbox("Drifted most", list(listing.DRIFTED), key="drifted", help=DRIFTED, **fresh)
        standing = {"value": blank.standing, "key": "standing", "help": STANDING}
        st.select_slider("Rank by contribution", state.STANDINGS, **standing, **fresh)
        st.select_slider("Density", state.DENSITIES, value=blank.density, key="density", **fresh)
        share = {"min_value": 0.0, "max_value": 1.0, "step": 0.05}
        st.slider("Stability, at least", key="least_stable", help=STABILITY, **share, **fresh)
        st.slider("Detection of its label, at least", key="least_detected", help=DETECTION, **share, **fresh)
    return state.view_of(state.FeaturesView, area=state.unbound("area"))


def presets(view):
    """Lists on offer; the one that the filter makes up is marked."""
    blank = state.FeaturesView()
    here = replace(view, page=blank.page, shown=blank.shown, with_map=True, map_colour=blank.map_colour)
    names = [name for name, preset in queries.PRESETS.items() if listing.preset_view(preset) == here]
    st.session_state.preset = names[0] if names else None
    st.pills("Lists worth reading", list(queries.PRESETS), key="preset", on_change=use_preset)
    if names:
        st.html(panels.note(queries.PRESETS[names[0]].says))


def use_preset():
    """Sets the widgets to a preset, or clears them where it was let go."""
    chosen = queries.PRESETS.get(st.session_state.preset)
    view = listing.preset_view(chosen) if chosen else state.FeaturesView()
    for name in state.FILTERS:
        value = getattr(view, name)
        st.session_state[name] = list(value) if name in ("layer", "drifts") else value
    set_area("")


def set_area(text):
    state.set_unbound("area", text)
    first_page()


def table(rows, shown):
    """The page's rows; a click on a row opens its feature."""
    ids = rows["feature_id"].to_pylist()
    event = st.dataframe(
        feature_columns.for_screen(rows, shown),
        hide_index=True,
        key=state.key_for("feature_table", ids, shown),
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
    colour = row.selectbox("Map coloured by", list(queries.FEATURE_NUMBERS), key="map_colour", **MAP_COLOUR)
    mouse = row.segmented_control("On the map", [DRAWS, OPENS], default=DRAWS, required=True, key="map_mouse")
    if wanted.region:
        row.button("Clear the area", icon=":material/close:", on_click=set_area, args=("",))
    anywhere = replace(wanted, region=())
    n, asked = ask(queries.count_features, store, anywhere), {"colour": colour, "limit": MOST_POINTS}
    points = ask_large(queries.feature_points, store, anywhere, **asked)
    behind = 0 if anywhere == queries.FeatureFilter() else MOST_BEHIND
    others = ask_large(queries.feature_points, store, queries.FeatureFilter(), colour="x", limit=behind)
    drawn = {"area": wanted.region, "ink": state.ink(), "is_drawn_on": mouse == DRAWS}
    figure = feature_map.figure(points, others, colour=colour, **drawn)
    key = state.key_for("feature_map", wanted, colour, mouse)
    picked = {"on_select": lambda: pick(key), "selection_mode": ("points", "box", "lasso")}
    st.plotly_chart(figure, config=feature_map.CONFIG, key=key, alt=MAP_ALT, **picked)
    of = f"The {count(points.num_rows)} of {count(n)} that contribute most. " if points.num_rows < n else ""
    st.html(panels.note(f"{of}{MAP}"))
    return st.session_state.pop("picked_point", None)


def pick(key):
    selection = st.session_state[key].selection
    if corners := area.drawn(selection):
        set_area(area.to_text(corners))
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
    page = st.pagination(-(-n // PAGE), key="page", max_visible_pages=7, **BOUND)
    rows = ask(queries.features, store, wanted, order=order, limit=PAGE, offset=(page - 1) * PAGE)
    with slot:
        clicked = table(rows, view.shown)
    named = chosen_by_name(rows)
    frame.download(lambda: queries.features(store, wanted, order=order), name="features")
    return clicked if clicked is not None else named


def nothing(store, view):
    """What to say where no feature passes."""
    if not store.manifest.tables["features"].rows:
        st.html(panels.note("This bundle holds no features."))
        return
    st.html(panels.note("No feature passes this filter; widen it."))
    if view.area:
        st.button("Clear the area", icon=":material/close:", on_click=set_area, args=("",))
    st.html(panels.anchor(state.href("features", state.FeaturesView(), bundle=cache.bundle()), "Show all features"))


def show():
    store = cache.current()
    st.html(panels.heading(store.manifest.title, "Features"))
    slot = st.container()
    view = filters(store)
    with slot:
        presets(view)
    wanted = listing.wanted_of(view)
    n = ask(queries.count_features, store, wanted)
    if not n:
        nothing(store, view)
        return
    where = " within the area drawn on the map" if wanted.region else ""
    st.html(panels.note(f"{count(n)} feature{'s' if n != 1 else ''}{where}. {TABLE}"))
    left, right = st.columns([13, 8], gap="medium") if view.with_map else (st.container(), None)
    with left:
        opened = listed(store, view, wanted, n)
    if right is not None:
        with right:
            point = draw_map(store, wanted)
        opened = opened if opened is not None else point
    if opened is not None:
        there = state.FeatureView(feature=opened, walk=listing.to_walk(view))
        href = state.href("feature", there, bundle=cache.bundle())
        st.html(panels.following(href, f"Open feature {opened}"), unsafe_allow_javascript=True)


TABLE = "Click a row to open it. A click on a heading sorts this page only."
DRAWS, OPENS = "draw around", "open"
MAP = "Near features write in like directions. Draw around some to list only them, or open one by a click."
MAP_ALT = "Map of features, coloured by a column. The list beside it holds the same features."
NULL = "Whether the weight passes what shuffled feedback reaches one time in twenty"
DRIFT = "What tuning did to how it fires; sign flipped: its weight on the base model has the other sign"
DRIFTED = "Among this share of all features, by the size of the change of its contribution"
STANDING = "From the features that contribute most to those that contribute least, as shares of all"
STABILITY = "Cosine with its match in the layer’s other dictionary"
DETECTION = "Balanced accuracy at telling held-out texts that fire from others; a guess reaches 0.5"
MAP_COLOUR = {"index": queries.FEATURE_NUMBERS.index("weight"), "width": 175, **BOUND}

show()
