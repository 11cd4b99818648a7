"""The prompts that labels come from, ours and versioned: describe, relate, detect, fuzz; a kept label's, rebuilt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from lfp.bundle.queries.feature import Label
from lfp.errors import LabelError
from lfp.labels.client.questions import Form, Message, Question
from lfp.labels.types import Excerpt

PROMPT_VERSION = "labels-1"
"""Changes with the words of any prompt here; those of earlier versions stay, so that `rebuilt` finds them."""


_LEVELS = 10


_DESCRIBE = """\
You study what one feature of a language model responds to. The feature fires on some tokens of a text, more or less \
strongly, and is silent on all others. You are given excerpts of texts as tables: a token a line, then a tab and how \
strongly the feature fires on it, from 0 (silent) to 10 (as strongly as it ever does). First come excerpts on which it \
fires. Then there may be look-alikes: excerpts on which one would expect it to fire, though it is silent throughout.
Describe in one phrase of at most 25 words what the feature fires on: which tokens, and what stands before them where \
that matters. A token is read with those before it, never with those after it. Be as specific as the excerpts allow \
and no more general than the look-alikes allow. Do not mention features, excerpts or strengths."""


_RELATE = """\
A language model was tuned on feedback. {task}
You are given a description of what one feature of the tuned model fires on. Is the feature about that feedback: does \
it fire on what the feedback rewards or punishes, rather than on something that the feedback is silent about?
related: true or false; confidence: from 0 (a guess) to 1 (certain); reason: one short sentence."""


_DETECT = """\
You are given a description of the tokens on which a feature of a language model fires, and numbered excerpts of \
texts. Some of them hold a token on which the feature fires, and some do not, however alike they look. Judge each one \
by the description alone.
firing: the numbers of the excerpts that hold a token on which the feature fires, none where there is none."""


_FUZZ = """\
You are given a description of the tokens on which a feature of a language model fires, and numbered excerpts of \
texts in each of which one token is marked «like this». Judge each one by the description alone.
firing: the numbers of the excerpts whose marked token is one on which the feature fires, none where there is none."""


class Description(Form):
    """What a feature fires on."""

    description: str


class Relation(Form):
    """Whether a feature is about the feedback."""

    related: bool
    confidence: float = Field(ge=0.0, le=1.0)
    reason: str


class Detection(Form):
    """Which excerpts hold a token that fires."""

    firing: list[int]


class Fuzzing(Form):
    """In which excerpts the marked token is one that fires."""

    firing: list[int]


def describe(
    excerpts: Sequence[Excerpt], *, max_activation: float, answer_tokens: int, repeat: int = 0
) -> Question[Description]:
    """What does the feature fire on? Repeats are asked apart even where they show the same."""
    firing = [table(one, max_activation) for one in excerpts if one.fires]
    silent = [table(one, max_activation) for one in excerpts if not one.fires]
    parts = [f"Fires {i}\n{one}" for i, one in enumerate(firing, 1)]
    parts += [f"Look-alike {i}\n{one}" for i, one in enumerate(silent, 1)]
    return Question(_messages(_DESCRIBE, "\n\n".join(parts)), Description, answer_tokens, f"{PROMPT_VERSION}:{repeat}")


def relate(description: str, task: str, *, answer_tokens: int, repeat: int = 0) -> Question[Relation]:
    """Is the feature about this feedback?"""
    messages = _messages(_RELATE.format(task=task), description)
    return Question(messages, Relation, answer_tokens, f"{PROMPT_VERSION}:{repeat}")


def detect(description: str, excerpts: Sequence[Excerpt], *, answer_tokens: int) -> Question[Detection]:
    """Which of these excerpts fire it?"""
    asked = _numbered(description, (one.text for one in excerpts))
    return Question(_messages(_DETECT, asked), Detection, answer_tokens, PROMPT_VERSION)


def fuzz(description: str, excerpts: Sequence[Excerpt], *, answer_tokens: int) -> Question[Fuzzing]:
    """In which of these excerpts does the marked token fire it?"""
    return Question(
        _messages(_FUZZ, _numbered(description, map(marked, excerpts))), Fuzzing, answer_tokens, PROMPT_VERSION
    )


def told(answer: Detection | Fuzzing, n: int) -> list[bool]:
    """Of each of `n` excerpts what the answer says; numbers that no excerpt has say nothing."""
    return [number in answer.firing for number in range(1, n + 1)]


def table(one: Excerpt, max_activation: float) -> str:
    """An excerpt as a token a line, a tab, and its activation from 0 to 10; what fires at all is at least 1."""
    return "\n".join(
        f"{_on_one_line(token)}\t{_level(value, max_activation)}"
        for token, value in zip(one.tokens, one.activations, strict=True)
    )


def marked(one: Excerpt) -> str:
    """An excerpt with the token at its place marked."""
    return "".join((*one.tokens[: one.at], "«", one.tokens[one.at], "»", *one.tokens[one.at + 1 :]))


def sha256(questions: Iterable[Question[Any]]) -> str:
    """Hash of what stood in these prompts, one after another."""
    what = [question.messages for question in questions]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def rebuilt(
    version: str, excerpts: Sequence[Excerpt], *, max_activation: float, description: str, task: str
) -> tuple[Question[Description], Question[Relation]]:
    """The prompts that a kept label came from: of its description, and of whether that is related.

    `excerpts` are those it names, in that order. Raises LabelError for a version that this program does not know.
    """
    if version != PROMPT_VERSION:
        raise LabelError(f"prompt {version}: this program does not know its words; open the bundle with a newer one")
    return (
        describe(excerpts, max_activation=max_activation, answer_tokens=0),
        relate(description, task, answer_tokens=0),
    )


def read_excerpts(content: str) -> Mapping[str, list[str]]:
    """The tables of a describing prompt's last message: those that fire and the look-alikes."""
    found: dict[str, list[str]] = {"Fires": [], "Look-alike": []}
    for part in content.split("\n\n"):
        head, _, body = part.partition("\n")
        found[head.rpartition(" ")[0]].append(body)
    return found


