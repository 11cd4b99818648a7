"""The prompts: a token a line whatever is in it, hashes that tell prompts apart, prompts rebuilt from what is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.errors import LabelError
from lfp.labels import prompts
from lfp.labels.client import questions
from lfp.labels.evidence import sample_excerpts
from lfp.labels.types import TASKS, Label, describe_task
from tests.lfp.labels.excerpts import excerpt, known_features

TOKENS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def content(question: questions.Question) -> str:
    return question.messages[-1].content


@given(st.lists(st.tuples(TOKENS, st.floats(0, 5)), min_size=1, max_size=8))
def test_a_table_has_a_line_a_token_and_levels_from_0_to_10(pairs: list[tuple[str, float]]) -> None:
    tokens, values = zip(*pairs, strict=True)
    lines = prompts.format_table(excerpt(*tokens, values=values), 5.0).split("\n")
    assert len(lines) == len(tokens) and all(line.splitlines() == [line] for line in lines)
    for line, value in zip(lines, values, strict=True):
        token, tab, level = line.rpartition("\t")
        assert tab and "\t" not in token and 0 <= int(level) <= 10 and (int(level) > 0) == (value > 0)


def test_what_fires_and_what_is_silent_are_kept_apart() -> None:
    (evidence, *_) = known_features()
    sample = sample_excerpts(evidence, n_top=2, per_interval=1, n_silent=2, repeat=0)
    asked = prompts.describe(sample, max_activation=4.0, answer_tokens=100)
    parts = prompts.read_excerpts(content(asked))
    assert parts == {
        "Fires": [prompts.format_table(excerpt, 4.0) for excerpt in sample if excerpt.fires],
        "Look-alike": [prompts.format_table(excerpt, 4.0) for excerpt in sample if not excerpt.fires],
    }
    assert len(parts["Fires"]) == 4 and len(parts["Look-alike"]) == 2


def test_repeats_of_one_prompt_are_two_questions_with_one_hash() -> None:
    (evidence, *_) = known_features()
    sample = sample_excerpts(evidence, n_top=2, per_interval=1, n_silent=2, repeat=0)
    first, other = (prompts.describe(sample, max_activation=4.0, answer_tokens=100, repeat=r) for r in (0, 1))
    assert first.sha256("m") != other.sha256("m") and prompts.hash_prompts([first]) == prompts.hash_prompts([other])


def test_excerpts_to_be_judged_are_numbered_and_do_not_tell_whether_they_fire() -> None:
    (evidence, *_) = known_features()
    description, texts = prompts.read_numbered(
        content(prompts.judge("x", evidence.held_out, marked=False, answer_tokens=9))
    )
    assert description == "x" and texts == [excerpt.text for excerpt in evidence.held_out]
    _, texts = prompts.read_numbered(content(prompts.judge("x", evidence.held_out, marked=True, answer_tokens=9)))
    for text, shown in zip(texts, evidence.held_out, strict=True):
        assert text.count("«") == 1 and text.replace("«", "").replace("»", "") == shown.text
        assert f"«{shown.tokens[shown.at]}»" in text


def test_a_kept_label_gives_its_prompts_back() -> None:
    (evidence, *_) = known_features()
    sample = sample_excerpts(evidence, n_top=3, per_interval=1, n_silent=2, repeat=1)
    sent = [
        prompts.describe(sample, max_activation=4.0, answer_tokens=512, repeat=1),
        prompts.relate("“good”", TASKS["sentiment"], answer_tokens=512, repeat=1),
    ]
    label = Label(0, "“good”", True, 1.0, "", (), prompts.PROMPT_VERSION, task=TASKS["sentiment"])
    again = prompts.rebuild(label, sample, max_activation=4.0)
    assert [again.describe.messages, again.relate.messages] == [question.messages for question in sent]
    assert again.sha256 == prompts.hash_prompts(sent)
    other = prompts.rebuild(replace(label, task="else"), sample, max_activation=4.0)
    assert other.sha256 != again.sha256
    with pytest.raises(LabelError, match="labels-0"):
        prompts.rebuild(replace(label, prompt_version="labels-0"), sample, max_activation=4.0)


def test_answers_out_of_range_break_the_schema() -> None:
    good = {"related": True, "confidence": 1, "reason": "so"}
    assert prompts.Relation.model_validate_json(json.dumps(good)).confidence == 1.0
    for wrong in ({"confidence": 1.5}, {"confidence": None}, {"related": "yes"}, {"more": 1}):
        with pytest.raises(ValueError, match="validation error"):
            prompts.Relation.model_validate_json(json.dumps(good | wrong))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, TASKS["sentiment"]),
        ({"labels": {"task": "helpfulness"}}, TASKS["helpfulness"]),
        ({"labels": {"task": "It was paid for rhymes."}}, "It was paid for rhymes."),
        ({"labels": {"task": None}, "tune": {"method": "dpo"}}, TASKS["preference"]),
        ({"feedback": {"reward": "lexicon"}}, TASKS["sentiment"]),
        ({"feedback": {"reward": "my_reward:score"}}, "my_reward:score"),
        ({"feedback": {"reward": "classifier", "classifier": "org/name"}}, "org/name"),
    ],
)
def test_the_task_is_the_configs_or_what_the_feedback_says(config: dict, said: str) -> None:
    assert said in describe_task(config)
