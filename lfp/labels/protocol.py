"""What every labeller is given and gives: the evidence of a feature, and a label; how a fake server behaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Behaviour = Literal["right", "wrong", "random", "slow", "flaky"]
"""How the fake server's answers are: see `fake_server.py`."""


@dataclass(frozen=True)
class ShownExample:
    """An example a labeller sees: the word fired on, the words before it, its activation, and where it stands."""

    text_id: int
    position: int
    word: str
    before: tuple[str, ...]
    activation: float


@dataclass(frozen=True)
class Evidence:
    """What is known of a feature: its top examples and a random sample of the contexts it is active in."""

    feature_id: int
    density: float
    top: tuple[ShownExample, ...]
    sample: tuple[ShownExample, ...]


@dataclass(frozen=True)
class Label:
    """A description, whether it is related to the feedback, how sure, and why; `failure` says why there is none."""

    feature_id: int
    description: str | None
    related: bool | None
    confidence: float | None
    reason: str | None
    examples_used: tuple[str, ...]
    prompt_version: str
    model: str | None = None
    failure: str | None = None


class Labeller(Protocol):
    """Describes features. `name` is what labels.labeller says."""

    @property
    def name(self) -> str:
        """What labels.labeller says."""
        ...

    def label(self, evidence: Sequence[Evidence]) -> list[Label]:
        """A label for each piece of evidence, in order."""
        ...
