"""Features taken out: rows of `ablations` as lines of a chart, and the sentences under them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from app.components.charts.intervals import Line, told
from app.components.html import tables
from app.components.html.numbers import count, plain, signed
from app.components.html.wording import pick
from lfp.bundle.queries.run import AblatedFeature
from lfp.evaluation.ablation_rows import CONTROL, FEATURE, MAIN_KINDS, controls_in, passes
from lfp.evaluation.results import ResultRow

KINDS = {
    "related": "called related",
    "weighted": "raise the estimate most",
    "both": "both",
    "chosen": "chosen by a person",
}
"""Groups that are taken out."""


def groups(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `ablations` that are judged groups, in reading order."""
    return sorted(
        (row for row in rows if row["kind"] in MAIN_KINDS),
        key=lambda row: (MAIN_KINDS.index(row["kind"]), row["group"]),
    )


def effects(rows: Sequence[dict[str, Any]]) -> list[Line]:
    """The effect of each group that was taken out, its controls as dots and their 95th percentile of size."""
    found = []
    for row in groups(rows):
        own, reach = controls_in(row, rows), row["null_high"]
        dots, low = tuple(one["effect"] for one in own), None if reach is None else -reach
        found.append(Line(group_name(row), row["effect"], row["ci_low"], row["ci_high"], low, reach, dots))
    return found


def perplexities(rows: Sequence[dict[str, Any]]) -> list[Line]:
    """Perplexity of the text written without each group, its controls' as dots, the untouched model's as a mark."""
    return [
        Line(
            group_name(row), row["perplexity"], dots=tuple(one["perplexity"] for one in controls_in(row, rows)),
            mark=row["perplexity_before"],
        )
        for row in groups(rows)
    ]  # fmt: skip


def group_name(row: dict[str, Any]) -> str:
    """What was taken out or scaled, and of how many features it is."""
    n, kind = len(row["features"]), KINDS.get(row["kind"], row["kind"])
    name = row["group"] if row["kind"] == "chosen" else kind
    scaled = f", ×{plain(row['scale'], 1)}" if row["scale"] else ""
    return f"{name} ({n} feature{'s' if n != 1 else ''}{scaled})"


def effect_sentence(rows: Sequence[dict[str, Any]]) -> str:
    """Which groups do what matched controls do not."""
    judged = groups(rows)
    if all(row["null_high"] is None for row in judged):
        return "No group is judged: its layers have too few other features to be its controls."
    passed = [KINDS.get(row["kind"], row["group"]) for row in judged if passes(row)]
    if not passed:
        says = "No group moves the reward further than its matched controls."
    else:
        is_all = len(passed) == len(judged)
        says = (
            "Every group moves the reward further than its matched controls."
            if is_all
            else f"Further than matched controls the reward is moved only by the group: {', '.join(passed)}."
        )
    return f"{says} Mean reward before: {plain(judged[0]['reward_before'])}."


def n_controls(rows: Sequence[dict[str, Any]]) -> int:
    """How many controls the groups have together."""
    judged = {row["group"] for row in groups(rows)}
    return sum(row["kind"] == CONTROL and row["control_of"] in judged for row in rows)


def singles(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of single features."""
    return [row for row in rows if row["kind"] == FEATURE]


def single_sentence(rows: Sequence[ResultRow]) -> str:
    """How predicted and measured effects of single features rank together, as the report has it."""
    found = pick(rows, metric="predicted_measured")
    band = "A point a feature taken out by itself; the grey band holds 95 % of single controls."
    if found is None:
        return band
    side = "above" if found.null_high is not None and found.value > found.null_high else "not above"
    span = told(found.value, found.ci_low, found.ci_high, is_signed=True)
    return (
        f"{band} Ranks agree with Spearman’s {span}; dealt anew they reach {signed(found.null_high)} one time in "
        f"twenty, and this is {side} it."
    )


def inert_sentence(found: Sequence[AblatedFeature], n_inert: int) -> str:
    """How many of the features taken out alone are inert, and what effect could not be told from none."""
    half = sum((one.ci_high - one.ci_low) / 2 for one in found) / len(found)
    reach = f" ({plain(found[0].null_high)})" if found[0].null_high is not None else ""
    return (
        f"{n_inert} of the {len(found)} features that the probe weighs most show no effect when taken out alone: the "
        f"interval holds 0, and single controls do as much{reach}. With {count(found[0].n_completions)} completions an "
        f"effect below about {plain(half)} cannot be told from none."
    )


def feature_rows(found: Sequence[AblatedFeature], href: Callable[[int], str]) -> list[tables.Row]:
    """Single features as rows that lead to them."""
    return [
        tables.Row(href(one.feature_id), f"#{one.feature_id}", one.description or "not described", cells(one))
        for one in found
    ]


def cells(feature: AblatedFeature) -> tuple[str, str]:
    """Predicted and measured effect of a single feature, the latter with its interval."""
    measured = told(feature.effect, feature.ci_low, feature.ci_high, is_signed=True)
    return signed(feature.predicted_effect, 3), measured
