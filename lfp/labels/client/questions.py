"""What is asked of a language model and what comes back: messages in, a value of a stated form out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

_TEMPLATE_TOKENS, _MESSAGE_TOKENS = 128, 16  # what a server's chat template may add, more than any we know of
_BYTES_PER_TOKEN = 4  # of English prose


class Form(BaseModel):
    """Base of every form an answer can take: no key beyond those stated, as strict structured output wants it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


AnyForm = TypeVar("AnyForm", bound=Form)


class Message(NamedTuple):
    """A message of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Question(Generic[AnyForm]):
    """A prompt, the form of its answer, and how many tokens the answer may have.

    `key` tells repeated samples of one prompt apart: with the same key they are one question, asked once.
    """

    messages: tuple[Message, ...]
    schema: type[AnyForm]
    max_tokens: int
    key: str = ""

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """The answer's form as JSON schema."""
        return self.schema.model_json_schema()

    def sha256(self, model: str) -> str:
        """Hash of everything that bears on the answer."""
        what = [model, self.messages, self.schema.__name__, self.json_schema, self.max_tokens, self.key]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    @property
    def tokens_in(self) -> int:
        """Tokens of the prompt, about."""
        return -(-self._bytes // _BYTES_PER_TOKEN)

    @property
    def most_tokens_in(self) -> int:
        """Tokens of the prompt at worst: a token is at least a byte, and templates add some."""
        return self._bytes + _MESSAGE_TOKENS * len(self.messages) + _TEMPLATE_TOKENS

    @cached_property
    def _bytes(self) -> int:
        contents = [message.content for message in self.messages]
        return sum(len(text.encode()) for text in (*contents, json.dumps(self.json_schema)))


@dataclass(frozen=True)
class Answer(Generic[AnyForm]):
    """A value, or the reason why there is none, and what it took: dollars and tokens of all its tries.

    Those of a `cached` answer were paid when it was first asked. `answered_at` is when a value came (UTC).
    """

    value: AnyForm | None
    failure: str | None
    cost_usd: float
    tokens: int
    cached: bool = False
    answered_at: str | None = None
