"""Audits as escaped HTML: a feature's verdicts, the label under review, progress, tallies, agreement and examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.components.html import panels
from app.components.text import tokens
from lfp.audit import VERDICTS, Agreement, Remark, Verdict, share_interval
from lfp.bundle.queries.feature import Label
from lfp.bundle.queries.features import AuditedFeature
from lfp.labels.evidence import NEAR_MISS
from lfp.report.formatting import percent, plain
from lfp.util.sanitize import escaped, shortened

KIND = {"right": "good", "wrong": "down", "yes": "good"}
ABOUT = {"yes": "about the feedback", "no": "not about the feedback", "unsure": "unsure whether about the feedback"}
LABEL = {
    "right": "label right",
    "partly": "label partly right",
    "wrong": "label wrong",
    "unsure": "unsure of the label",
}
STRONGEST, WEAKER, SILENT = 6, 6, 2
"""Examples of each kind that are shown at most."""

Row = Mapping[str, Any]


def judged(label: Label | None) -> str:
    """Write the label under review."""
    if label is None or label.description is None:
        return panels.note("This feature has no label to judge.")
    says = label.labeller
    if label.related is not None:
        says += " · says it is about the feedback" if label.related else " · says it is not about the feedback"
    return (
        f'<section class="lfp-judged"><div class="who">{escaped(says)}</div>'
        f'<p dir="auto">{escaped(label.description)}</p></section>'
    )


def history(verdicts: Sequence[Verdict]) -> str:
    """Write all verdicts on a feature, newest first, superseded ones struck through; `verdicts` are oldest first."""
    if not verdicts:
        return panels.note("Nobody has reviewed it yet.")
    newest = {(verdict.feature_id, verdict.reviewer): verdict.uid for verdict in verdicts}
    items = ""
    for verdict in reversed(verdicts):
        counts = verdict.uid == newest[verdict.feature_id, verdict.reviewer]
        marks = [
            panels.badge(LABEL[verdict.verdict], KIND.get(verdict.verdict, "")) if verdict.verdict else "",
            panels.badge(ABOUT[verdict.related], KIND.get(verdict.related, "")) if verdict.related else "",
            *(panels.badge(f"#{tag}") for tag in verdict.tags),
        ]
        created = verdict.created_at
        old = "" if counts else ' class="old"'
        parts = [
            f"{created[:10]} {created[11:16]} UTC" if created else "not saved",
            "blind" if verdict.is_blind else "",
            "" if verdict.confidence is None else f"confidence {plain(verdict.confidence)}",
            "" if counts else "changed later",
        ]
        texts = {
            "own": verdict.description,
            "": verdict.note,
            "on": f"on: {shortened(verdict.label, 90)}" if verdict.verdict and verdict.label else "",
        }
        items += (
            f"<li{old}><div><b>{escaped(verdict.reviewer)}</b> "
            f"<span>{escaped(' · '.join(part for part in parts if part))}</span></div><div>{''.join(marks)}</div>"
            + "".join(f'<p dir="auto" class="{kind}">{escaped(text)}</p>' for kind, text in texts.items() if text)
            + "</li>"
        )
    return f'<ol class="lfp-history">{items}</ol>'


def remarks(given: Sequence[Remark]) -> str:
    """Write all remarks on a subject, newest first; `given` are oldest first."""
    newest = {remark.reviewer: remark.uid for remark in given}
    items = ""
    for remark in reversed(given):
        counts = remark.uid == newest[remark.reviewer]
        parts = [
            f"{remark.created_at[:10]} {remark.created_at[11:16]} UTC",
            "blind" if remark.is_blind else "",
            "" if counts else "changed later",
        ]
        old = "" if counts else ' class="old"'
        mark = panels.badge(remark.verdict, KIND.get(remark.verdict, "")) if remark.verdict else ""
        note = f'<p dir="auto">{escaped(remark.note)}</p>' if remark.note else ""
        items += (
            f"<li{old}><div><b>{escaped(remark.reviewer)}</b> "
            f"<span>{escaped(' · '.join(part for part in parts if part))}</span></div><div>{mark}</div>{note}</li>"
        )
    return f'<ol class="lfp-history">{items}</ol>'


def progress(
    *, n: int, by_me: int, by_anyone: int, share_by_me: float | None, share_by_anyone: float | None, name: str
) -> str:
    """Write how much of a list of `n` is reviewed, and what share of all contributions reviewed features carry."""
    facts = {
        f"reviewed by {name or 'you'}": f"{by_me} of {n}",
        "reviewed by anyone": f"{by_anyone} of {n}",
        "share of all contributions, yours": percent(share_by_me),
        "anyone’s": percent(share_by_anyone),
    }
    width = 100 * by_me / n if n else 0.0
    bar = f'<div class="lfp-progress" aria-hidden="true"><span style="width:{width:.1f}%"></span></div>'
    return f"{bar}{panels.facts(facts)}"


def tally(verdicts: Sequence[Verdict]) -> str:
    """Write the shares of the newest verdicts on labels, with Wilson's 95 % intervals over features.

    A feature counts once: if reviewers differ, it is split between their verdicts.
    """
    by_feature: dict[int, list[str]] = {}
    for verdict in verdicts:
        if verdict.verdict is not None:
            by_feature.setdefault(verdict.feature_id, []).append(verdict.verdict)
    n = len(by_feature)
    if not n:
        return panels.note("No label has been judged yet.")
    rows = []
    for name in VERDICTS:
        part = sum(given.count(name) / len(given) for given in by_feature.values())
        low, high = share_interval(part, n) or (0.0, 1.0)
        rows.append([LABEL[name], percent(part / n), f"{percent(low)} to {percent(high)}"])
    says = f"{n} label{'s' if n > 1 else ''} judged."
    if any(len(given) > 1 for given in by_feature.values()):
        says += " A label that several people judged counts once, split between their verdicts."
    return panels.table(["verdict", "share", "95 % interval"], rows, strong=(0,)) + panels.note(says)


def kappa(found: Agreement | None, first: str, second: str) -> str:
    """Write Cohen's kappa of two reviewers as a large figure, a sentence, and the table of their answers."""
    if found is None:
        return panels.note(f"{first} and {second} have answered this for no feature in common.")
    if found.kappa is None:
        features = f"the {found.n} shared feature{'s' if found.n != 1 else ''}"
        return panels.note(f"Kappa is undefined: both gave the same answer to {features}.")
    above = found.null_high is not None and found.kappa > found.null_high
    says = (
        f"They agree on {percent(found.agreed)} of {found.n} features. {'Above' if above else 'Within'} chance: 95 % "
        f"of shuffled answers are below {plain(found.null_high)} (p = {plain(found.null_p, 3)})."
    )
    head = panels.Headline("Cohen’s kappa", found.kappa, says, low=found.low, high=found.high, chance=found.null_high)
    used = [i for i in range(len(found.answers)) if found.table[i].sum() + found.table[:, i].sum()]
    heads = [f"{first} ↓  {second} →", *(found.answers[i] for i in used)]
    body = [[found.answers[i], *(str(found.table[i, j]) for j in used)] for i in used]
    terms = (
        "0: agreement by chance; 1: full agreement. 95 % credible interval: kappa over tables drawn from a Dirichlet "
        "posterior with one count spread over the cells. "
    )
    few = "It is wide with so few features: review more in common. " if found.n < 30 else ""
    return panels.cards([head]) + panels.note(terms + few) + panels.table(heads, body)


