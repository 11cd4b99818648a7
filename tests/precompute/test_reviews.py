"""The generated reviews: their words, their English, and what a reward that counts words makes of them."""

import random
import re
from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise
from statistics import fmean, median

import pytest

from lfp.texts.lexicon import vader_lexicon
from precompute.reviews import (
    SHAPES,
    Review,
    Sentence,
    aspects,
    generate,
    lexicon_words,
    neutral_words,
    rating_of,
    replace_word,
    swaps,
    word_count_error,
    word_score,
)
from precompute.reviews.render import Slot, Writer, parse
from precompute.reviews.shapes import FAMILIES, SAME, TURNED
from precompute.reviews.words import scenery, word_lists

# Stems no used word may begin with, and words none may be.
FORBIDDEN_STEMS = """
arse assault asshole bastard bitch bullshit cock crap cunt damn dick dyke fag fuck gay goddam heroin hitler
holocaust idiot imbecile incest jesus jewish kike lesbian lunatic molest moron murder muslim nazi negro nigg orgasm
pedo penis piss porn prick prostitut puke pussy queer racis rape rapi retard satan seduc sexy shit slave slut
spastic suicid terroris tits tranny twat vagina wank whore
"""
FORBIDDEN_WORDS = """
abuse abused abusive allah ass asses christ dead god hell hitch kill killer raping savages sex
"""
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}


@cache
def corpus() -> tuple[Review, ...]:
    return tuple(generate(8000, 0))


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.casefold())


def family_of(name: str) -> str:
    return next(family for family, shapes in FAMILIES.items() if any(shape.name == name for shape in shapes))


@cache
def word_counts() -> Counter[str]:
    return Counter(word for review in corpus() for word in words_of(review.text))


# Words and shapes.


def test_there_are_enough_shapes_aspects_and_words():
    assert len(SHAPES) >= 60
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
    assert len({aspect.text for aspect in aspects()}) >= 30
    assert len(lexicon_words()) >= 900
    assert len(neutral_words()) >= 150


@pytest.mark.parametrize(("name", "sign"), [("good", 1), ("bad", -1)])
def test_listed_words_are_in_the_lexicon_with_the_sign_they_are_filed_under(name, sign):
    wrong = [
        (slot, word, vader_lexicon().get(word))
        for slot, groups in word_lists().items()
        for group in groups.values()
        for word in group[name]
        if sign * vader_lexicon().get(word, 0.0) < 0.35
    ]
    assert wrong == []


def test_no_word_is_listed_twice_in_a_group():
    for slot, groups in word_lists().items():
        for group in groups.values():
            listed = [word for sign in ("good", "bad", "plain") for word in group[sign]]
            assert len(listed) == len(set(listed)), slot


def test_neutral_words_scenery_and_frames_are_outside_the_vader_lexicon():
    frames = [part for shape in SHAPES for part in parse(shape.template) if isinstance(part, str)]
    texts = [*neutral_words(), *frames, *SAME, *TURNED]
    texts += _strings({key: value for key, value in scenery().items() if key not in ("kinds", "kind_sets")})
    assert {word for text in texts for word in words_of(text)} & vader_lexicon().keys() == set()


def _strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            # Degree words are keys; the other keys are names of ours.
            yield from [key] if isinstance(inner, list) and inner and isinstance(inner[0], float) else []
            yield from _strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)


def test_no_forbidden_word_is_used():
    used = set(word_counts()) | set(lexicon_words())
    assert {word for word in used if word.startswith(tuple(FORBIDDEN_STEMS.split()))} == set()
    assert used & set(FORBIDDEN_WORDS.split()) == set()


def test_every_word_is_used_often_and_in_several_shapes():
    shapes = defaultdict(set)
    for review in corpus():
        for sentence in review.sentences:
            for word in words_of(sentence.text):
                shapes[word].add(sentence.shape)
    counts = {word: word_counts()[word] for word in lexicon_words()}
    assert min(counts.values()) >= 15, sorted(counts.items(), key=lambda item: item[1])[:5]
    assert fmean(count >= 20 for count in counts.values()) >= 0.99
    assert median(counts.values()) >= 40
    assert min(len(shapes[word]) for word in lexicon_words()) >= 2
    assert fmean(len(shapes[word]) >= 3 for word in lexicon_words()) >= 0.99
    assert median(len(shapes[word]) for word in lexicon_words()) >= 10
    assert all(word_counts()[word.casefold()] for word in neutral_words())


def test_vocabulary_is_of_the_size_of_a_small_model():
    assert 1800 <= len(word_counts()) <= 3200


# Strength.


