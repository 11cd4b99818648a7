"""HTTP calls to a chat-completions server: the budget, limits on every try, and failures explained in words."""

from __future__ import annotations

import asyncio
import os
import re
import zlib
from collections.abc import Hashable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
from pydantic import BaseModel, Field, ValidationError

from lfp.errors import LabelError
from lfp.labels.client.dialect import Dialect
from lfp.labels.client.pacing import Pace
from lfp.util.sanitize import visible

KEY = "OPENAI_API_KEY"
"""The environment variable that holds the API key. The key is read from nowhere else."""

RETRIES = 9
"""Retries by the openai package of a call that the server refuses with status 408, 409, 429 or 5xx."""

STOPPED = "stopped before it was answered"

_BUSY = (429, 503)
_OF_TRANSFER = ("content-encoding", "content-length", "transfer-encoding")  # headers that a body read whole has not
_LOST_TRIES = 4  # of a call whose answer does not arrive
_UNANSWERED = 3  # calls in a row, after which the server counts as gone
_LARGEST_BODY = 4_000_000  # bytes of an answer, unpacked; what is longer is no answer
_LONGEST_S = 600.0  # that a response may take where no timeout is set
_MOST_TOKENS = 1_000_000_000  # that a server may state; what is more counts as not stated
_LONGEST_QUOTE = 200  # characters of a server's message that a failure quotes
_SECRETS = re.compile(r"\S*://\S+|\bsk-\S+|\bBearer\s+\S+", re.IGNORECASE)  # addresses and keys


