"""Label cards: what a labeller says of a feature, the evidence for it, and how far to trust it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from app.components.html import panels
from lfp.bundle.queries.feature import Label
from lfp.errors import LabelError
from lfp.evaluation.results import RATE
from lfp.labels.client.questions import Message
from lfp.labels.evidence import NEAR_MISS, find_excerpts
from lfp.labels.prompts import RebuiltPrompts, rebuild
from lfp.labels.types import HUMAN, NEURONPEDIA, Excerpt
from lfp.report.formatting import fixed, percent, plain
from lfp.report.running_text import shaded
from lfp.util.sanitize import escaped, shortened, visible

CHANCE = 0.5
"""Balanced accuracy of a guess."""
WELL = 0.7
"""A label predicts well if the whole interval of its detection is above this."""
PERSON, RULE, MODEL, IMPORTED = "a person", "a rule", "a language model", "Neuronpedia"
TERMS = (
    "Detection (which texts fire) and fuzzing (which token fires) are balanced accuracies on texts held back from the "
    "labeller. Agreement: relabelled from other examples, how often “related” came out the same."
)
_SEARCH = (
    "The rule lists tokens, or names a category (an ending, a stem, a class of words), with a condition on what "
    "precedes where that separates better: whichever tells the shown examples, and the silent tokens in and "
    "around them, apart best. It names only tokens on which the strongest examples fire. It calls the feature "
    "related if enough of the shown activation is on words that the feedback’s lexicon scores."
)
RULES: Mapping[str, str] = {
    "offline-tokens-4": (
        f"{_SEARCH} Of an unlabelled feature that fires on nine tokens in ten or more, it says only that."
    ),
    "offline-tokens-3": _SEARCH,
    "offline-tokens-2": (
        "The rule names the words with most of the shown activation, relative to how common they are in the corpus, "
        "and the words before them if one or two are frequent there. It calls the feature related if enough of that "
        "activation is on words that the feedback’s lexicon scores."
    ),
}
"""What rules do, by the version that a label names."""

Where = Callable[[int], str]
"""Returns the address of a text's page."""

_SERVED = "openai:"  # what a language model's labeller starts with, even for a feature that it was not asked about
_ROLES = {"system": "System", "user": "User", "assistant": "Assistant"}


class Verdict(NamedTuple):
    """How far to trust a label: kind is good, weak or none; one sentence from the numbers."""

    kind: str
    says: str


def cards(labels: Sequence[Label], rows: Sequence[Mapping[str, Any]], *, max_activation: float, where: Where) -> str:
    """Write one card per label, all but the first folded; `rows` are the feature's examples with their texts."""
    near = any(row["bucket"] == NEAR_MISS for row in rows)
    first, *others = [
        _card(label, near=near, sources=_sources(label, rows, max_activation=max_activation, where=where))
        for label in labels
    ] or [""]
    more = f"{len(others)} other label{'' if len(others) == 1 else 's'} in full"
    folded = f'<details class="lfp-more"><summary>{more}</summary>{"".join(others)}</details>' if others else ""
    terms = panels.note(TERMS) if any(label.score_detection is not None for label in labels) else ""
    return f'<div class="lfp-trusts">{first}{folded}{terms}</div>'


def comparison(labels: Sequence[Label]) -> str:
    """Write several labels beside each other with the scores that any has, the one that names the feature first."""
    rows = []
    for label in labels:
        detection = plain(label.score_detection)
        if label.score_ci_low is not None and label.score_ci_high is not None:
            detection += f" [{fixed(label.score_ci_low, 2)}, {fixed(label.score_ci_high, 2)}]"
        scores = [detection, plain(label.score_swapped), plain(label.score_fuzzing), percent(label.agreement)]
        rows.append([f"{label.labeller}: {shortened(label.description or 'no label', 48)}", *scores])
    heads = ["label", "detection", "another feature’s label", "fuzzing", "agreement"]
    known = [at for at in range(len(heads)) if any(row[at] != plain(None) for row in rows)]
    heads, rows = [heads[at] for at in known], [[row[at] for at in known] for row in rows]
    return panels.table(heads, rows, strong=[0], wraps=True)


