"""Rows of the table `results`: how one is made, and how they are grouped by row of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


Row = Mapping[str, Any]


Report = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and its null; None where there is none. `n` is the words (or texts) behind it."""

    value: float
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    null_mean: float | None = None
    null_high: float | None = None
    null_p: float | None = None


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


def _finite(figure: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figure.items()}
