"""The rules by which the fake server labels: its answers to known and unknown prompts."""

from __future__ import annotations

from lfp.labels import prompts
from lfp.labels.client.questions import Question
from lfp.labels.evidence import sample_excerpts
from lfp.testing.fake_openai.answers import ChatRequest, KnowsFeatures, ReadsPrompts
from tests.lfp.labels.asking import length_of
from tests.lfp.labels.excerpts import WORDS, known_features

EVIDENCE = known_features(n_scored=12)
KNOWS = KnowsFeatures(EVIDENCE, {1: True})
READS = ReadsPrompts({"good": 2.0})


def request(question: Question) -> ChatRequest:
    return ChatRequest("fake", tuple(question.messages), question.schema.__name__, question.json_schema, 512)


def described(feature: int, repeat: int = 0) -> ChatRequest:
    sample = sample_excerpts(EVIDENCE[feature], n_top=3, per_interval=1, n_silent=2, repeat=repeat)
    return request(prompts.describe(sample, max_activation=4.0, answer_tokens=512))


def test_it_knows_a_feature_by_any_draw_of_its_examples() -> None:
    for feature in range(len(WORDS)):
        for repeat in range(4):
            answer = KNOWS.answer(described(feature, repeat), right=True)
            assert answer == {"description": f"what feature {feature} fires on"}
    assert KNOWS.answer(described(0), right=False) == {"description": "what feature 4 fires on"}


def test_it_judges_by_the_feature_that_is_described() -> None:
    firing = [i for i, excerpt in enumerate(EVIDENCE[2].held_out, 1) if excerpt.fires]
    for marked in (False, True):
        asked = request(prompts.judge("what feature 2 fires on", EVIDENCE[2].held_out, marked=marked, answer_tokens=9))
        assert KNOWS.answer(asked, right=True) == KNOWS.answer(asked, right=False) == {"firing": firing}
        other = request(prompts.judge("what feature 3 fires on", EVIDENCE[2].held_out, marked=marked, answer_tokens=9))
        assert KNOWS.answer(other, right=True) == {"firing": []}


def test_it_relates_what_is_known_to_be_related() -> None:
    for feature, right, related in ((1, True, True), (1, False, False), (2, True, False)):
        answer = KNOWS.answer(
            request(prompts.relate(f"what feature {feature} fires on", "x", answer_tokens=9)), right=right
        )
        assert answer is not None and answer["related"] is related


def test_a_reader_names_the_loudest_words_and_holds_others_to_them() -> None:
    assert READS.answer(described(0), right=True) == {"description": "“good”"}
    wrong = READS.answer(described(0), right=False)
    assert wrong is not None and "good" not in wrong["description"]
    related = [
        READS.answer(request(prompts.relate(text, "x", answer_tokens=9)), right=True) for text in ("“good”", "“plot”")
    ]
    assert [answer and answer["related"] for answer in related] == [True, False]
    asked = request(prompts.judge("“good”", EVIDENCE[0].held_out, marked=True, answer_tokens=9))
    says = [i for i, excerpt in enumerate(EVIDENCE[0].held_out, 1) if excerpt.tokens[excerpt.at] == " good"]
    assert READS.answer(asked, right=True) == {"firing": says}


def test_other_questions_are_left_to_other_rules() -> None:
    strange = request(length_of("abc"))
    assert KNOWS.answer(strange, right=True) is None and READS.answer(strange, right=True) is None
    unknown = request(prompts.relate("praise", "x", answer_tokens=9))
    assert KNOWS.answer(unknown, right=True) is None, "a description that is not its own"
