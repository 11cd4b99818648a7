"""The true feedback of a run, as its config names it: the reward of texts, and the stated values of words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lfp.config import CLASSIFIER, RunConfig
from lfp.texts.lexicon import Reward, check_lexicon, lexicon_of
from lfp.texts.rewards import checked, reward_of
from precompute import pair
from precompute.run import Run


def reward(run: Run) -> Reward:
    """The reward of texts; every answer of a callable is checked. A classifier is loaded anew at each call of this."""
    return named_reward(run.config, run.beside)


def named_reward(config: RunConfig, beside: Path | None) -> Reward:
    """The same of a config alone; files and folders are looked for in `beside` too."""
    feedback = config.feedback
    if feedback.reward != CLASSIFIER:
        return reward_of(feedback, beside=beside)
    from lfp.ml.models.reward_model import load_reward_model

    name = str(feedback.classifier)
    model = load_reward_model(pair.located(name, beside), feedback, device=config.model.device)
    return checked(model, name=name)


def lexicon(run: Run) -> Mapping[str, float]:
    """The stated values of words. Raises DataError where they say nothing of the corpus."""
    values = lexicon_of(run.config.feedback, beside=run.beside)
    texts = (row["text"] for row in run.table("corpus", "corpus").select(["text"]).to_pylist())
    check_lexicon(values, texts, name=run.config.feedback.lexicon)
    return values
