"""Texts cut into words and tokens, with the lexicon's value of each."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lfp.synthetic.arrays import Array
from lfp.synthetic.reviews import LEXICON

_PIECES = re.compile(r"\s?[^\W\d_]+|\s?[^\s]|\s+")


@dataclass(frozen=True)
class Corpus:
    """Texts cut into tokens; arrays are over all tokens of all texts, one after the other."""

    texts: Sequence[str]
    pieces: Sequence[str]
    words: Sequence[str]
    offsets: Array  # [n_texts + 1] first token of each text
    starts: Array  # [n_tokens] first character
    type: Array  # [n_tokens] index into pieces
    word: Array  # [n_tokens] index into words
    is_last: Array  # [n_tokens] last token of its word

    @cached_property
    def sizes(self) -> Array:
        """Tokens of each text."""
        return np.diff(self.offsets)

    @cached_property
    def text(self) -> Array:
        """Text of each token."""
        return np.repeat(np.arange(len(self.texts)), self.sizes)

    @cached_property
    def position(self) -> Array:
        """Place of each token in its text."""
        return np.arange(len(self.type)) - np.repeat(self.offsets[:-1], self.sizes)

    @cached_property
    def word_value(self) -> Array:
        """Lexicon value a word, NaN where the lexicon is silent."""
        return np.array([LEXICON.get(word, np.nan) for word in self.words], dtype=np.float64)

    @cached_property
    def feedback(self) -> Array:
        """True feedback a token, NaN where there is none."""
        return np.where(self.is_last, self.word_value[self.word], np.nan)


def cut(texts: Sequence[str]) -> Corpus:
    """Cuts texts as byte-pair tokenizers do: a leading space belongs to its word, a long word is two tokens."""
    pieces: dict[str, int] = {}
    words = {word: number for number, word in enumerate(LEXICON)}
    columns: list[tuple[int, int, int, bool]] = []
    offsets = [0]
    for text in texts:
        for match in _PIECES.finditer(text):
            word = words.setdefault(match.group().strip().casefold(), len(words))
            cuts = [match.start(), match.start() + 6, match.end()] if len(match.group()) > 9 else [*match.span()]
            for start, end in itertools.pairwise(cuts):
                columns.append((start, pieces.setdefault(text[start:end], len(pieces)), word, end == match.end()))
        offsets.append(len(columns))
    starts, type_, word_, last = np.array(columns, dtype=np.int64).reshape(-1, 4).T
    return Corpus(texts, list(pieces), list(words), np.array(offsets), starts, type_, word_, last.astype(bool))
