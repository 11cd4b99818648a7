"""Turning a sentence shape into English: filling slots, agreement, articles, capitals."""

import random
import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from precompute.reviews.shapes import Shape
from precompute.reviews.words import degrees, pool, scenery, word_lists

COUNTS = ("zero", "one", "two", "three", "four", "five")
AGREEMENT = {"is": ("is", "are"), "was": ("was", "were"), "has": ("has", "have")}
DEGREE_FAMILIES = {
    "adj": "adj", "feeling": "adj", "more": "compare", "thing": "noun", "nick": "person", "quality": "amount",
    "things": "count", "moves": "verb", "moved": "verb", "judged": "verb",
}  # fmt: skip
TAIL_SLOTS = {"adj", "feeling", "thing", "quality", "things", "how", "doing", "nick"}
TAIL_SHARE = 0.9
DEGREE_SHARE = 0.6
STRONG_FLIP_SHARE = 0.5
# "an awful" but "a useful", "a unified", "a European"; "a happy" but "an honest", "an hour".
TAKES_AN = re.compile(r"(?!use|uni[fqtv]|euro|eulog|one\b|once)[aeiou]|honest|honour|hour|heir")


class Noun(NamedTuple):
    """A thing something is said of: its text, the kind of adjectives that fit, and its number (mass, one, many)."""

    text: str
    kind: str
    number: str


class Slot(NamedTuple):
    """A parsed slot: `{flip maybe adj:person}` has name adj, argument person and two modifiers."""

    name: str
    argument: str
    modifiers: frozenset[str]


class Writer:
    """Writes the sentences of one review: one cast throughout, and no noun or sentiment word twice."""

    def __init__(self, rng: random.Random, *, zipf: float = 0.0) -> None:
        self._rng = rng
        self._zipf = zipf
        self._rating = 0
        self._used: set[str] = set()
        self._cast: dict[str, str] = {}
        self._noun = Noun("film", "film", "one")
        self._polarity = 0

    def sentence(self, shape: Shape, polarity: int, *, opening: str = "") -> str:
        """Return a sentence of this shape that says `polarity`, after an opening connective if any."""
        self._polarity = polarity
        filled = "".join(part if isinstance(part, str) else self._fill(part) for part in parse(shape.template))
        filled += self._tail(shape)
        return finish(f"{opening}, {filled}" if opening else filled)

    def rate(self, shape: Shape, rating: int) -> str:
        """Return a sentence of this shape that tells the rating."""
        self._rating = rating
        return self.sentence(shape, 0)

    def _fill(self, slot: Slot) -> str:
        if slot.name in word_lists():
            return self._sentiment(slot, self._noun.kind if slot.name == "adj" else "all")
        if slot.name in AGREEMENT:
            return AGREEMENT[slot.name][self._noun.number == "many"]
        if slot.name in scenery()["bits"]:
            return self._fresh(scenery()["bits"][slot.name])
        return _HANDLERS[slot.name](self, slot)

    def _tail(self, shape: Shape) -> str:
        """Words after a sentiment word that ends the sentence and has its sign, by its sign and strength."""
        last = parse(shape.template)[-1]
        if isinstance(last, str) or last.name not in TAIL_SLOTS or last.modifiers & {"flip", "good", "bad"}:
            return ""
        if self._rng.random() >= TAIL_SHARE:
            return ""
        return f" {self._fresh(scenery()['tails'][str(self._polarity)])}"

    def _sentiment(self, slot: Slot, kind: str) -> str:
        sign, level = self._sign_and_level(slot)
        words, cum_weights = pool(slot.name, kind, sign, level, self._zipf)
        word = words[0]
        for _ in range(20):
            word = self._rng.choices(words, cum_weights=cum_weights)[0]
            if word not in self._used:
                break
        self._used.add(word)
        return f"{self._degree(slot, word)}{word}"

    def _sign_and_level(self, slot: Slot) -> tuple[int, int]:
        sign = (self._polarity > 0) - (self._polarity < 0)
        if slot.modifiers & {"good", "bad"}:
            sign = 1 if "good" in slot.modifiers else -1
        elif "flip" not in slot.modifiers:
            return sign, abs(self._polarity)
        else:
            sign = -sign
        return sign, 2 if self._rng.random() < STRONG_FLIP_SHARE else 1

    def _degree(self, slot: Slot, word: str) -> str:
        wanted = "very" in slot.modifiers or ("maybe" in slot.modifiers and self._rng.random() < DEGREE_SHARE)
        fitting = degrees(DEGREE_FAMILIES[slot.name], word) if wanted else ()
        return f"{self._rng.choice(fitting)} " if fitting else ""

    def _fresh(self, choices: list[str]) -> str:
        unused = [choice for choice in choices if choice not in self._used]
        choice = self._rng.choice(unused or choices)
        self._used.add(choice)
        return choice

    def _aspect(self, slot: Slot) -> str:
        fitting = [noun for noun in aspects(slot.argument) if slot.name == "aspect" or noun.number != "many"]
        self._noun = self._rng.choice([noun for noun in fitting if noun.text not in self._used] or fitting)
        self._used.add(self._noun.text)
        return self._noun.text

    def _named_noun(self, slot: Slot) -> str:
        entry = scenery()["nouns"][slot.name]
        self._noun = Noun(self._rng.choice(entry["words"]), entry["kind"], "one")
        return self._noun.text

    def _phrase(self, slot: Slot) -> str:
        if slot.argument:
            self._fill(Slot(slot.argument, "", frozenset()))
        else:
            self._aspect(Slot("aspect", "", frozenset()))
        adjective = self._sentiment(slot._replace(name="adj"), self._noun.kind)
        article = "a " if self._noun.number == "one" else ""
        return f"{article}{adjective} {self._noun.text}"

    def _kind(self, slot: Slot) -> str:
        self._noun = Noun(slot.argument, slot.argument, "one")
        return ""

    def _role(self, slot: Slot) -> str:
        if slot.name not in self._cast:
            self._cast[slot.name] = self._fresh(scenery()["cast"]["role"])
        self._noun = Noun(self._cast[slot.name], "person", "one")
        return self._noun.text

    def _town(self, slot: Slot) -> str:
        return self._cast.setdefault(slot.name, self._rng.choice(scenery()["cast"]["town"]))

    def _person(self, slot: Slot) -> str:
        if slot.name in self._cast:
            return self._cast[slot.name].split()[-1]  # a surname will do the second time
        first, last = (self._fresh(scenery()["cast"][part]) for part in ("first", "last"))
        self._cast[slot.name] = f"{first} {last}"
        return self._cast[slot.name]

    def _title(self, slot: Slot) -> str:
        if slot.name not in self._cast:
            first, second = (self._fresh(scenery()["cast"][part]) for part in ("title_first", "title_second"))
            self._cast[slot.name] = f"The {first} {second}"
        return self._cast[slot.name]

    def _count(self, slot: Slot) -> str:
        count = COUNTS[self._rating]
        return count if slot.name == "count" else f"{count} {'star' if self._rating == 1 else 'stars'}"


