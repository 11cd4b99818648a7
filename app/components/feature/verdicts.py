"""Audits as escaped HTML: a feature's history, the label under judgement, progress, tallies, and agreement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.components.html import panels
from app.components.html.numbers import percent, plain
from app.components.text import tokens
from lfp.audit import VERDICTS, Agreement, Verdict, share_interval
from lfp.bundle.queries.audits import AuditedFeature
from lfp.bundle.queries.feature import Label
from lfp.labels.evidence import NEAR_MISS
from lfp.util.sanitize import escaped, shortened

KIND = {"right": "good", "wrong": "down", "yes": "good"}


ABOUT = {"yes": "about the feedback", "no": "not about the feedback", "unsure": "unsure whether about the feedback"}


LABEL = {
    "right": "label right",
    "partly": "label partly right",
    "wrong": "label wrong",
    "unsure": "unsure of the label",
}


def judged(label: Label | None) -> str:
    """The label that a verdict is on."""
    if label is None or label.description is None:
        return panels.note("Nobody has described this feature, so there is no label to judge.")
    relation = {True: "says it is about the feedback", False: "says it is not about the feedback"}
    says = " · ".join(part for part in (label.labeller, relation.get(label.related)) if part)  # type: ignore[arg-type]
    return (
        f'<section class="lfp-judged"><div class="who">{escaped(says)}</div>'
        f'<p dir="auto">{escaped(label.description)}</p></section>'
    )


def history(verdicts: Sequence[Verdict]) -> str:
    """All that was said of a feature, newest first; `verdicts` are oldest first. What was superseded is struck back."""
    if not verdicts:
        return panels.note("Nobody has reviewed it yet.")
    counts = {(one.feature_id, one.reviewer): one.uid for one in verdicts}
    items = "".join(_said(one, one.uid == counts[one.feature_id, one.reviewer]) for one in reversed(verdicts))
    return f'<ol class="lfp-history">{items}</ol>'


def _said(one: Verdict, counts: bool) -> str:
    marks = [
        panels.badge(LABEL[one.verdict], KIND.get(one.verdict, "")) if one.verdict else "",
        panels.badge(ABOUT[one.related], KIND.get(one.related, "")) if one.related else "",
        *(panels.badge(f"#{tag}") for tag in one.tags),
    ]
    sure = "" if one.confidence is None else f"confidence {plain(one.confidence)}"
    when = f"{one.created_at[:10]} {one.created_at[11:16]} UTC" if one.created_at else "not saved"
    facts = " · ".join(part for part in (when, "blind" if one.is_blind else "", sure) if part)
    judged_then = f"on: {shortened(one.label, 90)}" if one.verdict and one.label else ""
    texts = "".join(
        f'<p dir="auto" class="{kind}">{escaped(text)}</p>'
        for kind, text in (("own", one.description), ("", one.note), ("on", judged_then))
        if text
    )
    old = "" if counts else ' class="old"'
    later = "" if counts else " · changed later"
    return (
        f"<li{old}><div><b>{escaped(one.reviewer)}</b> <span>{escaped(facts + later)}</span></div>"
        f"<div>{''.join(marks)}</div>{texts}</li>"
    )


def progress(*, n: int, mine: int, anyone: int, covered_mine: float | None, covered: float | None, name: str) -> str:
    """How far a list is, and what share of the bundle's summed |contribution| reviewed features carry."""
    share = mine / n if n else 0.0
    told = {
        f"reviewed by {name}" if name else "reviewed by you": f"{mine} of {n}",
        "by anyone": f"{anyone} of {n}",
        "contribution covered, yours": percent(covered_mine),
        "anyone’s": percent(covered),
    }
    bar = f'<div class="lfp-progress" aria-hidden="true"><span style="width:{100 * share:.1f}%"></span></div>'
    return f"{bar}{panels.facts(told)}"


def tally(verdicts: Sequence[Verdict]) -> str:
    """What the newest verdicts say of labels, each share with Wilson's 95 % interval over features.

    A feature counts once: where reviewers differ, each verdict has its part of it.
    """
    of_feature: dict[int, list[str]] = {}
    for one in verdicts:
        if one.verdict is not None:
            of_feature.setdefault(one.feature_id, []).append(one.verdict)
    n = len(of_feature)
    if not n:
        return panels.note("No label has been judged yet.")
    rows = []
    for name in VERDICTS:
        part = sum(said.count(name) / len(said) for said in of_feature.values())
        low, high = share_interval(part, n) or (0.0, 1.0)
        rows.append([LABEL[name], percent(part / n), f"{percent(low)} to {percent(high)}"])
    several = any(len(said) > 1 for said in of_feature.values())
    says = f"Of {n} label{'s' if n > 1 else ''} judged." + (
        " One that several judged counts once, shared between their verdicts." if several else ""
    )
    return panels.table(["verdict", "share", "95 % interval"], rows, strong=(0,)) + panels.note(says)


