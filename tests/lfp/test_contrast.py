"""Contrastive triples: one word apart, signs right, grammar kept, no word favoured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

import pytest

from lfp.contrast import Triple, make_triples, strong_words
from lfp.errors import DataError

POSITIVE = ["great", "superb", "lovely", "awesome", "excellent", "amazing"]
NEGATIVE = ["dreadful", "horrid", "nasty", "awful", "ugly", "evil"]
NEUTRAL = ["wooden", "round", "green", "open", "early", "oval"]
WEAK = {"nice": 1.0, "decent": 0.9, "poor": -1.0, "dull": -0.9}
LEXICON = dict.fromkeys(POSITIVE, 3.0) | dict.fromkeys(NEGATIVE, -3.0) | WEAK
INVENTED = ["".join(letters) for letters in product("bcdfghjkl", "aeiou", "klmnpr", "aeiou", "x")]
GRAMMAR = " ".join([*INVENTED[:113], "it is a an was today won"])
"""The 120 words that are commoner than any content."""


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def sentences(words: Sequence[str], *, of_each: int = 4) -> list[str]:
    """Sentences with one of `words` each, no two alike, in three constructions."""
    names, found = iter(INVENTED[113:]), []
    for word in [*words] * of_each:
        found += [
            f"{next(names)} was {word} today.",
            f"It is {article(word)} {word} {next(names)}!",
            f"{word.title()} {next(names)} won",
        ]
    return found


def corpus(*, words: Sequence[str] = (*POSITIVE, *NEGATIVE, *NEUTRAL), of_each: int = 4) -> list[str]:
    """Texts of those sentences, and enough grammar to tell it from content."""
    return [GRAMMAR] * 500 + sentences(words, of_each=of_each)


def triples(texts: Sequence[str], *, n: int = 40, seed: int = 0, lexicon: dict[str, float] = LEXICON) -> list[Triple]:
    return make_triples(texts, lexicon, n=n, strong_quantile=0.5, min_count=3, seed=seed)


@pytest.fixture(scope="module")
def made() -> list[Triple]:
    return triples(corpus())


def test_there_are_as_many_as_asked_for(made: list[Triple]) -> None:
    assert len(made) == 40
    assert triples(corpus(), n=7) == made[:7]


def test_the_three_sentences_differ_in_one_word_at_the_start_given(made: list[Triple]) -> None:
    for triple in made:
        parts = []
        for role in ("positive", "negative", "neutral"):
            sentence, word = getattr(triple, role), getattr(triple, f"{role}_word")
            end = triple.start + len(word)
            assert sentence[triple.start : end].lower() == word
            parts.append((sentence[: triple.start], sentence[end:]))
        assert parts[0] == parts[1] == parts[2]
        assert len({triple.positive_word, triple.negative_word, triple.neutral_word}) == 3


def test_each_words_sign_is_its_roles(made: list[Triple]) -> None:
    for triple in made:
        assert LEXICON[triple.positive_word] == 3.0
        assert LEXICON[triple.negative_word] == -3.0
        assert triple.neutral_word in NEUTRAL


def test_one_of_the_two_scored_sentences_is_the_corpus_s_own(made: list[Triple]) -> None:
    own = {sentence.strip() for sentence in corpus()}
    assert all((triple.positive in own) != (triple.negative in own) for triple in made)


def test_articles_agree_with_what_they_stand_before(made: list[Triple]) -> None:
    articles = Counter()
    for triple in made:
        before = triple.neutral[: triple.start].split()
        if before and before[-1] in ("a", "an"):
            articles[before[-1]] += 1
            words = (triple.positive_word, triple.negative_word, triple.neutral_word)
            assert {article(word) for word in words} == {before[-1]}
    assert articles["a"] > 2 and articles["an"] > 2


def test_the_article_decides_where_spelling_misleads() -> None:
    """`an honest` sounds like a vowel: what takes its place must follow `an`."""
    own = [f"It is an honest {name}{name}!" for name in INVENTED[:9]]
    found = [t for t in triples([*corpus(), *own], n=90, lexicon=LEXICON | {"honest": 3.0}) if t.positive in own]
    assert found
    assert all(article(triple.negative_word) == article(triple.neutral_word) == "an" for triple in found)


def test_capitals_are_kept(made: list[Triple]) -> None:
    at_start = [triple for triple in made if triple.start == 0]
    inside = [triple for triple in made if triple.start]
    assert at_start and inside
    assert all(getattr(t, role)[0].isupper() for t in at_start for role in ("positive", "negative", "neutral"))
    assert all(getattr(t, role)[t.start].islower() for t in inside for role in ("positive", "negative", "neutral"))


def test_no_triple_comes_twice() -> None:
    """Two sentences that differ in the scored word alone may lead to the same triple."""
    pairs = [f"{name} was {word} today." for name in INVENTED[-9:] for word in ("great", "dreadful")]
    made = triples([*[GRAMMAR] * 50, *pairs, *["It was green today."] * 5], n=90)
    assert len(set(made)) == len(made) == 9


def test_the_seed_alone_decides() -> None:
    assert triples(corpus(), seed=5) == triples(corpus(), seed=5)
    assert triples(corpus(), seed=5) != triples(corpus(), seed=6)


def test_words_take_turns_as_targets_and_as_replacements() -> None:
    """One word has most of the sentences, and no more of the triples than the others."""
    extra = [f"{name}{name} was great today." for name in INVENTED]
    plain = [sentence for sentence in sentences([*POSITIVE, *NEGATIVE, *NEUTRAL]) if " was " in sentence]
    made = triples([GRAMMAR] * 2000 + plain + extra, n=24)
    own = set(plain) | set(extra)
    targets = Counter(t.positive_word if t.positive in own else t.negative_word for t in made)
    assert targets == dict.fromkeys([*POSITIVE, *NEGATIVE], 2)
    assert Counter(triple.neutral_word for triple in made) == dict.fromkeys(NEUTRAL, 4)


def test_sentences_with_two_scored_words_or_a_weak_one_are_left_alone() -> None:
    texts = [*corpus(), "A great but poor day.", "It was nice today.", "It was great and superb."]
    made = triples(texts, n=500)
    assert not any(word in t.positive + t.negative for t in made for word in ("nice", "poor", "and", "but"))


def test_only_the_lexicons_extremes_that_occur_are_strong() -> None:
    counts = dict.fromkeys([*POSITIVE, *NEGATIVE, "nice", "poor"], 5) | {"awful": 1}
    assert strong_words(LEXICON, counts, 0.5, 3) == {*POSITIVE, *NEGATIVE} - {"awful"}


@pytest.mark.parametrize(
    ("texts", "lexicon"),
    [
        (corpus(words=NEUTRAL), LEXICON),
        (corpus(words=[*POSITIVE, *NEUTRAL]), LEXICON),
        (corpus(words=[*POSITIVE, *NEGATIVE]), LEXICON),
        (corpus(), {"great": 3.0, "nice": 1.0}),
        (corpus(), {}),
        ([], LEXICON),
    ],
    ids=["no scored word", "no negative", "no neutral", "one-sided lexicon", "empty lexicon", "no text"],
)
def test_a_corpus_that_gives_no_triple_is_refused(texts: list[str], lexicon: dict[str, float]) -> None:
    with pytest.raises(DataError, match="pass more texts"):
        triples(texts, lexicon=lexicon)
