"""The headline of a run on screen: cards of tuned, base and their difference, and a table of every tau."""

from __future__ import annotations

from collections.abc import Sequence

from app.components.html.panels import Headline
from lfp.bundle.queries.common import Probe
from lfp.evaluation.results import Report, ResultRow
from lfp.report.figures.lines import TARGETS
from lfp.report.formatting import NONE, estimate, pick, plain
from lfp.report.sentences import against_base, against_chance
from lfp.report.summary import compare_models, sign_ceiling


def cards(report: Report, target: str | None) -> list[Headline]:
    """Return three large figures, of the headline probe's target where it has all three; empty where none has."""
    found = compare_models(report, target)
    if found is None:
        return []
    fitted = f"a linear probe of {TARGETS.get(found.target, found.target)} on the {{}} model’s features"
    does = (
        "picks the chosen response of held-out pairs"
        if found.target == "preference"
        else "ranks held-out words by their reward"
    )
    made = [
        Headline(
            f"{name}, {found.score}", row.value,
            f"How well {fitted.format(model)} {does}. {against_chance(row)}".strip(),
            low=row.ci_low, high=row.ci_high, chance_low=row.null_mean, chance=row.null_high,
            ceiling=sign_ceiling(report, row),
        )
        for name, model, row in (("Tuned model", "tuned", found.tuned), ("Base model", "base", found.base))
    ]  # fmt: skip
    change = found.difference
    return [
        *made,
        Headline(
            "Tuned minus base", change.value, against_base(change), is_change=True, low=change.ci_low,
            high=change.ci_high, chance=change.null_high,
        ),
    ]  # fmt: skip


def targets(rows: Sequence[ResultRow], probe: Probe | None) -> dict[str, str]:
    """Return what these rows' probes are fitted to, by its value in the URL, the headline probe's target first."""
    held = dict.fromkeys(row.target for row in rows if row.target)
    ordered = sorted(held, key=lambda target: probe is None or target != probe.target)
    in_url = {**TARGETS, "feedback": "true feedback"}
    return {in_url.get(target, target): target for target in ordered}


def tau_table(rows: Sequence[ResultRow]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of the table of taus on held-out words, a row per target, model and inputs."""
    held = [row for row in rows if row.split in ("held_out_words", None)]
    body = []
    for target, model, inputs in dict.fromkeys((row.target, row.model, row.inputs) for row in held):
        same = [row for row in held if (row.target, row.model, row.inputs) == (target, model, inputs)]
        whole = pick(same, metric="tau", words="all")
        if whole is None:
            continue
        parts = (pick(same, metric="tau", words=words) for words in ("positive", "negative"))
        cells = [whole, *parts, pick(same, metric="tau_within_sign")]
        name = " · ".join(part for part in (target, model, inputs) if part)
        body.append([name, *(NONE if cell is None else estimate(cell) for cell in cells), plain(whole.null_high)])
    return ["probe", "all words", "positive", "negative", "within sign", "chance (95 %)"], body