def reviewers(rows: Sequence[tuple[str, int, int, float | None]]) -> str:
    """Who reviewed how much: name, features, of them blind, share of contributions."""
    heads = ["reviewer", "features", "blind", "covered"]
    return panels.table(heads, [[name, str(n), str(blind), percent(share)] for name, n, blind, share in rows])


def kappa(found: Agreement | None, first: str, second: str) -> str:
    """Cohen's kappa of two reviewers as a large figure, in words, and the table it is of."""
    if found is None:
        return panels.note(f"{first} and {second} have answered this of no feature in common.")
    if found.kappa is None:
        return panels.note(
            f"Both gave the same single answer on all {found.n} features, which leaves chance nothing to miss: "
            "kappa cannot be told."
        )
    says = (
        f"They agree on {percent(found.agreed)} of {found.n} features. Shuffled answers reach {plain(found.null_high)} "
        f"one time in twenty (p = {plain(found.null_p, 3)}); {_above(found)}."
    )
    head = panels.Headline("Cohen’s kappa", found.kappa, says, low=found.low, high=found.high, chance=found.null_high)
    used = [i for i in range(len(found.answers)) if found.table[i].sum() + found.table[:, i].sum()]
    heads = [f"{first} ↓  {second} →", *(found.answers[i] for i in used)]
    body = [[found.answers[i], *(str(found.table[i, j]) for j in used)] for i in used]
    terms = (
        "0 is what chance gives, 1 full agreement. The interval is a 95 % credible one: kappa over tables drawn from a "
        "Dirichlet posterior with one count spread over the cells. "
    )
    few = "With so few features it is wide: review more in common. " if found.n < 30 else ""
    return panels.cards([head]) + panels.note(terms + few) + panels.table(heads, body)


def _above(found: Agreement) -> str:
    above = found.kappa is not None and found.null_high is not None and found.kappa > found.null_high
    return "this is above it" if above else "this is not above it"


def differences(
    pairs: Sequence[tuple[Verdict, Verdict]],
    named: Mapping[int, AuditedFeature],
    *,
    answer: Callable[[Verdict], str | None],
    where: Callable[[int], str],
) -> str:
    """Where two reviewers differ: a row a feature, with its label, both answers and both notes."""
    if not pairs:
        return panels.note("They differ nowhere.")
    first, second = pairs[0][0].reviewer, pairs[0][1].reviewer
    heads = "".join(f"<th>{escaped(head)}</th>" for head in ("feature", "label", first, second))
    rows = "".join(
        f"<tr><td>{panels.anchor(where(a.feature_id), f'feature {a.feature_id}')}</td>"
        f'<td dir="auto">{escaped(_label_of(named.get(a.feature_id)))}</td>{_answered(answer(a), a)}'
        f"{_answered(answer(b), b)}</tr>"
        for a, b in pairs
    )
    return (
        f'<div class="lfp-scroll"><table class="lfp-table lfp-differ"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _label_of(feature: AuditedFeature | None) -> str:
    return shortened((feature and feature.description) or "not described", 90)


def _answered(answer: str | None, one: Verdict) -> str:
    words = shortened(one.note or one.description, 120)
    note = f'<p dir="auto">{escaped(words)}</p>' if words else ""
    return f"<td>{panels.badge(answer or '–', KIND.get(answer or '', ''))}{note}</td>"


STRONGEST, WEAKER, QUIET = 6, 6, 2
"""Examples of each kind that are shown at most."""


_SILENT = {-1: "silent here", NEAR_MISS: "silent, though expected"}


Row = Mapping[str, Any]


def examples(rows: Sequence[Row], limit: float, href: Callable[[int], str]) -> str:
    """Examples of one feature, `limit` its largest activation, each with a link to its text."""
    best = [row for row in rows if row["bucket"] == 0][:STRONGEST]
    drawn = [row for row in rows if row["bucket"] > 0]
    spread = sorted(drawn[:: max(1, len(drawn) // WEAKER)][:WEAKER], key=_activation, reverse=True)
    named = [*((row, "strongest") for row in best), *((row, "weaker") for row in spread)]
    for bucket, name in _SILENT.items():
        named += [(row, name) for row in rows if row["bucket"] == bucket][:QUIET]
    legend = tokens.strength_legend(limit, "activation, scaled; the example’s token is underlined")
    return legend + tokens.examples([_example(row, limit, name, href) for row, name in named], numbers=False)


def _activation(row: Row) -> float:
    value: float = row["window_values"][row["position"] - row["window_start"]]
    return value


def _example(row: Row, limit: float, name: str, href: Callable[[int], str]) -> str:
    text = panels.anchor(href(row["text_id"]), f"text {row['text_id']}")
    return tokens.example(
        tokens.pieces(row["text"], row["token_starts"]),
        row["window_values"],
        first=row["window_start"],
        position=row["position"],
        limit=limit,
        caption=f"<b>{plain(_activation(row))}</b>{panels.text(name)}<br>{text}",
    )
