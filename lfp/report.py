"""The report: figures as rows of `results`, grouped as JSON, or laid out as readable tables."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from lfp.escape import visible
from lfp.metrics import Estimate
from lfp.report_sentences import sentence
from lfp.report_tables import Shown, tables

ROWS = (
    "reward",
    "implicit_reward",
    "kendall_tau",
    "sign_accuracy",
    "preference_accuracy",
    "token_sentiment",
    "error_by_frequency",
    "disagreements",
    "divergence_by_layer",
    "drift",
    "label_scores",
    "label_agreement",
    "activation_frequency",
    "ablation",
    "pca_explained",
    "sae_quality",
    "sae_sweep",
    "triples",
)
"""Rows of the report in the order they are read."""
_FIGURES = ("value", "ci_low", "ci_high", "null_mean", "null_high", "null_p", "n")
_WIDTH = 100

Row = Mapping[str, Any]
Report = dict[str, list[dict[str, Any]]]


def result(report_row: str, metric: str, figure: float | Estimate, **keys: Any) -> dict[str, Any]:
    """One row of `results`; `keys` are model, layer, probe_id, target, inputs, words, split, group or n."""
    row: dict[str, Any] = {"report_row": report_row, "metric": metric, **keys}
    if not isinstance(figure, Estimate):
        return row | {"value": float(figure)}
    return row | {name: getattr(figure, name) for name in _FIGURES}


def grouped(rows: Sequence[Row]) -> Report:
    """Rows of `results` by report row, in reading order, null keys left out."""
    report: Report = {name: [] for name in ROWS if any(row["report_row"] == name for row in rows)}
    for row in rows:
        kept = {key: value for key, value in row.items() if key == "value" or value is not None}
        report.setdefault(kept.pop("report_row"), []).append(kept)
    return report


def whole(rows: Sequence[Row], ablations: Sequence[Row] = ()) -> Report:
    """What `report --json` prints: every row of the report, an empty list where the run has no such figure.

    `ablations` are rows of that table. A figure that is not a number, which JSON cannot hold, becomes null.
    """
    report: Report = {name: [] for name in ROWS} | grouped([*rows, *ablation_rows(ablations)])
    return {name: [_finite(figure) for figure in figures] for name, figures in report.items()}


def ablation_rows(ablations: Sequence[Row]) -> list[dict[str, Any]]:
    """Row `ablation`: mean reward before and after taking out each group of features, the effect, and its controls.

    `control` is the mean effect of the group's matched controls; the null of an effect is their 95th percentile of
    size.
    """
    rows = []
    for group in (row for row in ablations if row["kind"] != "control"):
        keys = {"group": group["group"], "layer": group["layer"], "n": group["n_completions"]}
        rows += [result("ablation", when, group[f"reward_{when}"], **keys) for when in ("before", "after")]
        effect = result("ablation", "effect", group["effect"], **keys)
        rows.append(effect | {name: group[name] for name in ("ci_low", "ci_high", "null_high")})
        controls = [row["effect"] for row in ablations if row["control_of"] == group["group"]]
        if controls:
            rows.append(result("ablation", "control", sum(controls) / len(controls), **keys))
    return rows


def lines(report: Mapping[str, Sequence[Row]]) -> list[str]:
    """The report as plain text: of each row its name, a sentence of what it says, and aligned tables."""
    return [
        line
        for name, figures in report.items()
        for line in ("", name, *_wrapped(sentence(name, figures)), *_blocks(tables(name, figures)))
    ][1:]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(visible(text), _WIDTH, initial_indent="  ", subsequent_indent="  ")


def _blocks(shown: Sequence[Shown]) -> list[str]:
    return [line for table in shown for line in ("", *_aligned(table))]


def _aligned(table: Shown) -> list[str]:
    """Names to the left, figures to the right."""
    cells = [list(table.heads), *table.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if is_figure else cell.ljust(width)
            for cell, width, is_figure in zip(row, widths, table.are_figures, strict=True)
        ).rstrip()
        for row in cells
    ]


def _finite(figure: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figure.items()}
