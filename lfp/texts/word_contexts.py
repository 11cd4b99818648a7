"""The company words keep: how often they occur and beside which, which stands for their part of speech."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from lfp.errors import DataError
from lfp.texts.lexicon import words_of

_EDGE = "<edge>"
_CONTEXT_WORDS = 300  # neighbours that make up a word's company
_FUNCTION_WORDS = 120  # the commonest unscored words are grammar, not content
_NEAREST = 12  # replacements are drawn among this many of the closest
_LEAST_LIKENESS = 0.1  # cosine of two words' company


class Company:
    """How often words occur and beside which: unit profiles over the commonest neighbours on either side."""

    def __init__(
        self, counts: Counter[str], words: list[str], profiles: sp.csr_array, lexicon: Mapping[str, float]
    ) -> None:
        self.counts, self.words, self.profiles = counts, words, profiles
        self.row = {word: i for i, word in enumerate(words)}
        self.values = np.array([lexicon.get(word, 0.0) for word in words])
        self.scored = np.array([word in lexicon for word in words])
        self.log_count = np.log([counts[word] for word in words])
        self.vowel = np.array([word[0] in "aeiou" for word in words])
        self._found: dict[tuple[str, int, bool | None], list[str]] = {}

    @classmethod
    def of(cls, sentences: Sequence[str], lexicon: Mapping[str, float], *, min_count: int) -> Company:
        """Of the words that come `min_count` times, grammar left out. Raises DataError where there is none."""
        spelled = [[_EDGE, *(w.word for w in words_of(sentence)), _EDGE] for sentence in sentences]
        counts = Counter(word for words in spelled for word in words if word != _EDGE)
        unscored = [word for word, _ in counts.most_common() if word not in lexicon]
        content = [w for w in unscored[_FUNCTION_WORDS:] if counts[w] >= min_count]
        words = sorted([w for w in counts if w in lexicon and counts[w] >= min_count] + content)
        if not words:
            raise DataError("no word of the corpus is frequent enough; pass more texts or lower probes.min_word_count")
        return cls(counts, words, _profiles(spelled, words, counts), lexicon)

    def nearest(self, word: str, *, sign: int, vowel: bool | None) -> list[str]:
        """Words of that sign (0: not in the lexicon) that could stand for `word`, best first.

        They keep like company and are close in frequency and, where they have a sign, in strength. `vowel`: whether
        they must begin with one, since an article stands before them.
        """
        key = (word, sign, vowel)
        if key not in self._found:
            self._found[key] = self._nearest(*key)
        return self._found[key]

    def _nearest(self, word: str, sign: int, vowel: bool | None) -> list[str]:
        row = self.row[word]
        fits = np.sign(self.values) == sign if sign else ~self.scored
        fits[row] = False
        if vowel is not None:
            fits &= self.vowel == vowel
        likeness = self.profiles @ self.profiles[[row]].toarray().ravel()
        strength = np.abs(np.abs(self.values) - abs(self.values[row])) if sign else 0.0
        cost = -2.0 * likeness + 0.2 * np.abs(self.log_count - self.log_count[row]) + 0.2 * strength
        fits &= likeness > _LEAST_LIKENESS
        best = np.argsort(np.where(fits, cost, np.inf), kind="stable")[:_NEAREST]
        return [self.words[i] for i in best if fits[i]]


def _profiles(spelled: Sequence[Sequence[str]], words: Sequence[str], counts: Counter[str]) -> sp.csr_array:
    """Unit rows [words, 2 neighbours] of square-rooted counts of the word before and the word after."""
    neighbours = [_EDGE, *(word for word, _ in counts.most_common(_CONTEXT_WORDS))]
    numbers = {word: i for i, word in enumerate([_EDGE, *counts])}
    row, column = _places(words, numbers), _places(neighbours, numbers)
    running = np.array([numbers[word] for sentence in spelled for word in sentence], dtype=np.int64)
    rows, columns = [], []
    for side, (centre, beside) in enumerate(((running[1:], running[:-1]), (running[:-1], running[1:]))):
        kept = (row[centre] >= 0) & (column[beside] >= 0)
        rows.append(row[centre[kept]])
        columns.append(column[beside[kept]] + side * len(neighbours))
    found = np.concatenate(rows), np.concatenate(columns)
    shape = len(words), 2 * len(neighbours)
    profiles = sp.csr_array(sp.coo_array((np.ones(len(found[0])), found), shape=shape)).sqrt()
    norms = np.sqrt(np.asarray(profiles.multiply(profiles).sum(axis=1)).ravel())
    return sp.csr_array(sp.diags_array(1.0 / np.maximum(norms, 1e-12)) @ profiles)


def _places(words: Sequence[str], numbers: Mapping[str, int]) -> NDArray[np.int64]:
    """The place of each numbered word among `words`, -1 of those that are not."""
    places = np.full(len(numbers), -1)
    places[[numbers[word] for word in words]] = np.arange(len(words))
    return places
