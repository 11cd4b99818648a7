"""Rollouts: the places drawn for words, and the reward of what a model writes after each."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.errors import ModelError
from lfp.ml.implicit_reward.rollouts import draw_places, rewards_ahead
from lfp.ml.models.generation import sample_completions
from lfp.ml.models.loading import LanguageModel
from tests.lfp.ml.implicit_reward.test_words import N_WORDS, corpus, walked


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(0, 3), st.integers(4, 12))
def test_places_are_whole_occurrences_within_reach_and_no_more_than_asked(seed, per_word, first, end) -> None:
    tokens, is_wanted = corpus(seed), np.array([True, False, True, True])
    reached = (tokens.positions >= first) & (tokens.positions < end)
    places = draw_places(tokens, is_wanted, per_word=per_word, reached=reached, seed=seed)
    contexts = []
    for word, inside in walked(tokens):
        if is_wanted[word] and tokens.positions[inside[0]] >= first and tokens.positions[inside[-1]] < end:
            text = tokens.token_ids[tokens.text_ids == tokens.text_ids[inside[0]]].tolist()
            start, last = tokens.positions[inside[0]], tokens.positions[inside[-1]]
            contexts.append((word, tuple(text[:start]), tuple(text[: last + 1])))
    drawn = list(zip(places.words.tolist(), places.before, places.after, strict=True))
    assert not Counter(drawn) - Counter(contexts)
    available = Counter(word for word, *_ in contexts)
    assert Counter(places.words.tolist()) == {word: min(per_word, n) for word, n in available.items()}
    assert places.words.max(initial=0) < N_WORDS


def test_places_depend_on_the_seed_and_on_nothing_else() -> None:
    tokens, is_wanted = corpus(n_texts=60), np.ones(N_WORDS, bool)
    reached = np.ones(len(tokens.words), bool)
    one, same, other = (draw_places(tokens, is_wanted, per_word=2, reached=reached, seed=seed) for seed in (1, 1, 2))
    assert (one.before, one.after) == (same.before, same.after)
    assert one.after != other.after


def test_every_context_gets_the_reward_of_what_was_written_after_it(neox: LanguageModel) -> None:
    contexts = [(5, 6, 7, 8), (5,), (9, 4), (5, 6, 7), (3,), (9, 4)]
    seen: list[list[str]] = []

    def reward(texts: list[str]) -> list[float]:
        seen.append(texts)
        return [10.0 * len(seen) + i for i in range(len(texts))]

    rewards = rewards_ahead(neox, contexts, reward, n_tokens=6, temperature=1.0, seed=3)
    order = [1, 4, 2, 5, 3, 0]  # shortest first, of equal ones the earlier first
    assert rewards[order].tolist() == [25.0, 26.0, 27.0, 28.0, 29.0, 30.0]
    written = sample_completions(neox, [contexts[i] for i in order], n_tokens=6, temperature=1.0, seed=3)
    assert seen == [
        [neox.tokenizer.decode(completion.token_ids[:length], skip_special_tokens=True) for completion in written]
        for length in (2, 3, 5, 6)
    ]


def test_a_context_without_a_token_is_one_sentence(neox: LanguageModel) -> None:
    with pytest.raises(ModelError, match="begin it with"):
        rewards_ahead(neox, [()], lambda texts: [0.0] * len(texts), n_tokens=2, temperature=1.0, seed=0)
