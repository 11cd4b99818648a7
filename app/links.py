"""Addresses within the bundle that is open."""

from __future__ import annotations

from typing import Any

from app import cache, state


def to(page: str, view: Any) -> str:
    """The address of a view of a page."""
    return state.href(page, view, bundle=cache.bundle())


def feature(number: int) -> str:
    """The address of one feature."""
    return to("feature", state.FeatureView(feature=number))


def text(number: int) -> str:
    """The address of one text."""
    return to("inputs", state.InputsView(text=number))
