"""Rows of the table `results`: a metric each, with its 95 % interval and its null; and how to read `ablations`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

ROWS = (
    "reward",
    "implicit_reward",
    "module_credits",
    "kendall_tau",
    "sign_accuracy",
    "preference_accuracy",
    "forecast",
    "token_sentiment",
    "error_by_frequency",
    "disagreements",
    "twins",
    "divergence_by_layer",
    "drift",
    "feature_credits",
    "interventions",
    "label_scores",
    "label_agreement",
    "labellers",
    "activation_frequency",
    "ablation",
    "pca_explained",
    "sae_check",
    "sae_quality",
    "latent_scaling",
    "differences",
    "sae_sweep",
    "triples",
    "tuning",
    "trajectory",
    "base_model",
    "cost",
)
"""Sections of the report (column `report_row`), in reading order."""
STATUSES = ("born", "strengthened", "steady", "weakened", "gone")
"""What tuning may have done to how a feature fires: groups of section `drift`."""
FATES = ("in the data and learned", "in the data, not learned", "learned, not in the data", "neither")
"""What became of a feature of the base model that was forecast: column `status` of the table `forecast`."""
ELSEWHERE = "elsewhere"
"""Group of section `module_credits`: what came to a token through keys and values, its own included."""
KINDS = ("embedding", "attention", "mlp", "norm", "final_norm", "unembedding", "other", ELSEWHERE)
"""Kinds of modules, groups of section `module_credits`, as data flows."""
DICTIONARIES = "dictionaries"
"""Group of section `module_credits`: the modules that dictionaries read."""
MAIN_KINDS = ("related", "weighted", "both", "chosen")
"""Kinds of groups with a result of their own, in reading order."""
FEATURE, CONTROL = "feature", "control"
"""Other kinds of rows: a single feature, and a matched control."""

TRAINED_RANDOM = "trained_random_sae"
"""Inputs: features of a dictionary whose random decoder was frozen while the rest of it was trained."""
RATE = 0.05
"""The share of false discoveries among all, on average, that the project's flags allow."""
TWINS_RATE = 0.10
"""The same of what is said to differ from the twins."""

AblationRow = Mapping[str, Any]
"""A row of the table `ablations`."""


def name_dictionaries(n: int) -> str | None:
    """Return the `group` of a difference that is averaged over dictionaries of several seeds; None for one."""
    return f"dictionaries={n}" if n > 1 else None


def count_dictionaries(group: str | None) -> int:
    """Return the number of dictionaries of each model that a difference is averaged over, by its `group`."""
    return int((group or "").removeprefix("dictionaries=")) if (group or "").startswith("dictionaries=") else 1


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and its null, None where there is none; `n` words, texts or pairs behind it."""

    value: float
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    null_mean: float | None = None
    null_high: float | None = None
    null_p: float | None = None


class ResultKeys(TypedDict, total=False):
    """What names a row of `results` beside its section and metric, and `n` where the value is no Estimate."""

    model: str | None
    layer: int | None
    site: str | None
    probe_id: int | None
    target: str | None
    inputs: str | None
    words: str | None
    split: str | None
    group: str | None
    n: int | None


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """A row of the table `results`, its fields named and ordered like the columns; None where one does not apply."""

    report_row: str
    model: str | None = None
    layer: int | None = None
    site: str | None = None
    probe_id: int | None = None
    target: str | None = None
    inputs: str | None = None
    words: str | None = None
    split: str | None = None
    group: str | None = None
    metric: str
    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    null_mean: float | None = None
    null_high: float | None = None
    null_p: float | None = None
    n: int | None = None

    @classmethod
    def from_estimate(
        cls, report_row: str, metric: str, estimate: float | Estimate, /, **keys: Unpack[ResultKeys]
    ) -> ResultRow:
        """Build a row; a plain number has neither interval nor null, and `n` among `keys` replaces the estimate's."""
        if not isinstance(estimate, Estimate):
            return cls(report_row=report_row, metric=metric, value=float(estimate), **keys)
        columns: dict[str, Any] = {**vars(estimate), **keys}
        return cls(report_row=report_row, metric=metric, **columns)

    def as_dict(self) -> dict[str, Any]:
        """Return the row by column name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def beats_null(self) -> bool:
        """Whether the value is above the 95th percentile of its null; False where it has none."""
        return self.null_high is not None and self.value > self.null_high


Report = Mapping[str, Sequence[ResultRow]]
"""The sections of a report by name, in reading order, each with its rows."""


def group_by_section(rows: Iterable[ResultRow]) -> dict[str, list[ResultRow]]:
    """Return the rows by section of the report, in reading order; sections that are not in ROWS come last."""
    report: dict[str, list[ResultRow]] = {name: [] for name in ROWS}
    for row in rows:
        report.setdefault(row.report_row, []).append(row)
    return {name: of_section for name, of_section in report.items() if of_section}


def report_as_json(report: Report) -> dict[str, list[dict[str, Any]]]:
    """Return a report as JSON values: keys without a value are left out, and numbers that JSON cannot hold are null."""
    return {
        name: [
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in row.as_dict().items()
                if value is not None and key != "report_row"
            }
            for row in rows
        ]
        for name, rows in report.items()
    }


def controls_in(row: AblationRow, rows: Sequence[AblationRow]) -> list[AblationRow]:
    """Select the controls of a row: the group's own; for a single feature those of all single features."""
    controls = [other for other in rows if other["kind"] == CONTROL]
    if row["kind"] != FEATURE:
        return [control for control in controls if control["control_of"] == row["group"]]
    singles = {other["group"] for other in rows if other["kind"] == FEATURE}
    return [control for control in controls if control["control_of"] in singles]


def passes(row: AblationRow) -> bool:
    """Tell whether a row differs from its controls' mean by more than controls do, at a false discovery rate of 5 %."""
    return row["contrast_q"] is not None and row["contrast_q"] <= RATE


def is_inert(row: AblationRow) -> bool:
    """Tell whether a row shows no effect: its contrast's interval contains 0, and it differs no more than controls do.

    Without controls, the interval of the effect itself counts.
    """
    kind = "ci" if row["contrast_low"] is None else "contrast"
    return not passes(row) and row[f"{kind}_low"] <= 0.0 <= row[f"{kind}_high"]
