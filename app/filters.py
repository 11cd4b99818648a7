"""The widgets that filter the list of features, and the lists on offer that set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import listing, state
from app.cache import ask
from app.components import feature_columns, panels
from app.state import FeaturesView
from lfp.bundle import queries
from lfp.bundle.store.connection import Store

BOUND = {"bind": "query-params"}
DRIFTS = ("born", "strengthened", "steady", "weakened", "gone", queries.features.FLIPPED)
NULL = "Whether the weight passes what shuffled feedback reaches one time in twenty"
DRIFT = "What tuning did to how it fires; sign flipped: its weight on the base model has the other sign"
DRIFTED = "Among this share of all features, by the size of the change of its contribution"
STANDING = "From the features that contribute most to those that contribute least, as shares of all"
STABILITY = "Cosine with its match in the layer’s other dictionary"
DETECTION = "Balanced accuracy at telling held-out texts that fire from others; a guess reaches 0.5"


def first_page() -> None:
    """Shows the list from its beginning; for callbacks."""
    st.session_state.page = 1


def draw(store: Store) -> FeaturesView:
    """The widgets above the list; their values make the view."""
    fresh = {**BOUND, "on_change": first_page}
    find, layer = st.columns([3, 2], vertical_alignment="bottom")
    hint = "words of a description, a token, or a number"
    find.text_input("Find", key="find", type="search", placeholder=hint, **fresh)
    layers = ask(queries.features.feature_layers, store)
    layer.segmented_control("Layers", layers, selection_mode="multi", key="layer", **fresh)
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    row.selectbox("Weight", ["any", "positive", "negative"], key="sign", width=100, **fresh)
    row.selectbox("Related", ["any", "yes", "no"], key="related", width=92, help="What the label shown says", **fresh)
    row.selectbox("Null", ["any", "beats", "within"], key="null", width=98, help=NULL, **fresh)
    more = row.container(width="content")
    row.selectbox("Sort by", list(queries.features.FEATURE_SORTS), key="sort", width=140, **fresh)
    row.selectbox("Order", ["descending", "ascending"], key="order", width=132, **fresh)
    with row.popover("Columns", icon=":material/view_column:"):
        options = [name for name in feature_columns.COLUMNS if name not in feature_columns.ALWAYS]
        st.multiselect("Columns of the list", options, default=state.COLUMNS, key="shown", **BOUND)
    row.toggle("Map", value=True, key="with_map", **BOUND)
    return more_filters(more, fresh)


def more_filters(slot: DeltaGenerator, fresh: Mapping[str, Any]) -> FeaturesView:
    """The filters behind a button that says how many of them are set."""
    blank, n = FeaturesView(), listing.n_more(state.asked(FeaturesView))
    with slot.popover(f"More filters ({n})" if n else "More filters", icon=":material/tune:", key="more_filters"):
        st.text_input("Fires on the token", key="fires_on", placeholder="a whole token, such as good", **fresh)
        st.pills("Drift", DRIFTS, selection_mode="multi", key="drifts", help=DRIFT, **fresh)
        st.selectbox("Drifted most", list(listing.DRIFT_RANKS), key="drifted", help=DRIFTED, **fresh)
        standing = {"value": blank.standing, "key": "standing", "help": STANDING}
        st.select_slider("Rank by contribution", state.STANDINGS, **standing, **fresh)
        st.select_slider("Density", state.DENSITIES, value=blank.density, key="density", **fresh)
        share = {"min_value": 0.0, "max_value": 1.0, "step": 0.05}
        st.slider("Stability, at least", key="least_stable", help=STABILITY, **share, **fresh)
        st.toggle("Has a note or verdict", key="has_note", **fresh)
        st.slider("Detection of its label, at least", key="least_detected", help=DETECTION, **share, **fresh)
    return state.view_of(FeaturesView, area=state.unbound("area"))


def presets(view: FeaturesView) -> None:
    """Lists on offer; the one that the filter makes up is marked."""
    blank = FeaturesView()
    here = replace(view, page=blank.page, shown=blank.shown, with_map=True, map_colour=blank.map_colour)
    names = [name for name, preset in queries.features.PRESETS.items() if listing.preset_view(preset) == here]
    st.session_state.preset = names[0] if names else None
    st.pills("Lists worth reading", list(queries.features.PRESETS), key="preset", on_change=use_preset)
    if names:
        st.html(panels.note(queries.features.PRESETS[names[0]].says))


def use_preset() -> None:
    """Sets the widgets to a preset, or clears them where it was let go."""
    chosen = queries.features.PRESETS.get(st.session_state.preset)
    view = listing.preset_view(chosen) if chosen else FeaturesView()
    for name in state.FILTERS:
        value = getattr(view, name)
        st.session_state[name] = list(value) if name in ("layer", "drifts") else value
    set_area("")


def set_area(text: str) -> None:
    """Lists what is within an area of the map, or (empty) wherever; for callbacks."""
    state.set_unbound("area", text)
    first_page()
