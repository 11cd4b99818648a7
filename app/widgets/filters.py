"""The filters, order and presets of the list of features: their widgets, and the query that a view stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.components.feature import columns
from app.components.feature import map as feature_map
from app.components.feature.drift import STATUS_NAMES
from app.components.html import panels
from app.session import audits, callbacks, permalinks
from app.session.cache import ask
from app.session.option_words import words_for
from app.session.permalinks import FeaturesView
from app.widgets import search
from app.widgets.chips import set_filters
from lfp.bundle import queries
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.features import FEATURE_SORTS, FLIPPED, MATCH, PRESETS, FeatureFilter, Preset
from lfp.bundle.store.connection import Store
from lfp.util.types import SITES

BOUND: dict[str, Any] = {"bind": "query-params"}
SHARES = dict(zip(permalinks.DENSITIES, (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0), strict=True))
RANKS = dict(zip(permalinks.STANDINGS, (0.0, 1e-3, 1e-2, 1e-1, 0.5, 1.0), strict=True))
TOP_SHARES = {name: RANKS[name] for name in reversed(permalinks.STANDINGS[1:])}
"""Shares of features by the name of one end of a range."""

FIND_HINT = "words of a label, a token, or a number"
_MORE = (
    "fires_on", "density", "drifts", "drifted", "standing", "least_stable", "least_detected", "has_note", "labelled",
    "tuned_only",
)  # fmt: skip
"""Fields of FeaturesView whose widgets are behind the button."""


def show_filters(store: Store) -> FeaturesView:
    """Draw the widgets above the list, and return the view that they state."""
    fresh: dict[str, Any] = {**BOUND, "on_change": callbacks.guard(go_to_first_page)}
    search.show_search(**BOUND)
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    show_layers(store, row, layer="layer", site="site", **fresh)
    row.selectbox("Sign", ["any", "positive", "negative"], key="sign", width=98, help="Of the probe weight", **fresh)
    row.selectbox("Related", ["any", "yes", "no"], key="related", width=92, help="What the label says", **fresh)
    row.selectbox(
        "Weight", ["any", "beats", "within"], key="null", format_func=words_for("null"), width=132,
        help="Chance: 95 % of weights fitted to shuffled feedback are smaller", **fresh,
    )  # fmt: skip
    more = row.container(width="content")
    row.selectbox("Sort by", [*FEATURE_SORTS, MATCH], key="sort", format_func=words_for("sort"), width=138, **fresh)
    row.selectbox("Order", ["descending", "ascending"], key="order", width=126, **fresh)
    with row.popover("Columns", icon=":material/view_column:"):
        options = [name for name in columns.COLUMNS if name not in columns.ALWAYS]
        st.multiselect(
            "Columns of the list", options, default=permalinks.COLUMNS, key="shown",
            format_func=words_for("shown"), **BOUND,
        )  # fmt: skip
    row.toggle("Map", value=True, key="with_map", **BOUND)
    return _show_more(more, fresh)


def show_layers(store: Store, row: DeltaGenerator, *, layer: str, site: str, **bound: Any) -> None:
    """Draw the choice of layers under these keys; of sites too where features are read at several."""
    layers, sites = ask(queries.features.feature_layers, store), ask(queries.features.feature_sites, store)
    several: dict[str, Any] = {"selection_mode": "multi", **bound}
    row.segmented_control("Layers", layers, key=layer, **several)
    if len(sites) > 1:
        row.segmented_control("Read at", sites, key=site, format_func=words_for("site"), **several)


def site_column(store: Store) -> tuple[str, ...]:
    """Return the name of the column of sites, where it says something: unless all features are of MLP outputs."""
    return () if set(ask(queries.features.feature_sites, store)) <= {"mlp_out"} else ("site",)


def _show_more(slot: DeltaGenerator, fresh: dict[str, Any]) -> FeaturesView:
    """Draw the filters behind a button that shows how many of them are set."""
    blank = FeaturesView()
    linked = permalinks.from_params(FeaturesView, {name: st.query_params.get_all(name) for name in st.query_params})
    unset = {name: value for name, value in vars(linked).items() if name not in st.session_state}
    requested = permalinks.current_view(FeaturesView, **unset)
    n = sum(getattr(requested, name) != getattr(blank, name) for name in _MORE)
    with slot.popover(f"More filters ({n})" if n else "More filters", icon=":material/tune:", key="more_filters"):
        st.text_input("Fires on the token", key="fires_on", placeholder="a whole token, such as good", **fresh)
        st.pills(
            "Change in tuning", [*STATUS_NAMES, FLIPPED], selection_mode="multi", key="drifts",
            format_func=words_for("drifts"),
            help="How its activity changed; sign flipped: its probe weight changed sign", **fresh,
        )  # fmt: skip
        st.selectbox(
            "Largest change, top", list(TOP_SHARES), key="drifted",
            help="Of all features, those whose contribution changed most", **fresh,
        )  # fmt: skip
        st.select_slider(
            "Rank by contribution", permalinks.STANDINGS, value=blank.standing, key="standing",
            help="Share of all features, from the largest contribution to the smallest", **fresh,
        )  # fmt: skip
        st.select_slider("Density", permalinks.DENSITIES, value=blank.density, key="density", **fresh)
        share: dict[str, Any] = {"min_value": 0.0, "max_value": 1.0, "step": 0.05}
        stability = "Cosine with its match in a second dictionary of the same activations"
        st.slider("Stability at least", key="least_stable", help=stability, **share, **fresh)
        label = "Yes: a person gave it, or it predicts held-out texts beyond chance"
        st.segmented_control("Labelled", ["any", "yes", "no"], default="any", required=True, key="labelled",
                             help=label, **fresh)  # fmt: skip
        tuned = "Directions that the base model hardly uses, by latent scaling; older bundles do not say"
        st.toggle("Tuned only", key="tuned_only", help=tuned, **fresh)
        st.toggle("Has a note or verdict", key="has_note", **fresh)
        detection = "Balanced accuracy of predicting from the label which held-out texts fire (chance: 0.5)"
        st.slider("Detection of its label at least", key="least_detected", help=detection, **share, **fresh)
    return permalinks.current_view(FeaturesView, area=st.query_params.get("area", ""))


def show_presets(store: Store, view: FeaturesView) -> None:
    """Draw the presets that list something here; the one that matches the filters is marked."""
    offered = store.once("presets", lambda: queries.features.presets(store))
    names = [name for name in offered if to_walk(preset_view(PRESETS[name], view)) == to_walk(view)]
    st.session_state.preset = names[0] if names else None
    st.pills("Presets", offered, key="preset", on_change=callbacks.guard(_use_preset))
    if names:
        st.html(panels.note(PRESETS[names[0]].says))


def _use_preset() -> None:
    """Set the widgets to the chosen preset, or clear them if it was deselected; layers and sites stay."""
    chosen, view = PRESETS.get(st.session_state.preset), permalinks.current_view(FeaturesView)
    set_filters(preset_view(chosen, view) if chosen else FeaturesView(layer=view.layer, site=view.site))


def set_area(text: str) -> None:
    """List only what is within an outline on the map, or everything if empty; for callbacks."""
    permalinks.set_param("area", text)
    go_to_first_page()


def go_to_first_page() -> None:
    """Show the list from its beginning; for callbacks."""
    st.session_state.page = 1


def filter_of(view: FeaturesView, store: Store | None = None) -> FeatureFilter:
    """Return the filter that a view states; values that it cannot have filter nothing.

    With `store`, a ranked search is run, and a view of features with a note or verdict is looked up in the audits.
    """
    way, text = search.wanted(view)
    low, high = (SHARES.get(end, default) for end, default in zip(view.density, (0.0, 1.0), strict=True))
    above, up_to = (RANKS.get(end, default) for end, default in zip(view.standing, (0.0, 1.0), strict=True))
    wanted = FeatureFilter(
        layers=view.layer, sites=tuple(site for site in view.site if site in SITES), sign=view.sign,
        related=view.related, density_low=low, density_high=high,
        search=text if way == "words" else "", token=view.fires_on, null=view.null, drift=view.drifts,
        drift_top=TOP_SHARES.get(view.drifted, 1.0), rank_low=above, rank_high=up_to,
        stability_low=view.least_stable, detection_low=view.least_detected, region=feature_map.from_text(view.area),
        labelled=view.labelled, is_tuned_only=view.tuned_only,
    )  # fmt: skip
    if store is None:
        return wanted
    if (found := search.find(store, view)) is not None:
        wanted = replace(wanted, found=found.ids)
    return replace(wanted, noted=audits.noted_features(store)[0]) if view.has_note else wanted


def order_of(view: FeaturesView) -> Order:
    """Return the order that a view states; by contribution if it names no column."""
    return Order(view.sort if view.sort in (*FEATURE_SORTS, MATCH) else FeaturesView().sort, view.order != "ascending")


def preset_view(preset: Preset, view: FeaturesView) -> FeaturesView:
    """Return the view with a preset's filter and order, and the layers and sites of another."""

    def end(names: Mapping[str, float], share: float) -> str:
        return next(name for name, value in names.items() if value == share)

    wanted = preset.wanted
    return FeaturesView(
        layer=view.layer, site=view.site,
        sign=wanted.sign, related=wanted.related, null=wanted.null, drifts=wanted.drift,
        drifted=end(TOP_SHARES, wanted.drift_top),
        standing=(end(RANKS, wanted.rank_low), end(RANKS, wanted.rank_high)), sort=preset.order.by,
        labelled=wanted.labelled, tuned_only=wanted.is_tuned_only,
        order="descending" if preset.order.descending else "ascending",
    )  # fmt: skip


def to_walk(view: FeaturesView) -> str:
    """Write the list that a view shows, whatever its page and columns, as one parameter."""
    blank = FeaturesView()
    kept = replace(view, page=blank.page, shown=blank.shown, with_map=True, map_colour=blank.map_colour)
    return urlencode(permalinks.to_params(kept), doseq=True) or urlencode({"sort": blank.sort})


def from_walk(walk: str) -> FeaturesView:
    """Read the view that a parameter of `to_walk` states."""
    return permalinks.from_params(FeaturesView, parse_qs(walk))
