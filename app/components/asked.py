"""How a label was asked for: what its labeller was shown, and its prompts, rebuilt and held to the hash kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.components import panels, tokens
from app.components.numbers import plain
from lfp.bundle.queries.feature import Label
from lfp.errors import LabelError
from lfp.labels.client.questions import Message
from lfp.labels.evidence import kept_excerpts
from lfp.labels.prompts import Rebuilt, rebuild
from lfp.labels.types import HUMAN, Excerpt
from lfp.util.sanitize import escaped, visible

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
