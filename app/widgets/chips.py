"""Chips: what a list of features is filtered by, each with a button that removes it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from app.components.feature.drift import STATUS_NAMES
from app.session import callbacks
from app.session.permalinks import FILTERS, FeaturesView, set_param
from lfp.bundle.queries.features import FLIPPED, MATCH
from lfp.util.sanitize import shortened
from lfp.util.types import SITE_NAMES


@dataclass(frozen=True)
class Chip:
    """A filter in words, and the view without it."""

    says: str
    without: FeaturesView


_TEXTS: dict[str, Callable[[Any], str]] = {
    "sign": "{} weight".format,
    "related": {"yes": "related", "no": "not related"}.get,  # type: ignore[dict-item]
    "density": lambda ends: f"density {ends[0]} to {ends[1]}",
    "find": lambda text: f"“{shortened(text, 40)}”",
    "fires_on": lambda token: f"fires on “{shortened(token, 40)}”",
    "null": {"beats": "weight beyond chance", "within": "weight within chance"}.get,  # type: ignore[dict-item]
    "drifted": "top {} of changes".format,
    "standing": lambda ends: f"rank by contribution: {ends[0]} to {ends[1]}",
    "least_stable": "stability at least {:g}".format,
    "least_detected": "detection at least {:g}".format,
    "has_note": lambda _: "has a note or verdict",
    "labelled": {"yes": "labelled", "no": "unlabelled"}.get,  # type: ignore[dict-item]
    "tuned_only": lambda _: "tuned only",
    "area": lambda _: "area on the map",
}
_PARTS: dict[str, Callable[[Any], str]] = {
    "layer": "layer {}".format,
    "site": lambda site: SITE_NAMES.get(site, site),
    "drifts": lambda status: {**STATUS_NAMES, FLIPPED: FLIPPED}.get(status, status),
}
"""Filters of several values: each value is a chip."""
_NO_CHIP = ("sort", "order", "find_by", "token_as")


def chips(view: FeaturesView) -> Iterator[Chip]:
    """Yield a chip for each filter that a view sets; its order, page and columns are none."""
    blank = FeaturesView()
    for name in (*FILTERS, "area"):
        value = getattr(view, name)
        if value == getattr(blank, name) or name in _NO_CHIP:
            continue
        if name in _PARTS:
            for part in dict.fromkeys(value):
                rest: Any = tuple(other for other in value if other != part)
                yield Chip(_PARTS[name](part), replace(view, **{name: rest}))
        else:
            unset: Any = {name: getattr(blank, name)}
            if name == "find":
                unset |= {"find_by": blank.find_by, "token_as": blank.token_as}
                unset |= {"sort": blank.sort} if view.sort == MATCH else {}
            yield Chip(_TEXTS[name](value) or str(value), replace(view, **unset))


def show_chips(view: FeaturesView) -> None:
    """Draw the chips of a view, and one button that removes them all; nothing where nothing is filtered."""
    found = list(chips(view))
    if not found:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="filter_chips"):
        for at, chip in enumerate(found):
            st.button(
                chip.says, key=f"chip_{at}", icon=":material/close:", icon_position="right",
                on_click=callbacks.guard(set_filters), args=(chip.without,), help=f"Remove this filter: {chip.says}",
            )  # fmt: skip
        if len(found) > 1:
            sort = FeaturesView().sort if view.sort == MATCH else view.sort
            blank = replace(FeaturesView(), sort=sort, order=view.order)
            st.button(
                "Clear all", key="clear_chips", type="tertiary", on_click=callbacks.guard(set_filters), args=(blank,)
            )


def set_filters(view: FeaturesView) -> None:
    """Set the widgets of filters and order to a view's, and go to the first page; for callbacks."""
    for name in FILTERS:
        value = getattr(view, name)
        st.session_state[name] = list(value) if name in ("layer", "site", "drifts") else value
    set_param("area", view.area)
    st.session_state.page = 1
