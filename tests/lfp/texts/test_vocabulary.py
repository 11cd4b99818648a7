"""The vocabulary: frequent words, their folds, and the tokens that spell them."""

from __future__ import annotations

import numpy as np
import pytest

from lfp.errors import DataError
from lfp.texts.vocabulary import Vocabulary, commonest_tokens, token_columns, token_words

TEXTS = ["Good film, good GOOD plot", "bad film", "a bad plot; plot"]


def vocabulary(*, min_count: int = 2, n_folds: int = 3, seed: int = 0) -> Vocabulary:
    return Vocabulary.from_texts(TEXTS, min_count=min_count, n_folds=n_folds, seed=seed)


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


SPELLED = [
    ("Good film, good GOOD plot", [1, 2, 3, 4, 5, 6, 7], [0, 4, 9, 10, 15, 18, 20]),
    ("bad film", [8, 2], [0, 3]),
    ("a bad plot; plot", [9, 10, 7, 3, 7], [0, 1, 5, 10, 11]),
]
"""Token 1 is "Good", 4 " good"; " GOOD" is 5 and 6; 8 is "bad", 10 " bad"; 3 is a comma and a semicolon."""


def test_spellings_of_a_word_share_a_column_and_other_tokens_the_last() -> None:
    found = token_columns(vocabulary(), SPELLED, d_vocab=12)
    columns = found.columns
    assert columns[1] == columns[4] and columns[8] == columns[10]
    assert len({columns[token] for token in (1, 2, 7, 8)}) == 4 and found.n_columns == 5
    assert {columns[token] for token in (0, 3, 5, 6, 9, 11)} == {4}
    assert found.of_word == ((columns[8],), (columns[2],), (columns[1],), (columns[7],))


def test_the_commonest_words_come_first_under_a_limit() -> None:
    found = token_columns(vocabulary(), SPELLED, d_vocab=12, limit=2)
    assert found.n_columns == 3
    assert found.of_word == ((), (), (0,), (1,))


def test_a_word_of_several_tokens_needs_a_column_for_each() -> None:
    split = [("good plot film", [1, 2, 3, 4], [0, 2, 4, 9]), ("good bad", [1, 2, 5], [0, 2, 4]), ("plot", [3], [0])]
    found = token_columns(vocabulary(), split, d_vocab=6)
    assert found.of_word[2] == (found.columns[1], found.columns[2]) and len(set(found.of_word[2])) == 2
    assert found.of_word[0] == (found.columns[5],)
    short = token_columns(vocabulary(), split, d_vocab=6, limit=1)
    assert short.of_word[2] == () and short.of_word[3] == (0,)


def test_a_token_that_is_mostly_part_of_words_is_none_by_itself() -> None:
    """Token 1 ends "xbad" twice and is "bad" once: it is no spelling of "bad", as token 2 is."""
    split = [("bad film", [2, 3], [0, 3]), ("bad bad", [1, 2], [0, 3]), ("xbad xbad", [4, 1, 4, 1], [0, 1, 4, 6])]
    found = token_columns(vocabulary(), split, d_vocab=5)
    assert found.columns[1] == found.n_columns - 1 != found.columns[2]
