"""The labeller without a network: what it says of features whose meaning is known."""

from __future__ import annotations

import pytest

from lfp.labels.offline import OfflineTokens
from lfp.labels.protocol import Evidence, Label, Labeller, ShownExample

COUNTS = {"good": 10, "awful": 10, "the": 1000, "film": 100, "plot": 100}
LEXICON = {"good": 1.9, "awful": -2.0}


def example(word: str, activation: float = 1.0, *, before: tuple[str, ...] = (), text_id: int = 0) -> ShownExample:
    return ShownExample(text_id, 3, word, before, activation)


def label(*sample: ShownExample, top: tuple[ShownExample, ...] = (), threshold: float = 0.5) -> Label:
    labeller: Labeller = OfflineTokens(COUNTS, LEXICON, related_threshold=threshold)
    (found,) = labeller.label([Evidence(7, 0.1, top, sample)])
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
    mixed = [example("good", before=(f"w{i}",)) for i in range(6)]
    assert label(*mixed).description == "“good”"


def test_top_examples_serve_where_there_is_no_sample() -> None:
    found = label(top=(example("good", text_id=4),))
    assert found.description == "“good”" and found.examples_used == ("4:3",)
    assert label(example("film", text_id=1), top=(example("good", text_id=4),)).examples_used == ("1:3",)


def test_a_feature_that_never_fires_says_so() -> None:
    found = label()
    assert (found.description, found.related, found.examples_used) == ("never active", False, ())


def test_labels_come_in_the_order_asked() -> None:
    labeller = OfflineTokens(COUNTS, LEXICON, related_threshold=0.5)
    evidence = [Evidence(i, 0.1, (), (example(word),)) for i, word in ((3, "good"), (1, "film"), (2, "awful"))]
    assert [(one.feature_id, one.related) for one in labeller.label(evidence)] == [(3, True), (1, False), (2, True)]
    assert labeller.label([]) == []
