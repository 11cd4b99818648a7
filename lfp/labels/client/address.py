"""A server's address, checked before any question is paid for: what is wrong with it is one sentence."""

from __future__ import annotations

import difflib
import errno
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

import httpx2
import openai
from pydantic import BaseModel, ValidationError

from lfp.errors import ConfigError, LabelError
from lfp.labels.client.transport import TooLongError
from lfp.util.sanitize import visible

_CHECK_S = 10.0  # that a server may take to list its models
_MOST_NAMED, _LONGEST_NAME = 5, 60  # models that a message names, and characters of each
_ENDPOINTS = ("/chat/completions", "/completions", "/models")


def check_address(base_url: str) -> None:
    """Raise ConfigError for an address that cannot be a server's. Nothing is sent."""
    try:
        parts = urlsplit(base_url.strip())
        port = parts.port
        httpx2.URL(base_url.strip())
    except (ValueError, httpx2.InvalidURL):
        raise ConfigError(
            "--base-url: its host or port cannot be read; write it as http://host:port/v1, the port at most 65535"
        ) from None
    if parts.scheme not in ("http", "https") or "://" not in base_url:
        raise ConfigError("--base-url: it does not begin with http:// or https://; write it as http://host:port/v1")
    if not parts.hostname or port == 0 or any(character.isspace() for character in base_url.strip()):
        raise ConfigError("--base-url: it names no host; write it as http://host:port/v1")
    if parts.query or parts.fragment:
        raise ConfigError("--base-url: it has a ? or a # in it; end it with the path, as in http://host:port/v1")
    for endpoint in _ENDPOINTS:
        if parts.path.rstrip("/").endswith(endpoint):
            raise ConfigError(f"--base-url: leave {endpoint} off its end; the client adds it")


class _Listed(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Listed]


async def check_server(api: openai.AsyncOpenAI, model: str) -> None:
    """Ask a server for its models. Raises LabelError if it is not there or does not list the model.

    A server that lists no models, or lists them to other keys only, passes: its first answer will show.
    """
    parts = urlsplit(str(api.base_url))
    listing = api.with_options(max_retries=0, timeout=_CHECK_S)
    names = await _list_models(listing, parts)
    if names is None and not parts.path.rstrip("/").endswith("/v1"):
        below = listing.with_options(base_url=f"{str(api.base_url).rstrip('/')}/v1")
        if await _list_models(below, parts) is not None:
            raise LabelError(f"{_place(parts)}: the server answers below /v1; add /v1 to the end of the base URL")
    if names and not {model, f"{model}:latest"} & set(names) and not await _knows(listing, model):
        close = difflib.get_close_matches(model, names, n=_MOST_NAMED, cutoff=0.0)
        shown = ", ".join(repr(visible(name)[:_LONGEST_NAME]) for name in close)
        more = f" and {len(names) - len(close)} more" if len(names) > len(close) else ""
        raise LabelError(f"the server knows no model {model!r}; it lists {shown}{more}: name one of them")


async def _list_models(api: openai.AsyncOpenAI, parts: SplitResult) -> list[str] | None:
    """Names of the models that a server lists; None if it has no list. Raises LabelError if it is not there."""
    try:
        response = await api.models.with_raw_response.list()
        return [listed.id for listed in _Models.model_validate_json(response.text).data]
    except openai.APIConnectionError as error:
        if any("ReadTimeout" in type(cause).__name__ for cause in _causes(error)):
            return None  # it may be busy with somebody else's question
        reason = explain_connection(error, parts)
    except (openai.APIStatusError, TooLongError, ValidationError):
        return None
    raise LabelError(reason)


async def _knows(api: openai.AsyncOpenAI, model: str) -> bool:
    """Whether the server knows a model that it does not list, such as an alias."""
    try:
        response = await api.models.with_raw_response.retrieve(model)
        return _Listed.model_validate_json(response.text).id != ""
    except (openai.OpenAIError, TooLongError, ValidationError):
        return False


def explain_connection(error: BaseException, parts: SplitResult) -> str:
    """Explain why no connection was made: name, port or TLS."""
    place, causes = _place(parts), list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"{place}: the server's TLS certificate is not trusted ({cause.verify_message}); add its issuer to the"
                " file in $SSL_CERT_FILE, or name the host that the certificate is for"
            )
        if isinstance(cause, ssl.SSLError):
            plain = "WRONG_VERSION_NUMBER" in str(cause) or "HTTP_REQUEST" in str(cause)
            if plain:
                return f"{place}: the server speaks no TLS; write http:// instead of https://"
            return f"{place}: TLS fails ({cause.reason or 'no reason given'}); check the server's TLS settings"
        if isinstance(cause, socket.gaierror):
            return f"{place}: the host has no address; check its spelling in the base URL"
    if isinstance(error, openai.APITimeoutError):
        return f"{place}: no connection within {_CHECK_S:g} s; check the base URL and the network"
    if any(isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED for cause in causes):
        return f"{place}: no server listens there; start it, or correct the base URL"
    if parts.scheme == "http" and any("Protocol" in type(cause).__name__ for cause in causes):
        return f"{place}: what listens there speaks no HTTP; if it speaks TLS, write https:// instead of http://"
    if any("Protocol" in type(cause).__name__ or "Read" in type(cause).__name__ for cause in causes):
        return f"{place}: the server closes the connection; see its log"
    return f"{place}: the server cannot be reached; check the base URL and the network"


def _place(parts: SplitResult) -> str:
    """Host and port, without name and password."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.hostname}, port {port}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Iterate over an error, its causes, and the parts of groups."""
    seen: set[int] = set()
    rest = [error]
    while rest:
        each = rest.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        rest += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            rest += each.exceptions
