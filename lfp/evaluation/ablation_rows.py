"""Rows of the table `ablations`: which of them are a group's controls, and whether its effect passes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAIN_KINDS = ("related", "weighted", "both", "chosen")
"""Kinds of groups that are judged by themselves, in the order they are read."""
FEATURE, CONTROL = "feature", "control"
"""Kinds of rows beside them: a single feature, and a matched control."""

Row = Mapping[str, Any]


def controls_in(row: Row, rows: Sequence[Row]) -> list[Row]:
    """The controls that a row is held against: the group's own; of a single feature those of all single features."""
    controls = [one for one in rows if one["kind"] == CONTROL]
    if row["kind"] != FEATURE:
        return [one for one in controls if one["control_of"] == row["group"]]
    singles = {one["group"] for one in rows if one["kind"] == FEATURE}
    return [one for one in controls if one["control_of"] in singles]


def passes(row: Row) -> bool:
    """Whether the effect is larger, whichever its sign, than the 95th percentile of the controls' sizes."""
    return row["null_high"] is not None and abs(row["effect"]) > row["null_high"]


def is_inert(row: Row) -> bool:
    """Whether a row shows no effect: its interval holds 0, and it does not pass its controls."""
    return not passes(row) and row["ci_low"] <= 0.0 <= row["ci_high"]
