"""The word lists of the generated reviews: loading them, and drawing by slot, sign and strength."""

import hashlib
import tomllib
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from lfp.texts.lexicon import vader_lexicon

SIGNS = {1: "good", -1: "bad", 0: "plain"}

# The share of strong sentences a word stands in grows with its strength, from none here to all there. A model can so
# read from its company how strong a word is, and not only its sign.
WEAKEST_IN_STRONG, STRONGEST_IN_MILD = 1.3, 2.7


@cache
def word_lists() -> dict[str, Any]:
    """Return the sentiment words and their neutral stand-ins: slot, then group, then good, bad and plain."""
    lists = _read("words.toml")
    return {
        slot: {group: {sign: words.split() for sign, words in by_sign.items()} for group, by_sign in groups.items()}
        for slot, groups in lists.items()
    }


@cache
def scenery() -> dict[str, Any]:
    """Return what reviews talk about: aspects, nouns, kinds, degrees, cast and odd bits."""
    tables = _read("scenery.toml")
    tables["cast"] = {key: value.split() if isinstance(value, str) else value for key, value in tables["cast"].items()}
    return tables


@cache
def lexicon_words() -> dict[str, float]:
    """Return every VADER entry the reviews use, with its value."""
    return {word: vader_lexicon()[word] for word in sorted(_all_words("good") | _all_words("bad"))}


@cache
def neutral_words() -> frozenset[str]:
    """Return the words outside the lexicon that stand where sentiment words do."""
    return frozenset(_all_words("plain"))


def swaps(slot: str, kind: str = "all", *, sign: int) -> tuple[str, ...]:
    """Return the words of one sign (1, -1, 0) that fit a slot, so that one can replace another in a sentence.

    `kind` is the kind of noun an adjective is said of (film, text, look, ...); other slots have only "all".
    """
    return tuple(dict.fromkeys(word for words, _ in _groups(slot, kind, sign) for word in words))


@cache
def pool(slot: str, kind: str, sign: int, level: int, zipf: float = 0.0) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Return the words that fit a slot and their cumulative weights; `level` is 2 in strong sentences, 1 in mild.

    With `zipf` the word of rank r, in an order that stands for all reviews, weighs r ** -zipf times what it does
    without.
    """
    weights: dict[str, float] = {}
    for words, share in _groups(slot, kind, sign):
        for word in words:
            weights[word] = max(weights.get(word, 0.0), share * (_fit(strength(word), level) if sign else 1.0))
    ranked = sorted(weights, key=_place)
    drawable = {word: weights[word] * (1 + ranked.index(word)) ** -zipf for word in weights if weights[word] > 0}
    return tuple(drawable), tuple(accumulate(drawable.values()))


def _place(word: str) -> bytes:
    """A word's place in an order that has nothing to do with its meaning or strength."""
    return hashlib.sha256(word.encode()).digest()


def strength(word: str) -> float:
    """Return the size of a word's VADER value, 0 for a word the lexicon is silent on."""
    return abs(vader_lexicon().get(word, 0.0))


def degrees(family: str, word: str) -> tuple[str, ...]:
    """Return the degree words ("mildly", "utterly") that fit a word's strength."""
    size = strength(word)
    if not size:
        return tuple(scenery()["degrees"]["plain"].get(family, ()))
    return tuple(degree for degree, (low, high) in scenery()["degrees"][family].items() if low <= size <= high)


def _fit(size: float, level: int) -> float:
    strong = (size - WEAKEST_IN_STRONG) / (STRONGEST_IN_MILD - WEAKEST_IN_STRONG)
    strong = min(1.0, max(0.0, strong))
    return strong if level == 2 else 1.0 - strong


def _groups(slot: str, kind: str, sign: int) -> list[tuple[list[str], float]]:
    shares = scenery()["kinds"][kind] if slot == "adj" else {"all": 1.0}
    return [(word_lists()[slot][group][SIGNS[sign]], share) for group, share in shares.items()]


def _all_words(sign: str) -> set[str]:
    return {word for groups in word_lists().values() for group in groups.values() for word in group[sign]}


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
