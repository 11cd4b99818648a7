"""The report: figures as rows of `results`, grouped as JSON, or laid out as readable tables."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lfp.evaluation.ablation_rows import CONTROL, FEATURE, MAIN_KINDS, controls_in
from lfp.evaluation.results import ROWS, Estimate, Report, Row, _finite, grouped, result
from lfp.evaluation.statistics.resampling import with_null
from lfp.report.sentences import sentence
from lfp.report.tables import Shown, tables
from lfp.util.sanitize import visible

if TYPE_CHECKING:
    from lfp.bundle.queries.run import Sample

_WIDTH = 100


def whole(rows: Sequence[Row], ablations: Sequence[Row] = (), costs: Sequence[Row] = ()) -> Report:
    """What `report --json` prints: every row of the report, an empty list where the run has no such figure.

    `ablations` are rows of that table, `costs` of `lfp.report.cost`. A figure that is not a number, which JSON cannot
    hold, becomes null.
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


def sample_lines(samples: Sequence[Sample]) -> list[str]:
    """What both models wrote after each prefix, with the rewards: a paragraph a prefix."""
    told = []
    for one in samples:
        told += [visible(" ".join(one.prompt.split())) + " …"]
        for model, text, reward in (("base", one.base, one.base_reward), ("tuned", one.tuned, one.tuned_reward)):
            told.append(f"  {model:5s} {reward:+.2f}  {visible(' '.join(text.split()))}")
    return told
