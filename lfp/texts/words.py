"""Words of a text in any script: letters with their marks; where no spaces are written, entries of a lexicon."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

_LETTERS = r"[^\W\d_]+"
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff]+"
)
"""Runs of scripts written without spaces: Thai, Lao, Tibetan, Burmese, Khmer, Tai, kana, Chinese characters."""
_OPTIONAL = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]"
)
"""Hebrew and Arabic points and the Arabic stroke, which most texts leave out."""
_LONGEST_ENTRY = 16


@dataclass(frozen=True)
class Word:
    """A word of a text in its normal form, with its character span [start, end)."""

    word: str
    start: int
    end: int


def words_of(text: str, lexicon: Container[str] = ()) -> list[Word]:
    """Find the words of a text in order: letters with their marks, and apostrophes inside.

    In scripts without spaces a word is the longest entry of the lexicon that begins at a character, else that character
    with its marks.
    """
    words = [Word(normal_form(found.group()), found.start(), found.end()) for found in _pattern().finditer(text)]
    if text.isascii() or not _SPACELESS.search(text):
        return words
    return [part for word in words for part in _split(text, word, lexicon)]


def normal_form(word: str) -> str:
    """Return the form in which words are compared: casefolded, composed, without points that may be left out."""
    if word.isascii():
        return word.casefold()
    return _OPTIONAL.sub("", unicodedata.normalize("NFC", unicodedata.normalize("NFC", word).casefold()))


def is_word(text: str) -> bool:
    """Return whether a text is a single word, or an entry of a script without spaces."""
    return _pattern().fullmatch(text) is not None


def is_spaceless(word: str) -> bool:
    """Return whether a word has a character of a script that is written without spaces."""
    return not word.isascii() and _SPACELESS.search(word) is not None


def word_tokens(words: Sequence[Word], token_starts: Sequence[int], n_characters: int) -> list[tuple[int, ...]]:
    """Find the token positions that each word overlaps, in order; a token ends where the next starts.

    An empty token is a later part of the character before it, and belongs to that character's word.
    """
    ends = [*token_starts[1:], n_characters]
    found, first = [], 0
    for word in words:
        while first < len(ends) and ends[first] <= word.start:
            first += 1
        last = first
        while last < len(ends) and (token_starts[last] < word.end or (last > first and ends[last] == word.end)):
            last += 1
        found.append(tuple(range(first, last)))
    return found


@functools.cache
def _pattern() -> re.Pattern[str]:
    """Build the pattern of a word; in scripts without spaces it matches a whole run."""
    marks = "".join(re.escape(chr(code)) for code in range(0x300, 0x1F000) if unicodedata.category(chr(code))[0] == "M")
    part = rf"{_LETTERS}(?:[{marks}\u200c\u200d]+(?:{_LETTERS})?)*"
    return re.compile(rf"{part}(?:['’]{part})*")


def _split(text: str, word: Word, lexicon: Container[str]) -> Iterator[Word]:
    """Split a word where its script writes no spaces."""
    at = word.start
    for run in _SPACELESS.finditer(text, word.start, word.end):
        if run.start() > at:
            yield Word(normal_form(text[at : run.start()]), at, run.start())
        yield from _segment(text, run.start(), run.end(), lexicon)
        at = run.end()
    if at == word.start:
        yield word
    elif at < word.end:
        yield Word(normal_form(text[at : word.end]), at, word.end)


def _segment(text: str, start: int, end: int, lexicon: Container[str]) -> Iterator[Word]:
    while start < end:
        stops = range(min(end, start + _LONGEST_ENTRY), start, -1)
        stop = next((stop for stop in stops if normal_form(text[start:stop]) in lexicon), start + 1)
        while stop < end and unicodedata.category(text[stop])[0] == "M":
            stop += 1
        yield Word(sys.intern(normal_form(text[start:stop])), start, stop)
        start = stop