@dataclass
class Budget:
    """Dollars that are never exceeded: `spent_usd` and the reservations of calls in flight stay within `usd` together.

    `price_in` and `price_out` are dollars per million prompt and answer tokens. A server that writes more tokens than
    it was allowed to is counted in full afterwards.
    """

    usd: float
    price_in: float
    price_out: float
    spent_usd: float = 0.0
    reserved_usd: dict[Hashable, float] = field(default_factory=dict)
    """Worst case of each call in flight."""

    def cost_usd(self, tokens_in: int, tokens_out: int) -> float:
        """Price of prompt and answer tokens."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) * 1e-6


@dataclass
class Account:
    """The account of one question: the worst cost of a try, and what all tries have cost so far."""

    worst_usd: float
    cost_usd: float = 0.0
    tokens: int = 0
    tries: int = 0
    lost_tries: int = 0


ACCOUNT: ContextVar[Account] = ContextVar("account")
"""The account that the tries of the current task are charged to."""


class CallFailedError(openai.OpenAIError):
    """A call that is not tried again, for the reason in its message. The openai package passes its own errors on."""


class DialectRefusedError(CallFailedError):
    """The server refuses the response format or the token limit of the request `sent`; `body` is what it says."""

    def __init__(self, body: bytes, sent: bytes) -> None:
        super().__init__("the server refuses the response format")
        self.body, self.sent = body, sent


class TooLongError(Exception):
    """A response has more bytes than any answer."""


class BoundedClient(openai.DefaultAsyncHttpxClient):
    """An HTTP client that reads no more than `_LARGEST_BODY` of a response, and follows no redirection.

    The prompts would follow one to an address that nobody named. A response that is not whole twice its timeout after
    the request counts as late, whatever trickles in meanwhile.
    """

    def __init__(self, *, timeout_s: float) -> None:
        super().__init__(timeout=timeout_s, follow_redirects=False, headers={"Accept-Encoding": "gzip"})

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request and read the response. Raises TooLongError, and httpx's errors."""
        limits = request.extensions.get("timeout", {})
        try:
            async with asyncio.timeout(2 * (limits.get("read") or self.timeout.read or _LONGEST_S)):
                return await self._read(request, **options)
        except TimeoutError:
            raise httpx2.ReadTimeout("the response does not end", request=request) from None

    async def _read(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        streamed = await super().send(request, **options | {"stream": True})
        content = bytearray()
        try:
            async for part in streamed.aiter_raw(65_536):
                content += part
                if len(content) > _LARGEST_BODY:
                    raise TooLongError
        finally:
            await streamed.aclose()
        try:
            body = _unpack(bytes(content), streamed.headers.get("content-encoding", ""))
        except (ValueError, zlib.error) as error:
            raise httpx2.DecodingError(str(error), request=request) from None
        headers = [(name, value) for name, value in streamed.headers.multi_items() if name not in _OF_TRANSFER]
        return httpx2.Response(streamed.status_code, headers=headers, content=body, request=request)


class MeteredClient(BoundedClient):
    """The HTTP client below the openai package, which sees every try of every call.

    A try is sent only after its worst case has been reserved in the budget, and never once `is_stopped`. A refusal is
    free; an answer that is lost on the way counts at its worst. Use one client per event loop.
    """

    def __init__(self, budget: Budget, pace: Pace, dialect: Dialect, *, timeout_s: float) -> None:
        super().__init__(timeout_s=timeout_s)
        self.is_stopped = False  # set it to send nothing more; tries in flight end by themselves
        self.unanswered = 0  # calls in a row that were given up without an answer
        self._budget, self._pace, self._dialect, self._timeout_s = budget, pace, dialect, timeout_s
        self._settled = asyncio.Event()

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send one try. Raises CallFailedError if the call must not go on, and httpx's errors if it may be retried."""
        account, task, budget = ACCOUNT.get(), asyncio.current_task(), self._budget
        if self.is_stopped:
            raise CallFailedError(STOPPED)
        if self.unanswered >= _UNANSWERED:
            raise CallFailedError("the server stopped answering")
        while budget.spent_usd + sum(budget.reserved_usd.values()) + account.worst_usd > budget.usd:
            if not budget.reserved_usd:  # no call in flight: waiting would free nothing
                raise CallFailedError(f"the budget of ${budget.usd:g} has no room for it")
            self._settled.clear()
            await self._settled.wait()
        budget.reserved_usd[task] = account.worst_usd
        paid_usd = account.worst_usd
        account.tries += 1
        try:
            response = await super().send(request, **options)
            paid_usd = self._charge(response, account)
        except Exception as error:
            is_unreachable = "Connect" in type(error).__name__  # ConnectError and ConnectTimeout: nothing was sent
            paid_usd = 0.0 if is_unreachable else account.worst_usd
            account.lost_tries += 1
            if isinstance(error, TooLongError):
                raise CallFailedError(f"the answer is longer than {_LARGEST_BODY // 1_000_000} MB") from None
            is_late = "ReadTimeout" in type(error).__name__
            if is_late:
                self._pace.slow_down()
            if account.lost_tries < _LOST_TRIES:
                raise
            self.unanswered += 1
            lost = "the server cannot be reached" if is_unreachable else "the connection broke off"
            reason = f"no answer within {self._timeout_s:g} s" if is_late else lost
            raise CallFailedError(f"{reason} ({account.lost_tries} times)") from None
        finally:
            del budget.reserved_usd[task]
            account.cost_usd += paid_usd
            budget.spent_usd += paid_usd
            self._settled.set()
        if response.status_code in _BUSY:
            self._pace.slow_down()
        if self.is_stopped and not response.is_success:
            raise CallFailedError(STOPPED)
        if self._dialect.is_refusal(response.status_code, response.content, request.content):
            raise DialectRefusedError(response.content, request.content)
        return response

    def _charge(self, response: httpx2.Response, account: Account) -> float:
        """Cost of a response in dollars. A success that does not state its tokens counts at its worst."""
        if not response.is_success:
            return 0.0
        self.unanswered = 0
        try:
            usage = _Billed.model_validate_json(response.content).usage
        except ValidationError:
            usage = None
        if usage is None:
            self._pace.count_answer(0, 0)
            return account.worst_usd
        account.tokens += usage.prompt_tokens + usage.completion_tokens
        self._pace.count_answer(usage.prompt_tokens, usage.completion_tokens)
        return self._budget.cost_usd(usage.prompt_tokens, usage.completion_tokens)


def _unpack(content: bytes, encoding: str) -> bytes:
    """Decompress a body. Raises TooLongError, and ValueError or zlib.error for what is not as it says."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return content
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"a response compressed by {encoding[:20]}, which was not asked for")
    packed = zlib.decompressobj(zlib.MAX_WBITS | 32)
    body = packed.decompress(content, _LARGEST_BODY)
    if packed.unconsumed_tail:
        raise TooLongError
    if not packed.eof:
        raise ValueError("a compressed response that is cut off")
    return body


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0, le=_MOST_TOKENS)
    completion_tokens: int = Field(ge=0, le=_MOST_TOKENS)


class _Billed(BaseModel):
    usage: _Usage | None = None


def explain_status(error: openai.APIStatusError, model: str, *, tries: int) -> str | LabelError:
    """Explain a refusal by the server, as an error if every other call would be refused, too.

    Neither the key nor an address in the server's message is quoted.
    """
    status = error.status_code
    if status in (401, 403):
        return LabelError(f"the server refuses the key in ${KEY} (status {status}); set one that it accepts")
    if 300 <= status < 400:
        return LabelError(f"the server redirects to another address (status {status}); name that one as base URL")
    if status == 404 or error.code == "model_not_found":
        return LabelError(f"the server knows no model {model!r}, or no chat at its base URL; name one that it lists")
    if error.code == "insufficient_quota":
        return LabelError(f"the account of the key in ${KEY} has no credit left; add some, then label again")
    if is_busy(error):
        wait = error.response.headers.get("retry-after")
        if tries > RETRIES or wait is None:
            return f"the server answered with status {status}" + (f" ({tries} times)" if tries > 1 else "")
        return f"the server answered with status {status} and asks to wait {visible(wait)[:20]} s"
    key, message = os.environ.get(KEY), error.message.removeprefix(f"Error code: {status} - ")
    plain = _SECRETS.sub("…", message.replace(key, "…") if key else message)
    return f"the server declined with status {status}: {visible(' '.join(plain.split()))[:_LONGEST_QUOTE]}"


def is_busy(error: openai.APIStatusError) -> bool:
    """Whether the openai package retries this status."""
    return error.status_code in (408, 409, 429) or error.status_code >= 500
