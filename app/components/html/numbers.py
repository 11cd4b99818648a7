"""Numbers as people read them: a true minus sign, few digits, a dash where there is none."""

from __future__ import annotations

import math

NONE = "–"


def plain(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals; small ones keep as many significant digits."""
    if value is None or not math.isfinite(value):
        return NONE
    if value != 0 and abs(value) < 0.5 * 10**-digits:
        return f"{value:.{max(digits, 1)}g}".replace("-", "−")
    return f"{value:,.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 2) -> str:
    """The same with a plus sign where it is due."""
    text = plain(value, digits)
    return f"+{text}" if value is not None and math.isfinite(value) and value > 0 else text


def short(value: float) -> str:
    """A signed number in as little room as can be: one decimal."""
    return "0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "−")


def count(value: float | None) -> str:
    """A whole number with thousands set apart; large ones in millions."""
    if value is None:
        return NONE
    if abs(value) >= 1e9:
        return f"{value / 1e9:.1f} billion"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.1f} million"
    return f"{value:,.0f}".replace("-", "−")


def percent(share: float | None) -> str:
    """A share in per cent, with two significant digits below ten."""
    if share is None or not math.isfinite(share):
        return NONE
    value = 100 * share
    if value == 0:
        return "0 %"
    if abs(value) >= 10:
        return f"{value:.0f} %".replace("-", "−")
    digits = min(1 - math.floor(math.log10(abs(value))), 6)
    return f"{value:.{max(digits, 0)}f} %".replace("-", "−")


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """A 95 % interval, or nothing."""
    return "" if low is None or high is None else f"{fixed(low, digits)} to {fixed(high, digits)}"


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals, however small."""
    return f"{value:,.{digits}f}".replace("-", "−")


def digits_for(low: float | None, high: float | None) -> int:
    """Decimals that an interval of this width deserves: two, more where it is narrow."""
    if low is None or high is None or not high > low:
        return 2
    return min(max(1 - math.floor(math.log10(2 * (high - low))), 2), 6)
