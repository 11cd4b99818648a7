"""The tables `texts`, `token_scores` and `activations`, a row a scored text, and `completions`, a row a written one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lfp.probes.attribution import ActiveText
from lfp.texts.corpus import CorpusText
from lfp.texts.lexicon import token_feedback
from lfp.util.types import Floats

if TYPE_CHECKING:
    from lfp.ml.models.generation import Completion
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText


@dataclass(frozen=True)
class Estimates:
    """What the headline probe and the raw probe of its target say of a text: of all of it, and of each token alone.

    `miss` and `token_misses` [n_tokens] are what the autoencoders lose of the raw probe's estimate; None where there is
    no such probe, or, of the text under max pooling, where no constant weight a feature exists.
    """

    predicted: float
    token_predicted: Floats
    predicted_raw: float | None = None
    miss: float | None = None
    token_misses: Floats | None = None


@dataclass(frozen=True)
class ScoredText:
    """A text through both models: its active features, implicit reward and advantage [n_tokens], and estimates."""

    text: CorpusText
    tokens: TokenizedText
    active: ActiveText
    reward: Floats
    advantage: Floats
    estimates: Estimates


def text_row(scored: ScoredText) -> dict[str, Any]:
    """A row of `texts` but for `feedback`, `pca_x` and `pca_y`, which are found for all texts at once."""
    text, tokens, estimates = scored.text, scored.tokens, scored.estimates
    return {
        "text_id": text.text_id,
        "source": text.source,
        "split": text.split,
        "role": text.role,
        "pair_id": text.pair_id,
        "text": tokens.text,
        "token_ids": list(tokens.token_ids),
        "token_starts": list(tokens.token_starts),
        "response_start": scored.active.response_start,
        "rating": text.rating,
        "predicted": estimates.predicted,
        "predicted_raw": estimates.predicted_raw,
        "sae_miss": estimates.miss,
        "implicit_reward": float(np.nansum(scored.reward)),
    }


def score_row(scored: ScoredText, lexicon: Mapping[str, float]) -> dict[str, Any]:
    """A row of `token_scores`."""
    return {
        "text_id": scored.text.text_id,
        "feedback": token_feedback(scored.tokens.text, scored.tokens.token_starts, lexicon),
        "implicit_reward": _nullable(scored.reward),
        "implicit_advantage": _nullable(scored.advantage),
        "predicted": scored.estimates.token_predicted,
        "sae_miss": scored.estimates.token_misses,
    }


def activation_row(scored: ScoredText) -> dict[str, Any]:
    """A row of `activations`."""
    return {
        "text_id": scored.text.text_id,
        "positions": scored.active.positions,
        "feature_ids": scored.active.features,
        "values": scored.active.values.astype(np.float32),
    }


def completion_rows(
    written: Sequence[Completion],
    base: LanguageModel,
    *,
    group: str,
    model: str,
    prompt_ids: Sequence[int],
    rewards: Sequence[float],
    perplexity: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """Rows of `completions`: what `model` wrote in one group, each with its prompt, its reward and its perplexity."""
    told: Sequence[float | None] = [None] * len(written) if perplexity is None else perplexity
    return [
        {
            "group": group,
            "index": i,
            "prompt_id": prompt_id,
            "prompt": base.tokenizer.decode(list(one.prefix_ids), skip_special_tokens=True),
            "completion": one.text,
            "reward": reward,
            "perplexity": of_base,
            "model": model,
        }
        for i, (one, prompt_id, reward, of_base) in enumerate(zip(written, prompt_ids, rewards, told, strict=True))
    ]


def _nullable(values: Floats) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
