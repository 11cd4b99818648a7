"""Rollouts: what a model goes on to write after words of the corpus, and where it might have written another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lfp.ml.features.grouping import grouped_order, rank_within
from lfp.ml.implicit_reward.word_occurrences import CorpusTokens, token_numbers
from lfp.ml.models.generation import Completion, sample_completions
from lfp.ml.models.loading import LanguageModel
from lfp.texts.lexicon import Reward
from lfp.util.types import Floats, Ints

Context = tuple[int, ...]

_BATCH = 256
_QUARTERS = 4


@dataclass(frozen=True)
class Places:
    """Drawn occurrences of words [k]: the words, and the text's tokens up to each word, without and with it."""

    words: Ints
    before: list[Context]
    after: list[Context]


def draw_places(
    tokens: CorpusTokens, is_wanted: NDArray[np.bool_], *, per_word: int, reach: tuple[int, int], seed: int
) -> Places:
    """Up to `per_word` occurrences of every wanted word, by the seed, that stand whole in the positions of `reach`.

    `is_wanted` is [words]; `reach` is the first position and the one past the last.
    """
    found = tokens.occurrences()
    first, end = reach
    reached = (tokens.positions[found.firsts] >= first) & (tokens.positions[found.lasts] < end)
    usable = np.flatnonzero(reached & is_wanted[found.words])
    words, firsts, lasts = found.words[usable], found.firsts[usable], found.lasts[usable]
    order = grouped_order(words, token_numbers(tokens, seed)[firsts], firsts)
    drawn = order[rank_within(words[order]) < per_word]
    starts = firsts[drawn] - tokens.positions[firsts[drawn]]
    spans = list(zip(starts, firsts[drawn], lasts[drawn] + 1, strict=True))
    ids = tokens.token_ids
    return Places(
        words[drawn],
        [tuple(ids[start:first].tolist()) for start, first, _ in spans],
        [tuple(ids[start:end].tolist()) for start, _, end in spans],
    )


def rewards_ahead(
    model: LanguageModel, contexts: Sequence[Context], reward: Reward, *, n_tokens: int, temperature: float, seed: int
) -> Floats:
    """The reward [contexts] of what the model writes after each context, had it still to write up to `n_tokens` tokens.

    A place may be anywhere in a completion of that length: the mean over four of what it may have left, evenly spaced.
    Raises ModelError where a context is empty or leaves no room, and what the reward raises.
    """
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))  # like lengths together: hardly any padding
    written = sample_completions(
        model, [contexts[i] for i in order], n_tokens=n_tokens, temperature=temperature, seed=seed, batch=_BATCH
    )
    rewards = np.empty(len(contexts))
    rewards[order] = np.mean([reward(_cut(model, written, length)) for length in _lengths(n_tokens)], axis=0)
    return rewards


def _lengths(n_tokens: int) -> list[int]:
    return sorted({-(-n_tokens * quarter // _QUARTERS) for quarter in range(1, _QUARTERS + 1)})


def _cut(model: LanguageModel, written: Sequence[Completion], length: int) -> list[str]:
    return list(model.tokenizer.batch_decode([one.token_ids[:length] for one in written], skip_special_tokens=True))
