"""The table of features: filtered, sorted and paged in SQL."""

import streamlit as st

from app import cache, frame, listing, state
from app.cache import ask
from app.components import panels, tables
from app.components.numbers import count
from lfp import queries

PAGE = 25
ORDERS = ("descending", "ascending")


def filters(store):
    """The widgets above the table; their values make the view."""
    find, layer = st.columns([3, 2], vertical_alignment="bottom")
    hint = "words of a description, a token, or a number"
    find.text_input("Find", key="find", bind="query-params", type="search", placeholder=hint)
    layers = ask(queries.feature_layers, store)
    layer.segmented_control("Layers", layers, selection_mode="multi", key="layer", bind="query-params")
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    row.selectbox("Weight", ["any", "positive", "negative"], key="sign", bind="query-params", width=120)
    row.selectbox("Related", ["any", "yes", "no"], key="related", bind="query-params", width=100)
    whole = state.FeaturesView().density
    row.select_slider("Density", state.DENSITIES, value=whole, key="density", bind="query-params", width=230)
    row.selectbox("Sort by", list(queries.FEATURE_SORTS), key="sort", bind="query-params", width=160)
    row.selectbox("Order", ORDERS, key="order", bind="query-params", width=140)
    return state.view_of(state.FeaturesView)


def table(rows):
    """The page's rows; a click on a row opens its feature."""
    ids = rows["feature_id"].to_pylist()
    event = st.dataframe(
        tables.features(rows),
        hide_index=True,
        key=state.key_for("feature_table", ids),
        on_select="rerun",
        selection_mode="single-cell",
        height="content",
        row_height=38,
        column_config=columns(max(rows["share"].drop_null().to_pylist(), default=1.0)),
    )
    cells = event.selection.cells
    return ids[cells[0][0]] if cells and cells[0][0] < len(ids) else None


def columns(largest_share):
    number, words = st.column_config.NumberColumn, st.column_config.TextColumn
    share = {"format": "percent", "min_value": 0.0, "max_value": largest_share, "width": 115}
    return {
        "feature_id": number("Feature", format="#%d", width=75, pinned=True),
        "layer": number("Layer", width=58),
        "description": words("Description", width=245),
        "top_tokens": st.column_config.ListColumn("Top tokens", width=190),
        "related": words("Related", width=75),
        "weight": number("Weight", format="%+.3f", width=75, help="In the headline probe"),
        "mean_abs_contribution": number("Contribution", format="%.5f", width=100, help="Mean size a token"),
        "share": st.column_config.ProgressColumn("Share", help="Of all contributions; bars against this page", **share),
        "beats_null": words("Beats null", width=85),
        "density": number("Density", format="percent", width=80, help="Share of tokens it is active on, tuned model"),
        "base_density": number("Base density", format="percent", width=105, help="The same on the base model"),
        "shift": number("Shift", format="%+.4f", width=80, help="Mean activation, tuned minus base"),
        "max_activation": number("Max", format="%.2f", width=70, help="Largest activation"),
    }


def chosen_by_name(rows):
    """The same choice without the canvas."""
    names = tables.feature_names(rows)
    choice = {"index": None, "placeholder": "Choose by name", "key": "open_feature"}
    return names.get(st.selectbox("Open a feature of this page", list(names), **choice))


def download(store, view):
    order = queries.Order(view.sort, view.order == "descending")
    frame.download(lambda: queries.features(store, listing.wanted_of(view), order=order), name="features")


def show():
    store = cache.current()
    st.html(panels.heading(store.manifest.title, "Features"))
    view = filters(store)
    wanted = listing.wanted_of(view)
    n = ask(queries.count_features, store, wanted)
    if not n:
        total = store.manifest.tables["features"].rows
        says = "No feature passes this filter; widen it." if total else "This bundle holds no features."
        st.html(panels.note(says))
        return
    found = f"{count(n)} feature{'s' if n != 1 else ''}."
    st.html(panels.note(f"{found} Click a row to open it. A click on a heading sorts this page only."))
    slot = st.container()
    left, right = st.columns([3, 2], vertical_alignment="center")
    with left:
        page = st.pagination(-(-n // PAGE), key="page", bind="query-params")
    order = queries.Order(view.sort, view.order == "descending")
    rows = ask(queries.features, store, wanted, order=order, limit=PAGE, offset=(page - 1) * PAGE)
    with slot:
        chosen = table(rows)
    with right:
        chosen_here = chosen_by_name(rows)
    download(store, view)
    opened = chosen if chosen is not None else chosen_here
    if opened is not None:
        where = state.href("feature", state.FeatureView(feature=opened), bundle=cache.bundle())
        st.html(panels.following(where, f"Open feature {opened}"), unsafe_allow_javascript=True)


show()
