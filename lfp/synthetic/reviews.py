"""A small lexicon, and film reviews made up from it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lfp.synthetic.arrays import Random

LEXICON: Mapping[str, float] = {
    "good": 1.9, "great": 3.1, "wonderful": 2.7, "brilliant": 2.8, "charming": 2.8, "funny": 1.9, "beautiful": 2.9,
    "superb": 3.1, "perfect": 2.7, "delightful": 2.8, "clever": 2.0, "honest": 2.3, "warm": 0.9, "fresh": 1.3,
    "bad": -2.5, "awful": -2.0, "terrible": -2.1, "boring": -1.3, "dull": -1.7, "stupid": -2.4, "weak": -1.9,
    "disappointing": -2.2, "painful": -1.9, "ugly": -2.3, "lazy": -1.5, "ridiculous": -1.5, "horrible": -2.5,
    "annoying": -1.7, "loved": 2.9, "enjoyed": 2.3, "admired": 2.1, "hated": -3.2, "resented": -1.6, "regretted": -1.7,
    "masterpiece": 3.1, "triumph": 2.1, "treasure": 1.2, "mess": -1.5, "disaster": -3.1, "failure": -2.3,
}  # fmt: skip
_WORDS = list(LEXICON)
PRAISE_AND_BLAME: Mapping[str, tuple[list[str], list[str]]] = {
    "adjective": (_WORDS[:14], _WORDS[14:28]), "verb": (_WORDS[28:31], _WORDS[31:34]),
    "thing": (_WORDS[34:37], _WORDS[37:]),
}  # fmt: skip
PLAIN: Mapping[str, tuple[str, ...]] = {
    "noun": ("film", "movie", "plot", "script", "acting", "cast", "story", "ending", "pacing", "score", "scene"),
    "opener": ("I thought", "To my mind", "From the first scene", "By the end", "After an hour", "In truth"),
}  # fmt: skip
_PATTERNS = (
    "The {noun} was {adjective}", "{opener} the {noun} felt {adjective}", "A {adjective}, {adjective} {noun}",
    "My friends found the {noun} {adjective} and the {noun} {adjective}", "It is a {noun} about a family by the sea",
    "The {noun} is {adjective}, but the {noun} never quite arrives", "We saw it on a rainy afternoon in town",
    "There is not one {adjective} minute in this {noun}", "I {verb} the {noun} and {verb} the {noun}",
    "What a {thing}", "The {noun} alone makes it a {thing}", "Nobody in our row {verb} it",
)  # fmt: skip


def reviews(n: int, random: Random) -> list[str]:
    """So many reviews."""
    return [review(random) for _ in range(n)]


def review(random: Random) -> str:
    """A few sentences in one mood."""
    mood = random.uniform(0.1, 0.9)
    sentences = [_sentence(mood, random) for _ in range(random.integers(2, 5))]
    return "".join(s + str(random.choice([".", ".", ".", "!", "...\n"])) + " " for s in sentences).strip()


def _sentence(mood: float, random: Random) -> str:
    """A pattern filled in: praise with probability `mood`, blame otherwise."""

    def fill(slot: re.Match[str]) -> str:
        name = slot.group(1)
        if name in PRAISE_AND_BLAME:
            praise, blame = PRAISE_AND_BLAME[name]
            return str(random.choice(praise if random.random() < mood else blame))
        return str(random.choice(PLAIN[name]))

    return re.sub(r"\{(\w+)\}", fill, str(random.choice(_PATTERNS)))
