"""The prompts for labels, with their version: describe, relate, detect, fuzz; and the prompts of a stored label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from lfp.bundle.queries.feature import Label
from lfp.errors import LabelError
from lfp.labels.client.questions import Form, Message, Question
from lfp.labels.types import Excerpt

PROMPT_VERSION = "labels-1"
"""Changes with the wording of any prompt here. Keep the prompts of earlier versions, so that `rebuild` finds them."""

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

    @field_validator("description")
    @classmethod
    def _check_is_said(cls, description: str) -> str:
        if not description.strip():
            raise PydanticCustomError("blank", "it is blank")
        return description


class Relation(Form):
    """Whether a feature is about the feedback."""

    related: bool
    confidence: float = Field(ge=0.0, le=1.0)
    reason: str


class Detection(Form):
    """Numbers of the excerpts that hold a token on which the feature fires."""

    firing: list[int]


class Fuzzing(Form):
    """Numbers of the excerpts whose marked token is one on which the feature fires."""

    firing: list[int]


def describe(
    excerpts: Sequence[Excerpt], *, max_activation: float, answer_tokens: int, repeat: int = 0
) -> Question[Description]:
    """Ask what the feature fires on. Repeats are separate questions even if they show the same excerpts."""
    firing = [format_table(excerpt, max_activation) for excerpt in excerpts if excerpt.fires]
    silent = [format_table(excerpt, max_activation) for excerpt in excerpts if not excerpt.fires]
    parts = [f"Fires {i}\n{table}" for i, table in enumerate(firing, 1)]
    parts += [f"Look-alike {i}\n{table}" for i, table in enumerate(silent, 1)]
    messages = Message("system", _DESCRIBE), Message("user", "\n\n".join(parts))
    return Question(messages, Description, answer_tokens, f"{PROMPT_VERSION}:{repeat}")


def relate(description: str, task: str, *, answer_tokens: int, repeat: int = 0) -> Question[Relation]:
    """Ask whether the feature is about the feedback that `task` describes."""
    messages = Message("system", _RELATE.format(task=task)), Message("user", description)
    return Question(messages, Relation, answer_tokens, f"{PROMPT_VERSION}:{repeat}")


def judge(
    description: str, excerpts: Sequence[Excerpt], *, marked: bool, answer_tokens: int
) -> Question[Detection] | Question[Fuzzing]:
    """Ask on which of these excerpts the feature fires, or with `marked`, on the marked token of which it fires."""
    texts = [mark_token(excerpt) if marked else excerpt.text for excerpt in excerpts]
    numbered = [{"number": i, "text": text} for i, text in enumerate(texts, 1)]
    content = json.dumps({"description": description, "excerpts": numbered}, ensure_ascii=False)
    messages = Message("system", _FUZZ if marked else _DETECT), Message("user", content)
    if marked:
        return Question(messages, Fuzzing, answer_tokens, PROMPT_VERSION)
    return Question(messages, Detection, answer_tokens, PROMPT_VERSION)


def format_table(excerpt: Excerpt, max_activation: float) -> str:
    """Write an excerpt with one line per token: token, tab, level from 0 to 10; what fires at all has at least 1."""
    lines = []
    for token, value in zip(excerpt.tokens, excerpt.activations, strict=True):
        breaks_line = token.splitlines() != [token] or "\t" in token
        level = max(1, min(_LEVELS, round(_LEVELS * value / max_activation))) if value > 0 else 0
        lines.append(f"{token.encode('unicode_escape').decode() if breaks_line else token}\t{level}")
    return "\n".join(lines)


def mark_token(excerpt: Excerpt) -> str:
    """Write an excerpt with the token at its place between « and »."""
    tokens, at = excerpt.tokens, excerpt.at
    return "".join((*tokens[:at], "«", tokens[at], "»", *tokens[at + 1 :]))


def hash_prompts(questions: Iterable[Question[Any]]) -> str:
    """SHA-256 of the messages of these questions, in order."""
    messages = [question.messages for question in questions]
    return hashlib.sha256(json.dumps(messages).encode()).hexdigest()


@dataclass(frozen=True)
class RebuiltPrompts:
    """The prompts for a label's description and for its relation to the feedback, and the hash of both."""

    describe: Question[Description]
    relate: Question[Relation]
    sha256: str


def rebuild(label: Label, excerpts: Sequence[Excerpt], *, max_activation: float) -> RebuiltPrompts:
    """Rebuild the prompts that a label came from; `excerpts` are those it names, as `evidence.find_excerpts` does.

    They are the same prompts if their hash equals the label's `prompt_sha256`. Raises LabelError for a prompt version
    that this program does not know.
    """
    if label.prompt_version != PROMPT_VERSION:
        raise LabelError(
            f"prompt {label.prompt_version}: this program does not know its words; open the bundle with a newer one"
        )
    about = describe(excerpts, max_activation=max_activation, answer_tokens=0)
    relation = relate(label.description or "", label.task or "", answer_tokens=0)
    return RebuiltPrompts(about, relation, hash_prompts([about, relation]))


def read_excerpts(content: str) -> Mapping[str, list[str]]:
    """Read the tables in the last message of `describe`: of firing excerpts and of look-alikes."""
    found: dict[str, list[str]] = {"Fires": [], "Look-alike": []}
    for part in content.split("\n\n"):
        head, _, body = part.partition("\n")
        found[head.rpartition(" ")[0]].append(body)
    return found


def read_numbered(content: str) -> tuple[str, list[str]]:
    """Read the description and the excerpts in the last message of `judge`."""
    message = json.loads(content)
    return message["description"], [excerpt["text"] for excerpt in message["excerpts"]]
