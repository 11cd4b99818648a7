"""The report: figures as rows of `results`, grouped as JSON, or laid out as readable tables."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lfp.bundle import Hardware, Manifest
from lfp.controls import CONTROL, FEATURE, MAIN_KINDS, controls_in
from lfp.cost import spent
from lfp.escape import visible
from lfp.metrics import Estimate, with_null
from lfp.report_sentences import sentence
from lfp.report_tables import Shown, tables

if TYPE_CHECKING:
    from lfp.queries import Sample

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
    "base_model",
    "cost",
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


def whole(rows: Sequence[Row], ablations: Sequence[Row] = (), costs: Sequence[Row] = ()) -> Report:
    """What `report --json` prints: every row of the report, an empty list where the run has no such figure.

    `ablations` are rows of that table, `costs` of `lfp.cost`. A figure that is not a number, which JSON cannot hold,
    becomes null.
    """
    report: Report = {name: [] for name in ROWS} | grouped([*rows, *ablation_rows(ablations), *costs])
    return {name: [_finite(figure) for figure in figures] for name, figures in report.items()}


def ablation_rows(ablations: Sequence[Row]) -> list[dict[str, Any]]:
    """Row `ablation`: mean reward before and after taking out each group of features, the effect, and its controls.

    `control` is the mean effect of the group's matched controls; the null of an effect is two-sided, their 95th
    percentile of size. `perplexity_ratio` and `energy_ratio` compare with the controls' means: how much worse the text
    became, and how well they match. Groups come first, then single features by the size of the effect predicted.
    """
    judged = [row for row in ablations if row["kind"] != CONTROL]
    of_kind = {kind: place for place, kind in enumerate((*MAIN_KINDS, FEATURE))}
    judged.sort(key=lambda row: (of_kind[row["kind"]], -abs(row["predicted_effect"] or 0.0), row["group"]))
    return [figure for row in judged for figure in _ablation(row, controls_in(row, ablations))]


def _ablation(group: Row, controls: Sequence[Row]) -> list[dict[str, Any]]:
    keys = {"group": group["group"], "layer": group["layer"], "n": group["n_completions"]}
    effect = Estimate(group["effect"], group["n_completions"], group["ci_low"], group["ci_high"])
    if controls:
        effect = with_null(effect, np.array([one["effect"] for one in controls]), two_sided=True)
    told = {"before": group["reward_before"], "after": group["reward_after"], "predicted": group["predicted_effect"]}
    if group["kind"] != FEATURE:
        means = {name: _mean(one.get(name) for one in controls) for name in ("effect", *_MEASURES)}
        told |= {"control": means["effect"], "features": len(group["features"]), "scale": group["scale"]}
        told |= {name: group.get(name) for name in _MEASURES}
        told |= {f"{name}_control": means[name] for name in ("perplexity", "repetition")}
        told |= {
            "perplexity_ratio": _ratio(group.get("perplexity"), means["perplexity"]),
            "energy_ratio": _ratio(group.get("removed_energy"), means["removed_energy"]),
        }
    shown = [result("ablation", name, value, **keys) for name, value in told.items() if value is not None]
    return [result("ablation", "effect", effect, **keys), *shown]


_MEASURES = ("perplexity", "perplexity_before", "repetition", "removed_energy")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _ratio(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None


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


def cost_rows(manifest: Manifest) -> list[dict[str, Any]]:
    """Row `cost` of the report: by stage minutes, budget_minutes, cpu_minutes and peak_rss_mb, then the machine.

    `group` is the stage, or the processor with its cores and memory_gb, or the GPU with their number.
    """
    told = [
        result("cost", metric, value, group=one.stage)
        for one in spent(manifest)
        for metric in _STAGE_METRICS
        if (value := getattr(one, metric)) is not None
    ]
    return told + (_machine_rows(manifest.hardware) if manifest.hardware else [])


_STAGE_METRICS = ("minutes", "budget_minutes", "cpu_minutes", "peak_rss_mb")
"""Figures of a stage, as fields of Spent."""


def _machine_rows(hardware: Hardware) -> list[dict[str, Any]]:
    processor = hardware.processor or "processor"
    figures = {"cores": hardware.cores, "memory_gb": hardware.memory_gb}
    rows = [result("cost", name, value, group=processor) for name, value in figures.items() if value is not None]
    return rows + ([result("cost", "gpus", 1, group=hardware.gpu)] if hardware.gpu else [])


def sample_lines(samples: Sequence[Sample]) -> list[str]:
    """What both models wrote after each prefix, with the rewards: a paragraph a prefix."""
    told = []
    for one in samples:
        told += [visible(" ".join(one.prompt.split())) + " …"]
        for model, text, reward in (("base", one.base, one.base_reward), ("tuned", one.tuned, one.tuned_reward)):
            told.append(f"  {model:5s} {reward:+.2f}  {visible(' '.join(text.split()))}")
    return told
