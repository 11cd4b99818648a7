"""The labeller without a network: what it says of features whose meaning is known, and how that scores."""

from __future__ import annotations

import pytest

from lfp.labels.evidence import split_evidence
from lfp.labels.token_rule import OfflineTokens, Rule
from lfp.labels.types import Evidence, Excerpt, Label
from tests.lfp.labels.excerpts import WORDS, excerpts_of, known_features

COUNTS = {"good": 10, "awful": 10, "the": 1000, "film": 100, "plot": 100}
LEXICON = {"good": 1.9, "awful": -2.0}


def example(
    word: str, activation: float = 1.0, *, before: tuple[str, ...] = (), text_id: int = 0, bucket: int = 1
) -> Excerpt:
    tokens = (*before, word)
    spaced = tuple(token if i == 0 else f" {token}" for i, token in enumerate(tokens))
    return Excerpt(text_id, 3, bucket, spaced, (*(0.0 for _ in before), activation), len(before))


def label(*firing: Excerpt, threshold: float = 0.5) -> Label:
    labeller = OfflineTokens(COUNTS, LEXICON, related_threshold=threshold)
    (found,) = labeller.label([Evidence(7, 4.0, firing, (), ())])
    return found


def test_a_feature_of_scored_words_is_related_and_described_by_them() -> None:
    found = label(example("good", 3.0), example("awful", 1.0))
    assert (found.feature_id, found.related, found.confidence, found.failure) == (7, True, 1.0, None)
    assert found.description == "“good”, “awful”"
    assert "100%" in (found.reason or "")


def test_a_feature_of_other_words_is_not_related() -> None:
    found = label(example("film"), example("plot"))
    assert (found.related, found.confidence) == (False, 1.0)


@pytest.mark.parametrize(
    ("scored", "related", "confidence"), [(0.5, True, 0.0), (0.75, True, 0.5), (0.25, False, 0.5), (0.49, False, 0.02)]
)
def test_the_share_of_activation_decides_and_tells_how_surely(scored: float, related: bool, confidence: float) -> None:
    found = label(example("good", scored), example("the", 1 - scored))
    assert found.related is related
    assert found.confidence == pytest.approx(confidence)


def test_the_threshold_can_be_set() -> None:
    shown = example("good", 0.3), example("the", 0.7)
    assert not label(*shown).related
    assert label(*shown, threshold=0.3).related


def test_of_words_with_equal_activation_the_rarer_one_comes_first() -> None:
    assert label(example("the"), example("zany")).description == "“zany”, “the”"


def test_a_feature_of_many_words_says_so() -> None:
    found = label(*(example(f"word{letter}") for letter in "abcdefghijklmnopqrst"))
    assert (found.description or "").startswith("many words, such as “worda”")


def test_a_word_that_always_stands_before_is_told() -> None:
    after = [example("good", before=("was", "very")) for _ in range(5)]
    assert label(*after).description == "“good” after “very”"
    assert label(*after[:4]).description == "“good”", "four examples make no habit"
    mixed = [example("good", before=(f"w{letter}",)) for letter in "abcdef"]
    assert label(*mixed).description == "“good”"


def test_a_word_of_several_tokens_is_the_whole_word() -> None:
    split = Excerpt(0, 1, 1, ("The", " mag", "nific", "ent", " film"), (0.0, 0.0, 2.0, 0.0, 0.0), 2)
    assert label(split).description == "“magnificent”"


def test_the_sample_is_described_and_top_examples_serve_where_there_is_none() -> None:
    found = label(example("good", text_id=4, bucket=0))
    assert found.description == "“good”" and found.examples_used == ("4:3",)
    both = example("film", text_id=1), example("good", text_id=4, bucket=0)
    assert label(*both).examples_used == ("1:3",)


def test_a_feature_that_never_fires_says_so() -> None:
    found = label()
    assert (found.description, found.related, found.examples_used) == ("never active", False, ())


def test_labels_come_in_the_order_asked() -> None:
    labeller = OfflineTokens(COUNTS, LEXICON, related_threshold=0.5)
    words = ((3, "good"), (1, "film"), (2, "awful"))
    evidence = [Evidence(i, 1.0, (example(word),), (), ()) for i, word in words]
    assert [(label.feature_id, label.related) for label in labeller.label(evidence)] == [
        (3, True),
        (1, False),
        (2, True),
    ]
    assert labeller.label([]) == []


def test_a_rule_is_held_to_what_it_says() -> None:
    rule = Rule(("good",), ("very",))
    assert rule.fires_in(["a", "very", "good", "film"]) and not rule.fires_in(["very", "a", "good"])
    assert not rule.fires_on("good", []) and Rule(("good",)).fires_on("good", [])


def test_a_true_word_tells_texts_but_not_near_misses_and_another_features_word_tells_nothing() -> None:
    """Features that fire on a word except after “not”: a rule of words has no “except”."""
    labels = OfflineTokens({}, LEXICON, related_threshold=0.5, repeats=3).label(known_features(n_scored=12))
    assert len(labels) == len(WORDS)
    for found, word in zip(labels, WORDS, strict=True):
        assert found.description == f"“{word}”"
        assert found.score.n == 12 and found.score.detection == pytest.approx(0.75) == found.score.fuzzing
        assert found.score.swapped == pytest.approx(0.5)
        assert found.agreement == 1.0 and found.score.ci_low is not None


def test_agreement_falls_where_halves_of_the_examples_disagree() -> None:
    torn = [
        split_evidence(
            i, [*excerpts_of("good", seed=i), *excerpts_of("plot", seed=i + 50)], max_activation=4.0, n_scored=4
        )
        for i in range(20)
    ]
    labels = OfflineTokens({}, LEXICON, related_threshold=0.5, repeats=9).label(torn)
    agreements = [label.agreement for label in labels if label.agreement is not None]
    assert len(agreements) == 20 and 0.4 < sum(agreements) / 20 < 0.98
    assert OfflineTokens({}, LEXICON, related_threshold=0.5).label(torn)[0].agreement is None
