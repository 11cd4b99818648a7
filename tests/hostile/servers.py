"""Hostile servers of labels: answers without bounds, of no form, cut off, sent elsewhere; the client stays within its.

`python -m tests.hostile servers` asks each of them, in a process of its own.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import socket
import socketserver
import ssl
import subprocess
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lfp.labels.client.client import Client, ClientConfig
from lfp.labels.client.questions import Form, Message, Question
from lfp.labels.client.transport import KEY
from tests.hostile.measuring import Outcome, call_apart, tell

SECRET = "sk-hostile-0123456789abcdef"
MOST_MB = 300.0
_LIMIT_S = 90.0
_TIMEOUT_S = 0.6
_MB = 1_000_000
_ENDLESS_S = 20.0

Send = Callable[[bytes], None]
Behaviour = Callable[[Send], None]


class Said(Form):
    """The answer that is asked for."""

    description: str


def _answer(content: Any, **more: Any) -> bytes:
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    body = {"id": "a", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(body | more).encode()


_GOOD = _answer(json.dumps({"description": "words of praise"}))


def _http(body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None) -> Behaviour:
    n = len(body) if length is None else length
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {n}\r\nretry-after-ms: 1\r\n{headers}"
    )
    return lambda send: send(head.encode("latin-1") + b"Connection: close\r\n\r\n" + body)


def _raw(*parts: bytes) -> Behaviour:
    return lambda send: [send(part) for part in parts] and None


def _endless(head: bytes, block: bytes, *, pause_s: float = 0.0) -> Behaviour:
    def serve(send: Send) -> None:
        send(head)
        until = time.monotonic() + _ENDLESS_S
        while time.monotonic() < until:
            send(block)
            time.sleep(pause_s)

    return serve


def _silent(send: Send) -> None:
    time.sleep(6 * _TIMEOUT_S)


@cache
def _packed(megabytes: int, *, times: int = 1, wbits: int = 31) -> bytes:
    """Compress so many megabytes of zeros, `times` over: one block of a stream, repeated, so that it takes no time."""
    packer = zlib.compressobj(9, wbits=wbits)
    head, block = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH), b""
    for _ in range(2):  # the second is what every block looks like
        block = packer.compress(b"0" * (10 * _MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    content = head + block * (megabytes // 10)
    for _ in range(times - 1):
        content = gzip.compress(content, 9)
    return content


def _bomb(encoding: str, megabytes: int, *, status: str = "200 OK", **packing: int) -> Behaviour:
    headers = f"Content-Encoding: {encoding}\r\n"
    return lambda send: _http(_packed(megabytes, **packing), status=status, headers=headers)(send)


def _encoded(body: bytes, encoding: str) -> Behaviour:
    return _http(body, headers=f"Content-Encoding: {encoding}\r\n")


def _refusal(status: str, message: Any, headers: str = "") -> Behaviour:
    body = json.dumps({"error": {"message": message, "type": "x", "code": None}}).encode()
    return _http(body, status=status, headers=headers)


def _redirect(status: str, place: str) -> Behaviour:
    return lambda send: _http(b"", status=status, headers=f"Location: {place.format(**ELSEWHERE)}\r\n")(send)


ELSEWHERE: dict[str, str] = {}
"""The address of a server of another origin, as `address`, while servers run."""

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_DEEP = "[" * 100_000 + "]" * 100_000

ANSWERS: dict[str, Behaviour] = {
    "endless body": _endless(_HEAD + b"\r\n", b"0" * 65_536),
    "endless chunks": _endless(_CHUNKED, b"10000\r\n" + b"0" * 65_536 + b"\r\n"),
    "endless content of a message": _endless(_CHUNKED + b'2\r\n{"\r\n', b"10000\r\n" + b"\\" * 65_536 + b"\r\n"),
    "endless header": _endless(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 65_536),
    "endless headers": _endless(b"HTTP/1.1 200 OK\r\n", b"X: a\r\n" * 1_000),
    "endless 103": _endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", pause_s=0.01),
    "endless drops": _endless(_HEAD + b"\r\n", b" ", pause_s=0.2),
    "endless drops in chunks": _endless(_CHUNKED, b"1\r\n \r\n", pause_s=0.2),
    "endless error": _endless(b"HTTP/1.1 400 Bad Request\r\n\r\n", b"0" * 65_536),
    "large body that states its length": lambda send: _http(b"0" * (60 * _MB))(send),
    "gzip of 2 GB": _bomb("gzip", 2_000),
    "gzip of gzip of 10 GB": _bomb("gzip, gzip", 10_000, times=2),
    "gzip of gzip as one": _bomb("gzip", 10_000, times=2),
    "gzip of gzip of gzip": _bomb("gzip, gzip, gzip", 10_000, times=3),
    "deflate of 1 GB": _bomb("deflate", 1_000, wbits=15),
    "gzip cut off": _encoded(gzip.compress(_GOOD)[:-12], "gzip"),
    "gzip that is none": _encoded(_GOOD, "gzip"),
    "unknown compression": _encoded(_GOOD, "br"),
    "gzip of an error": _bomb("gzip", 2_000, status="400 Bad"),
    "says less than it sends": _http(_GOOD, length=10),
    "says more than it sends": _http(_GOOD, length=10_000),
    "negative length": _http(_GOOD, length=-1),
    "two lengths": _http(_GOOD, headers="Content-Length: 3\r\n"),
    "broken chunks": _raw(_CHUNKED, b"zz\r\n\r\n"),
    "silence": _silent,
    "closes at once": lambda send: None,
    "closes after the head": _raw(_HEAD + b"Content-Length: 100\r\n\r\n"),
    "not HTTP": _raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "HTTP 0.9": _raw(_GOOD),
    "status 999": _http(_GOOD, status="999 What"),
    "status 101": _http(b"", status="101 Switching Protocols"),
    "status 204": _raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "status of letters": _raw(b"HTTP/1.1 abc\r\n\r\n"),
    "binary header": _raw(b"HTTP/1.1 200 OK\r\n\x00\xff: \x01\r\n\r\n", _GOOD),
    "redirect 301 elsewhere": _redirect("301 Moved", "{address}/v1/chat/completions"),
    "redirect 302 elsewhere": _redirect("302 Found", "{address}/v1/chat/completions"),
    "redirect 307 elsewhere": _redirect("307 Temporary", "{address}/v1/chat/completions"),
    "redirect 308 elsewhere": _redirect("308 Permanent", "{address}/v1/chat/completions"),
    "redirect to a file": _redirect("307 Temporary", "file:///etc/passwd"),
    "redirect to itself": _redirect("307 Temporary", "/v1/chat/completions"),
    "redirect without a place": _http(b"", status="308 Permanent"),
    "other place in a header": _http(b"", status="200 OK", headers="Refresh: 0; url=http://127.0.0.1:9/\r\n"),
    "refuses the key and repeats it": _refusal("401 Unauthorized", f"the key {SECRET} is wrong"),
    "declines and repeats the key": _refusal("400 Bad Request", f"Bearer {SECRET}\n\x1b[31m and {SECRET}"),
    "error of no form": _http(b"[1, 2]", status="422 No"),
    "error that is deep": _http(_DEEP.encode(), status="400 No"),
    "error of 3 MB": _refusal("400 Bad Request", "no " * _MB),
    "busy for ever": _refusal("503 Busy", "busy"),
    "busy for a thousand years": _refusal("429 Slow", "slow", "Retry-After: 31536000000\r\n"),
    "busy until yesterday": _refusal("429 Slow", "slow", "Retry-After: Tue, 01 Jan 1980 00:00:00 GMT\r\n"),
    "busy for a while of letters": _refusal("429 Slow", "slow", "Retry-After: -nan\r\n"),
    "deep answer": _http(_DEEP.encode()),
    "deep content": _http(_answer(_DEEP)),
    "deep objects in the content": _http(_answer('{"a":' * 50_000)),
    "content of 3 MB of brackets": _http(_answer("{[" * (_MB * 3 // 2))),
    "no JSON": _http(b"<html>" * 1_000),
    "empty": _http(b""),
    "null": _http(b"null"),
    "no choices": _http(_answer("", choices=[])),
    "choices of no form": _http(_answer("", choices=7)),
    "a hundred thousand choices": _http(_answer("", choices=[{}] * 100_000)),
    "content of no form": _http(_answer({"a": [1]})),
    "content of other characters": _http(_answer('{"description": "\ud800\u202e\x1b[2J\x00"}')),
    "UTF-16": _http(_GOOD.decode().encode("utf-16")),
    "usage below zero": _http(_answer("{}", usage={"prompt_tokens": -(10**9), "completion_tokens": -5})),
    "usage of 400 digits": _http(_answer("{}", usage={"prompt_tokens": 10**400, "completion_tokens": 10**400})),
    "usage of no form": _http(_answer("{}", usage="much")),
}
"""What a server does with a request of chat."""

LISTINGS = {name: ANSWERS[name] for name in (
    "endless body", "endless headers", "endless 103", "endless drops", "gzip of 2 GB", "gzip of gzip of gzip",
    "silence", "closes at once", "not HTTP", "redirect 307 elsewhere", "deep answer", "no JSON",
    "refuses the key and repeats it",
)} | {
    "a million models": _http(json.dumps({"data": [{"id": f"m{i}"} for i in range(90_000)]}).encode()),
    "models of strange names": _http(json.dumps({"data": [{"id": "\x1b[31m\u202e" + "a" * 100_000}]}).encode()),
}  # fmt: skip
"""What a server does with the request for its models, before any chat."""

ADDRESSES = (
    "127.0.0.1:{port}/v1", "localhost:{port}", "ftp://127.0.0.1:{port}/v1", "file:///etc/passwd", "http://", "",
    "http://127.0.0.1:99999/v1", "http://[::1/v1", "http://a b/v1", "//127.0.0.1:{port}/v1", "http:127.0.0.1/v1",
    "https://127.0.0.1:{port}/v1", "http://127.0.0.1:1/v1", "http://no.such.host.invalid/v1", "javascript:alert(1)",
    "http://127.0.0.1:{port}/v1?key=1", "http://127.0.0.1:{port}/v1#a", "http://\u202e.example/v1", "data:,hello",
)  # fmt: skip
"""Addresses at which nothing may be sent."""


@dataclass
class Arrivals:
    """What arrived: requests of chat by the name of the server, and all that arrived at another origin."""

    chats: Counter[str] = field(default_factory=Counter)
    elsewhere: list[bytes] = field(default_factory=list)
    plain: int = 0


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what is looked for."""