_HANDLERS: dict[str, Callable[[Writer, Slot], str]] = {
    "aspect": Writer._aspect, "single": Writer._aspect, "phrase": Writer._phrase, "kind": Writer._kind,
    "film": Writer._named_noun, "scene": Writer._named_noun, "half": Writer._named_noun,
    "performance": Writer._named_noun, "role": Writer._role, "other_role": Writer._role, "town": Writer._town,
    "lead": Writer._person, "second": Writer._person, "director": Writer._person,
    "title": Writer._title, "rival": Writer._title, "count": Writer._count, "stars": Writer._count,
}  # fmt: skip


@cache
def parse(template: str) -> tuple[str | Slot, ...]:
    """Split a template into plain text and slots."""
    parts: list[str | Slot] = []
    for index, part in enumerate(re.split(r"\{(.*?)\}", template)):
        if index % 2 == 0:
            parts.append(part)
            continue
        *modifiers, name = part.split()
        name, _, argument = name.partition(":")
        parts.append(Slot(name, argument, frozenset(modifiers)))
    return tuple(part for part in parts if part != "")


@cache
def aspects(kind: str = "") -> tuple[Noun, ...]:
    """Return the aspects of a film a review can speak of: of one kind, of a set of kinds, or all."""
    kinds = scenery()["kind_sets"].get(kind, [kind] if kind else list(scenery()["aspects"]))
    return tuple(
        Noun(text, its_kind, number)
        for its_kind, by_number in scenery()["aspects"].items()
        if its_kind in kinds
        for number, texts in by_number.items()
        for text in texts
    )


def finish(text: str) -> str:
    """Return the text as a sentence: "an" before vowels, a capital first, a stop last."""
    text = re.sub(r"\b([Aa]) (?=(\w+))", lambda match: f"{match[1]}{'n' if takes_an(match[2]) else ''} ", text)
    text = re.sub(r"(^|[?!] )([a-z])", lambda match: match[1] + match[2].upper(), text)
    return text if text[-1] in ".!?" else f"{text}."


def takes_an(word: str) -> bool:
    """Whether a word takes "an" rather than "a"."""
    return TAKES_AN.match(word.casefold()) is not None


def replace_word(text: str, old: str, new: str) -> str:
    """Replace one word of a sentence, keeping its capital and the article before it right."""

    def put(match: re.Match[str]) -> str:
        word = new[0].upper() + new[1:] if match["word"][0].isupper() else new
        article = match["article"] or ""
        if article:
            article = article[0] + ("n " if takes_an(word) else " ")
        return article + word

    return re.sub(rf"(?i)(?P<article>\ban? )?\b(?P<word>{re.escape(old)})\b", put, text, count=1)
