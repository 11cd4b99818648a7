"""SQL that other questions are made of: activations a row each, and what they come to over the tokens pooled."""

from __future__ import annotations

from lfp import views

EVERY, ONE, OTHER = "true", "text_id = $text_id", "text_id = $other_id"


def active(which: str) -> str:
    """The activations of every text, one or the other, a row each."""
    return f"{views.UNNESTED} WHERE {which}"


def pooled(which: str) -> str:
    """What their features come to over the tokens pooled, a row a text and feature."""
    return views.pooled(active(which), pooling="$pooling")


def pooled_of_feature() -> str:
    """What one feature comes to over the tokens pooled, a row a text that it is active on."""
    return views.pooled("FROM active_of($feature_id)", pooling="$pooling")
