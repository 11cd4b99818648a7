"""Writing whole reviews: a latent opinion, sentences that mostly follow it, and a star rating that reads them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TypeVar

from lfp.texts.lexicon import vader_lexicon, words_of
from precompute.reviews.render import Writer
from precompute.reviews.shapes import FAMILIES, SAME, TURNED, Shape

Choice = TypeVar("Choice")

LENGTH_WORDS = (30, 70)
PLANS = (
    "plot opinion opinion opinion",
    "plot opinion opinion opinion opinion",
    "opinion plot opinion opinion opinion",
    "opinion opinion plot opinion opinion",
    "opinion opinion opinion opinion plot",
    "opinion opinion opinion opinion",
    "opinion opinion opinion opinion opinion",
)
# From a review's latent opinion to the polarity of one sentence of it, in per cent.
MIXTURES = {
    2: {2: 50, 1: 35, 0: 8, -1: 7},
    1: {2: 18, 1: 56, 0: 12, -1: 12, -2: 2},
    0: {2: 12, 1: 25, 0: 26, -1: 25, -2: 12},
    -1: {2: 2, 1: 12, 0: 12, -1: 56, -2: 18},
    -2: {1: 7, 0: 8, -1: 35, -2: 50},
}
OPINION_WEIGHTS = {2: 26, 1: 18, 0: 12, -1: 18, -2: 26}
# Which families of shapes a sentence is drawn from, by the size of its polarity, in per cent. Negated and contrasted
# sentences are many, so that counting words misreads a review often enough to be seen.
FAMILY_WEIGHTS = {
    0: {"plain": 80, "balanced": 20},
    1: {"plain": 43, "negated": 25, "contrasted": 21, "hedged": 11},
    2: {"plain": 82, "negated": 18},
}
CONNECTED_SHARE = {True: 0.5, False: 0.12}  # where the sign has turned, and where it has not


@dataclass(frozen=True)
class Sentence:
    """A sentence of a review, the shape it has, and what it says of the film: -2 (awful) to 2 (superb)."""

    text: str
    shape: str
    polarity: int


@dataclass(frozen=True)
class Review:
    """A generated review; the last sentence tells its rating, 1 to 5 stars."""

    text: str
    rating: int
    sentences: tuple[Sentence, ...]


def generate(n: int, seed: int, *, zipf: float = 0.0) -> list[Review]:
    """Return n reviews; the i-th depends on the seed and i alone, so shards agree.

    `zipf` says how unevenly the sentiment words of a slot are used: 0 alike, 1 about as in people's writing.
    """
    return [_review(random.Random(f"{seed}:{index}"), zipf) for index in range(n)]


def rating_of(sentences: Sequence[Sentence]) -> int:
    """Return the stars that a reader of the sentences gives: their mean polarity, those of no opinion left out."""
    told = [sentence.polarity for sentence in sentences if sentence.polarity]
    if not told:
        return 3
    mean = sum(told) / len(told)
    return 3 + (mean >= 0.5) + (mean >= 1.5) - (mean <= -0.5) - (mean <= -1.5)


def word_score(text: str) -> float:
    """Return the sum of the VADER values of a text's words, blind to negation and contrast."""
    lexicon = vader_lexicon()
    return sum(lexicon.get(word.word, 0.0) for word in words_of(text))


def word_count_error(reviews: Sequence[Review]) -> float:
    """Return the share of reviews whose words, counted, contradict their rating.

    Reviews of three stars take no side and are left out; a sum of zero is a contradiction.
    """
    sided = [review for review in reviews if review.rating != 3]
    wrong = sum(word_score(review.text) * (review.rating - 3) <= 0 for review in sided)
    return wrong / len(sided) if sided else 0.0


def _review(rng: random.Random, zipf: float) -> Review:
    while True:
        sentences = _sentences(rng, zipf)
        text = " ".join(sentence.text for sentence in sentences)
        if LENGTH_WORDS[0] <= len(text.split()) <= LENGTH_WORDS[1]:
            return Review(text, rating_of(sentences), sentences)


def _sentences(rng: random.Random, zipf: float) -> tuple[Sentence, ...]:
    writer = Writer(rng, zipf=zipf)
    opinion = _weighted(rng, OPINION_WEIGHTS)
    sentences: list[Sentence] = []
    told: set[str] = set()
    for role in rng.choice(PLANS).split():
        polarity = _weighted(rng, MIXTURES[opinion]) if role == "opinion" else 0
        shape = _shape(rng, role, polarity, told)
        told.add(shape.name)
        opening = _opening(rng, shape, polarity, sentences)
        sentences.append(Sentence(writer.sentence(shape, polarity, opening=opening), shape.name, polarity))
    shape = _shape(rng, "stars", 0, told)
    rating = rating_of(sentences)
    return (*sentences, Sentence(writer.rate(shape, rating), shape.name, 0))


def _opening(rng: random.Random, shape: Shape, polarity: int, before: Sequence[Sentence]) -> str:
    last = next((sentence.polarity for sentence in reversed(before) if sentence.polarity), 0)
    if not (shape.joins and polarity and last):
        return ""
    turned = last * polarity < 0
    if rng.random() >= CONNECTED_SHARE[turned]:
        return ""
    opened = {sentence.text.partition(",")[0].casefold() for sentence in before}
    return rng.choice([opening for opening in (TURNED if turned else SAME) if opening not in opened])


def _shape(rng: random.Random, role: str, polarity: int, told: set[str]) -> Shape:
    while True:
        family = _weighted(rng, FAMILY_WEIGHTS[abs(polarity)]) if role == "opinion" else role
        shapes, cum_weights = _fitting(family, polarity)
        shape = rng.choices(shapes, cum_weights=cum_weights)[0]
        if shape.name not in told:
            return shape


@cache
def _fitting(family: str, polarity: int) -> tuple[tuple[Shape, ...], tuple[float, ...]]:
    shapes = tuple(shape for shape in FAMILIES[family] if polarity in shape.polarities)
    return shapes, tuple(accumulate(shape.weight for shape in shapes))


def _weighted(rng: random.Random, weights: dict[Choice, int]) -> Choice:
    return rng.choices(list(weights), weights=list(weights.values()))[0]
