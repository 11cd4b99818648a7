"""The label trust card: what a labeller says of a feature, the evidence for it, and how far to trust it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from app.components.html import panels
from app.components.html.numbers import fixed, percent, plain
from app.components.text import tokens
from lfp.bundle.queries.feature import Label
from lfp.errors import LabelError
from lfp.labels.client.questions import Message
from lfp.labels.evidence import NEAR_MISS, kept_excerpts
from lfp.labels.prompts import Rebuilt, rebuild
from lfp.labels.types import HUMAN, Excerpt
from lfp.util.sanitize import escaped, visible

CHANCE = 0.5
"""Balanced accuracy of a guess."""


WELL = 0.7
"""A description tells its texts well where the whole interval of its detection is above this."""


PERSON, RULE, MODEL = "a person", "a rule", "a language model"


_SERVED = "openai:"  # what a language model's labeller begins with, asked or (of a feature that never fires) not


TERMS = (
    "Detection (which texts fire) and fuzzing (which token fires) are balanced accuracies on texts held back from the "
    "labeller. Agreement is the share of repeats, each described anew from other examples, with the same verdict on "
    "the feedback."
)


class Verdict(NamedTuple):
    """How far to trust a description: kind is good, weak or none; one sentence from the numbers."""

    kind: str
    says: str


def cards(
    labels: Sequence[Label], rows: Sequence[Mapping[str, Any]], *, max_activation: float, where: Callable[[int], str]
) -> str:
    """A card a label. `rows` are the feature's examples with their texts, `where` the address of a text's page."""
    near = any(row["bucket"] == NEAR_MISS for row in rows)
    body = "".join(
        _card(label, near=near, how=how(label, rows, max_activation=max_activation, where=where)) for label in labels
    )
    terms = panels.note(TERMS) if any(label.score_detection is not None for label in labels) else ""
    return f'<div class="lfp-trusts">{body}{terms}</div>'


def verdict(label: Label, *, near: bool = False) -> Verdict:
    """How far to trust a label. `near`: the feature has near misses, so that some were among what it was held to."""
    if label.description is None:
        return Verdict(
            "none", f"No description: {_ended((label.failure or 'the labeller failed').removeprefix('description: '))}"
        )
    value, low, high = label.score_detection, label.score_ci_low, label.score_ci_high
    if value is None:
        return Verdict("none", f"Not scored: {_unscored(label)}")
    if low is None or high is None:
        return Verdict("weak", f"Scored {plain(value)}, without an interval: it cannot be told from a guess.")
    return _scored(value, low, high, label, "near misses and other silent ones" if near else "silent ones")


def _scored(value: float, low: float, high: float, label: Label, silent: str) -> Verdict:
    figure = f"{plain(value)} [{fixed(low, 2)}, {fixed(high, 2)}] on {label.score_n} that it was not made from"
    swapped, other = label.score_swapped, "another feature’s description"
    also = f"{other} reaches {plain(swapped)}" if swapped is not None else f"{other} was not tried on them"
    if high < CHANCE:
        return Verdict("weak", f"Worse than a guess at telling firing texts from {silent}: {figure}; {also}.")
    if low <= CHANCE:
        return Verdict("weak", f"Could be a guess: it tells firing texts from {silent} by {figure}; {also}.")
    if swapped is not None and swapped >= low:
        than = "No better" if swapped >= value else "Not clearly better"
        return Verdict("weak", f"{than} than {other}, which reaches {plain(swapped)}: {figure}.")
    manner = "well" if low > WELL else "better than a guess"
    token = label.score_fuzzing is not None and label.score_fuzzing <= CHANCE
    but = " Which of a text’s tokens fires it tells no better than a guess." if token else ""
    return Verdict("good", f"Tells firing texts from {silent} {manner}: {figure}; {also}.{but}")


def _unscored(label: Label) -> str:
    if label.labeller.startswith(HUMAN):
        return "a person’s words stand as they were given."
    if label.failure:
        return _ended(label.failure)
    if not label.score_n:
        return "the feature has too few examples to hold any back."
    return "the texts held back all fire, or are all silent."


def _card(label: Label, *, near: bool, how: str) -> str:
    found = verdict(label, near=near)
    who = label.labeller if label.model is None else f"{label.labeller} ({label.model})"
    title = "No description" if label.description is None else label.description
    reason = f'<p class="why" dir="auto">{escaped(label.reason)}</p>' if label.reason else ""
    is_told = label.description is None or _ended(label.failure or "") in found.says
    missing = None if is_told else label.failure
    return (
        f'<section class="lfp-trust {"person" if _kind(label) == PERSON else ""}">'
        f'<div class="who">{panels.badge(_kind(label))}<span>{escaped(who)}</span></div>'
        f'<h4 dir="auto">{escaped(title)}</h4>{_relation(label)}{reason}'
        f'<p class="verdict {found.kind}">{escaped(found.says)}</p>'
        + (f'<p class="verdict none">{escaped(f"Missing: {_ended(missing)}")}</p>' if missing else "")
        + f"{_gauge(label)}{_evidence(label)}{how}</section>"
    )


def _kind(label: Label) -> str:
    if label.labeller.startswith(HUMAN):
        return PERSON
    return MODEL if label.model or label.labeller.startswith(_SERVED) else RULE


def _relation(label: Label) -> str:
    if label.related is None:
        return f"<div>{panels.badge('not known whether it is related to the feedback')}</div>"
    says = "related to the feedback" if label.related else "not related to the feedback"
    sure = "" if label.confidence is None else f", confidence {plain(label.confidence)}"
    return f"<div>{panels.badge(says + sure, 'good' if label.related else '')}</div>"


def _evidence(label: Label) -> str:
    span = f" [{fixed(label.score_ci_low, 2)}, {fixed(label.score_ci_high, 2)}]" if _has_interval(label) else ""
    found = {
        "detection": None if label.score_detection is None else plain(label.score_detection) + span,
        "another’s description": None if label.score_swapped is None else plain(label.score_swapped),
        "fuzzing": None if label.score_fuzzing is None else plain(label.score_fuzzing),
        "agreement": None if label.agreement is None else percent(label.agreement),
    }
    known = {name: value for name, value in found.items() if value is not None}
    return panels.facts(known) if known else ""


def _gauge(label: Label) -> str:
    """Detection and its interval from 0 to 1, with chance and another feature's description marked."""
    if label.score_detection is None or not _has_interval(label):
        return ""
    low, high = max(label.score_ci_low or 0.0, 0.0), min(label.score_ci_high or 0.0, 1.0)
    marks = [
        f'<span class="span" style="left:{_at(low)};width:{100 * (high - low):.1f}%"></span>',
        f'<span class="guess" style="left:{_at(CHANCE)}"></span>',
        f'<span class="point" style="left:{_at(label.score_detection)}"></span>',
    ]
    key = '<span class="span">detection, 95 % interval</span><span class="guess">a guess, 0.5</span>'
    if label.score_swapped is not None:
        marks.append(f'<span class="other" style="left:{_at(label.score_swapped)}"></span>')
        key += '<span class="other">another feature’s description</span>'
    ends = '<div class="ends"><span>0</span><span>1</span></div>'
    strip = f'<div class="lfp-strip">{"".join(marks)}</div>'
    return f'<div class="lfp-gauge" aria-hidden="true">{strip}{ends}<div class="lfp-key">{key}</div></div>'


