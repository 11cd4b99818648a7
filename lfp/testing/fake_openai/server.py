"""An HTTP server that speaks the chat-completions protocol without a model: its answers are right, wrong or faulty."""

from __future__ import annotations

import json
import random
import sys
import threading
import urllib.parse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from lfp.errors import ConfigError
from lfp.labels.types import Behaviour
from lfp.testing.fake_openai.answers import ChatRequest, Responder, random_value
from lfp.testing.fake_openai.quirks import Quirk, change_completion, refuse_format

Fault = Literal["rate_limit", "server_error", "cut_off", "bad_json"]

FAKE_MODEL = "fake"
"""The model that the server lists by default."""

_SHARES: Mapping[Fault, float] = {"rate_limit": 0.4, "server_error": 0.4, "cut_off": 0.1, "bad_json": 0.1}
_CHAT, _MODELS, _COUNTS = "/v1/chat/completions", "/v1/models", "/v1/counts"
_ENDLESS_BYTES = 1 << 20
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class FakeConfig:
    """How the server behaves.

    `delay_s`: before each answer of a slow server, and of one that answers one call at a time. `fault_share` and
    `faults`: of a flaky server's answers. `retry_after`: header of its rate limit. `key`: the only one accepted; any by
    default. `models`: the only ones known; any by default. `seed`: of random answers and of faults. `quirk`: a
    departure from the protocol.
    """

    behave: Behaviour = "right"
    delay_s: float = 2.0
    fault_share: float = 0.3
    faults: tuple[Fault, ...] = tuple(_SHARES)
    retry_after: str = "1"
    key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] | None = None
    seed: int = 0
    quirk: Quirk | None = None


@dataclass
class Counts:
    """What the server has seen: requests of each prompt by its hash, whole answers, and the tokens it would bill.

    `at_once` has an entry per request: how many were under way when it came, itself included.
    """

    prompts: Counter[str] = field(default_factory=Counter)
    at_once: list[int] = field(default_factory=list)
    under_way: int = 0
    answers: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def as_json(self) -> dict[str, int]:
        """Return the figures; `repeated` counts requests whose prompt had been seen before."""
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
    """A response; one that is `cut_off` ends half-way through its body, and one that is endless never does."""

    status: int
    body: Mapping[str, Any] | str
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_off: bool = False
    is_endless: bool = False


