"""One call of a chat-completions server: a question sent once, and what came of it."""

from __future__ import annotations

import asyncio
import email.utils
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal

from pydantic import BaseModel, Field, ValidationError

from lfp.errors import ConfigError
from lfp.labels.client.questions import AnyForm, Question

if TYPE_CHECKING:
    import openai

KEY = "OPENAI_API_KEY"
"""The environment variable that holds the key, the one place it is read from."""

_NO_KEY = "none"  # what a server that asks for no key is sent
_LONGEST_WORDS = 200  # characters of a server's own words that a failure quotes
_ADDRESS = re.compile(r"\S*://\S+|\bsk-\S+|\bBearer\s+\S+", re.IGNORECASE)
_NO_MODEL, _NO_CREDIT = "model_not_found", "insufficient_quota"  # error codes of OpenAI's API

FaultKind = Literal["busy", "lost", "broken", "declined", "hopeless"]
"""busy: asked to come again. lost: no answer arrived. broken: it breaks the schema. declined: this question will have
none. hopeless: none will."""


@dataclass(frozen=True)
class Fault:
    """Why a call gave no value, how long the server asks to wait, and whether it may have been paid for."""

    kind: FaultKind
    reason: str
    wait_s: float | None = None
    paid: bool = False


@dataclass(frozen=True)
class Reply(Generic[AnyForm]):
    """What came of a call: a value or a fault, and tokens (read, written) where the server told them."""

    value: AnyForm | None = None
    fault: Fault | None = None
    tokens: tuple[int, int] | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class Chat:
    """A model on a server, asked one question a call; use as a context of an event loop.

    Raises ConfigError where there is neither a key in the environment nor the address of a server that needs none.
    """

    def __init__(self, model: str, *, base_url: str | None, timeout_s: float) -> None:
        self._model, self._timeout_s, self._own_server = model, timeout_s, base_url is not None
        self._connection = _connect(base_url)

    async def __aenter__(self) -> Chat:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def send(self, question: Question[AnyForm]) -> Reply[AnyForm]:
        """Asks once, for at most `timeout_s`; nothing about the server is raised."""
        import openai

        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._connection.chat.completions.with_raw_response.create(**self._request(question))
        except openai.APIStatusError as error:
            return Reply(fault=_status_fault(error, self._model))
        except (TimeoutError, openai.APITimeoutError):
            return Reply(fault=Fault("lost", f"no answer within {self._timeout_s:g} s", paid=True))
        except openai.APIConnectionError as error:
            return Reply(fault=_connection_fault(error))
        return _read(response.text, question.schema)

    def _request(self, question: Question[AnyForm]) -> dict[str, Any]:
        """OpenAI's newer models refuse `max_tokens`; other servers may not know its successor, and then cap nothing."""
        return {
            "model": self._model,
            "messages": [message._asdict() for message in question.messages],
            "max_tokens" if self._own_server else "max_completion_tokens": question.max_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": question.schema.__name__, "schema": question.json_schema, "strict": True},
            },
        }


def check_key(base_url: str | None) -> None:
    """Raises ConfigError where there is neither a key in the environment nor the address of another server."""
    if not os.environ.get(KEY) and base_url is None:
        raise ConfigError(f"no key in ${KEY} and no base URL; set the one, or name a server that asks for no key")


def _connect(base_url: str | None) -> openai.AsyncOpenAI:
    check_key(base_url)
    import openai

    key = os.environ.get(KEY) or _NO_KEY
    return openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, timeout=None)


def _read(body: str, schema: type[AnyForm]) -> Reply[AnyForm]:
    """The value in a completion, or what is wrong with it. It is paid for either way."""
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError:
        return Reply(fault=Fault("broken", "the answer is no chat completion", paid=True))
    choice, usage = completion.choices[0], completion.usage
    tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else None
    if choice.message.refusal or choice.finish_reason == "content_filter":
        return Reply(fault=Fault("declined", "the model refused to answer", paid=True), tokens=tokens)
    try:
        return Reply(schema.model_validate_json(choice.message.content or ""), tokens=tokens)
    except ValidationError as error:
        cut = "it was cut off at max_tokens; " if choice.finish_reason == "length" else ""
        reason = f"the answer breaks the schema: {cut}{_first(error)}"
        return Reply(fault=Fault("broken", reason, paid=True), tokens=tokens)


def _first(error: ValidationError) -> str:
    """The first thing wrong, without what was answered, so that like faults read alike."""
    first = error.errors(include_input=False, include_url=False)[0]
    if first["type"] == "json_invalid":
        return "it is no JSON"
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def _status_fault(error: openai.APIStatusError, model: str) -> Fault:
    status = error.status_code
    if status in (401, 403):
        return Fault("hopeless", f"the server refuses the key in ${KEY} (status {status}); set one that it accepts")
    if status == 404 or error.code == _NO_MODEL:
        return Fault(
            "hopeless", f"the server knows no model {model!r}, or no chat at its base URL; name one that it lists"
        )
    if error.code == _NO_CREDIT:
        return Fault("hopeless", f"the account of the key in ${KEY} has no credit left; add some and go on")
    if status in (408, 409, 429) or status >= 500:
        return Fault("busy", f"the server answered with status {status}", _retry_after_s(error.response.headers))
    said = _words(error.message.removeprefix(f"Error code: {status} - "))
    return Fault("declined", f"the server declined with status {status}: {said}")


def _connection_fault(error: openai.APIConnectionError) -> Fault:
    """A server that could not be reached at all was not paid."""
    reached = "Connect" not in type(error.__cause__).__name__
    return Fault("lost", "the connection broke off" if reached else "the server cannot be reached", paid=reached)


def _words(message: str) -> str:
    """A server's own words on one line, less anything like an address or a key."""
    key = os.environ.get(KEY)
    plain = message.replace(key, "…") if key else message
    return " ".join(_ADDRESS.sub("…", plain).split())[:_LONGEST_WORDS]


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the Retry-After header asks for, given as a number or as a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        date = email.utils.parsedate_tz(value)
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())
