"""Numbers as people read them, and the order in which rows of the report are read."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from lfp.evaluation.results import STATUSES, ResultRow
from lfp.util.types import SITE_NAMES

NONE = "–"
"""What stands where there is no number."""

_ORDER = {
    name: place
    for names in (
        ("tuned", "base", "difference", "twin", "twin_of_twin"),
        ("implicit_reward", "implicit_advantage", "implicit_matched", "preference", "delta", "feedback"),
        (
            "sae",
            "base_sae",
            "sae_of_base",
            "raw",
            "base_raw",
            "difference_in_means",
            "random_sae",
            "trained_random_sae",
            "token_identity",
            "sae_before",
        ),
        ("all", "positive", "negative"),
        STATUSES,
    )
    for place, name in enumerate(names)
}
"""Names that are not read in alphabetical order."""

_LEAST = 1e-12
"""Smaller sizes are what rounding leaves of zero."""


def place_name(layer: int | None, site: str | None = None) -> str:
    """Name a layer, with its site unless that is the MLP output or unknown: layer 3, residual stream."""
    return f"layer {layer}" + (f", {SITE_NAMES.get(site, site)}" if site and site != "mlp_out" else "")


def plain(value: float | None, digits: int = 2) -> str:
    """Return a number with `digits` decimals, or with that many significant digits where the decimals would be zeros.

    The minus sign is a true one, and a dash stands for None and for what is not finite.
    """
    if value is None or not math.isfinite(value):
        return NONE
    if abs(value) < _LEAST:
        return f"{0:.{digits}f}"
    if abs(value) < 1e-6:
        return f"{value:.1e}".replace("-", "−")
    if abs(value) < 0.5 * 10**-digits:
        significant = f"{value:.{max(digits, 1) - 1 - math.floor(math.log10(abs(value)))}f}"
        return significant.rstrip("0").replace("-", "−")
    return fixed(value, digits)


def number(value: float | None) -> str:
    """Return a number of unknown unit: whole numbers and thousands without decimals, else about three digits."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == round(value) or abs(value) >= 1000 or abs(value) < _LEAST:
        return plain(value, 0)
    if abs(value) >= 100:
        return plain(value, 1)
    return plain(value, 3 if abs(value) >= 0.001 else 2)


def signed(value: float | None, digits: int = 2) -> str:
    """Return `plain` with a plus sign in front of what is positive."""
    text = plain(value, digits)
    return f"+{text}" if value is not None and math.isfinite(value) and value > 0 else text


def short(value: float) -> str:
    """Return a signed number with one decimal, for the narrowest places."""
    return "0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "−")


def count(value: float | None) -> str:
    """Return a whole number with thousands set apart; large ones in millions and billions."""
    if value is None or not math.isfinite(value):
        return NONE
    for name, size in (("billion", 1e9), ("million", 1e6)):
        if abs(value) >= size:
            return f"{value / size:.1f} {name}".replace("-", "−")
    return plain(value, 0) if abs(value) >= 0.5 else "0"


def percent(share: float | None) -> str:
    """Return a share in per cent, with two significant digits below ten."""
    if share is None or not math.isfinite(share):
        return NONE
    value = 100 * share
    if value == 0:
        return "0 %"
    digits = 0 if abs(value) >= 10 else max(0, min(1 - math.floor(math.log10(abs(value))), 6))
    return f"{value:.{digits}f} %".replace("-", "−")


def fixed(value: float, digits: int) -> str:
    """Return a number with so many decimals, however small it is; what rounds to zero has no sign."""
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")


def digits_for(low: float | None, high: float | None) -> int:
    """Return how many decimals an interval of this width deserves: two, more where it is narrow."""
    if low is None or high is None or not 0 < 2 * (high - low) < math.inf:
        return 2
    return min(max(1 - math.floor(math.log10(2 * (high - low))), 2), 6)


def interval(low: float | None, high: float | None, digits: int | None = None) -> str:
    """Return an interval as `low to high`, with the decimals it deserves where `digits` is None; empty without one."""
    if low is None or high is None:
        return ""
    digits = digits_for(low, high) if digits is None else digits
    return f"{fixed(low, digits)} to {fixed(high, digits)}"


def with_interval(
    value: float, low: float | None, high: float | None, *, is_signed: bool = False, digits: int | None = None
) -> str:
    """Return a value and its interval as `0.12 [0.10, 0.14]`; without `digits` the interval says how many decimals."""
    digits = digits_for(low, high) if digits is None else digits
    if low is None or high is None or not math.isfinite(value):
        return (signed if is_signed else plain)(value, digits)
    sign = "+" if is_signed and round(value, digits) > 0 else ""
    return f"{sign}{fixed(value, digits)} [{fixed(low, digits)}, {fixed(high, digits)}]"


def with_power(value: float, low: float | None = None, high: float | None = None, *, is_signed: bool = True) -> str:
    """Return a value and its interval; where both are small, as `+1.7 [1.2, 2.3] · 10⁻⁶`."""
    known = [abs(each) for each in (value, low, high) if each is not None and math.isfinite(each)]
    largest = max(known, default=0.0)
    if not sys.float_info.min <= largest < _SMALL:  # smaller ones have no power of ten to divide by
        return with_interval(value, low, high, is_signed=is_signed)
    power = math.floor(math.log10(largest))
    ends = [None if end is None else end / 10.0**power for end in (low, high)]
    scaled = with_interval(value / 10.0**power, *ends, is_signed=is_signed)
    return f"{scaled} · 10{str(power).translate(_RAISED)}"


_SMALL = 1e-3
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def estimate(row: ResultRow, *, is_signed: bool = False) -> str:
    """Return a row's value and its interval."""
    return with_interval(row.value, row.ci_low, row.ci_high, is_signed=is_signed)


def share(row: ResultRow) -> str:
    """Return a row's share and its interval in per cent."""
    if row.ci_low is None or row.ci_high is None:
        return percent(row.value)
    low, high = (percent(value).removesuffix(" %") for value in (row.ci_low, row.ci_high))
    return f"{percent(row.value)} [{low}, {high}]"


def pick(rows: Iterable[ResultRow], **keys: object) -> ResultRow | None:
    """Return the first row with these keys."""
    return next((row for row in rows if all(getattr(row, key) == value for key, value in keys.items())), None)


def sort_rows(rows: Sequence[ResultRow], *keys: str) -> list[ResultRow]:
    """Return the rows in reading order, by each key in turn: tuned before base, all before positive, and so on."""
    return sorted(rows, key=lambda row: [reading_order(getattr(row, key)) for key in keys])


def reading_order(key: Any) -> tuple[int, list[tuple[int, float, str]]]:
    """Return what a key sorts by in its column: known names in their order, then numbers by size, then the alphabet."""
    if key is None:
        return 0, []
    if isinstance(key, str) and key in _ORDER:
        return 1, [(0, _ORDER[key], "")]
    parts = re.findall(r"\d+|\D+", str(key))
    return 2, [(0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in parts]
