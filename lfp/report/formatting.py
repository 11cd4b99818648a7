"""One figure of the report as it is read: its number, its interval, and its place among others."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from lfp.evaluation.drift import STATUSES
from lfp.evaluation.results import ResultRow

_ORDER = {
    name: place
    for names in (
        ("tuned", "base", "difference"),
        ("implicit_reward", "implicit_advantage", "implicit_matched", "preference", "delta", "feedback"),
        ("sae", "base_sae", "raw", "base_raw", "sae_of_base", "sae_before", "random_sae", "token_identity"),
        ("all", "positive", "negative"),
        STATUSES,
    )
    for place, name in enumerate(names)
}
"""Names that are read in another order than the alphabet's."""


def number(value: float | None) -> str:
    """A figure in four digits or so; a dash where it is not a number."""
    if value is None or not math.isfinite(value):
        return "-"
    if abs(value) < 1e-12:  # what rounding leaves of nothing
        return "0"
    if abs(value) >= 1000 or value == round(value):
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.1f}"
    return f"{value:.3f}" if abs(value) >= 0.001 else f"{value:.1e}"


def interval(figure: ResultRow) -> str:
    """The 95 % interval, or nothing."""
    ends = figure.ci_low, figure.ci_high
    return "" if None in ends else f"[{_end(ends[0])}, {_end(ends[1])}]"


def with_interval(figure: ResultRow) -> str:
    """The figure and its interval."""
    return f"{number(figure.value)} {interval(figure)}".strip()


def _end(value: float | None) -> str:
    """An end of an interval, in three decimals also where it is a small whole number."""
    return f"{value:.3f}" if value in (-1, 0, 1) else number(value)


def is_single(figure: ResultRow) -> bool:
    """Whether a figure of the row `ablation` is of one feature taken out by itself."""
    return str(figure.group).startswith("feature:")


def in_order(figures: Sequence[ResultRow], *keys: str) -> list[ResultRow]:
    """The figures as they are read: by each key in turn, tuned before base, all before positive, born before gone."""
    return sorted(figures, key=lambda one: [place(getattr(one, key)) for key in keys])


def place(key: Any) -> tuple[int, list[tuple[int, float, str]]]:
    """Where a key comes in its column: known names in their order, then numbers by size, then the alphabet."""
    if key is None:
        return 0, []
    if isinstance(key, str) and key in _ORDER:
        return 1, [(0, _ORDER[key], "")]
    parts = re.findall(r"\d+|\D+", str(key))
    return 2, [(0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in parts]