def test_degree_words_go_with_words_of_their_strength():
    after = defaultdict(list)
    for review in corpus():
        tokens = words_of(review.text)
        for degree, word in pairwise(tokens):
            if word in lexicon_words():
                after[degree].append(abs(lexicon_words()[word]))
    for weak in ("mildly", "faintly", "minor", "slightly"):
        assert max(after[weak]) <= 1.5, weak
    for strong in ("utterly", "absolutely", "simply", "thoroughly", "complete", "sheer"):
        assert min(after[strong]) >= 1.9, strong
    means = [fmean(after[degree]) for degree in ("mildly", "rather", "really", "utterly")]
    assert means == sorted(means)
    assert all(len(after[degree]) > 50 for degree in ("mildly", "rather", "really", "utterly"))


def test_company_tells_sign_and_strength():
    ratings = defaultdict(list)
    for review in corpus():
        for word in set(words_of(review.text)) & lexicon_words().keys():
            ratings[word].append(review.rating)
    mean = {word: fmean(values) for word, values in ratings.items()}
    told = [(mean[word] > 3) == (value > 0) for word, value in lexicon_words().items()]
    assert fmean(told) > 0.85
    for sign in (1, -1):
        strong = fmean(sign * mean[word] for word, value in lexicon_words().items() if sign * value >= 2.4)
        weak = fmean(sign * mean[word] for word, value in lexicon_words().items() if 0 < sign * value <= 1.4)
        assert strong > weak + 0.2


# What sentences and reviews say.


def test_plain_sentences_say_what_their_words_say():
    for review in corpus()[:3000]:
        for sentence in review.sentences:
            score = word_score(sentence.text)
            if family_of(sentence.shape) in ("plain", "hedged"):
                assert (score > 0) - (score < 0) == (sentence.polarity > 0) - (sentence.polarity < 0), sentence
            elif family_of(sentence.shape) in ("plot", "stars"):
                assert not set(words_of(sentence.text)) & vader_lexicon().keys(), sentence


def test_wholly_negated_sentences_say_the_opposite_of_their_words():
    seen = set()
    wholly = {shape.name for shape in FAMILIES["negated"] if _flips_all(shape.template)}
    for review in corpus():
        for sentence in review.sentences:
            if sentence.shape in wholly:
                assert word_score(sentence.text) * sentence.polarity < 0, sentence
                seen.add(sentence.shape)
    assert len(seen) >= 20


def test_negated_and_contrasted_shapes_flip_a_word():
    for shape in FAMILIES["negated"] + FAMILIES["contrasted"]:
        assert "{flip " in shape.template, shape.name
    mixed = {shape.name for shape in FAMILIES["negated"] if not _flips_all(shape.template)}
    assert mixed == {"not_but", "expected_got", "instead_of", "not_to_judge"}


def _flips_all(template: str) -> bool:
    slots = [part for part in parse(template) if isinstance(part, Slot)]
    return all("flip" in slot.modifiers for slot in slots if slot.name in word_lists() or slot.name == "phrase")


def test_rating_is_the_reading_of_the_sentences_and_the_last_one_tells_it():
    for review in corpus():
        assert review.text == " ".join(sentence.text for sentence in review.sentences)
        assert review.rating == rating_of(review.sentences)
        told = next(word for word in words_of(review.sentences[-1].text) if word in NUMBERS)
        assert NUMBERS[told] == review.rating
        assert family_of(review.sentences[-1].shape) == "stars"


@pytest.mark.parametrize(
    ("polarities", "rating"),
    [
        ((2, 2, 2), 5),
        ((2, 1), 5),
        ((2, 1, 1), 4),
        ((2, -1), 4),
        ((1, -1), 3),
        ((0, 0), 3),
        ((), 3),
        ((-1, 0, -1), 2),
        ((-2, 1), 2),
        ((-2, -1), 1),
        ((-2, -2, -1), 1),
    ],
)
def test_rating_of_polarities(polarities, rating):
    assert rating_of([Sentence("", "was", polarity) for polarity in polarities]) == rating


def test_reviews_are_mostly_of_one_mind():
    agreeing = [
        (sentence.polarity > 0) == (review.rating > 3)
        for review in corpus()
        for sentence in review.sentences
        if sentence.polarity and review.rating != 3
    ]
    assert 0.8 < fmean(agreeing) < 0.97


def test_counting_words_is_wrong_on_a_known_share_of_reviews():
    assert 0.10 <= word_count_error(corpus()) <= 0.25
    assert word_count_error(corpus()) == pytest.approx(0.145, abs=0.01)


@pytest.mark.parametrize(
    ("text", "rating", "error"),
    [
        ("The plot is not bad at all.", 4, 1.0),
        ("The plot is bad.", 4, 1.0),
        ("The plot is superb.", 5, 0.0),
        ("The plot is long.", 5, 1.0),
        ("The plot is superb.", 3, 0.0),
    ],
)
def test_word_count_error_of_one_review(text, rating, error):
    assert word_count_error([Review(text, rating, ())]) == error


