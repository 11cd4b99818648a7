"""Hashes of contexts: of the last eight tokens alone, wherever they are met."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.ml.features.grouping import Places
from tests.lfp.ml.feature_texts import Text, text, tokens


def hashes_of(texts: list[Text]) -> np.ndarray:
    return tokens(texts)[0].contexts


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple), st.integers(0, 3))
def test_a_contexts_hash_is_of_its_last_eight_tokens_alone(token_ids: tuple[int, ...], n_before: int) -> None:
    before = [text(i, (7,) * 5, 0) for i in range(n_before)]
    own = text(9, token_ids, 0)
    hashes = hashes_of([*before, own])[5 * n_before :]
    assert np.array_equal(hashes, hashes_of([own]))
    contexts = [own.context(t) for t in range(len(token_ids))]
    assert len(set(hashes.tolist())) == len(set(contexts))
    longer = hashes_of([text(9, (4, 5, *token_ids), 0)])[2:]
    assert np.array_equal(longer[7:], hashes[7:]) and not (longer[:7] == hashes[:7]).any()


def test_bounds_are_the_first_token_of_the_text_and_the_first_after_it() -> None:
    positions = np.array([0, 1, 2, 0, 0, 1])
    low, high = Places(positions, positions, positions).bounds
    assert low.tolist() == [0, 0, 0, 3, 4, 4] and high.tolist() == [3, 3, 3, 4, 6, 6]
