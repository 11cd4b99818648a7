"""What a server understands: how the schema of an answer reaches it, and the name of the limit on its tokens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lfp.labels.client.questions import Question, put_schema_in_prompt

Format = Literal["json_schema", "json_object_schema", "json_object", "prompt"]

FORMATS: Mapping[Format, str] = {
    "json_schema": "response_format json_schema",
    "json_object_schema": "response_format json_object with a schema",
    "json_object": "response_format json_object, the schema in the prompt",
    "prompt": "the schema in the prompt alone",
}
"""Ways to ask for an answer of a schema, the most binding first, and how they are called in messages."""

_ORDER: tuple[Format, ...] = tuple(FORMATS)
_FIRST_ANSWERS = 3  # broken ones in a row, none fitting: the server ignores the format
_FORMAT_WORDS = ("response_format", "json_schema", "json_object", "structured output", "guided", "grammar")
_OTHER_LIMIT = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_REFUSALS = (400, 404, 415, 422, 500, 501)  # statuses by which servers refuse a field


@dataclass
class Dialect:
    """The format in use and the name of the token limit, both changed when the server refuses or ignores them.

    The choice holds for the rest of the run. `read` counts answers by the format that they were asked in.
    """

    limit_name: str
    format: Format = "json_schema"
    read: Counter[Format] = field(default_factory=Counter)
    _reasons: dict[Format, str] = field(default_factory=dict)
    _broken: int = 0
    _is_limit_changed: bool = False

    def build_request(self, question: Question[Any]) -> dict[str, Any]:
        """Build the part of a request that depends on the server."""
        messages = question.messages if self.format == "json_schema" else put_schema_in_prompt(question)
        request: dict[str, Any] = {
            "messages": [message._asdict() for message in messages],
            self.limit_name: question.max_tokens,
        }
        match self.format:
            case "json_schema":
                form = {"name": question.schema.__name__, "schema": question.json_schema, "strict": True}
                request["response_format"] = {"type": "json_schema", "json_schema": form}
            case "json_object_schema":
                request["response_format"] = {"type": "json_object", "schema": question.json_schema}
            case "json_object":
                request["response_format"] = {"type": "json_object"}
            case "prompt":
                pass
        return request

    def is_refusal(self, status: int, body: bytes, sent: bytes) -> bool:
        """Whether a response refuses the format or the token limit of the request rather than its question."""
        said = _read_complaint(body) if status in _REFUSALS else ""
        names_format = _holds(sent, "response_format") and any(word in said for word in _FORMAT_WORDS)
        return names_format or self._names_limit(said, sent)

    def change(self, body: bytes, sent: bytes, sent_format: Format) -> None:
        """Change what the server refuses, unless another call has changed it since this request was sent."""
        if self._names_limit(_read_complaint(body), sent):
            if _holds(sent, self.limit_name):
                self.limit_name, self._is_limit_changed = _OTHER_LIMIT[self.limit_name], True
        elif self.format == sent_format:
            self._step("refuses")

    def count_read(self, sent_format: Format) -> None:
        """Count an answer that fits its schema."""
        self.read[sent_format] += 1

    def count_broken(self, sent_format: Format) -> bool:
        """Count an answer that breaks its schema; whether the format was given up for it, then or before."""
        if self.format == sent_format and not self.read[sent_format]:
            self._broken += 1
            if self._broken >= _FIRST_ANSWERS and self.format != "prompt":
                self._step("ignores")
        return self.format != sent_format

    @property
    def sentence(self) -> str | None:
        """What the server did not take, and how many answers were read by which format; None if it took all."""
        if not self._reasons:
            return None
        faults = ", ".join(f"{reason} {FORMATS[name]}" for name, reason in self._reasons.items())
        counts = ", ".join(f"{n:,} answers by {FORMATS[name]}" for name, n in self.read.items()) or "no answer"
        return f"the server {faults}: {counts}"

    def _names_limit(self, said: str, sent: bytes) -> bool:
        """Whether a complaint is about the name of the token limit, which is changed once at most."""
        name = next((name for name in _OTHER_LIMIT if _holds(sent, name)), "")
        is_final = self._is_limit_changed and name == self.limit_name
        return bool(name) and not is_final and name in said and _OTHER_LIMIT[name] in said

    def _step(self, reason: str) -> None:
        """Go on with the next format. A server that ignored a schema would ignore a weaker promise of one too."""
        self._reasons[self.format], self._broken = reason, 0
        step = 2 if reason == "ignores" and self.format == "json_object_schema" else 1
        self.format = _ORDER[_ORDER.index(self.format) + step]


def _holds(sent: bytes, name: str) -> bool:
    """Whether a request has a field; the quotation marks of texts in it are escaped."""
    return f'"{name}":'.encode() in sent.replace(b'": ', b'":')


def _read_complaint(body: bytes) -> str:
    """Read what a server says of a request, in lower case, without what it repeats of the request itself."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return body[:2000].decode(errors="replace").casefold()
    return " ".join(_texts(content)).casefold()


def _texts(content: Any, depth: int = 0) -> Iterator[str]:
    """Iterate over the texts in an error's body; `input` and `ctx` repeat the request."""
    if isinstance(content, str):
        yield content.partition("'input'")[0]
    elif isinstance(content, Mapping) and depth < 6:
        for name, value in content.items():
            if name not in ("input", "ctx", "body"):
                yield from _texts(value, depth + 1)
    elif isinstance(content, list) and depth < 6:
        for value in content:
            yield from _texts(value, depth + 1)
