"""What labellers share: excerpts and the evidence for a feature, labels and their scores, and tasks in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from lfp.config import CLASSIFIER, LEXICON, VADER

Behaviour = Literal["right", "wrong", "random", "slow", "flaky"]
"""How the answers of the fake server are; see `lfp.testing.fake_openai`."""

HUMAN = "human:"
"""Prefix of `labels.labeller` for labels by a person."""
NEURONPEDIA = "neuronpedia"
"""Labeller of explanations that were imported from Neuronpedia."""


@dataclass(frozen=True)
class Excerpt:
    """Tokens around a place in a text, with a feature's activation on each; the place itself is `tokens[at]`.

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
        """The place as `labels.examples_used` writes it."""
        return f"{self.text_id}:{self.position}"

    @property
    def fires(self) -> bool:
        """Whether the feature is active at the place."""
        return self.activations[self.at] > 0

    @cached_property
    def text(self) -> str:
        """The tokens, joined."""
        return "".join(self.tokens)


@dataclass(frozen=True)
class Evidence:
    """The excerpts of a feature, each in one part only and all with different texts.

    `firing` excerpts, strongest first, and `look_alikes`, on which the feature is silent although one would expect it
    to fire, may be shown to a labeller, and so may the other `silent` ones. `held_out` excerpts test a description:
    half of them fire.
    """

    feature_id: int
    max_activation: float
    firing: tuple[Excerpt, ...]
    look_alikes: tuple[Excerpt, ...]
    held_out: tuple[Excerpt, ...]
    silent: tuple[Excerpt, ...] = ()


@dataclass(frozen=True)
class Score:
    """Balanced accuracies of a description on held-out excerpts, and the 95 % interval of `detection`.

    `swapped` is the detection by another feature's description on the same excerpts, and `p` the chance that a
    description which predicts nothing detects as well. None means not measured.
    """

    detection: float | None = None
    fuzzing: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int = 0
    swapped: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Label:
    """A description of a feature, whether it is related to the feedback, how confidently, and why.

    `failure` states which part is missing and why. `agreement` is the share of repeats, made from other examples, that
    agree on `related`. `task` is what the labeller read about the feedback and `answered_at` the time of the last
    answer (UTC); both are None for a rule.
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
        """Whether the label has a description, and `related` unless the labeller was not asked for it."""
        return self.description is not None and (self.related is not None or self.failure is None)


TASKS: Mapping[str, str] = {
    "sentiment": "It was paid for writing positive, happy words and fined for negative, unhappy ones.",
    "helpfulness": "Of two answers of an assistant it was taught to prefer the one that people found more helpful.",
    "harmlessness": "Of two answers of an assistant it was taught to prefer the one that people found less harmful.",
    "preference": "Of two answers it was taught to prefer the one that people chose.",
}
"""Tasks that a config may name; any other text is the task itself. Prompts contain them: do not reword them."""


def describe_task(config: Mapping[str, Any]) -> str:
    """Describe the feedback of a run in words: by `labels.task`, or by the reward and the tuning method."""
    task = config.get("labels", {}).get("task")
    if task:
        return TASKS.get(task, task)
    if config.get("tune", {}).get("method") == "dpo":
        return TASKS["preference"]
    reward = config.get("feedback", {}).get("reward", VADER)
    if reward in (VADER, LEXICON):
        return TASKS["sentiment"]
    name = config["feedback"].get("classifier") if reward == CLASSIFIER else reward
    return f"It was paid by the reward {name!r}, of which nothing more is known."
