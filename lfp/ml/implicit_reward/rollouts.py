"""Roll a model out after words of the corpus, and from the same places without the words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lfp.ml.features.grouping import grouped_order, rank_within
from lfp.ml.implicit_reward.word_occurrences import CorpusTokens, token_numbers
from lfp.ml.models.generation import sample_completions
from lfp.ml.models.loading import LanguageModel
from lfp.texts.lexicon import Reward
from lfp.util.types import Flags, Floats, Ints

Context = tuple[int, ...]

_BATCH = 256
_QUARTERS = 4


@dataclass(frozen=True)
class Places:
    """Drawn occurrences of words [k]: the words, and the text's tokens up to each word, without it and with it."""

    words: Ints
    before: list[Context]
    after: list[Context]


def draw_places(
    tokens: CorpusTokens, is_wanted: NDArray[np.bool_], *, per_word: int, reached: Flags, seed: int
) -> Places:
    """Draw up to `per_word` occurrences of every wanted word whose first and last tokens are reached, by the seed.

    `is_wanted` is [words], `reached` [tokens].
    """
    found = tokens.occurrences()
    is_reached = reached[found.firsts] & reached[found.lasts]
    usable = np.flatnonzero(is_reached & is_wanted[found.words])
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
    """Return the mean reward [contexts] of what the model writes after each context, up to `n_tokens` tokens.

    A place may be anywhere in a completion of that length, so the reward is averaged over four evenly spaced numbers of
    remaining tokens. Raises ModelError where a context is empty or leaves no room, and what the reward raises.
    """
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))  # similar lengths need little padding
    written = sample_completions(
        model, [contexts[i] for i in order], n_tokens=n_tokens, temperature=temperature, seed=seed, batch=_BATCH
    )
    by_length = []
    for length in sorted({-(-n_tokens * quarter // _QUARTERS) for quarter in range(1, _QUARTERS + 1)}):
        ids = [completion.token_ids[:length] for completion in written]
        by_length.append(reward(list(model.tokenizer.batch_decode(ids, skip_special_tokens=True))))
    rewards = np.empty(len(contexts))
    rewards[order] = np.mean(by_length, axis=0)
    return rewards