def _at(share: float) -> str:
    return f"{100 * share:.1f}%"


def _has_interval(label: Label) -> bool:
    return label.score_ci_low is not None and label.score_ci_high is not None


def _ended(sentence: str) -> str:
    return sentence.rstrip(".") + "."


Where = Callable[[int], str]
"""The address of a text's page."""


RULES: Mapping[str, str] = {
    "offline-tokens-2": (
        "The rule names the words that bear most of the activation on what it was shown, for how common they are in "
        "the corpus, and the words before them where one or two mostly stand there. It calls the feature related where "
        "enough of that activation falls on words that the feedback’s lexicon scores."
    )
}
"""What rules do, by the version that a label names."""


_ROLES = {"system": "System", "user": "User", "assistant": "Assistant"}


def how(label: Label, rows: Sequence[Mapping[str, Any]], *, max_activation: float, where: Where) -> str:
    """A disclosure with everything a label was made from; nothing of a person's. `rows` as for `kept_excerpts`."""
    if label.labeller.startswith(HUMAN):
        return ""
    try:
        excerpts = kept_excerpts(rows, label.examples_used)
    except LabelError as error:
        return _disclosure("How it was asked", panels.note(_sentence(error)))
    seen = _shown(excerpts, max_activation, where)
    if label.prompt_sha256 is None:
        return _disclosure("How it was made", panels.note(_no_prompt(label)) + seen)
    try:
        body = _prompts(label, rebuild(label, excerpts, max_activation=max_activation))
    except LabelError as error:
        body = panels.note(_sentence(error))
    return _disclosure("How it was asked", _facts(label) + body + seen)


