"""What a labeller is told of a run's feedback, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lfp.config import CLASSIFIER, LEXICON, VADER

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
