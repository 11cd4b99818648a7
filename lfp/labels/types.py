"""What every labeller is given and gives: the evidence of a feature, and a label; how a fake server behaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from lfp.config import CLASSIFIER, LEXICON, VADER

Behaviour = Literal["right", "wrong", "random", "slow", "flaky"]
"""How the fake server's answers are: see `fake_server.py`."""


HUMAN = "human:"
"""What labels.labeller begins with where a person gave the label."""


@dataclass(frozen=True)
class Excerpt:
    """Tokens around a place of a text, with a feature's activation on each; the place itself is `tokens[at]`.

    `bucket` is that of the table `examples`: 0 top, 1..q an interval of activation quantiles, -1 silent, -2 near miss.
    """

    text_id: int
    position: int
    bucket: int
    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    at: int

    @property
    def key(self) -> str:
        """Its place as `labels.examples_used` writes it."""
        return f"{self.text_id}:{self.position}"

    @property
    def fires(self) -> bool:
        """Whether the feature is active at the place."""
        return self.activations[self.at] > 0

    @cached_property
    def text(self) -> str:
        """The tokens joined."""
        return "".join(self.tokens)


@dataclass(frozen=True)
class Evidence:
    """What is known of a feature, each excerpt in one part only and no two that read alike.

    `firing` may be shown to whoever describes it, strongest first, and `look_alikes`, on which it is silent although
    one would expect it to fire; `held_out` judges a description: half of them fire.
    """

    feature_id: int
    max_activation: float
    firing: tuple[Excerpt, ...]
    look_alikes: tuple[Excerpt, ...]
    held_out: tuple[Excerpt, ...]


@dataclass(frozen=True)
class Score:
    """How well a description tells held-out excerpts: balanced accuracies, and the 95 % interval of `detection`.

    `swapped` is the detection of another feature's description on the same excerpts. None: not asked, or not to be had.
    """

    detection: float | None = None
    fuzzing: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int = 0
    swapped: float | None = None


@dataclass(frozen=True)
class Label:
    """A description, whether it is related to the feedback, how sure, and why; `failure` says what is missing and why.

    `agreement` is the share of repeats, made from other examples, that agree on `related`; `task` what the labeller was
    told of the feedback, and `answered_at` when (UTC), both None of a rule.
    """

    feature_id: int
    description: str | None
    related: bool | None
    confidence: float | None
    reason: str | None
    examples_used: tuple[str, ...]
    prompt_version: str
    model: str | None = None
    failure: str | None = None
    agreement: float | None = None
    score: Score = Score()
    prompt_sha256: str | None = None
    task: str | None = None
    answered_at: str | None = None
    cost_usd: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether it says what the feature is and whether that is related."""
        return self.description is not None and self.related is not None


class Labeller(Protocol):
    """Describes features. `name` is what labels.labeller says."""

    @property
    def name(self) -> str:
        """What labels.labeller says."""
        ...

    def label(self, evidence: Sequence[Evidence]) -> list[Label]:
        """A label for each piece of evidence, in order."""
        ...


TASKS: Mapping[str, str] = {
    "sentiment": "It was paid for writing positive, happy words and fined for negative, unhappy ones.",
    "helpfulness": "Of two answers of an assistant it was taught to prefer the one that people found more helpful.",
    "harmlessness": "Of two answers of an assistant it was taught to prefer the one that people found less harmful.",
    "preference": "Of two answers it was taught to prefer the one that people chose.",
}
"""Tasks that a config may name. Any other text is the task itself."""


def task_of(config: Mapping[str, Any]) -> str:
    """The feedback in words, by a run's config: `labels.task`, or what the feedback and the way of tuning say."""
    named = config.get("labels", {}).get("task")
    return TASKS.get(named, named) if named else _by_feedback(config)


def _by_feedback(config: Mapping[str, Any]) -> str:
    if config.get("tune", {}).get("method") == "dpo":
        return TASKS["preference"]
    reward = config.get("feedback", {}).get("reward", VADER)
    if reward in (VADER, LEXICON):
        return TASKS["sentiment"]
    named = config["feedback"].get("classifier") if reward == CLASSIFIER else reward
    return f"It was paid by the reward {named!r}, of which nothing more is known."