def _no_prompt(label: Label) -> str:
    if label.model is None and label.examples_used:
        rule = RULES.get(label.prompt_version, f"This program does not know what rule {label.prompt_version} does.")
        return f"No prompt was sent: a rule made it, {label.prompt_version}. {rule}"
    return "No prompt was sent, and nothing was shown."


def _prompts(label: Label, found: Rebuilt) -> str:
    related = "To say whether it is related"
    if label.description is None:
        related += " (never asked, as there was no description)"
    parts = _prompt("To describe it", found.describe.messages) + _prompt(related, found.relate.messages)
    return _check(label, found) + parts


def _check(label: Label, found: Rebuilt) -> str:
    """Whether these are the prompts that were sent."""
    if found.sha256 == label.prompt_sha256:
        whose = "the very prompt sent" if label.status == "ok" else "the very prompt made for it"
        says = f'<span class="ok">✓ This is {whose}</span>: its SHA-256 is the one kept with the label.'
    else:
        says = (
            '<span class="off">✗ This is not the prompt sent</span>: its SHA-256 is another than the one kept with '
            "the label. The bundle’s examples or its wording of the task have changed since."
        )
    hidden = any(visible(one.content) != one.content for one in (*found.describe.messages, *found.relate.messages))
    more = " Characters that cannot be seen are written out as ⟨U+…⟩ here, not there." if hidden else ""
    return f'<p class="lfp-check">{says}{more} <code>{escaped(found.sha256)}</code></p>'


def _facts(label: Label) -> str:
    found = {
        "prompts": label.prompt_version,
        "model": label.model,
        "answered": None if label.created_at is None else f"{label.created_at[:16].replace('T', ' ')} UTC",
        "cost": None if label.cost_usd is None else f"${plain(label.cost_usd, 4) if label.cost_usd else 0}",
        "told of the feedback": label.task,
    }
    return panels.facts({name: value for name, value in found.items() if value is not None})


def _prompt(title: str, messages: Sequence[Message]) -> str:
    parts = "".join(
        f'<h6>{_ROLES[one.role]}</h6><pre class="lfp-prompt" tabindex="0" role="region" '
        f'aria-label="{escaped(f"{title}, {one.role} message")}">\n{escaped(one.content)}</pre>'
        for one in messages
    )
    return f"<h5>{escaped(title)}</h5>{parts}"


def _shown(excerpts: Sequence[Excerpt], max_activation: float, where: Where) -> str:
    """What the labeller saw, in that order, each with the way to its text."""
    if not excerpts:
        return ""
    items = "".join(
        f"<li>{panels.anchor(where(one.text_id), f'text {one.text_id}, token {one.position}')}"
        f"<span>{plain(one.activations[one.at]) if one.fires else 'silent'}</span>"
        f"<p>{tokens.shaded(one.tokens, one.activations, limit=max_activation, peak=one.at)}</p></li>"
        for one in excerpts
    )
    return f'<h5>The {len(excerpts)} examples it was shown</h5><ol class="lfp-shown">{items}</ol>'


def _disclosure(title: str, body: str) -> str:
    return f'<details class="lfp-asked"><summary>{escaped(title)}</summary>{body}</details>'


def _sentence(error: Exception) -> str:
    words = str(error)
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."
