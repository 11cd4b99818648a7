"""The words of a corpus: which are frequent enough to score, their folds, and which token belongs to which word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lfp.errors import DataError
from lfp.texts.words import word_tokens, words_of
from lfp.util.types import Ints


@dataclass(frozen=True)
class Vocabulary:
    """Frequent words, sorted; `counts` and `folds` [words]; `all_counts` of every word of the corpus."""

    words: tuple[str, ...]
    counts: Ints
    folds: Ints
    all_counts: Counter[str]
    index: dict[str, int]
    lexicon: Container[str] = ()
    """Entries that are words in scripts without spaces."""

    @staticmethod
    def from_texts(
        texts: Sequence[str], *, min_count: int, n_folds: int, seed: int, lexicon: Container[str] = ()
    ) -> Vocabulary:
        """Count the words of texts. Raises DataError where too few are frequent enough."""
        counts = Counter(word.word for text in texts for word in words_of(text, lexicon))
        words = sorted(word for word, n in counts.items() if n >= min_count)
        if len(words) < n_folds:
            raise DataError(
                f"only {len(words)} words occur {min_count} times or more; "
                "pass more texts or lower probes.min_word_count"
            )
        fold_of = word_folds(words, n_folds=n_folds, seed=seed)
        return Vocabulary(
            tuple(words),
            np.array([counts[word] for word in words], np.int64),
            np.array([fold_of[word] for word in words], np.int64),
            counts,
            {word: i for i, word in enumerate(words)},
            lexicon,
        )


@dataclass(frozen=True)
class TokenWords:
    """The word of the vocabulary that each token of a text is part of (-1: none), and whether it is its last token."""

    words: Ints
    is_last: NDArray[np.bool_]


def token_words(vocabulary: Vocabulary, text: str, token_starts: Sequence[int]) -> TokenWords:
    """Find the word of the vocabulary that each token belongs to [n_tokens]."""
    words = np.full(len(token_starts), -1, np.int64)
    is_last = np.zeros(len(token_starts), bool)
    found = words_of(text, vocabulary.lexicon)
    for word, tokens in zip(found, word_tokens(found, token_starts, len(text)), strict=True):
        row = vocabulary.index.get(word.word, -1)
        if tokens and row >= 0:
            words[list(tokens)] = row
            is_last[tokens[-1]] = True
    return TokenWords(words, is_last)


def commonest_tokens(
    vocabulary: Vocabulary, texts: Sequence[tuple[str, Sequence[int], Sequence[int]]]
) -> list[list[int]]:
    """Find the token ids each word is most often written with; texts are given as (text, token_ids, token_starts)."""
    spellings: list[Counter[tuple[int, ...]]] = [Counter() for _ in vocabulary.words]
    for text, token_ids, token_starts in texts:
        found = words_of(text, vocabulary.lexicon)
        for word, tokens in zip(found, word_tokens(found, token_starts, len(text)), strict=True):
            if (row := vocabulary.index.get(word.word)) is not None:
                spellings[row][tuple(token_ids[t] for t in tokens)] += 1
    return [list(spelling.most_common(1)[0][0]) if spelling else [] for spelling in spellings]


@dataclass(frozen=True)
class TokenColumns:
    """The column of a regression that stands for each token: `columns` [d_vocab], from 0 to n_columns - 1.

    The last column is for all tokens without a column of their own. `of_word` gives each word's columns, one per token
    of its commonest spelling; none where one of these tokens has no column of its own.
    """

    columns: Ints
    n_columns: int
    of_word: tuple[tuple[int, ...], ...]


def token_columns(
    vocabulary: Vocabulary,
    texts: Sequence[tuple[str, Sequence[int], Sequence[int]]],
    *,
    d_vocab: int,
    limit: int = 4000,
) -> TokenColumns:
    """Assign columns to the words of a vocabulary; texts are given as (text, token_ids, token_starts).

    All tokens that mostly stand for one word by themselves share a column, as " good" and "Good" do. Words of several
    tokens need a column for each of these. The commonest words come first, up to `limit` columns.
    """
    spellings = commonest_tokens(vocabulary, texts)
    alone = _words_alone(vocabulary, texts, d_vocab)
    key_of = np.where(alone >= 0, alone, len(vocabulary.words) + np.arange(d_vocab))
    column_of: dict[int, int] = {}
    for word in np.argsort(-vocabulary.counts, kind="stable"):
        new = [key for key in dict.fromkeys(key_of[spellings[word]].tolist()) if key not in column_of]
        if len(column_of) + len(new) <= limit:
            column_of.update({key: len(column_of) + i for i, key in enumerate(new)})
    rest = len(column_of)
    columns = np.array([column_of.get(key, rest) for key in key_of.tolist()], np.int64)
    of_word = [tuple(columns[tokens].tolist()) for tokens in spellings]
    return TokenColumns(columns, rest + 1, tuple(() if rest in places else places for places in of_word))


def _words_alone(
    vocabulary: Vocabulary, texts: Sequence[tuple[str, Sequence[int], Sequence[int]]], d_vocab: int
) -> Ints:
    """Find the word that each token is by itself in more than half of its occurrences [d_vocab], -1 for none."""
    uses, n = Counter[tuple[int, int]](), np.zeros(d_vocab, np.int64)
    for text, token_ids, token_starts in texts:
        n += np.bincount(np.asarray(token_ids, np.int64), minlength=d_vocab)
        found = words_of(text, vocabulary.lexicon)
        for word, tokens in zip(found, word_tokens(found, token_starts, len(text)), strict=True):
            row = vocabulary.index.get(word.word)
            if row is not None and len(tokens) == 1:
                uses[token_ids[tokens[0]], row] += 1
    alone = np.full(d_vocab, -1, np.int64)
    for (token, row), count in uses.items():
        if 2 * count > n[token]:
            alone[token] = row
    return alone


def word_folds(words: Sequence[str], *, n_folds: int, seed: int) -> dict[str, int]:
    """Draw a fold for every word, over the sorted words; folds have equal sizes, to within one word."""
    order = np.random.default_rng(seed).permutation(len(words))
    return {word: int(place) % n_folds for word, place in zip(sorted(words), order, strict=True)}
