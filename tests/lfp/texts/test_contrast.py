"""Contrastive triples: one word apart, signs right, grammar kept, no word favoured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.errors import DataError
from lfp.texts.triples import (
    DrawnTriples,
    Rewrite,
    Triple,
    find_fault,
    make_triples,
    make_triples_by_language_model,
    strong_words,
)

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


def draw(
    texts: Sequence[str], *, n: int = 40, seed: int = 0, lexicon: dict[str, float] = LEXICON, **keys: Any
) -> DrawnTriples:
    return make_triples(texts, lexicon, n=n, strong_quantile=0.5, min_count=3, seed=seed, **keys)


def triples(texts: Sequence[str], **keys: Any) -> list[Triple]:
    return list(draw(texts, **keys).triples)


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


def test_every_sentence_is_a_triple_or_dropped_for_a_reason() -> None:
    texts = [*corpus(), "A great but poor day.", "It was nice today. It was nice today.", "great " * 31]
    drawn = draw(texts, n=9)
    assert len(drawn.triples) + sum(drawn.dropped.values()) == 500 + 3 * 4 * 18 + 4
    assert drawn.dropped["repeated sentence"] == 500 - 1 + 1
    assert drawn.dropped["several scored words"] == 2  # the last text's words are scored, each of them
    assert drawn.dropped["no strong word"] == 3 * 4 * len(NEUTRAL) + 2
    assert drawn.dropped["not needed"] >= 3 * 4 * 12 - 2 * 9


def test_a_long_sentence_and_one_without_a_replacement_are_counted() -> None:
    texts = [*corpus(), " ".join(["great", *INVENTED[:30]]), "An excellent oddity prevails."]
    assert draw(texts, n=300).dropped["long sentence"] == 1
    alone = draw([*corpus(words=[w for w in (*POSITIVE, *NEGATIVE, *NEUTRAL) if w[0] not in "eaou"])], n=300)
    assert set(alone.dropped) <= {"repeated sentence", "no strong word", "no neutral word", "no word of the other sign"}


def test_replacements_of_one_token_are_taken_where_the_target_is_one() -> None:
    whole = {*POSITIVE, "dreadful", "nasty", "awful", "green", "round", "open"}
    made = triples(corpus(), n=80, n_tokens=lambda word: 1 if word in whole else 2)
    own = {sentence.strip() for sentence in corpus()}
    from_whole = [triple for triple in made if triple.positive in own]
    assert {triple.negative_word for triple in from_whole} == {"dreadful", "nasty", "awful"}
    assert {triple.neutral_word for triple in from_whole} == {"green", "round", "open"}
    split = [triple for triple in made if triple.negative in own and triple.negative_word not in whole]
    assert {triple.neutral_word for triple in split} - {"green", "round", "open"}


def test_a_neutral_word_is_not_in_the_lexicon_even_at_nought() -> None:
    made = triples(corpus(), lexicon=LEXICON | {"green": 0.0, "open": 0.0}, n=60)
    assert {triple.neutral_word for triple in made} <= set(NEUTRAL) - {"green", "open"}


def test_a_replacement_that_stands_elsewhere_in_the_sentence_is_not_taken() -> None:
    own = [f"{word.title()} {name} was great today." for word in NEUTRAL for name in INVENTED[:2]]
    made = [t for t in triples([*corpus(), *own], n=200) if t.positive in own]
    assert made and all(find_fault(triple, LEXICON) is None for triple in made)


def test_a_target_in_capitals_is_replaced_in_capitals() -> None:
    own = f"{INVENTED[0]} was GREAT today."
    (made,) = [t for t in triples([*corpus(), own], n=300) if t.positive == own]
    assert made.negative == own.replace("GREAT", made.negative_word.upper())


GOOD = Triple("It is great.", "It is awful.", "It is green.", "great", "awful", "green", 6)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"start": 5}, "target word not once in its place"),
        ({"neutral": "It is green green."}, "target word not once in its place"),
        ({"negative": "It was awful.", "start": 6}, "target word not once in its place"),
        ({"negative": "It is awful!"}, "other words changed"),
        ({"positive": "It is round.", "positive_word": "round"}, "positive word not positive"),
        ({"negative": "It is nice.", "negative_word": "nice"}, "negative word not negative"),
        ({"neutral": "It is poor.", "neutral_word": "poor"}, "neutral word scored"),
    ],
)
def test_a_triples_fault_has_a_name(changes: dict[str, Any], fault: str | None) -> None:
    assert find_fault(replace(GOOD, **changes), LEXICON) == fault


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 60))
def test_no_triple_has_a_fault(seed: int, n: int) -> None:
    drawn = draw(SMALL, n=n, seed=seed)
    assert all(find_fault(triple, LEXICON) is None for triple in drawn.triples)
    assert 0 < len(drawn.triples) == len(set(drawn.triples)) <= n


SMALL = corpus(of_each=1)


class Asked:
    """A rewriter that keeps what it was asked and answers by a rule of the sentence and its target."""

    def __init__(self, rule: Any) -> None:
        self.rule, self.sentences, self.targets = rule, [], []

    def rewrite(self, sentences: Sequence[str], targets: Sequence[tuple[str, ...]]) -> list[Rewrite | str]:
        self.sentences += sentences
        self.targets += targets
        return [self.rule(sentence, target) for sentence, (target,) in zip(sentences, targets, strict=True)]


def swap(sentence: str, target: str, negative: str = "awful", neutral: str = "green") -> Rewrite:
    old = target if target in sentence else target.title()
    return Rewrite(sentence.replace(old, negative), sentence.replace(old, neutral))


def by_model(texts: Sequence[str], rewriter: Asked, *, n: int = 6) -> DrawnTriples:
    return make_triples_by_language_model(texts, LEXICON, rewriter, n=n, strong_quantile=0.5, min_count=1, seed=0)


SAID = [f"{name} was {word} and nice." for word in POSITIVE for name in INVENTED[:3]]


def test_a_language_model_is_asked_of_sentences_that_are_positive_only() -> None:
    rewriter = Asked(swap)
    others = ["It was awful.", "Great but poor.", "Great and superb.", "It was nice.", SAID[0]]
    drawn = by_model([*SAID, *others], rewriter, n=30)
    assert sorted(rewriter.sentences) == sorted(SAID)
    assert all(target in sentence for sentence, (target,) in zip(rewriter.sentences, rewriter.targets, strict=True))
    assert len(drawn.triples) == len(SAID)
    assert all(find_fault(triple, LEXICON) is None for triple in drawn.triples)
    assert drawn.dropped == {
        "no strong word": 2,
        "negative word beside it": 1,
        "several strong words": 1,
        "repeated sentence": 1,
    }


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (lambda s, w: "refused", "not rewritten: refused"),
        (lambda s, w: Rewrite(s, s + " Really."), "other words changed"),
        (lambda s, w: Rewrite("", ""), "other words changed"),
        (lambda s, w: swap(s, w, negative="rather awful"), "not one word for one word"),
        (lambda s, w: swap(s, w, negative=""), "not one word for one word"),
        (lambda s, w: swap(s, w, neutral="1"), "not one word for one word"),
        (lambda s, w: swap(s, w, negative="green"), "negative word not negative"),
        (lambda s, w: swap(s, w, negative="superb"), "negative word not negative"),
        (lambda s, w: swap(s, w, neutral="poor"), "neutral word scored"),
        (lambda s, w: swap(s, w, neutral="was"), "target word not once in its place"),
    ],
)
def test_a_rewrite_that_will_not_do_is_counted(rule: Any, reason: str) -> None:
    good = {"great", "superb", "lovely"}
    rewriter = Asked(lambda s, w: swap(s, w) if w in good else rule(s, w))
    drawn = by_model(SAID, rewriter, n=len(SAID))
    assert {triple.positive_word for triple in drawn.triples} == good
    assert drawn.dropped == {reason: 9}


def test_no_more_is_asked_than_is_wanted_and_failures_are_made_up_for() -> None:
    rewriter = Asked(swap)
    drawn = by_model(SAID, rewriter, n=6)
    assert len(rewriter.sentences) == len(drawn.triples) == 6 and drawn.dropped == {"not needed": 12}
    failing = Asked(lambda s, w: "lost" if w in ("great", "superb") else swap(s, w))
    drawn = by_model(SAID, failing, n=6)
    assert len(drawn.triples) == 6
    assert sum(drawn.dropped.values()) + 6 == len(SAID) and drawn.dropped["not rewritten: lost"] > 0


def test_a_language_model_that_gives_no_triple_says_why() -> None:
    with pytest.raises(DataError, match=r"no contrastive triple .*not rewritten: lost 12"):
        by_model(SAID, Asked(lambda s, w: "lost"), n=6)
