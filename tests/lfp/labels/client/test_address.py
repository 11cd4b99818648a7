"""Addresses: what is wrong with a server's is one sentence, before any question is asked or paid for."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lfp.errors import ConfigError, LabelError
from lfp.labels.client.address import check_address, explain_connection
from lfp.labels.client.client import Client, ClientConfig
from lfp.testing.fake_openai.server import FAKE_MODEL, FakeConfig, FakeServer
from tests.lfp.labels.asking import Lengths, length_of

SECRET = "sk-very-secret-0123456789"


def failure(base_url: str, model: str = FAKE_MODEL) -> str:
    """What a client of this address says instead of asking."""
    asked = Client(ClientConfig(model, base_url, price_in=1.0, timeout_s=5.0))
    with pytest.raises(LabelError) as caught:
        asked.ask([length_of("a")])
    assert asked.budget.spent_usd == 0.0 and str(caught.value).count("\n") == 0
    return str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "says"),
    [
        ("127.0.0.1:8399/v1", "does not begin with http://"),
        ("localhost/v1", "does not begin with http://"),
        ("ftp://host/v1", "does not begin with http://"),
        ("http:/host/v1", "does not begin with http://"),
        ("http://", "names no host"),
        ("http:///v1", "names no host"),
        ("http://:8399/v1", "names no host"),
        ("http://my host/v1", "names no host"),
        ("http://host:0/v1", "names no host"),
        ("http://host:99999/v1", "port at most 65535"),
        ("http://host:port/v1", "port at most 65535"),
        ("http://[::1/v1", "cannot be read"),
        ("http://host/v1?key=1", "has a ? or a #"),
        ("http://host/v1/chat/completions", "leave /chat/completions off"),
        ("http://host/v1/models/", "leave /models off"),
    ],
)
def test_an_address_that_cannot_be_is_refused_before_anything_is_sent(base_url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"^--base-url: ") as caught:
        Client(ClientConfig("m", base_url))
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("base_url", ["http://host", "https://user:pass@host/api/v1/", "http://[::1]:8080/v1"])
def test_addresses_of_servers_pass(base_url: str) -> None:
    check_address(base_url)


def test_a_server_that_is_not_there_is_named_without_name_and_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = failure(f"http://user:{SECRET}@127.0.0.1:{port}/v1")
    assert said == f"127.0.0.1, port {port}: no server listens there; start it, or correct the base URL"
    said = explain_connection(socket.gaierror(-2, "Name or service not known"), urlsplit("http://h/v1"))
    assert said == "h, port 80: the host has no address; check its spelling in the base URL"


def test_a_missing_v1_is_found() -> None:
    with FakeServer(FakeConfig(), [Lengths()]) as server:
        assert "add /v1 to the end of the base URL" in failure(server.base_url.removesuffix("/v1"))
        assert server.counts.prompts.total() == 0


def test_a_model_that_the_server_does_not_list_is_refused_with_those_it_lists() -> None:
    listed = ("llama3:latest", "quick-1", *(f"other-{i}" for i in range(9)))
    with FakeServer(FakeConfig(models=listed), [Lengths()]) as server:
        said = failure(server.base_url, "quick1")
        assert said.startswith("the server knows no model 'quick1'; it lists 'quick-1', ") and "and 6 more" in said
        assert server.counts.prompts.total() == 0
    with FakeServer(FakeConfig(), [Lengths()]) as server:  # it knows what it does not list
        (answer,) = Client(ClientConfig("an-alias", server.base_url)).ask([length_of("a")])
    assert answer.value


@contextmanager
def answer_by(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve on a free port, by TLS where there is a context."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


class Page(BaseHTTPRequestHandler):
    """A web site: a page for everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Welcome</html>")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def tls_files(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate that nobody trusts, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=127.0.0.1", "-days", "1", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_what_is_wrong_with_tls_is_named(tls_files: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls_files)
    with answer_by(Page, context) as port:
        assert "TLS certificate is not trusted" in failure(f"https://127.0.0.1:{port}/v1")
        said = failure(f"http://127.0.0.1:{port}/v1")
        assert said.startswith(f"127.0.0.1, port {port}: ")
    with answer_by(Page) as port:
        assert "write http:// instead of https://" in failure(f"https://127.0.0.1:{port}/v1")