def read_numbered(content: str) -> tuple[str, list[str]]:
    """The description and the excerpts of the last message of a question of detection or fuzzing."""
    asked = json.loads(content)
    return asked["description"], [one["text"] for one in asked["excerpts"]]


def _messages(system: str, user: str) -> tuple[Message, ...]:
    return Message("system", system), Message("user", user)


def _numbered(description: str, texts: Iterable[str]) -> str:
    excerpts = [{"number": i, "text": text} for i, text in enumerate(texts, 1)]
    return json.dumps({"description": description, "excerpts": excerpts}, ensure_ascii=False)


def _on_one_line(token: str) -> str:
    """The token without characters that would end its line or its column."""
    return token.encode("unicode_escape").decode() if token.splitlines() != [token] or "\t" in token else token


def _level(value: float, max_activation: float) -> int:
    if value <= 0:
        return 0
    return max(1, min(_LEVELS, round(_LEVELS * value / max_activation)))


@dataclass(frozen=True)
class Rebuilt:
    """The prompts of a label's description and of whether that is related, and the hash of both."""

    describe: Question[Description]
    relate: Question[Relation]
    sha256: str


def rebuild(label: Label, excerpts: Sequence[Excerpt], *, max_activation: float) -> Rebuilt:
    """The prompts that a label came from; `excerpts` are those it names, as `evidence.kept_excerpts` finds them.

    They are the very ones where their hash is the label's `prompt_sha256`. Raises LabelError for prompts of a version
    that this program does not know.
    """
    describe, relate = rebuilt(
        label.prompt_version,
        excerpts,
        max_activation=max_activation,
        description=label.description or "",
        task=label.task or "",
    )
    return Rebuilt(describe, relate, sha256([describe, relate]))