def verdict(label: Label, *, near: bool = False) -> Verdict:
    """Judge how far to trust a label; `near` says that some of the silent texts it was tested on are near misses."""
    if label.description is None:
        reason = (label.failure or "the labeller failed").removeprefix("description: ")
        return Verdict("none", f"No label: {_ended(reason)}")
    value, low, high, other = label.score_detection, label.score_ci_low, label.score_ci_high, label.score_swapped
    if value is None:
        if label.labeller == NEURONPEDIA:
            why = "it was imported, and nobody tested it on this bundle’s texts."
        elif label.labeller.startswith(HUMAN) and label.prompt_sha256 is None:
            why = "the label was not made from prompts, so nobody judged texts by it."
        elif label.failure:
            why = _ended(label.failure)
        elif not label.score_n:
            why = "the feature has too few examples to hold any back."
        else:
            why = "the texts held back are all active, or all silent."
        return Verdict("none", f"Not scored: {why}")
    if low is None or high is None:
        return Verdict("weak", f"Scored {plain(value)} without an interval, so chance cannot be excluded.")
    also = "another feature’s label was not tested" if other is None else f"another feature’s label: {plain(other)}"
    texts = "held-out texts, near misses among them" if near else "held-out texts"
    score = f"{plain(value)} [{fixed(low, 2)}, {fixed(high, 2)}], n = {label.score_n} ({also})"
    is_among_many = label.score_q is not None and label.score_q > RATE
    if high < CHANCE:
        return Verdict("weak", f"Predicts {texts} worse than chance: {score}.")
    if low <= CHANCE:
        return Verdict("weak", f"May be chance: predicts {texts} with {score}.")
    if is_among_many:
        return Verdict("weak", f"May be chance, as so many labels are tested: predicts {texts} with {score}.")
    if other is not None and other >= low:
        than = "No better" if other >= value else "Not clearly better"
        return Verdict("weak", f"{than} than another feature’s label: {score}.")
    manner = "well" if low > WELL else "better than chance"
    no_token = label.score_fuzzing is not None and label.score_fuzzing <= CHANCE
    but = " It does not predict which token of a text is active." if no_token else ""
    return Verdict("good", f"Predicts {texts} {manner}: {score}.{but}")


def _card(label: Label, *, near: bool, sources: str) -> str:
    found = verdict(label, near=near)
    if label.labeller.startswith(HUMAN):
        kind = PERSON
    elif label.labeller == NEURONPEDIA:
        kind = IMPORTED
    else:
        kind = MODEL if label.model or label.labeller.startswith(_SERVED) else RULE
    who = label.labeller if label.model is None else f"{label.labeller} ({label.model})"
    title = "No label" if label.description is None else label.description
    if label.related is None:
        relation, related_kind = "not known whether it is related to the feedback", ""
    else:
        relation = "related to the feedback" if label.related else "not related to the feedback"
        relation += "" if label.confidence is None else f", confidence {plain(label.confidence)}"
        related_kind = "good" if label.related else ""
    reason = f'<p class="why" dir="auto">{escaped(label.reason)}</p>' if label.reason else ""
    missing = ""
    if label.failure and label.description is not None and _ended(label.failure) not in found.says:
        missing = f'<p class="verdict none">{escaped(f"Missing: {_ended(label.failure)}")}</p>'
    detection = None if label.score_detection is None else plain(label.score_detection)
    if detection is not None and label.score_ci_low is not None and label.score_ci_high is not None:
        detection += f" [{fixed(label.score_ci_low, 2)}, {fixed(label.score_ci_high, 2)}]"
    scores = {
        "detection": detection,
        "another feature’s label": None if label.score_swapped is None else plain(label.score_swapped),
        "fuzzing": None if label.score_fuzzing is None else plain(label.score_fuzzing),
        "agreement": None if label.agreement is None else percent(label.agreement),
    }
    known = panels.facts(scores) if any(scores.values()) else ""
    return (
        f'<section class="lfp-trust {"person" if kind == PERSON else ""}">'
        f'<div class="who">{panels.badge(kind)}<span>{escaped(who)}</span></div>'
        f'<h4 dir="auto">{escaped(title)}</h4><div>{panels.badge(relation, related_kind)}</div>{reason}'
        f'<p class="verdict {found.kind}">{escaped(found.says)}</p>{missing}{_gauge(label)}{known}'
        f"{sources}</section>"
    )


def _gauge(label: Label) -> str:
    """Draw detection and its interval from 0 to 1, with chance and another feature's label marked."""
    if label.score_detection is None or label.score_ci_low is None or label.score_ci_high is None:
        return ""

    low, high = max(label.score_ci_low, 0.0), min(label.score_ci_high, 1.0)
    marks: list[panels.Mark] = [("span", low, high), ("guess", CHANCE, None), ("point", label.score_detection, None)]
    key = '<span class="span">detection, 95 % interval</span><span class="guess">chance, 0.5</span>'
    if label.score_swapped is not None:
        marks.append(("other", label.score_swapped, None))
        key += '<span class="other">another feature’s label</span>'
    ends = '<div class="ends"><span>0</span><span>1</span></div>'
    strip = f'<div class="lfp-strip">{panels.strip(marks, 0, 100)}</div>'
    return f'<div class="lfp-gauge" aria-hidden="true">{strip}{ends}<div class="lfp-key">{key}</div></div>'


