"""Answers read out of completions: what can mean one thing only is accepted, all else is broken, by reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lfp.labels.client.reading import BrokenAnswerError, RefusedAnswerError, read_completion
from lfp.labels.prompts import Description, Detection, Relation

RELATION = {"related": True, "confidence": 0.5, "reason": "{so}"}
PLAIN = json.dumps(RELATION)


def completion(content: Any, *, finish_reason: str = "stop", **message: Any) -> str:
    return json.dumps({"choices": [{"message": {"content": content, **message}, "finish_reason": finish_reason}]})


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        f"\ufeff \n{PLAIN}\n",
        f"```json\n{PLAIN}\n```",
        f"```\n{PLAIN}\n```\nThat is all.",
        f"```json\n{PLAIN}",
        f"I think {{so}}: {PLAIN} and [that] is all.",
        f"<think>{{\"related\": false}}</think>{PLAIN}",
        f"so {{it}} is</think>\n\n{PLAIN}",
        f"<think>Let me see. {PLAIN}",
        f"{PLAIN}<think>was that right?",
        f"{PLAIN}\n{PLAIN}",
        json.dumps(RELATION | {"notes": [1, 2], "confident": "very"}),
        json.dumps({"result": RELATION}),
        json.dumps({"status": "ok", "answer": {"relation": RELATION}}),
        json.dumps([RELATION]),
        json.dumps(PLAIN),
        json.dumps({"answer": PLAIN}),
        json.dumps(RELATION | {"related": "True", "confidence": "50 %"}),
        json.dumps(RELATION | {"related": "yes", "confidence": "0.50"}),
        json.dumps(RELATION | {"confidence": 50}),
        json.dumps(RELATION | {"confidence": "50"}),
        [{"type": "text", "text": PLAIN[:20]}, {"type": "text", "text": PLAIN[20:]}, {"type": "image_url"}],
    ],
)  # fmt: skip
def test_what_can_mean_one_thing_only_is_read(content: Any) -> None:
    assert read_completion(completion(content), Relation).value == Relation(**RELATION)


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_an_answer_in_the_reasoning_is_read_where_the_content_is_empty(field: str) -> None:
    reading = read_completion(completion("", **{field: f"The tokens ... {PLAIN}"}), Relation)
    assert reading.value == Relation(**RELATION) and reading.leniences == ("in the reasoning",)
    with pytest.raises(BrokenAnswerError, match="it is empty, and its reasoning holds no answer"):
        read_completion(completion(None, **{field: "The tokens ..."}), Relation)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "it is empty"),
        ("Sure.", "it is no JSON"),
        (PLAIN[:-5], "it is no JSON"),
        ("7", "it is no JSON object"),
        ("[" * 100_000, "it is no JSON"),
        ('{"a":' * 100_000, "it is no JSON"),
        ("<think>no end", "it is empty, and its reasoning holds no answer"),
        (json.dumps([RELATION, RELATION]), "it is no JSON object"),
        (f"{PLAIN} or {json.dumps(RELATION | {'related': False})}", "it holds 2 answers that differ"),
        (json.dumps({"a": RELATION, "b": RELATION}), "related: Field required"),
        (json.dumps({"related": True, "confidence": 0.5}), "reason: Field required"),
        (json.dumps(RELATION | {"confidence": 8}), "confidence: Input should be less than or equal to 1"),
        (json.dumps(RELATION | {"confidence": -0.1}), "confidence: Input should be greater than or equal to 0"),
        (json.dumps(RELATION | {"confidence": 101}), "confidence: Input should be less than or equal to 1"),
        (json.dumps(RELATION | {"confidence": "120%"}), "confidence: Input should be less than or equal to 1"),
        (json.dumps(RELATION | {"confidence": float("nan")}), "confidence: Input should be"),
        (json.dumps(RELATION | {"confidence": True}), "confidence: Input should be a valid number"),
        (json.dumps(RELATION | {"confidence": "high"}), "confidence: Input should be a valid number"),
        (json.dumps(RELATION | {"related": "perhaps"}), "related: Input should be a valid boolean"),
        (json.dumps(RELATION | {"related": 1}), "related: Input should be a valid boolean"),
    ],
)  # fmt: skip
def test_all_else_is_broken_and_says_why(content: str, reason: str) -> None:
    with pytest.raises(BrokenAnswerError) as caught:
        read_completion(completion(content), Relation)
    assert str(caught.value).startswith(f"the answer breaks the schema: {reason}") and not caught.value.is_cut


def test_what_was_accepted_is_named_in_the_order_it_was_met() -> None:
    content = f"<think>hm</think>```json\n{json.dumps({'result': RELATION | {'confidence': '50%', 'x': 1}})}\n```"
    assert read_completion(completion(content), Relation).leniences == (
        "after thinking", "in a code fence", "in a wrapper", "with extra keys", "with numbers or flags in another form",
    )  # fmt: skip
    assert read_completion(completion(PLAIN), Relation).leniences == ()


def test_text_about_thinking_is_no_thinking() -> None:
    said = {"description": "the token </think> after <think>"}
    assert read_completion(completion(json.dumps(said)), Description).value.description == said["description"]


def test_lists_of_numbers_are_read_in_any_form_but_fractions() -> None:
    assert read_completion(completion('{"firing": [1.0, "2", 3]}'), Detection).value.firing == [1, 2, 3]
    for firing in ([1.5], ["one"], [True], "1, 2", [[1]]):
        with pytest.raises(BrokenAnswerError, match="firing"):
            read_completion(completion(json.dumps({"firing": firing})), Detection)


def test_a_blank_description_is_broken() -> None:
    with pytest.raises(BrokenAnswerError, match="description"):
        read_completion(completion('{"description": " "}'), Description)


def test_an_answer_that_was_cut_off_says_so() -> None:
    for content in (PLAIN[:-5], "<think>and on and on", ""):
        with pytest.raises(BrokenAnswerError, match="cut off at max_tokens") as caught:
            read_completion(completion(content, finish_reason="length"), Relation)
        assert caught.value.is_cut


def test_a_refusal_is_no_broken_answer() -> None:
    for body in (completion(None, refusal="I cannot"), completion("", finish_reason="content_filter")):
        with pytest.raises(RefusedAnswerError):
            read_completion(body, Relation)
    for body in ("", "[]", "{}", '{"choices": []}', '{"choices": [{"message": {"content": 7}}]}'):
        with pytest.raises(BrokenAnswerError, match="no chat completion"):
            read_completion(body, Relation)
