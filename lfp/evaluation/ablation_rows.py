"""Rows of the table `ablations`: which are a group's controls, and whether its effect exceeds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAIN_KINDS = ("related", "weighted", "both", "chosen")
"""Kinds of groups with a result of their own, in reading order."""
FEATURE, CONTROL = "feature", "control"
"""Other kinds of rows: a single feature, and a matched control."""

Row = Mapping[str, Any]


def controls_in(row: Row, rows: Sequence[Row]) -> list[Row]:
    """Select the controls of a row: the group's own; for a single feature those of all single features."""
    controls = [other for other in rows if other["kind"] == CONTROL]
    if row["kind"] != FEATURE:
        return [control for control in controls if control["control_of"] == row["group"]]
    singles = {other["group"] for other in rows if other["kind"] == FEATURE}
    return [control for control in controls if control["control_of"] in singles]


def passes(row: Row) -> bool:
    """Tell whether the effect, of either sign, is larger than the 95th percentile of the controls' sizes."""
    return row["null_high"] is not None and abs(row["effect"]) > row["null_high"]


def is_inert(row: Row) -> bool:
    """Tell whether a row shows no effect: its interval contains 0, and it does not exceed its controls."""
    return not passes(row) and row["ci_low"] <= 0.0 <= row["ci_high"]
