"""A real HTTP server that speaks the chat-completions protocol, to try that path without a key: right, wrong or ill."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

from lfp.errors import ConfigError
from lfp.labels.types import Behaviour
from lfp.testing.fake_openai.answers import ChatRequest, Responder, random_value

Ailment = Literal["rate_limit", "server_error", "cut_off", "bad_json"]

FAKE_MODEL = "fake"
"""The model that the server lists where it is told no other."""

_SHARES: Mapping[Ailment, float] = {"rate_limit": 0.4, "server_error": 0.4, "cut_off": 0.1, "bad_json": 0.1}
_CHAT, _MODELS, _COUNTS = "/v1/chat/completions", "/v1/models", "/v1/counts"
_BYTES_PER_TOKEN = 4
_BACKLOG = 512  # connections that wait to be taken


@dataclass(frozen=True)
class FakeConfig:
    """How the server behaves.

    `delay_s`: before each answer of a slow server. `fault_share`: of a flaky server's answers; `ailments`: which kinds.
    `retry_after`: what its rate limit's header says. `key`: the only one accepted; any by default. `models`: the only
    ones known; any by default. `seed`: of random answers and of faults.
    """

    behave: Behaviour = "right"
    delay_s: float = 2.0
    fault_share: float = 0.3
    ailments: tuple[Ailment, ...] = tuple(_SHARES)
    retry_after: str = "1"
    key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] | None = None
    seed: int = 0


@dataclass
class Counts:
    """What the server was asked: requests of each prompt by its hash, whole answers, and tokens that it would bill."""

    prompts: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def as_json(self) -> dict[str, int]:
        """The figures; `repeated` is how many requests were of a prompt that had been asked before."""
        requests = self.prompts.total()
        return {
            "requests": requests,
            "prompts": len(self.prompts),
            "repeated": requests - len(self.prompts),
            "answers": self.answers,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
        }


@dataclass(frozen=True)
class _Response:
    """What goes over the wire; a body that is cut off ends half-way."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_off: bool = False


class FakeServer:
    """The server, from entering the context to leaving it; answers are made by the first responder that knows how.

    `port` 0 takes a free one. Raises ConfigError where the port cannot be listened on.
    """

    def __init__(self, config: FakeConfig, responders: Sequence[Responder], *, port: int = 0) -> None:
        self._config, self._responders = config, tuple(responders)
        self.counts, self._lock, self._closing = Counts(), threading.Lock(), threading.Event()
        try:
            self._http = _HttpServer(("127.0.0.1", port), _handler(self))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"port {port}: cannot be listened on ({error}); choose another") from error
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def base_url(self) -> str:
        """What clients are given."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def respond(self, path: str, body: bytes, authorization: str) -> _Response:
        """The response to a request: GET where there is no body."""
        if self._config.key is not None and authorization != f"Bearer {self._config.key}":
            return _error(401, f"Incorrect API key provided: {authorization.removeprefix('Bearer ')}.")
        if not body and path == _MODELS:
            models = [{"id": name, "object": "model"} for name in self._config.models or (FAKE_MODEL,)]
            return _Response(200, {"object": "list", "data": models})
        if not body and path == _COUNTS:
            with self._lock:
                return _Response(200, self.counts.as_json())
        if not body or path != _CHAT:
            return _error(404, f"There is nothing at {path}; try {_CHAT}, {_MODELS} or {_COUNTS}.")
        try:
            request = _parse(body)
        except (ValueError, KeyError, TypeError, AttributeError):
            return _error(400, "The request is no chat completion with a JSON schema; this server answers no other.")
        if self._config.models is not None and request.model not in self._config.models:
            return _error(404, f"The model {request.model} does not exist.", code="model_not_found")
        return self._chat(request)

    def _chat(self, request: ChatRequest) -> _Response:
        with self._lock:
            asked_before = self.counts.prompts[request.sha256]
            self.counts.prompts[request.sha256] += 1
        ailment = self._ailment(request, asked_before)
        if ailment == "rate_limit":
            return _error(429, "Too many requests.", headers={"Retry-After": self._config.retry_after})
        if ailment == "server_error":
            return _error(500, "The server had an error.")
        if self._config.behave == "slow":
            self._closing.wait(self._config.delay_s)
        value = self._value(request)
        if value is None:
            return _error(400, f"This server has no rule for answers of the form {request.schema_name}.")
        content = json.dumps(value, ensure_ascii=False)
        half = content[: len(content) // 2]
        return self._bill(request, half if ailment == "bad_json" else content, ailment)

    def _bill(self, request: ChatRequest, content: str, ailment: Ailment | None) -> _Response:
        """The completion, no longer than it may be, and its tokens counted."""
        written = content.encode()
        kept = written[: request.max_tokens * _BYTES_PER_TOKEN] if request.max_tokens else written
        tokens_in = _tokens(len((request.prompt + json.dumps(request.schema)).encode()))
        tokens_out = _tokens(len(kept))
        with self._lock:
            self.counts.answers += ailment is None
            self.counts.tokens_in += tokens_in
            self.counts.tokens_out += tokens_out
        message = {"role": "assistant", "content": kept.decode(errors="ignore"), "refusal": None}
        usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "stop" if kept == written else "length",
            "logprobs": None,
        }
        completion = {"id": f"chatcmpl-{request.sha256[:12]}", "object": "chat.completion", "created": 0}
        body = completion | {"model": request.model, "choices": [choice], "usage": usage}
        return _Response(200, body, cut_off=ailment == "cut_off")

    def _value(self, request: ChatRequest) -> Mapping[str, Any] | None:
        if self._config.behave == "random":
            return random_value(request, seed=self._config.seed)
        right = self._config.behave != "wrong"
        answers = (responder.answer(request, right=right) for responder in self._responders)
        return next((answer for answer in answers if answer is not None), None)

    def _ailment(self, request: ChatRequest, asked_before: int) -> Ailment | None:
        """The fault of this try, the same whatever else is asked meanwhile."""
        if self._config.behave != "flaky":
            return None
        rng = random.Random(f"{self._config.seed}:{request.sha256}:{asked_before}")
        if rng.random() >= self._config.fault_share:
            return None
        kinds = self._config.ailments
        return rng.choices(kinds, [_SHARES[kind] for kind in kinds])[0]


class _HttpServer(ThreadingHTTPServer):
    request_queue_size = _BACKLOG
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    """The class that socketserver makes one of for each connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept open
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body leave together

        def do_GET(self) -> None:
            self._send(b"")

        def do_POST(self) -> None:
            self._send(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

        def _send(self, body: bytes) -> None:
            response = server.respond(self.path, body, self.headers.get("Authorization", ""))
            content = json.dumps(response.body).encode()
            self.send_response(response.status)
            for name, value in {"Content-Type": "application/json", **response.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if response.cut_off else content)
            self.close_connection = self.close_connection or response.cut_off

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: no address and no prompt is logged."""

    return Handler


def _parse(body: bytes) -> ChatRequest:
    """The request. Raises where it is of another kind."""
    asked = json.loads(body)
    form = asked["response_format"]["json_schema"]
    messages = tuple((str(message["role"]), str(message["content"])) for message in asked["messages"])
    most = asked.get("max_completion_tokens") or asked.get("max_tokens")
    return ChatRequest(str(asked["model"]), messages, str(form["name"]), dict(form["schema"]), most)


def _error(
    status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
) -> _Response:
    body = {"error": {"message": message, "type": "fake", "param": None, "code": code}}
    return _Response(status, body, headers or {})


def _tokens(n_bytes: int) -> int:
    return -(-n_bytes // _BYTES_PER_TOKEN)
