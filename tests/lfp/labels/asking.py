"""Small questions, and the rule that a fake server answers them by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfp.labels.client.client import Client, ClientConfig
from lfp.labels.client.questions import Form, Message, Question
from lfp.testing.fake_openai.answers import ChatRequest
from lfp.testing.fake_openai.server import FAKE_MODEL, FakeServer


class Length(Form):
    """How long a text is."""

    characters: int


class Lengths:
    """Counts the characters of the last message."""

    def answer(self, request: ChatRequest, *, right: bool) -> Mapping[str, Any] | None:
        if request.schema_name != Length.__name__:
            return None
        return {"characters": len(request.messages[-1][1]) + (0 if right else 1)}


def length_of(text: str, *, max_tokens: int = 20, key: str = "") -> Question[Length]:
    return Question((Message("user", text),), Length, max_tokens, key)


def texts(n: int) -> list[str]:
    """Texts of 1 to n characters."""
    return ["x" * (i + 1) for i in range(n)]


def client(server: FakeServer, cache: Path | None = None, **changes: Any) -> Client:
    """A client of the server that waits for nothing long."""
    return Client(ClientConfig(FAKE_MODEL, server.base_url, cache, **{"timeout_s": 10.0} | changes))
