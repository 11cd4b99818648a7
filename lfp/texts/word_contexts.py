"""Contexts of words: how often words occur and beside which, which stands in for their part of speech."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp

from lfp.errors import DataError
from lfp.texts.words import words_of

_EDGE = "<edge>"
_CONTEXT_WORDS = 300  # neighbours that make up a word's profile
_FUNCTION_WORDS = 120  # the commonest unscored words are function words
_NEAREST = 12  # replacements are drawn among this many of the closest
_LEAST_LIKENESS = 0.1  # cosine of two words' profiles


class WordContexts:
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
    def from_sentences(cls, sentences: Sequence[str], lexicon: Mapping[str, float], *, min_count: int) -> WordContexts:
        """Profile the words that occur `min_count` times, except function words. Raises DataError without any."""
        spelled = [[_EDGE, *(w.word for w in words_of(sentence, lexicon)), _EDGE] for sentence in sentences]
        counts = Counter(word for words in spelled for word in words if word != _EDGE)
        unscored = [word for word, _ in counts.most_common() if word not in lexicon]
        content = [w for w in unscored[_FUNCTION_WORDS:] if counts[w] >= min_count]
        words = sorted([w for w in counts if w in lexicon and counts[w] >= min_count] + content)
        if not words:
            raise DataError("no word of the corpus is frequent enough; pass more texts or lower probes.min_word_count")
        return cls(counts, words, _profiles(spelled, words, counts), lexicon)

    def nearest(self, word: str, *, sign: int, vowel: bool | None) -> list[str]:
        """Find words of that sign (0: not in the lexicon) that could replace `word`, best first.

        They occur in similar contexts and are close in frequency and, where they have a sign, in strength. `vowel`:
        whether they must begin with one, since an article precedes them.
        """
        key = (word, sign, vowel)
        if key in self._found:
            return self._found[key]
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
        self._found[key] = [self.words[i] for i in best if fits[i]]
        return self._found[key]


def _profiles(spelled: Sequence[Sequence[str]], words: Sequence[str], counts: Counter[str]) -> sp.csr_array:
    """Build unit rows [words, 2 neighbours] of square-rooted counts of the word before and the word after."""
    neighbours = [_EDGE, *(word for word, _ in counts.most_common(_CONTEXT_WORDS))]
    numbers = {word: i for i, word in enumerate([_EDGE, *counts])}
    row, column = np.full(len(numbers), -1), np.full(len(numbers), -1)  # -1: neither a word nor a neighbour
    row[[numbers[word] for word in words]] = np.arange(len(words))
    column[[numbers[word] for word in neighbours]] = np.arange(len(neighbours))
    running = np.array([numbers[word] for sentence in spelled for word in sentence], dtype=np.int64)
    rows, columns = [], []
    for side, (centre, neighbour) in enumerate(((running[1:], running[:-1]), (running[:-1], running[1:]))):
        kept = (row[centre] >= 0) & (column[neighbour] >= 0)
        rows.append(row[centre[kept]])
        columns.append(column[neighbour[kept]] + side * len(neighbours))
    found = np.concatenate(rows), np.concatenate(columns)
    shape = len(words), 2 * len(neighbours)
    profiles = sp.csr_array(sp.coo_array((np.ones(len(found[0])), found), shape=shape)).sqrt()
    norms = np.sqrt(np.asarray(profiles.multiply(profiles).sum(axis=1)).ravel())
    return sp.csr_array(sp.diags_array(1.0 / np.maximum(norms, 1e-12)) @ profiles)
