"""What a view of the Features page asks of a bundle, and a list as a permalink."""

from __future__ import annotations

from urllib.parse import parse_qs

from app import state
from app.state import FeaturesView
from lfp.queries import FEATURE_SORTS, FeatureFilter, Order

SHARES = dict(zip(state.DENSITIES, (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0), strict=True))
"""Shares of tokens by what one end of a range is called."""


def wanted_of(view: FeaturesView) -> FeatureFilter:
    """The filter that a view states; what it states wrongly lets all pass."""
    low, high = (SHARES.get(end, default) for end, default in zip(view.density, (0.0, 1.0), strict=True))
    return FeatureFilter(
        layers=view.layer, sign=view.sign, related=view.related, density_low=low, density_high=high, search=view.find
    )


def order_of(view: FeaturesView) -> Order:
    """The order that a view states; by contribution where it names no column."""
    return Order(view.sort if view.sort in FEATURE_SORTS else FeaturesView().sort, view.order != "ascending")


def from_walk(walk: str) -> FeaturesView:
    """The view whose list a parameter states."""
    return state.from_params(FeaturesView, parse_qs(walk))
