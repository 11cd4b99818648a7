"""The vocabulary: frequent words, their folds, and the tokens that spell them."""

from __future__ import annotations

import numpy as np
import pytest

from lfp.errors import DataError
from lfp.vocabulary import Vocabulary, commonest_tokens, token_words

TEXTS = ["Good film, good GOOD plot", "bad film", "a bad plot; plot"]


def vocabulary(*, min_count: int = 2, n_folds: int = 3, seed: int = 0) -> Vocabulary:
    return Vocabulary.of(TEXTS, min_count=min_count, n_folds=n_folds, seed=seed)


def test_frequent_words_are_counted_whatever_their_case() -> None:
    words = vocabulary()
    assert words.words == ("bad", "film", "good", "plot")
    assert words.counts.tolist() == [2, 2, 3, 3]
    assert words.index == {"bad": 0, "film": 1, "good": 2, "plot": 3}
    assert words.all_counts == {"good": 3, "plot": 3, "film": 2, "bad": 2, "a": 1}


def test_every_fold_has_a_word_and_the_seed_decides_which() -> None:
    assert set(vocabulary().folds) == {0, 1, 2}
    assert np.array_equal(vocabulary().folds, vocabulary().folds)
    assert len({tuple(vocabulary(seed=seed).folds) for seed in range(9)}) > 1


def test_fewer_words_than_folds_are_refused() -> None:
    with pytest.raises(DataError, match="only 2 words occur 3 times or more"):
        vocabulary(min_count=3)


def test_tokens_know_their_word_and_whether_they_end_it() -> None:
    """Tokens: `Go`, `od`, ` a`, ` fi`, `lm`, `!`."""
    found = token_words(vocabulary(), "Good a film!", [0, 2, 4, 6, 9, 11])
    assert found.words.tolist() == [2, 2, -1, 1, 1, -1]
    assert found.is_last.tolist() == [False, True, False, False, True, False]


def test_a_text_without_tokens_has_no_words() -> None:
    assert token_words(vocabulary(), "", []).words.tolist() == []


def test_a_word_is_spelled_as_it_most_often_is() -> None:
    texts = [
        ("good film", [1, 2], [0, 4]),
        ("goodness good", [3, 4, 1], [0, 4, 8]),
        ("good", [5, 6], [0, 2]),
        ("good", [1], [0]),
    ]
    assert commonest_tokens(vocabulary(), texts) == [[], [2], [1], []]
