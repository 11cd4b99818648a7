"""Questions to a language model, the answers with their schema, and the cache on disk that keeps answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lfp.errors import LabelError
from lfp.util.disk import write_whole

_TEMPLATE_TOKENS, _MESSAGE_TOKENS = 128, 16  # tokens that a server's chat template may add: a generous bound
_BYTES_PER_TOKEN = 4  # of English prose


class Form(BaseModel):
    """Base class of answer schemas: no additional keys, as strict structured output requires."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


SCHEMA_INTRODUCTION = (
    "Answer with one JSON object and nothing else: no code fence, no comment. It must fit this JSON schema:\n"
)
"""What stands before a schema that is written into a prompt."""

AnyForm = TypeVar("AnyForm", bound=Form)


class Message(NamedTuple):
    """A message of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Question(Generic[AnyForm]):
    """A prompt, the schema of its answer, and the tokens that the answer may have.

    `key` distinguishes repeated samples of one prompt: equal prompts with equal keys are one question, asked once.
    """

    messages: tuple[Message, ...]
    schema: type[AnyForm]
    max_tokens: int
    key: str = ""

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        return self.schema.model_json_schema()

    def sha256(self, model: str) -> str:
        """Hash everything that affects the answer."""
        parts = [model, self.messages, self.schema.__name__, self.json_schema, self.max_tokens, self.key]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def tokens_in(self) -> tuple[int, int]:
        """Number of prompt tokens: an estimate, and an upper bound.

        For the bound, a token has at least one byte, the server's chat template adds some, and the schema is in the
        prompt.
        """
        contents = [message.content for message in self.messages]
        n_bytes = sum(len(text.encode()) for text in (*contents, json.dumps(self.json_schema)))
        added = len(SCHEMA_INTRODUCTION) + _MESSAGE_TOKENS * (len(self.messages) + 1) + _TEMPLATE_TOKENS
        return -(-n_bytes // _BYTES_PER_TOKEN), n_bytes + added


def put_schema_in_prompt(question: Question[Any]) -> tuple[Message, ...]:
    """Return the messages with the schema of the answer at the end of the system message."""
    schema = SCHEMA_INTRODUCTION + json.dumps(question.json_schema)
    first, *others = question.messages
    if first.role != "system":
        return (Message("system", schema), *question.messages)
    return (Message("system", f"{first.content}\n\n{schema}"), *others)


@dataclass(frozen=True)
class Answer(Generic[AnyForm]):
    """A value, or the reason for its absence, and the dollars and tokens of all tries.

    Those of a `cached` answer were paid when it was first asked. `answered_at` is the time of the answer (UTC).
    """

    value: AnyForm | None
    failure: str | None
    cost_usd: float
    tokens: int
    cached: bool = False
    answered_at: str | None = None


class _CachedAnswer(BaseModel):
    """Contents of a cache file. It holds neither prompt nor server nor key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: dict[str, Any]
    tokens: int
    cost_usd: float
    answered_at: str


def read_answer(folder: Path | None, sha256: str, schema: type[AnyForm]) -> Answer[AnyForm] | None:
    """Read a cached answer; None if it is not cached. Raises LabelError if its file is broken."""
    if folder is None:
        return None
    file = folder / sha256[:2] / f"{sha256}.json"
    try:
        cached = _CachedAnswer.model_validate_json(file.read_bytes())
        value = schema.model_validate_json(json.dumps(cached.value))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise LabelError(f"{file}: not a cached answer; delete the file to ask its question again") from error
    return Answer(value, None, cached.cost_usd, cached.tokens, cached=True, answered_at=cached.answered_at)


def write_answer(folder: Path | None, sha256: str, answer: Answer[AnyForm]) -> None:
    """Cache an answer that has a value: its file is complete or absent. Without a folder nothing is cached.

    Raises LabelError where the disk does not take it.
    """
    if folder is None or answer.value is None or answer.answered_at is None:
        return
    cached = _CachedAnswer(
        value=answer.value.model_dump(mode="json"),
        tokens=answer.tokens,
        cost_usd=answer.cost_usd,
        answered_at=answer.answered_at,
    )
    file = folder / sha256[:2] / f"{sha256}.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, cached.model_dump_json())
    except OSError as error:
        raise LabelError(
            f"{folder}: answers cannot be kept ({error.strerror}); make room or name another folder by --cache, then"
            " repeat the command: what is kept is not asked again"
        ) from error
