"""What several sentences share: comparisons with chance and with the base model, figures by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lfp.evaluation.results import ResultRow, count_dictionaries
from lfp.report.formatting import estimate, pick, plain

Rows = Sequence[ResultRow]

ABSENT = "This run has no such figure."


def against_chance(row: ResultRow, what: str = "shuffles") -> str:
    """Say whether a value is above its null; empty where it has none."""
    if row.null_high is None:
        return ""
    return f"{'Above' if row.beats_null else 'Not above'} chance (95 % of {what} are below {plain(row.null_high)})."


def against_base(difference: ResultRow) -> str:
    """Say what a difference of tuned and base means, by where its interval lies and what the interval covers.

    Over one dictionary of each model it covers words or pairs only: then no model is said to score higher.
    """
    if difference.ci_low is None or difference.ci_high is None:
        return "The difference has no interval."
    unit = "pairs" if difference.target == "preference" else "words"
    n = count_dictionaries(difference.group)
    covers = f"; the interval covers {unit} and {n} dictionaries of each model" if n > 1 else ""
    if difference.ci_low <= 0 <= difference.ci_high:
        return f"No clear difference: the base model may already have known this{covers}."
    side = "tuned" if difference.ci_low > 0 else "base"
    if n == 1 and difference.inputs == "sae":
        return (
            f"The {side} model scores higher with these dictionaries; the interval covers {unit} only, and other seeds "
            "of the dictionaries may move a small difference across zero (probes.dictionary_seeds)."
        )
    if side == "tuned":
        return f"The tuned model scores higher: the interval of the difference is above zero{covers}."
    return f"The base model scores higher, so this probe is no evidence that tuning put the feedback there{covers}."


def name_estimates(rows: Rows, names: Mapping[str, str]) -> dict[str, str]:
    """Return the first row of each metric in `names`, with its interval and its null, by the metric's name."""
    facts = {}
    for metric, name in names.items():
        row = pick(rows, metric=metric)
        if row is not None:
            chance = "" if row.null_high is None else f" · chance {plain(row.null_high)}"
            facts[name] = estimate(row) + chance
    return facts


def size_of(row: ResultRow) -> float:
    """Return the size of a figure; figures that are not finite come last."""
    return abs(row.value) if math.isfinite(row.value) else -1.0