# The same seed, the same corpus.


def test_reviews_depend_on_seed_and_index_alone():
    assert generate(40, 5) == generate(40, 5)
    assert generate(40, 5)[:15] == generate(15, 5)
    assert {review.text for review in generate(40, 5)}.isdisjoint(review.text for review in generate(40, 6))
    assert generate(0, 5) == []


def test_reviews_are_distinct():
    assert len({review.text for review in corpus()}) > 0.999 * len(corpus())


# English.


def test_lengths():
    lengths = [len(review.text.split()) for review in corpus()]
    assert min(lengths) >= 30
    assert max(lengths) <= 70
    assert {len(review.sentences) for review in corpus()} <= {3, 4, 5, 6}


def test_characters_spacing_and_punctuation():
    for review in corpus():
        assert re.fullmatch(r"[A-Za-z .,;:!?']+", review.text), review.text
        assert not re.search(r"  | [.,;:!?]|[.,;:!?][A-Za-z.,;:!?]|^ | $", review.text), review.text
        for sentence in review.sentences:
            assert sentence.text[0].isupper() and sentence.text[-1] in ".!?", sentence
            assert not re.search(r"[.!?] [a-z]", sentence.text), sentence


def test_no_word_is_doubled():
    doubled = [review.text for review in corpus() if re.search(r"\b(\w+) \1\b", review.text.casefold())]
    assert doubled == []


def test_articles_agree():
    text = " ".join(review.text for review in corpus()).casefold()
    assert re.findall(r"\ba [aio]\w*", text) == []
    assert re.findall(r"\ba (?!european)e\w*", text) == []
    assert re.findall(r"\ba (?!useful|unified|unique)u\w*", text) == []
    assert re.findall(r"\ba (?:honest|honour|hour)\w*", text) == []
    assert re.findall(r"\ban (?!honest|honour|hour)[^aeiou]\w*", text) == []
    assert re.findall(r"\ban (?:useful|unified|unique|european)\w*", text) == []


def test_subjects_agree_with_their_verbs():
    text = " ".join(review.text for review in corpus()).casefold()
    many = "|".join(aspect.text for aspect in aspects() if aspect.number == "many")
    single = "|".join(aspect.text for aspect in aspects() if aspect.number != "many")
    mass = "|".join(aspect.text for aspect in aspects() if aspect.number == "mass")
    assert re.findall(rf"\bthe (?:{many}) (?:is|was|has|lacks|does)\b", text) == []
    assert re.findall(rf"\bthe (?:{single}) (?:are|were|have|lack)\b", text) == []
    assert re.findall(rf"\ban? (?!little |few )\w+ (?:{mass}|{many})\b", text) == []
    assert len(re.findall(rf"\bthe (?:{many}) (?:are|were)\b", text)) > 500


def test_sentiment_words_and_aspects_are_not_repeated_in_a_sentence():
    for review in corpus()[:3000]:
        for sentence in review.sentences:
            counts = Counter(word for word in words_of(sentence.text) if word in lexicon_words())
            assert not counts or max(counts.values()) == 1, sentence


# Swapping words.


@pytest.mark.parametrize(
    ("text", "old", "new", "swapped"),
    [
        ("It is an awful film.", "awful", "superb", "It is a superb film."),
        ("It has a lazy script.", "lazy", "honest", "It has an honest script."),
        ("Superb acting!", "superb", "awful", "Awful acting!"),
        ("It was a dull plot.", "dull", "unimpressive", "It was an unimpressive plot."),
        ("It was an odd plot.", "odd", "useful", "It was a useful plot."),
        ("A dull, dull film.", "dull", "odd", "An odd, dull film."),
        ("The acting was superb.", "perb", "x", "The acting was superb."),
    ],
)
def test_replace_word_keeps_article_and_capital(text, old, new, swapped):
    assert replace_word(text, old, new) == swapped


@pytest.mark.parametrize("slot", sorted(word_lists()))
def test_every_slot_has_words_of_each_sign(slot):
    for kind in scenery()["kinds"] if slot == "adj" else ["all"]:
        for sign in (1, -1, 0):
            assert len(swaps(slot, kind, sign=sign)) >= 3


def test_every_shape_can_be_written_at_each_of_its_polarities():
    for shape in SHAPES:
        for polarity in sorted(shape.polarities):
            writer = Writer(random.Random(shape.name))
            text = writer.rate(shape, 4) if family_of(shape.name) == "stars" else writer.sentence(shape, polarity)
            assert "{" not in text and len(text.split()) >= 2
