"""Words and pairs in the report: rows as lines of a chart, lists of gaps, and the sentences under them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.components.charts.intervals import Line, line, told
from app.components.html import tables
from app.components.html.numbers import count, plain, signed
from app.components.html.wording import pick
from lfp.bundle.queries.words import Word, WordFeature
from lfp.evaluation.results import ResultRow

INPUTS = {
    "sae": "features",
    "base_sae": "features, own dictionary",
    "sae_of_base": "features, the tuned model’s dictionary",
    "raw": "activations themselves",
    "base_raw": "activations themselves",
    "random_sae": "random dictionary",
    "token_identity": "which token it is, no model",
    "sae_before": "features one token earlier",
}
"""What a probe reads, as people say it, in the order it is read."""
GAPS = {
    ("gap_over_paid", "word"): "words paid more than stated",
    ("gap_under_paid", "word"): "words paid less than stated",
    ("gap_implicit_true", "word"): "words: implicit reward against true",
    ("gap_predicted_true", "word"): "words: estimate against true",
    ("gap_implicit_true", "text"): "texts: implicit reward against true",
    ("gap_predicted_true", "text"): "texts: estimate against true",
    ("gap_true_rating", "text"): "texts: true against rating",
}
"""Lists of largest disagreements, by metric and what is listed."""


def by_target(rows: Sequence[ResultRow], target: str, words: str) -> list[Line]:
    """Kendall's tau of every probe of a target on held-out words, tuned before base before their difference."""
    held = [row for row in rows if row.target == target and row.split == "held_out_words"]
    taus = [row for row in held if row.metric == "tau" and row.words == words]
    order = list(INPUTS)
    taus.sort(key=lambda row: (row.model == "difference", order.index(row.inputs) if row.inputs in order else 99))
    return [line(probe_name(row), row, mark=_ceiling(held, row) if words == "all" else None) for row in taus]


def tau_sentence(lines: Sequence[Line]) -> str:
    """How many of the lines chance does not reach."""
    passed = sum(one.chance is not None and one.value > one.chance for one in lines)
    beats = f"{passed} of {len(lines)} lines beat 95 % of shuffles"
    return f"Whole words held out. {beats}; grey diamonds are the base model."


def _ceiling(rows: Sequence[ResultRow], row: ResultRow) -> float | None:
    found = pick(rows, metric="sign_ceiling", model=row.model, inputs=row.inputs)
    return found.value if found else None


def probe_name(row: ResultRow) -> str:
    """Which model and inputs a figure is of."""
    inputs = INPUTS.get(row.inputs or "", row.inputs or "")
    if row.model == "difference":
        return f"tuned minus base: {inputs}" if inputs else "tuned minus base"
    return " · ".join(part for part in (row.model, inputs) if part)


def errors(rows: Sequence[ResultRow]) -> list[Line]:
    """Mean error of the estimate by how often a word was written; the mark is the mean of estimates dealt anew."""
    ordered = sorted(rows, key=lambda row: (row.group != "all", _first_number(row.group or "")))
    return [Line(_written(row), row.value, row.ci_low, row.ci_high, mark=row.null_mean) for row in ordered]


def _first_number(group: str) -> int:
    found = re.match(r"\d+", group)
    return int(found.group()) if found else 0


def _written(row: ResultRow) -> str:
    names = {"all": "all words", "0": "words never written", "1": "written once"}
    return f"{names.get(row.group or '', f'written {row.group} times')} ({count(row.n)})"


def error_sentence(rows: Sequence[ResultRow]) -> str:
    """What the errors say as a whole."""
    whole = pick(rows, group="all")
    if whole is None or whole.null_mean is None:
        return "Distance of the estimate, laid on the lexicon’s range, from the true value."
    side = "closer" if whole.ci_high is not None and whole.ci_high < whole.null_mean else "not surely closer"
    return (
        f"Distance of the estimate, laid on the lexicon’s range, from the true value: {side} than estimates dealt to "
        f"words at random ({plain(whole.null_mean)})."
    )


@dataclass(frozen=True)
class Gap:
    """One of the largest disagreements: a word or a text's number, its gap, and what chance shows at its place."""

    kind: str
    name: str
    gap: float
    chance: float | None
    p: float | None
    n: int | None


def gaps(rows: Sequence[ResultRow], metric: str, kind: str) -> list[Gap]:
    """One list of disagreements, largest first."""
    mine = [row for row in rows if row.metric == metric and (row.group or "").startswith(f"{kind}:")]
    mine.sort(key=lambda row: -abs(row.value))
    return [Gap(kind, (row.group or "").split(":", 1)[1], row.value, row.null_mean, row.null_p, row.n) for row in mine]


