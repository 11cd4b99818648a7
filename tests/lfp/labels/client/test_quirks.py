"""Servers of every kind: whatever their departure from the protocol, labels arrive and the budget is kept."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from lfp.config import LabelsConfig
from lfp.errors import LabelError
from lfp.labels.language_model import LanguageModelLabeller
from lfp.testing.fake_openai.answers import KnowsFeatures
from lfp.testing.fake_openai.quirks import Quirk
from lfp.testing.fake_openai.server import FAKE_MODEL, FakeConfig, FakeServer
from tests.lfp.labels.asking import Length, Lengths, client, length_of, texts
from tests.lfp.labels.excerpts import WORDS, known_features

EVIDENCE = known_features(n_scored=8)[:3]
RELATED = {i: word in ("good", "awful") for i, word in enumerate(WORDS)}
CONFIG = LabelsConfig(repeats=2, swapped=2)
QUIRKS: tuple[Quirk, ...] = get_args(Quirk)
PRICES = {"price_in": 3.0, "price_out": 7.0}
_NUMBERS, _REASONING = "with numbers or flags in another form", "in the reasoning"
SAID = {
    "fence": "in a code fence", "preface": "within other text", "thinking": "after thinking",
    "thinking_unopened": "after thinking", "thinking_unclosed": _REASONING, "reasoning_only": _REASONING,
    "extra_key": "with extra keys", "wrapper": "in a wrapper", "list": "in a wrapper", "string": "in a wrapper",
    "floats": _NUMBERS, "percent": _NUMBERS,
    "percent_number": _NUMBERS,
    "refuses_json_schema": "the server refuses response_format json_schema: ",
    "refuses_with_500": "the server refuses response_format json_schema: ",
    "refuses_response_format": "answers by the schema in the prompt alone",
    "ignores_response_format": "the server ignores response_format json_schema, ignores response_format json_object",
}  # fmt: skip
"""What is said of a server with a quirk; of other servers nothing is."""


def serve(quirk: Quirk, **changes: Any) -> FakeServer:
    return FakeServer(FakeConfig(quirk=quirk, **changes), [KnowsFeatures(EVIDENCE, RELATED), Lengths()])


@pytest.mark.parametrize("quirk", [quirk for quirk in QUIRKS if quirk not in ("redirect", "endless", "one_at_a_time")])
def test_labels_arrive_in_full_within_the_budget_whatever_the_quirk(quirk: Quirk) -> None:
    with serve(quirk) as server:
        at_once = {"concurrency": 1} if quirk == "ignores_response_format" else {}  # to count exactly what is broken
        asked = client(server, **PRICES, **at_once)
        labels = LanguageModelLabeller(asked, CONFIG, task="It was paid for joy.").label(EVIDENCE)
    assert all(label.is_ok and label.failure is None and label.score.detection == 1.0 for label in labels)
    assert [label.related for label in labels] == [RELATED[label.feature_id] for label in labels]
    assert {label.confidence for label in labels} == ({0.95} if quirk.startswith("percent") else {1.0})
    spent, billed = asked.budget.spent_usd, (server.counts.tokens_in * 3 + server.counts.tokens_out * 7) * 1e-6
    paid = sum(label.cost_usd or 0.0 for label in labels)
    assert spent == pytest.approx(paid) and not asked.budget.reserved_usd
    assert spent > billed if quirk.endswith("_usage") else spent == pytest.approx(billed)
    said = [note for note in asked.notes if not note.startswith("calls at once")]
    if quirk not in SAID:
        assert said == []
    else:
        assert sum(SAID[quirk] in note for note in said) == 1
    if quirk.startswith(("refuses", "ignores")):
        n_broken = sum(asked.broken.values())
        assert n_broken == (6 if quirk == "ignores_response_format" else 0), "three by each format that is ignored"
        assert server.counts.answers == sum(asked.dialect.read.values()) + n_broken


def test_a_format_that_is_refused_midway_is_changed_for_every_call_and_counted() -> None:
    with serve("refuses_json_schema") as server:
        asked = client(server)
        asked.pace.limit = 8  # many calls find out at once
        answers = asked.ask([length_of(text) for text in texts(40)])
        asked.ask([length_of("once more")])
    assert all(answer.value for answer in answers) and asked.dialect.read == {"json_object_schema": 41}
    assert asked.dialect.sentence == (
        "the server refuses response_format json_schema: 41 answers by response_format json_object with a schema"
    )


def test_a_server_that_answers_one_call_at_a_time_is_asked_one_at_a_time_and_nothing_is_lost() -> None:
    with serve("one_at_a_time", delay_s=0.2) as server:
        asked = client(server, timeout_s=1.5, concurrency=16, **PRICES)  # sixteen at once would time out
        answers = asked.ask([length_of(text) for text in texts(20)])
    assert [answer.value for answer in answers] == [Length(characters=n) for n in range(1, 21)]
    at_once = server.counts.at_once
    assert len(at_once) == 20 and max(at_once) <= 2 and set(at_once[-10:]) == {1} and asked.pace.limit == 1
    billed = (server.counts.tokens_in * 3 + server.counts.tokens_out * 7) * 1e-6
    assert asked.budget.spent_usd == pytest.approx(billed), "no call was paid for twice"
    assert "calls at once in the end: 1 of at most 16" in asked.notes


def test_a_server_that_answers_side_by_side_is_asked_side_by_side() -> None:
    with FakeServer(FakeConfig(behave="slow", delay_s=0.1), [Lengths()]) as server:
        asked = client(server, concurrency=8)
        assert all(answer.value for answer in asked.ask([length_of(text) for text in texts(60)]))
    assert max(server.counts.at_once) == 8 and asked.pace.limit >= 4


def test_a_redirection_is_not_followed() -> None:
    with serve("redirect") as server, pytest.raises(LabelError, match=r"redirects to another address \(status 307\)"):
        client(server).ask([length_of("a")])


def test_an_answer_without_end_is_given_up() -> None:
    with serve("endless") as server:
        asked = client(server, price_out=1.0)
        (answer,) = asked.ask([length_of("a")])
    assert answer.failure == "the answer is longer than 4 MB" and server.counts.prompts.total() == 1
    assert asked.budget.spent_usd == answer.cost_usd == pytest.approx(20e-6), "it may be billed in full"


def test_answers_that_stay_out_of_form_are_counted_by_reason() -> None:
    class Unclear(Lengths):
        def answer(self, request: Any, *, right: bool) -> Any:
            return {"characters": "about ten", "why": "x"} if request.schema_name == "Length" else None

    with FakeServer(FakeConfig(), [Unclear()]) as server:
        asked = client(server)
        answers = asked.ask([length_of(text) for text in texts(3)])
    assert not any(answer.value for answer in answers)
    assert sum(asked.broken.values()) == server.counts.prompts.total()
    assert 15 <= server.counts.prompts.total() <= 18
    assert any(note.startswith("answers not accepted: 1") and "characters: Input" in note for note in asked.notes)


def test_a_client_of_such_a_server_names_its_model() -> None:
    with serve("no_models") as server:
        assert client(server).config.model == FAKE_MODEL
        assert client(server).ask([length_of("a")])[0].value == Length(characters=1)
