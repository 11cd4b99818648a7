"""What a rule can say of a token and of what precedes it: its word, endings, classes, the word before, the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from lfp.labels.types import Excerpt
from lfp.texts.words import Word, words_of

Kind = Literal["word", "part", "ending", "stem", "class", "after", "after_class", "start"]

_CLASSES: Mapping[str, str] = {
    "pronouns": "i you he she it we they me him her us them himself herself itself myself yourself themselves",
    "articles": "a an the",
    "determiners": "this that these those my your his its our their some any every each all both",
    "prepositions": "of in on at by for with from to into about over under after before between through during "
    "without against around than as like near off out up down",
    "conjunctions": "and or but nor so yet because although though while if when unless since whether where",
    "forms of “be”": "be is are was were am been being isn't wasn't aren't weren't",
    "auxiliary verbs": "have has had do does did will would can could should may might must shall",
    "negations": "not no never nothing none nobody neither nor without hardly cannot don't doesn't didn't isn't "
    "wasn't aren't can't won't couldn't wouldn't shouldn't",
    "intensifiers": "very so too really quite extremely absolutely truly totally completely rather pretty",
    "question words": "what which who whom whose how why where when",
}
_CLASSES_OF = {
    word: tuple(name for name, words in _CLASSES.items() if word in words.split())
    for word in " ".join(_CLASSES.values()).split()
}
_ENDS = frozenset(".!?")
_OPENING = frozenset("\"'“‘(«*")
_ENDINGS, _STEMS = (4, 3, 2), (6, 5, 4)


class Trait(NamedTuple):
    """Something that is true of a token, or with the kinds `after`, `after_class` and `start` of what precedes it."""

    kind: Kind
    value: str


class Place(NamedTuple):
    """A token of an excerpt: its traits, the traits of what precedes it, its activation, and the number of its word.

    Parts of one word share the number; other tokens have numbers of their own.
    """

    own: tuple[Trait, ...]
    before: tuple[Trait, ...]
    activation: float
    word: int

    @property
    def name(self) -> str:
        """The word that the token is part of; for a token of no word, the token's own text."""
        return self.own[0].value


class TraitReader:
    """Reads excerpts as places; `lexicon` holds the words that the feedback scores, by their value."""

    def __init__(self, lexicon: Mapping[str, float]) -> None:
        self._lexicon = lexicon
        self._known: dict[tuple[str, str, str, bool], tuple[Trait, ...]] = {}
        self._known_before: dict[tuple[str, bool, bool], tuple[Trait, ...]] = {}

    def read(self, excerpt: Excerpt) -> tuple[Place, ...]:
        """Read each token with the word it is part of and the words before that."""
        places, previous, word_number = [], "", -1
        is_start, at_text_start = excerpt.position == excerpt.at, excerpt.position == excerpt.at
        before, last = self._before("", is_start=is_start, at_text_start=at_text_start), -1
        for number, (token, word, activation) in enumerate(
            zip(excerpt.tokens, _words_at(excerpt), excerpt.activations, strict=True)
        ):
            text = token.strip()
            if word is None or word.start != last:
                before = self._before(previous, is_start=is_start, at_text_start=at_text_start)
                word_number, at_text_start = number, False
            if word is not None:
                starts = Trait("start", "sentence") in before
                own = self._of_word(word.word, excerpt.text[word.start : word.end], text, starts=starts)
                previous, is_start, last = word.word, False, word.start
            else:
                own, last = self._of_other(token), -1
                previous = text or previous
                is_start = _starts_sentence(token, is_start=is_start)
            places.append(Place(own, before, activation, word_number))
        return tuple(places)

    def _of_word(self, word: str, surface: str, text: str, *, starts: bool) -> tuple[Trait, ...]:
        """List the traits of a token that is a word or, where `text` is not all of its `surface`, a part of it."""
        key = word, surface, text, starts
        if key not in self._known:
            self._known[key] = tuple(self._list_traits(word, surface, text, starts=starts))
        return self._known[key]

    def _list_traits(self, word: str, surface: str, text: str, *, starts: bool) -> Iterator[Trait]:
        yield Trait("word", word)
        if text != surface:
            yield Trait("part", _mark_part(text, surface))
        yield from (Trait("ending", word[-n:]) for n in _ENDINGS if len(word) >= n + 2)
        yield from (Trait("stem", word[:n]) for n in _STEMS if len(word) > n)
        yield from (Trait("class", name) for name in self._classes(word))
        if not starts and surface[:1].isupper() and surface[1:2].islower():
            yield Trait("class", "capitalised words")
        if len(surface) > 1 and surface.isupper():
            yield Trait("class", "words in capitals")

    def _of_other(self, token: str) -> tuple[Trait, ...]:
        """List the traits of a token that is not part of one word."""
        text = token.strip()
        if not text:
            return (Trait("word", "↵" if "\n" in token else "␣"),)
        traits = [Trait("word", text)]
        if any(character.isdigit() for character in text):
            traits.append(Trait("class", "numbers"))
        elif not any(character.isalnum() for character in text):
            traits.append(Trait("class", "punctuation"))
            if text[-1] in _ENDS:
                traits.append(Trait("class", "ends of sentences"))
        return tuple(traits)

    def _before(self, previous: str, *, is_start: bool, at_text_start: bool) -> tuple[Trait, ...]:
        """List the traits of what precedes a token."""
        key = previous, is_start, at_text_start
        if key not in self._known_before:
            traits = [Trait("start", "text")] if at_text_start else []
            if is_start:
                traits.append(Trait("start", "sentence"))
            if previous:
                traits.append(Trait("after", previous))
                traits.extend(Trait("after_class", name) for name in self._classes(previous))
            self._known_before[key] = tuple(traits)
        return self._known_before[key]

    def _classes(self, word: str) -> tuple[str, ...]:
        value = self._lexicon.get(word, 0.0)
        scored = ("positive words",) if value > 0 else ("negative words",) if value < 0 else ()
        return (*scored, *_CLASSES_OF.get(word, ()))


def _words_at(excerpt: Excerpt) -> Sequence[Word | None]:
    """Find the word that each token is, or is a part of; None for tokens with more or other than letters of a word."""
    words, found, start, first = words_of(excerpt.text), list[Word | None](), 0, 0
    for token in excerpt.tokens:
        low = start + len(token) - len(token.lstrip())
        high = max(low, start + len(token.rstrip()))
        start += len(token)
        while first < len(words) and words[first].end <= low:
            first += 1
        word = words[first] if first < len(words) else None
        found.append(word if word is not None and word.start <= low < high <= word.end else None)
    return found


def _starts_sentence(token: str, *, is_start: bool) -> bool:
    """Return whether a sentence starts after a token that is no word; `is_start` says so of the token itself."""
    text = token.strip()
    if not text:
        return is_start or "\n" in token
    return any(character in _ENDS for character in text) or (is_start and text[0] in _OPENING)


def _mark_part(text: str, surface: str) -> str:
    """Write a part of a word with a hyphen on each side where the word has more letters."""
    part = text.casefold()
    if surface.startswith(text):
        return f"{part}-"
    return f"-{part}" if surface.endswith(text) else f"-{part}-"