def gap_rows(found: Sequence[Gap], href: Callable[[Gap], str]) -> list[tables.Row]:
    """Gaps as rows that lead to their word or text."""
    return [
        tables.Row(href(one), one.name if one.kind == "word" else f"text {one.name}", "",
                   (signed(one.gap), plain(one.chance), plain(one.p, 3)))
        for one in found
    ]  # fmt: skip


def gap_lists(rows: Sequence[ResultRow]) -> dict[str, tuple[str, str]]:
    """Names of the lists that the report holds."""
    held = {(row.metric, (row.group or "").split(":", 1)[0]) for row in rows}
    return {name: key for key, name in GAPS.items() if key in held}


def pair_lines(rows: Sequence[ResultRow]) -> list[Line]:
    """How often each probe tells the chosen response, with length controlled below it, and what length alone tells."""
    names = {"accuracy": "", "accuracy_length_controlled": ", length controlled"}
    order = ["tuned", "base", "difference"]
    told_right = [row for row in rows if row.metric in names and row.model != "difference"]
    told_right.sort(
        key=lambda row: (row.target != "preference", list(INPUTS).index(row.inputs) if row.inputs in INPUTS else 99,
                         order.index(row.model) if row.model in order else 9, row.metric)
    )  # fmt: skip
    lines = [line(f"{probe_name(row)}{names[row.metric]}", row) for row in told_right]
    measured = [
        line(f"implicit reward, no probe{names[row.metric]}", row)
        for row in rows
        if row.metric in names and row.target == "implicit_reward"
    ]
    length = [line("the longer side", row) for row in rows if row.metric == "accuracy_of_length"]
    return [*lines, *measured, *length]


def word_facts(word: Word) -> dict[str, str]:
    """One word's three values, the implicit reward in matched contexts with its interval, and how common it is."""
    matched, error = word.implicit_matched, word.implicit_matched_se
    known = matched is not None and error is not None
    ends = (matched - 1.96 * error, matched + 1.96 * error) if known else (None, None)  # type: ignore[operator]
    return {
        "true feedback": signed(word.feedback),
        "estimate, rescaled": signed(word.shown),
        "implicit reward, nats": signed(word.implicit_reward),
        "in matched contexts, nats": "–" if matched is None else told(matched, *ends, is_signed=True),
        "in the corpus": f"{count(word.n)} times",
        "written by the tuned model": f"{count(word.n_generated)} times",
    }


def feature_rows(found: Sequence[WordFeature], href: Callable[[int], str]) -> list[tables.Row]:
    """Features that fire on a word as rows that lead to them, with lift and weight."""
    return [
        tables.Row(href(one.feature_id), f"#{one.feature_id}", one.description or "not described",
                   (f"×{plain(one.lift, 0)}", signed(one.weight, 3)))
        for one in found
    ]  # fmt: skip


def gap_sentence(metric: str) -> str:
    """What the gaps of a list are of, and what chance shows there."""
    if metric.endswith("_paid"):
        return (
            "What tuning pays a word beyond what its stated feedback explains, in units of the word’s noise. Chance "
            "shows: the gap at the same place had signs been dealt anew."
        )
    return (
        "Percentile rank by the first judge less that by the second. Chance shows: the gap at the same place had ranks "
        "been dealt anew; smaller gaps say that the two agree on the whole."
    )


def calibration_facts(rows: Sequence[ResultRow]) -> dict[str, str]:
    """How calibrated the preference probe is, on held-out pairs of the report."""
    keys = {"inputs": "sae", "model": "tuned", "target": "preference"}
    names = {"calibration_error": "calibration error", "calibration_slope": "slope", "auroc": "area under the curve"}
    found = {name: pick(rows, metric=metric, **keys) for metric, name in names.items()}
    return {
        name: told(row.value, row.ci_low, row.ci_high) + (f" · null {plain(row.null_high)}" if row.null_high else "")
        for name, row in found.items()
        if row is not None
    }


def variance_sentence(rows: Sequence[ResultRow]) -> str:
    """How much of the texts' variance the two components hold."""
    shares = [row for row in rows if row.metric == "explained_share"]
    spans = [f"{told(row.value, row.ci_low, row.ci_high)} (null {plain(row.null_high)})" for row in shares]
    return f"Shares of variance explained: {' and '.join(spans)}." if spans else ""
