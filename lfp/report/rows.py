"""The report as rows: those of the table `results`, of ablations, and of what each stage cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import (
    CONTROL,
    FEATURE,
    MAIN_KINDS,
    ROWS,
    Estimate,
    ResultRow,
    controls_in,
    group_by_section,
)
from lfp.report.summary import cost_rows

Ablation = Mapping[str, Any]
"""A row of the table `ablations`."""

Curves = Mapping[str, Sequence[Any]]
"""Columns of the table `tuning`."""

_CURVE_POINTS = 20
_MEASURES = ("perplexity", "perplexity_before", "repetition", "removed_energy")


def build_report(
    rows: Sequence[ResultRow],
    ablations: Sequence[Ablation] = (),
    costs: Sequence[ResultRow] = (),
    tuning: Curves | None = None,
) -> dict[str, list[ResultRow]]:
    """Return every section of the report, empty where the run has no such rows.

    `ablations` are rows of that table, `tuning` columns of that table, and `costs` come from `lfp.report.summary`.
    """
    found = [*rows, *ablation_rows(ablations), *tuning_rows(tuning or {}), *costs]
    return {name: list[ResultRow]() for name in ROWS} | group_by_section(found)


def read_report(store: Store) -> dict[str, list[ResultRow]]:
    """Read every section of a bundle's report."""
    tuning, ablations = queries.run.tuning(store).to_pydict(), queries.run.report_ablations(store)
    return build_report(queries.run.figures(store), ablations, cost_rows(store.manifest), tuning)


def tuning_rows(tuning: Curves) -> list[ResultRow]:
    """Section `tuning`: each metric as at most `_CURVE_POINTS` means over consecutive steps.

    `group` is the last of a mean's steps, `n` their number.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for metric, step, value in zip(*(tuning.get(name, ()) for name in ("metric", "step", "value")), strict=True):
        curves.setdefault(metric, []).append((step, value))
    rows = []
    for metric, curve in curves.items():
        width = math.ceil(len(curve) / _CURVE_POINTS)
        for start in range(0, len(curve), width):
            part = curve[start : start + width]
            mean = sum(value for _, value in part) / len(part)
            rows.append(ResultRow.from_estimate("tuning", metric, mean, group=str(part[-1][0]), n=len(part)))
    return rows


def ablation_rows(ablations: Sequence[Ablation]) -> list[ResultRow]:
    """Section `ablation`: mean reward before and after removing each group of features, the effect, and its controls.

    `control` is the mean effect of the group's matched controls, and `contrast` the effect less that, paired by prefix:
    its null is how controls differ among themselves, two-sided. `clean` is the mean reward over several runs of the
    untouched model. `perplexity_ratio` and `energy_ratio` divide by the controls'
    means: how much worse the text became, and how well the controls match. Groups come first, then single features by
    the size of their predicted effect.
    """
    judged = [row for row in ablations if row["kind"] != CONTROL]
    place = {kind: i for i, kind in enumerate((*MAIN_KINDS, FEATURE))}
    judged.sort(key=lambda row: (place[row["kind"]], -abs(row["predicted_effect"] or 0.0), row["group"]))
    return [row for group in judged for row in _rows_of_group(group, controls_in(group, ablations))]


def _rows_of_group(group: Ablation, controls: Sequence[Ablation]) -> list[ResultRow]:
    effect = Estimate(group["effect"], group["n_completions"], group["ci_low"], group["ci_high"])
    contrast = None
    if group["contrast"] is not None:
        contrast = Estimate(
            group["contrast"],
            group["n_completions"],
            group["contrast_low"],
            group["contrast_high"],
            null_mean=None if group["contrast_p"] is None else 0.0,
            null_high=group["contrast_reach"],
            null_p=group["contrast_p"],
        )
    values = {"before": group["reward_before"], "after": group["reward_after"], "predicted": group["predicted_effect"]}
    if group["kind"] != FEATURE:
        means: dict[str, float | None] = {}
        for name in ("effect", *_MEASURES):
            known = [control[name] for control in controls if control.get(name) is not None]
            means[name] = sum(known) / len(known) if known else None
        values |= {
            "clean": group.get("reward_clean"),
            "control": means["effect"],
            "features": len(group["features"]),
            "scale": group["scale"],
        }
        values |= {name: group.get(name) for name in _MEASURES}
        values |= {f"{name}_control": means[name] for name in ("perplexity", "repetition")}
        for ratio, name in (("perplexity_ratio", "perplexity"), ("energy_ratio", "removed_energy")):
            value, control = group.get(name), means[name]
            values[ratio] = value / control if value is not None and control else None
    figures = {"effect": effect, "contrast": contrast} | values
    return [
        ResultRow.from_estimate(
            "ablation",
            metric,
            figure,
            group=group["group"],
            layer=group["layer"],
            site=group.get("site"),
            n=group["n_completions"],
        )
        for metric, figure in figures.items()
        if figure is not None
    ]