def differences(
    pairs: Sequence[tuple[Verdict, Verdict]],
    named: Mapping[int, AuditedFeature],
    *,
    answer: Callable[[Verdict], str | None],
    where: Callable[[int], str],
) -> str:
    """Write where two reviewers differ, one row per feature: its label, both answers and both notes."""
    if not pairs:
        return panels.note("They agree on all.")

    def cell(verdict: Verdict) -> str:
        words, given = shortened(verdict.note or verdict.description, 120), answer(verdict)
        note = f'<p dir="auto">{escaped(words)}</p>' if words else ""
        return f"<td>{panels.badge(given or '–', KIND.get(given or '', ''))}{note}</td>"

    first, second = pairs[0][0].reviewer, pairs[0][1].reviewer
    heads = "".join(f"<th>{escaped(head)}</th>" for head in ("feature", "label", first, second))
    rows = ""
    for a, b in pairs:
        feature = named.get(a.feature_id)
        label = panels.cut((feature and feature.description) or "no label", 90)
        link = panels.anchor(where(a.feature_id), f"feature {a.feature_id}")
        rows += f'<tr><td>{link}</td><td dir="auto">{label}</td>{cell(a)}{cell(b)}</tr>'
    head = f"<thead><tr>{heads}</tr></thead>"
    return panels.scrolling(f'<table class="lfp-table lfp-differ">{head}<tbody>{rows}</tbody></table>')


def examples(rows: Sequence[Row], limit: float, href: Callable[[int], str]) -> str:
    """Write a reviewer's choice of examples; `limit` is the feature's largest activation."""

    def activation(row: Row) -> float:
        value: float = row["window_values"][row["position"] - row["window_start"]]
        return value

    sampled = [row for row in rows if row["bucket"] > 0]
    weaker = sorted(sampled[:: max(1, len(sampled) // WEAKER)][:WEAKER], key=activation, reverse=True)
    named = [(row, "strongest") for row in rows if row["bucket"] == 0][:STRONGEST]
    named += [(row, "weaker") for row in weaker]
    for bucket, name in ((-1, "silent"), (NEAR_MISS, "near miss")):
        named += [(row, name) for row in rows if row["bucket"] == bucket][:SILENT]
    legend = tokens.strength_legend(limit, "activation; the example’s token is underlined")
    items = []
    for row, name in named:
        link = panels.anchor(href(row["text_id"]), f"text {row['text_id']}")
        caption = f"<b>{plain(activation(row))}</b>{panels.text(name)}<br>{link}"
        items.append(tokens.example(row, limit=limit, caption=caption))
    return legend + tokens.examples(items, numbers=False)