class FakeServer:
    """A server that runs while its context is entered; the first responder that knows a request answers it.

    `port` 0 takes a free port. Raises ConfigError if the server cannot listen on the port.
    """

    def __init__(self, config: FakeConfig, responders: Sequence[Responder], *, port: int = 0) -> None:
        self._config, self._responders = config, tuple(responders)
        self.counts, self._lock, self._closing = Counts(), threading.Lock(), threading.Event()
        self._turn = threading.Lock()  # of a server that answers one call at a time
        try:
            self._http = _HttpServer(("127.0.0.1", port), _handler(self))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"port {port}: cannot be listened on ({error}); choose another") from error
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def is_closing(self) -> bool:
        """Whether the server is about to stop."""
        return self._closing.is_set()

    def respond(self, path: str, body: bytes, authorization: str) -> _Response:
        """Respond to a POST request with a body, or to a GET request without one."""
        if self._config.key is not None and authorization != f"Bearer {self._config.key}":
            return _error(401, f"Incorrect API key provided: {authorization.removeprefix('Bearer ')}.")
        if not body and path.startswith(_MODELS) and self._config.quirk != "no_models":
            return self._list_models(urllib.parse.unquote(path.removeprefix(_MODELS)).removeprefix("/"))
        if not body and path == _COUNTS:
            with self._lock:
                return _Response(200, self.counts.as_json())
        if not body or path != _CHAT:
            return _error(404, f"There is nothing at {path}; try {_CHAT}, {_MODELS} or {_COUNTS}.")
        try:
            sent = json.loads(body)
            refusal = refuse_format(self._config.quirk, sent)
            request = ChatRequest.parse(sent)
        except (ValueError, KeyError, TypeError, AttributeError):
            return _error(400, "The request is no chat completion with a JSON schema; this server answers no other.")
        if refusal is not None:
            return _error(*refusal)
        if self._config.models is not None and request.model not in self._config.models:
            return _error(404, f"The model {request.model} does not exist.", code="model_not_found")
        if self._config.quirk == "redirect":
            return _Response(307, {}, {"Location": f"http://127.0.0.1:9{_CHAT}"})
        ignores_format = self._config.quirk == "ignores_response_format" and "response_format" in sent
        with self._lock:
            self.counts.under_way += 1
            self.counts.at_once.append(self.counts.under_way)
        try:
            return self._chat(request, ignores_format=ignores_format)
        finally:
            with self._lock:
                self.counts.under_way -= 1

    def _list_models(self, name: str) -> _Response:
        """List the models, or say whether one is known."""
        known = self._config.models
        if name and known is not None and name not in known:
            return _error(404, f"The model {name} does not exist.", code="model_not_found")
        models = [{"id": each, "object": "model"} for each in ([name] if name else known or (FAKE_MODEL,))]
        return _Response(200, models[0] if name else {"object": "list", "data": models})

    def _chat(self, request: ChatRequest, *, ignores_format: bool) -> _Response:
        """Answer a completion request, or respond with a fault that depends on the seed, the prompt and the try."""
        config, fault = self._config, None
        with self._lock:
            tries = self.counts.prompts[request.sha256]
            self.counts.prompts[request.sha256] += 1
        if config.quirk == "html_502" and tries == 0:
            return _Response(502, "<html>Bad gateway</html>")
        if config.quirk == "rate_limit_ms" and tries == 0:
            return _error(429, "Slow down.", headers={"Retry-After-Ms": "20"})
        if config.quirk == "one_at_a_time":
            with self._turn:
                self._closing.wait(config.delay_s)
        rng = random.Random(f"{config.seed}:{request.sha256}:{tries}")
        if config.behave == "flaky" and rng.random() < config.fault_share:
            fault = rng.choices(config.faults, [_SHARES[kind] for kind in config.faults])[0]
        if fault == "rate_limit":
            return _error(429, "Too many requests.", headers={"Retry-After": config.retry_after})
        if fault == "server_error":
            return _error(500, "The server had an error.")
        if config.behave == "slow":
            self._closing.wait(config.delay_s)
        if config.behave == "random":
            value: Mapping[str, Any] | None = random_value(request, seed=config.seed)
        else:
            answers = (each.answer(request, right=config.behave != "wrong") for each in self._responders)
            value = next((answer for answer in answers if answer is not None), None)
        if value is None:
            return _error(400, f"This server has no rule for answers of the form {request.schema_name}.")
        content = "Sure, I can help with that." if ignores_format else json.dumps(value, ensure_ascii=False)
        return self._complete(request, content[: len(content) // 2] if fault == "bad_json" else content, fault)

    def _complete(self, request: ChatRequest, content: str, fault: Fault | None) -> _Response:
        """Build the completion, cut at the request's token limit, and count its tokens."""
        written = content.encode()
        kept = written[: request.max_tokens * _BYTES_PER_TOKEN] if request.max_tokens else written
        n_bytes = len((request.prompt + json.dumps(request.schema)).encode())
        tokens_in, tokens_out = -(-n_bytes // _BYTES_PER_TOKEN), -(-len(kept) // _BYTES_PER_TOKEN)
        with self._lock:
            self.counts.answers += fault is None
            self.counts.tokens_in += tokens_in
            self.counts.tokens_out += tokens_out
        message = {"role": "assistant", "content": kept.decode(errors="ignore"), "refusal": None}
        reason = "stop" if kept == written else "length"
        total = tokens_in + tokens_out
        usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": total}
        body = {
            "id": f"chatcmpl-{request.sha256[:12]}",
            "object": "chat.completion",
            "created": 0,
            "model": request.model,
            "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}],
            "usage": usage,
        }
        change_completion(self._config.quirk, body)
        return _Response(200, body, cut_off=fault == "cut_off", is_endless=self._config.quirk == "endless")


class _HttpServer(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors of the server; a client that closes the connection is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    """Build the class that socketserver instantiates for each connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections open
        disable_nagle_algorithm = True
        wbufsize = -1  # headers and body leave together

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            response = server.respond(self.path, body, self.headers.get("Authorization", ""))
            content = (response.body if isinstance(response.body, str) else json.dumps(response.body)).encode()
            self.send_response(response.status)
            for name, value in {"Content-Type": "application/json", **response.headers}.items():
                self.send_header(name, value)
            if not response.is_endless:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            while response.is_endless and not server.is_closing:
                self.wfile.write(b" " * _ENDLESS_BYTES)
            self.wfile.write(content[: len(content) // 2] if response.cut_off else content)
            self.close_connection = self.close_connection or response.cut_off or response.is_endless

        do_GET = do_POST  # noqa: N815 (the name that the base class calls)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: neither addresses nor prompts."""

    return Handler


def _error(
    status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
) -> _Response:
    error = {"message": message, "type": "fake", "param": None, "code": code}
    return _Response(status, {"error": error}, headers or {})