def _handler(arrivals: Arrivals) -> type[socketserver.BaseRequestHandler]:
    names = {re.sub(r"\W", "-", name): name for name in (*ANSWERS, *LISTINGS)}

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            path = _read_request(self.request).split(b" ")[1:2] or [b""]
            _, kind, name, *rest = [*path[0].decode("latin-1").split("/"), "", "", ""]
            is_chat = "completions" in rest
            behave = (ANSWERS if kind == "chat" else LISTINGS).get(names.get(name, ""))
            if is_chat:
                arrivals.chats[f"{kind} {names.get(name, '')}"] += 1
            if behave is None or is_chat != (kind == "chat"):
                behave = _http(_GOOD) if is_chat else _http(b"{}", status="404 No")
            with suppress(OSError):
                behave(self.request.sendall)
                self.request.shutdown(socket.SHUT_WR)

    return Handler


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65_536)
        if not part:
            return data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += connection.recv(65_536)
    return data


@contextmanager
def running(arrivals: Arrivals) -> Iterator[int]:
    """Serve every behaviour on one port, by the path of the address, and another origin beside it; yield the port."""

    class Elsewhere(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            arrivals.elsewhere.append(_read_request(self.request))

    with _Server(("127.0.0.1", 0), _handler(arrivals)) as server, _Server(("127.0.0.1", 0), Elsewhere) as other:
        ELSEWHERE["address"] = f"http://127.0.0.1:{other.server_address[1]}"
        for each in (server, other):
            threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server.server_address[1]
        for each in (server, other):
            each.shutdown()


@contextmanager
def running_tls() -> Iterator[int]:
    """Serve by TLS, with a certificate that nobody trusts."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder) / "certificate.pem", Path(folder) / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-subj", "/CN=127.0.0.1", "-days", "1", "-out", str(certificate), "-keyout", str(key)]
        subprocess.run(command, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        with _Server(("127.0.0.1", 0), _handler(Arrivals())) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            yield server.server_address[1]
            server.shutdown()


def ask(base_url: str) -> dict[str, Any]:
    """Ask a server two questions, retrying at once, and return all that the client says of it."""
    import openai._base_client

    openai._base_client.INITIAL_RETRY_DELAY = openai._base_client.MAX_RETRY_DELAY = 0.01
    os.environ[KEY] = SECRET
    config = ClientConfig("m", base_url, budget_usd=1.0, price_in=1.0, price_out=1.0, timeout_s=_TIMEOUT_S)
    client = Client(config)
    questions = [Question((Message("user", f"describe {n}"),), Said, 20) for n in range(2)]
    answers = client.ask(questions)
    return {
        "answers": [None if answer.value is None else answer.value.description for answer in answers],
        "failures": [answer.failure for answer in answers],
        "spent_usd": client.budget.spent_usd,
        "notes": client.notes,
    }


def judge(name: str, outcome: Outcome, arrivals: Arrivals) -> str:
    """Return what is wrong with an outcome, nothing where it is as it must be."""
    if outcome.fault:
        return outcome.fault.strip().splitlines()[-1]
    if SECRET in f"{outcome.said} {outcome.value}":
        return "the key is in what is said"
    if arrivals.elsewhere:
        return f"another origin was sent {arrivals.elsewhere[0][:80]!r}"
    if outcome.grown_mb > MOST_MB:
        return f"{outcome.grown_mb:.0f} MB"
    sentences = [outcome.said] if outcome.said else [text for text in outcome.value["failures"] if text]
    if any("\n" in text or "\x1b" in text or len(text) > 600 for text in sentences):
        return f"no plain sentence: {sentences[0][:200]!r}"
    spent = outcome.value["spent_usd"] if outcome.value else 0.0
    if spent != spent or spent < 0 or (spent > 0 and not arrivals.chats[name]):
        return f"${spent} counted of {arrivals.chats[name]} requests"
    return ""


def check(name: str, port: int, arrivals: Arrivals) -> tuple[str, Outcome]:
    """Ask the server that `chat NAME` or `models NAME` names, and judge."""
    kind, _, behaviour = name.partition(" ")
    arrivals.elsewhere.clear()
    slug = re.sub(r"\W", "-", behaviour)
    outcome = call_apart(ask, f"http://127.0.0.1:{port}/{kind}/{slug}/v1", limit_s=_LIMIT_S)
    return judge(name, outcome, arrivals), outcome


def check_address(address: str, port: int, arrivals: Arrivals) -> tuple[str, Outcome]:
    """Ask at an address that is none; a sentence and nothing spent must come of it."""
    outcome = call_apart(ask, address.format(port=port), limit_s=_LIMIT_S)
    wrong = judge(address, outcome, arrivals)
    if not wrong and not outcome.said and outcome.value["spent_usd"]:
        wrong = f"${outcome.value['spent_usd']} counted"
    return wrong or ("" if outcome.said else f"no error: {outcome.value}"), outcome


NAMES = (*(f"chat {name}" for name in ANSWERS), *(f"models {name}" for name in LISTINGS))
"""Every server."""


def main(seed: int, count: int) -> dict[str, Any]:
    """Ask servers, in an order drawn from the seed, and as many addresses; say a line of each on stderr."""
    names = random.Random(seed).sample(NAMES, len(NAMES))[:count]
    arrivals, faults, n = Arrivals(), list[str](), 0

    def show(name: str, wrong: str, outcome: Outcome) -> None:
        nonlocal n
        n += 1
        faults.extend([f"{name}: {wrong}"] if wrong else [])
        values = outcome.value or {"failures": [""], "answers": [""]}
        tell(name, wrong, outcome, outcome.said or str(values["failures"][0] or values["answers"][0]))

    with running(arrivals) as port:
        for name in names:
            show(name, *check(name, port, arrivals))
        for address in ADDRESSES[:count]:
            show(address, *check_address(address, port, arrivals))
    if shutil.which("openssl"):
        with running_tls() as port:
            show("https of an unknown issuer", *check_address(f"https://127.0.0.1:{port}/v1", port, arrivals))
    return {"cases": n, "faults": faults}