def _ended(sentence: str) -> str:
    return sentence.rstrip(".") + "."


def _sources(label: Label, rows: Sequence[Mapping[str, Any]], *, max_activation: float, where: Where) -> str:
    """Write a disclosure with everything a label was made from; empty for a person's without a prompt, or imported."""
    if label.labeller == NEURONPEDIA or (label.labeller.startswith(HUMAN) and label.prompt_sha256 is None):
        return ""
    shown = ""
    try:
        excerpts = find_excerpts(rows, label.examples_used)
        shown = _excerpts(excerpts, max_activation, where)
        if label.prompt_sha256 is not None:
            made = _prompts(label, rebuild(label, excerpts, max_activation=max_activation))
        elif label.model is None and label.examples_used:
            unknown = f"This program does not know the rule {label.prompt_version}."
            rule = RULES.get(label.prompt_version, unknown)
            made = panels.note(f"No prompt was sent: the rule {label.prompt_version} made it. {rule}")
        else:
            made = panels.note("No prompt was sent, and nothing was shown.")
    except LabelError as error:
        words = str(error)
        made = panels.note(f"{words[:1].upper()}{words[1:].rstrip('.')}.")
    title, facts = "How it was made", ""
    if label.prompt_sha256 is not None:
        title = "Prompt and examples"
        cost = label.cost_usd
        facts = panels.facts(
            {
                "prompts": label.prompt_version,
                "model": label.model,
                "answered": None if label.created_at is None else f"{label.created_at[:16].replace('T', ' ')} UTC",
                "cost": None if cost is None else f"${plain(cost, 4) if cost else 0}",
                "feedback described as": label.task,
            }
        )
    return f'<details class="lfp-asked"><summary>{title}</summary>{facts}{made}{shown}</details>'


def _prompts(label: Label, found: RebuiltPrompts) -> str:
    """Write both prompts, and whether they are the ones that were sent."""
    if found.sha256 == label.prompt_sha256:
        whose = "the prompt that was sent" if label.status == "ok" else "the prompt that was made for it"
        says = f'<span class="ok">✓ This is {whose}</span>: its SHA-256 matches the one stored with the label.'
    else:
        says = (
            '<span class="off">✗ This is not the prompt that was sent</span>: its SHA-256 differs from the one stored '
            "with the label. The bundle’s examples or its description of the feedback have changed since."
        )
    messages = (*found.describe.messages, *found.relate.messages)
    if any(visible(message.content) != message.content for message in messages):
        says += " Invisible characters are written as ⟨U+…⟩ here."
    related = "Prompt for the relation"
    if label.description is None:
        related += " (not sent, as there was no label)"
    check = f'<p class="lfp-check">{says} <code>{escaped(found.sha256)}</code></p>'
    return check + _prompt("Prompt for the label", found.describe.messages) + _prompt(related, found.relate.messages)


def _prompt(title: str, messages: Sequence[Message]) -> str:
    parts = "".join(
        f'<h6>{_ROLES[message.role]}</h6><pre class="lfp-prompt" tabindex="0" role="region" '
        f'aria-label="{escaped(f"{title}, {message.role} message")}">\n{escaped(message.content)}</pre>'
        for message in messages
    )
    return f"<h5>{escaped(title)}</h5>{parts}"


def _excerpts(excerpts: Sequence[Excerpt], max_activation: float, where: Where) -> str:
    """Write what the labeller saw, in that order, each with a link to its text."""
    if not excerpts:
        return ""
    items = "".join(
        f"<li>{panels.anchor(where(excerpt.text_id), f'text {excerpt.text_id}, token {excerpt.position}')}"
        f"<span>{plain(excerpt.activations[excerpt.at]) if excerpt.fires else 'silent'}</span>"
        f"<p>{shaded(excerpt.tokens, excerpt.activations, limit=max_activation, peak=excerpt.at)}</p></li>"
        for excerpt in excerpts
    )
    return f'<h5>The {len(excerpts)} examples it was shown</h5><ol class="lfp-shown">{items}</ol>'
