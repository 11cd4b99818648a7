"""Sentences rewritten through the client: right, wrong and failed answers, and what is asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lfp.errors import DataError
from lfp.labels.client.transport import KEY
from lfp.labels.rewriting import LanguageModelRewriter, build_question, read_question
from lfp.testing.fake_openai.answers import SwapWords
from lfp.testing.fake_openai.server import FakeConfig, FakeServer
from lfp.texts.triples import Rewrite, find_fault, make_triples_by_language_model
from lfp.texts.words import words_of
from tests.lfp.labels.asking import client

LEXICON = {"fair": 0.5, "good": 2.0, "superb": 3.0, "awful": -2.0, "ugly": -3.0, "poor": -2.1}
SENTENCES = [f"A superb film number {i}, and a good one too." for i in range(30)]
TARGETS = [["superb", "good"]] * len(SENTENCES)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


def serve(**changes: Any) -> FakeServer:
    return FakeServer(FakeConfig(**changes), [SwapWords(LEXICON)])


def signs(sentence: str) -> list[int]:
    """Signs of the two words that were to be replaced; fails where anything else was changed."""
    match = re.fullmatch(r"A (\w+) film number \d+, and a (\w+) one too\.", sentence)
    assert match is not None, sentence
    values = [LEXICON.get(word, 0.0) for word in match.groups()]
    return [(value > 0) - (value < 0) for value in values]


def is_right(rewrite: Rewrite | str) -> bool:
    return isinstance(rewrite, Rewrite) and (signs(rewrite.negative), signs(rewrite.neutral)) == ([-1, -1], [0, 0])


@pytest.mark.parametrize("behave", ["right", "flaky"])
def test_every_sentence_is_rewritten(behave: Any) -> None:
    with serve(behave=behave, retry_after="0.01", seed=1) as server:
        rewrites = LanguageModelRewriter(client(server)).rewrite(SENTENCES, TARGETS)
    assert len(rewrites) == len(SENTENCES) and all(map(is_right, rewrites))


@pytest.mark.parametrize(("behave", "kept"), [("right", 12), ("wrong", 0), ("random", 0)])
def test_triples_are_made_of_right_answers_only(behave: Any, kept: int) -> None:
    texts = [f"A {word} film number{letter}." for letter in "abcdef" for word in ("good", "superb")]
    bounds = {"n": 12, "strong_quantile": 0.1, "min_count": 1, "seed": 0}
    with serve(behave=behave) as server:
        rewriter = LanguageModelRewriter(client(server))
        if not kept:
            with pytest.raises(DataError):
                make_triples_by_language_model(texts, LEXICON, rewriter, **bounds)
            return
        drawn = make_triples_by_language_model(texts, LEXICON, rewriter, **bounds)
    assert len(drawn.triples) == kept
    assert {triple.positive_word for triple in drawn.triples} == {"good", "superb"}
    assert [find_fault(triple, LEXICON) for triple in drawn.triples] == [None] * kept


def test_a_wrong_answer_is_passed_on_to_who_checks_it() -> None:
    with serve(behave="wrong") as server:
        (rewrite,) = LanguageModelRewriter(client(server)).rewrite(SENTENCES[:1], TARGETS[:1])
    assert isinstance(rewrite, Rewrite) and rewrite.neutral == SENTENCES[0] and not is_right(rewrite)


@pytest.mark.parametrize(
    ("ailment", "reason"),
    [("bad_json", "breaks the schema"), ("cut_off", "connection broke off"), ("server_error", "status 500")],
)
def test_a_sentence_that_gets_no_answer_has_a_reason(ailment: Any, reason: str) -> None:
    with serve(behave="flaky", fault_share=1.0, faults=(ailment,)) as server:
        rewrites = LanguageModelRewriter(client(server)).rewrite(SENTENCES[:2], TARGETS[:2])
    assert all(isinstance(rewrite, str) and reason in rewrite for rewrite in rewrites)


def test_sentences_are_asked_once_for_good(tmp_path: Path) -> None:
    with serve() as server:
        first = LanguageModelRewriter(client(server, tmp_path)).rewrite(SENTENCES, TARGETS)
        again = LanguageModelRewriter(client(server, tmp_path)).rewrite(SENTENCES, TARGETS)
        assert first == again and server.counts.as_json()["requests"] == len(SENTENCES)
        kept = [file.read_text(encoding="utf-8") for file in tmp_path.rglob("*.json")]
        assert len(kept) == len(SENTENCES)
        assert not any(word in text for text in kept for word in (server.base_url, "127.0.0.1", "http"))


def test_progress_is_reported() -> None:
    seen: list[tuple[str, int, int]] = []
    with serve() as server:
        rewriter = LanguageModelRewriter(client(server), lambda what, done, total, _: seen.append((what, done, total)))
        rewriter.rewrite(SENTENCES[:3], TARGETS[:3])
    assert seen[-1] == ("sentences rewritten", 3, 3)


def test_the_question_holds_sentence_and_words_and_room_for_both_answers() -> None:
    asked = build_question(SENTENCES[0], ["superb", "good"])
    assert read_question(asked.messages[-1].content) == (SENTENCES[0], ["superb", "good"])
    assert asked.max_tokens > 2 * len(words_of(SENTENCES[0]))
    assert not any("sentence" in message.content and SENTENCES[0] in message.content for message in asked.messages[:-1])


def test_sentences_and_words_must_go_together() -> None:
    with serve() as server, pytest.raises(ValueError, match="shorter"):
        LanguageModelRewriter(client(server)).rewrite(SENTENCES[:2], TARGETS[:1])
