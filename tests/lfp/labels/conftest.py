"""Shared by the tests of labels: retries that come at once."""

from __future__ import annotations

import openai._base_client
import pytest


@pytest.fixture(autouse=True)
def _retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits between retries, which the openai package offers no setting for."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.1)
