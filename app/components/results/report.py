"""Results of the report on screen: large figures, a table of every tau, labels against weights, and rows with links."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from app.components.html.panels import Headline, LinkedRow, scrolling
from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.run import AblatedFeature
from lfp.bundle.queries.words import Word, WordFeature
from lfp.evaluation.results import Report, ResultRow
from lfp.report.figures.lines import TARGETS
from lfp.report.formatting import NONE, count, estimate, percent, pick, plain, signed, with_interval
from lfp.report.sentences.common import against_base, against_chance
from lfp.report.summary import compare_models

CELLS = (("related_and_weighty", "related_only"), ("weighty_only", "neither"))
"""Metrics of section `label_agreement`: rows are related or not, columns have a large weight or not."""
GAPS = {
    ("gap_over_paid", "word"): "words paid more than stated",
    ("gap_under_paid", "word"): "words paid less than stated",
    ("gap_implicit_true", "word"): "words: implicit reward against true",
    ("gap_predicted_true", "word"): "words: estimate against true",
    ("gap_implicit_true", "text"): "texts: implicit reward against true",
    ("gap_predicted_true", "text"): "texts: estimate against true",
    ("gap_true_rating", "text"): "texts: true against rating",
}
"""Lists of largest disagreements, by metric and what is listed; the values of the URL, which the pages reword."""


def headlines(report: Report, target: str | None) -> list[Headline]:
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
    made = []
    for name, model, row in (("Tuned model", "tuned", found.tuned), ("Base model", "base", found.base)):
        keys = {"model": row.model, "inputs": row.inputs, "target": row.target, "split": row.split}
        ceiling = pick(report.get("kendall_tau", ()), metric="sign_ceiling", **keys)
        made.append(
            Headline(
                f"{name}, {found.score}", row.value,
                f"How well {fitted.format(model)} {does}. {against_chance(row)}".strip(),
                low=row.ci_low, high=row.ci_high, chance_low=row.null_mean, chance=row.null_high,
                ceiling=ceiling.value if ceiling else None,
            )
        )  # fmt: skip
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


def heat(found: Mapping[str, ResultRow]) -> str:
    """Return four counts of labels against weights, shaded by their share of the row, with that share below each."""
    counts = [[int(found[name].value) if name in found else 0 for name in row] for row in CELLS]
    body = ""
    for name, row in zip(("related", "not related"), counts, strict=True):
        cells = ""
        for n in row:
            share = n / sum(row) if sum(row) else 0.0
            says = f"<b>{count(n)}</b><span>{percent(share)} of the row</span>"
            cells += f'<td class="cell" style="--a:{100 * share:.0f}">{says}</td>'
        body += f'<tr><th scope="row">{name}</th>{cells}<td>{count(sum(row))}</td></tr>'
    sums = "".join(f"<td>{count(sum(column))}</td>" for column in zip(*counts, strict=True))
    return scrolling(
        '<table class="lfp-heat"><thead><tr><td></td><th scope="col">large weight</th>'
        f'<th scope="col">small weight</th><td>all</td></tr></thead><tbody>{body}'
        f'<tr><th scope="row">all</th>{sums}<td>{count(sum(map(sum, counts)))}</td></tr></tbody></table>'
    )


def word_facts(word: Word) -> dict[str, str]:
    """Return one word's values, the implicit reward in matched contexts with its interval, and how common it is."""
    matched, error = word.implicit_matched, word.implicit_matched_se
    if matched is None or error is None:
        in_matched = signed(matched)
    else:
        in_matched = with_interval(matched, matched - 1.96 * error, matched + 1.96 * error, is_signed=True)
    return {
        "reward": signed(word.feedback),
        "probe estimate, rescaled": signed(word.shown),
        "implicit reward, nats": signed(word.implicit_reward),
        "in matched contexts, nats": in_matched,
        "in the texts read": f"{count(word.n)} times",
        "written by the base model": f"{count(word.n_generated_base)} times",
        "written by the tuned model": f"{count(word.n_generated)} times",
    }


def feature_rows(found: Sequence[WordFeature | AblatedFeature], href: Callable[[int], str]) -> list[LinkedRow]:
    """Return features that fire on a word with lift and weight, or ablated alone with predicted and measured effect."""
    rows = []
    for feature in found:
        if isinstance(feature, WordFeature):
            cells = f"×{plain(feature.lift, 0)}", signed(feature.weight, 3)
        else:
            measured = with_interval(*feature.measured, is_signed=True)
            cells = signed(feature.predicted_effect, 3), measured
        says = feature.description or "no label"
        rows.append(LinkedRow(href(feature.feature_id), f"#{feature.feature_id}", says, cells))
    return rows


@dataclass(frozen=True)
class Gap:
    """One of the largest disagreements: a word or a text's number, its gap, and what 95 % of nulls there reach."""

    kind: str
    name: str
    gap: float
    chance: float | None
    p: float | None
    n: int | None


def gap_lists(rows: Sequence[ResultRow]) -> dict[str, tuple[str, list[Gap]]]:
    """Return the lists of disagreements that the report holds: by name, the metric and its gaps, largest first."""
    found = {}
    for (metric, kind), name in GAPS.items():
        shown = [row for row in rows if row.metric == metric and (row.group or "").partition(":")[0] == kind]
        shown.sort(key=lambda row: -abs(row.value))
        gaps = [
            Gap(kind, str(row.group).partition(":")[2], row.value, row.null_high, row.null_p, row.n) for row in shown
        ]
        if gaps:
            found[name] = metric, gaps
    return found
