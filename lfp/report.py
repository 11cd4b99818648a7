"""The report: figures as rows of `results`, grouped as JSON, or laid out as readable tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lfp.metrics import Estimate

ROWS = ("reward", "divergence_by_layer", "sae_quality", "kendall_tau", "sign_accuracy", "implicit_reward")
"""Rows of the report in the order they are read."""
_KEYS = ("model", "layer", "target", "inputs", "words", "split", "group")
_FIGURES = ("value", "ci_low", "ci_high", "null_mean", "null_high", "null_p", "n")


def result(report_row: str, metric: str, figure: float | Estimate, **keys: Any) -> dict[str, Any]:
    """One row of `results`; `keys` are model, layer, probe_id, target, inputs, words, split, group or n."""
    row: dict[str, Any] = {"report_row": report_row, "metric": metric, **keys}
    if not isinstance(figure, Estimate):
        return row | {"value": float(figure)}
    return row | {name: getattr(figure, name) for name in _FIGURES}


def grouped(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of `results` by report row, null keys left out: what `report --json` prints."""
    report: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS if any(r["report_row"] == name for r in rows)}
    for row in rows:
        kept = {key: value for key, value in row.items() if value is not None and key != "report_row"}
        report.setdefault(row["report_row"], []).append(kept)
    return report


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The report as plain text: a block a report row, a line a figure."""
    blocks: dict[str, list[str]] = defaultdict(list)
    for name, figures in grouped(rows).items():
        blocks[name] = [_line(figure) for figure in figures]
    return [line for name, block in blocks.items() for line in ("", name, *block)][1:]


def _line(figure: Mapping[str, Any]) -> str:
    keys = "  ".join(f"{key}={figure[key]}" for key in _KEYS if key in figure)
    text = f"  {figure['metric']:<18} {figure['value']:>10.4f}"
    if "ci_low" in figure:
        text += f"  [{figure['ci_low']:.4f}, {figure['ci_high']:.4f}]"
    if "null_mean" in figure:
        text += f"  null {figure['null_mean']:.4f}, 95 % {figure['null_high']:.4f}, p {figure['null_p']:.4f}"
    if "n" in figure:
        text += f"  n={figure['n']}"
    return f"{text}  {keys}".rstrip()
