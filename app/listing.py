"""What a view of the Features page asks of a bundle, what a preset looks like as a view, and a list as a permalink."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs, urlencode

from app import audits, state
from app.components import area
from app.state import FeaturesView
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.features import FEATURE_SORTS, FeatureFilter, Preset
from lfp.bundle.store.connection import Store

SHARES = dict(zip(state.DENSITIES, (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0), strict=True))
RANKS = dict(zip(state.STANDINGS, (0.0, 1e-3, 1e-2, 1e-1, 0.5, 1.0), strict=True))
DRIFT_RANKS = {name: RANKS[name] for name in reversed(state.STANDINGS[1:])}
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
        region=area.from_text(view.area),
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
    return urlencode(state.to_params(kept), doseq=True) or urlencode({"sort": blank.sort})


def from_walk(walk: str) -> FeaturesView:
    """The view whose list a parameter states."""
    return state.from_params(FeaturesView, parse_qs(walk))


def _name(ends: dict[str, float], share: float) -> str:
    return next(name for name, value in ends.items() if value == share)
