"""The widgets that filter the list of features, and the lists on offer that set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.components.feature import columns
from app.components.feature import map as feature_map
from app.components.html import panels
from app.session import audits, permalinks
from app.session.cache import ask
from app.session.permalinks import FeaturesView
from lfp.bundle import queries
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.features import FEATURE_SORTS, FeatureFilter, Preset
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
        options = [name for name in columns.COLUMNS if name not in columns.ALWAYS]
        st.multiselect("Columns of the list", options, default=permalinks.COLUMNS, key="shown", **BOUND)
    row.toggle("Map", value=True, key="with_map", **BOUND)
    return more_filters(more, fresh)


def more_filters(slot: DeltaGenerator, fresh: Mapping[str, Any]) -> FeaturesView:
    """The filters behind a button that says how many of them are set."""
    blank, n = FeaturesView(), n_more(permalinks.asked(FeaturesView))
    with slot.popover(f"More filters ({n})" if n else "More filters", icon=":material/tune:", key="more_filters"):
        st.text_input("Fires on the token", key="fires_on", placeholder="a whole token, such as good", **fresh)
        st.pills("Drift", DRIFTS, selection_mode="multi", key="drifts", help=DRIFT, **fresh)
        st.selectbox("Drifted most", list(DRIFT_RANKS), key="drifted", help=DRIFTED, **fresh)
        standing = {"value": blank.standing, "key": "standing", "help": STANDING}
        st.select_slider("Rank by contribution", permalinks.STANDINGS, **standing, **fresh)
        st.select_slider("Density", permalinks.DENSITIES, value=blank.density, key="density", **fresh)
        share = {"min_value": 0.0, "max_value": 1.0, "step": 0.05}
        st.slider("Stability, at least", key="least_stable", help=STABILITY, **share, **fresh)
        st.toggle("Has a note or verdict", key="has_note", **fresh)
        st.slider("Detection of its label, at least", key="least_detected", help=DETECTION, **share, **fresh)
    return permalinks.view_of(FeaturesView, area=permalinks.unbound("area"))


def presets(view: FeaturesView) -> None:
    """Lists on offer; the one that the filter makes up is marked."""
    blank = FeaturesView()
    here = replace(view, page=blank.page, shown=blank.shown, with_map=True, map_colour=blank.map_colour)
    names = [name for name, preset in queries.features.PRESETS.items() if preset_view(preset) == here]
    st.session_state.preset = names[0] if names else None
    st.pills("Lists worth reading", list(queries.features.PRESETS), key="preset", on_change=use_preset)
    if names:
        st.html(panels.note(queries.features.PRESETS[names[0]].says))


def use_preset() -> None:
    """Sets the widgets to a preset, or clears them where it was let go."""
    chosen = queries.features.PRESETS.get(st.session_state.preset)
    view = preset_view(chosen) if chosen else FeaturesView()
    for name in permalinks.FILTERS:
        value = getattr(view, name)
        st.session_state[name] = list(value) if name in ("layer", "drifts") else value
    set_area("")


def set_area(text: str) -> None:
    """Lists what is within an area of the map, or (empty) wherever; for callbacks."""
    permalinks.set_unbound("area", text)
    first_page()


SHARES = dict(zip(permalinks.DENSITIES, (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0), strict=True))


RANKS = dict(zip(permalinks.STANDINGS, (0.0, 1e-3, 1e-2, 1e-1, 0.5, 1.0), strict=True))


DRIFT_RANKS = {name: RANKS[name] for name in reversed(permalinks.STANDINGS[1:])}
"""Shares of features by what one end of a range is called."""


_NOT_THE_LIST = ("page", "shown", "with_map", "map_colour")


def wanted_of(view: FeaturesView) -> FeatureFilter:
    """The filter that a view states; what it states wrongly lets all pass."""
    low, high = (SHARES.get(end, default) for end, default in zip(view.density, (0.0, 1.0), strict=True))
    above, up_to = (RANKS.get(end, default) for end, default in zip(view.standing, (0.0, 1.0), strict=True))
    return FeatureFilter(
        layers=view.layer,
        sign=view.sign,
        related=view.related,
        density_low=low,
        density_high=high,
        search=view.find,
        token=view.fires_on,
        null=view.null,
        drift=view.drifts,
        drift_top=DRIFT_RANKS.get(view.drifted, 1.0),
        rank_low=above,
        rank_high=up_to,
        stability_low=view.least_stable,
        detection_low=view.least_detected,
        region=feature_map.from_text(view.area),
    )


def wanted_in(store: Store, view: FeaturesView) -> FeatureFilter:
    """The same, with what the audits know where the view asks for it."""
    wanted = wanted_of(view)
    return replace(wanted, noted=audits.noted(store)) if view.has_note else wanted


def order_of(view: FeaturesView) -> Order:
    """The order that a view states; by contribution where it names no column."""
    return Order(view.sort if view.sort in FEATURE_SORTS else FeaturesView().sort, view.order != "ascending")


def preset_view(preset: Preset) -> FeaturesView:
    """The view whose filter and order are a preset's."""
    wanted = preset.wanted
    return FeaturesView(
        sign=wanted.sign,
        related=wanted.related,
        null=wanted.null,
        drifts=wanted.drift,
        drifted=_name(DRIFT_RANKS, wanted.drift_top),
        standing=(_name(RANKS, wanted.rank_low), _name(RANKS, wanted.rank_high)),
        sort=preset.order.by,
        order="descending" if preset.order.descending else "ascending",
    )


def n_more(view: FeaturesView) -> int:
    """How many filters are set of those that do not stand in the first row."""
    blank = FeaturesView()
    names = ("fires_on", "density", "drifts", "drifted", "standing", "least_stable", "least_detected",
             "has_note")  # fmt: skip
    return sum(getattr(view, name) != getattr(blank, name) for name in names)


def to_walk(view: FeaturesView) -> str:
    """The list that a view shows, whichever its page and columns, in one parameter."""
    blank = FeaturesView()
    kept = replace(view, **{name: getattr(blank, name) for name in _NOT_THE_LIST})
    return urlencode(permalinks.to_params(kept), doseq=True) or urlencode({"sort": blank.sort})


def from_walk(walk: str) -> FeaturesView:
    """The view whose list a parameter states."""
    return permalinks.from_params(FeaturesView, parse_qs(walk))


def _name(ends: dict[str, float], share: float) -> str:
    return next(name for name, value in ends.items() if value == share)
