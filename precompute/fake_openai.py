"""The fake server as `precompute fake-openai` runs it: every rule for answers that there is, by VADER's lexicon."""

from __future__ import annotations

from lfp.feedback import vader_lexicon
from lfp.labels.fake_answers import SwapWords
from lfp.labels.fake_server import FakeConfig, FakeServer
from lfp.labels.protocol import Behaviour


def serving(port: int, behave: Behaviour) -> FakeServer:
    """The server, to be entered. Raises ConfigError where the port cannot be listened on."""
    return FakeServer(FakeConfig(behave), [SwapWords(vader_lexicon())], port=port)
