"""Colours: blue to orange where sign matters, one teal where only strength does, grey for the base model.

Each is legible on the light and the dark background; blue and orange differ for every common kind of colour blindness.
"""

from __future__ import annotations

POSITIVE, NEGATIVE = "#3b82c4", "#e0852b"
STRENGTH, BASE = "#1a9c8e", "#8d9199"
GRID = "rgba(141, 145, 153, 0.22)"
DIVERGING = [[0.0, NEGATIVE], [0.5, "rgba(141, 145, 153, 0.35)"], [1.0, POSITIVE]]


def signed(value: float) -> str:
    """The colour of a value's sign."""
    return POSITIVE if value >= 0 else NEGATIVE
