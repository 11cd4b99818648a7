"""Where each word stands in a bundle's stored texts: arrays that are built once per open bundle, from its own texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lfp.bundle.store.connection import Store
from lfp.texts.words import word_tokens, words_of
from lfp.util.types import Ints

MOST_TEXTS = 10_000
"""Texts that are read, the first by number."""
LEAST_ALIKE = 0.5
"""Dice coefficient of n-grams from which a word stands for one that no text holds."""
_GRAMS = (3, 4, 5)


@dataclass(frozen=True, eq=False)
class WordIndex:
    """The words of `n_texts` texts, all as arrays over occurrences in reading order.

    `words` maps a word to its number; `first` and `last` are the word's tokens. Occurrence i + 1 follows i in the same
    text where `text_ids` agree.
    """

    words: Mapping[str, int]
    numbers: Ints
    text_ids: Ints
    first: Ints
    last: Ints
    n_texts: int

    @cached_property
    def _by_word(self) -> tuple[Ints, Ints]:
        order = np.argsort(self.numbers, kind="stable")
        return order, np.searchsorted(self.numbers[order], np.arange(len(self.words) + 1))

    def occurrences(self, word: str) -> Ints:
        """Return the indices at which a word, in its normal form, stands."""
        if word not in self.words:
            return np.empty(0, np.int64)
        order, starts = self._by_word
        number = self.words[word]
        return order[starts[number] : starts[number + 1]]

    def nearest(self, word: str) -> tuple[str, ...]:
        """Return the held words that share most character n-grams with a word that no text holds, nearest first."""
        wanted = grams(word)
        alike = {
            other: 2 * len(wanted & found) / (len(wanted) + len(found))
            for other in self.words
            if other[:1] == word[:1] and (found := grams(other))
        }
        near = sorted((other for other, share in alike.items() if share >= LEAST_ALIKE), key=lambda o: (-alike[o], o))
        return tuple(near[:3])


def grams(word: str) -> frozenset[str]:
    """Return the character n-grams of a word between marks of its ends."""
    marked = f"<{word}>"
    return frozenset(marked[at : at + n] for n in _GRAMS for at in range(len(marked) - n + 1))


def word_index(store: Store) -> WordIndex:
    """Return the index of a bundle's first MOST_TEXTS texts, built the first time."""
    return store.once("word index", lambda: _build(store))


def _build(store: Store) -> WordIndex:
    rows = store.query(
        "SELECT text_id, text, token_starts FROM texts ORDER BY text_id LIMIT $limit", {"limit": MOST_TEXTS}
    )
    words: dict[str, int] = {}
    numbers: list[int] = []
    places: list[tuple[int, int, int]] = []
    for row in rows.to_pylist():
        text, starts = row["text"], row["token_starts"]
        found = words_of(text)
        for word, tokens in zip(found, word_tokens(found, starts, len(text)), strict=True):
            if tokens:
                numbers.append(words.setdefault(word.word, len(words)))
                places.append((row["text_id"], tokens[0], tokens[-1]))
    columns = np.array(places, np.int64).reshape(-1, 3).T
    return WordIndex(words, np.array(numbers, np.int64), columns[0], columns[1], columns[2], rows.num_rows)
