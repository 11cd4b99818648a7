"""The client of language models: every question answered or failed with a reason, nothing paid twice or too much."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.errors import ConfigError, LabelError
from lfp.labels.client.client import Client, ClientConfig
from lfp.labels.client.transport import KEY, explain_status
from lfp.testing.fake_openai.server import FAKE_MODEL, FakeConfig, FakeServer
from tests.lfp.labels.asking import Length, Lengths, client, length_of, texts

SECRET = "sk-very-secret-0123456789"
ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


def serve(**changes: Any) -> FakeServer:
    return FakeServer(FakeConfig(**changes), [Lengths()])


def nowhere() -> str:
    """The address of a server that has gone."""
    with serve() as server:
        return server.base_url


def test_answers_come_in_the_order_asked_with_their_cost() -> None:
    with serve() as server:
        asked = client(server, price_in=2.0, price_out=10.0)
        answers = asked.ask([length_of(text) for text in texts(40)])
    assert [answer.value for answer in answers] == [Length(characters=n) for n in range(1, 41)]
    assert not any(answer.failure or answer.cached for answer in answers)
    billed = server.counts.tokens_in * 2e-6 + server.counts.tokens_out * 10e-6
    assert asked.budget.spent_usd == pytest.approx(billed) == pytest.approx(sum(answer.cost_usd for answer in answers))
    assert sum(answer.tokens for answer in answers) == server.counts.tokens_in + server.counts.tokens_out


def test_equal_questions_are_asked_once_and_samples_apart() -> None:
    with serve() as server:
        answers = client(server).ask([length_of("a"), length_of("bb"), length_of("a"), length_of("a", key="again")])
    assert [answer.value.characters for answer in answers if answer.value] == [1, 2, 1, 1]
    assert server.counts.prompts.total() == 3


def test_one_client_asks_several_rounds() -> None:
    with serve() as server:
        asked = client(server, concurrency=2, budget_usd=1.0, price_out=1000.0)  # room for all, 20 calls at a time
        for _ in range(2):
            assert all(answer.value for answer in asked.ask([length_of(text) for text in texts(30)]))
    assert asked.ask([]) == []


def test_kept_answers_are_not_asked_again_by_another_client(tmp_path: Path) -> None:
    questions = [length_of(text) for text in texts(12)]
    with serve() as server:
        client(server, tmp_path / "kept").ask(questions[:5])
        again = client(server, tmp_path / "kept", budget_usd=1e-9, price_in=0.0)
        answers = again.ask(questions)
        assert server.counts.as_json()["repeated"] == 0
    assert [answer.cached for answer in answers] == [True] * 5 + [False] * 7
    assert [answer.value for answer in answers] == [Length(characters=n) for n in range(1, 13)]
    reread = Client(ClientConfig(FAKE_MODEL, nowhere(), tmp_path / "kept")).ask(questions)
    assert [(answer.value, answer.cost_usd, answer.tokens) for answer in reread] == [
        (answer.value, answer.cost_usd, answer.tokens) for answer in answers
    ]


@pytest.mark.parametrize(
    "other", [length_of("a", max_tokens=21), length_of("a", key="b"), length_of("b")], ids=["max_tokens", "key", "text"]
)
def test_what_bears_on_the_answer_is_in_the_hash(other: Any) -> None:
    assert length_of("a").sha256("m") == length_of("a").sha256("m")
    assert len({length_of("a").sha256("m"), length_of("a").sha256("n"), other.sha256("m")}) == 3


def test_a_kept_answer_that_was_changed_is_named(tmp_path: Path) -> None:
    with serve() as server:
        client(server, tmp_path).ask([length_of("a")])
        (file,) = tmp_path.rglob("*.json")
        file.write_text("{", encoding="utf-8")
        with pytest.raises(LabelError, match=file.name):
            client(server, tmp_path).ask([length_of("a")])


def test_failures_are_not_kept(tmp_path: Path) -> None:
    with serve(behave="flaky", fault_share=1.0, faults=("bad_json",)) as server:
        (failed,) = client(server, tmp_path).ask([length_of("a")])
    assert failed.value is None and list(tmp_path.rglob("*.json")) == []


def test_a_third_of_answers_refused_all_arrive() -> None:
    with serve(behave="flaky", fault_share=0.3, faults=("rate_limit", "server_error"), retry_after="0.02") as server:
        answers = client(server).ask([length_of(text) for text in texts(200)])
    assert [answer.value for answer in answers] == [Length(characters=n) for n in range(1, 201)]
    assert server.counts.as_json()["repeated"] > 40


def test_every_ailment_together_all_arrive() -> None:
    with serve(behave="flaky", retry_after="0.02", seed=5) as server:
        answers = client(server).ask([length_of(text) for text in texts(200)])
    assert all(answer.value for answer in answers)


def test_an_answer_that_breaks_the_schema_three_times_fails_and_the_rest_goes_on() -> None:
    class Wordy(Lengths):
        def answer(self, request: Any, *, right: bool) -> dict[str, Any] | None:
            wordy = request.messages[-1][1] == "xxx"
            return {"characters": "three", "why": SECRET} if wordy else super().answer(request, right=right)

    with FakeServer(FakeConfig(), [Wordy()]) as server:
        asked = client(server, price_in=1.0)
        answers = asked.ask([length_of(text) for text in texts(6)])
    assert [bool(answer.value) for answer in answers] == [True, True, False, True, True, True]
    failure = answers[2].failure or ""
    assert "breaks the schema: characters" in failure and "(3 times)" in failure
    assert SECRET not in failure and "three" not in failure.removesuffix("(3 times)"), "no word of the answer is quoted"
    assert answers[2].cost_usd == pytest.approx(3 * answers[1].cost_usd, rel=0.1), "its tries were paid for"
    assert server.counts.prompts.total() == 8


def test_an_answer_longer_than_allowed_says_so() -> None:
    with serve() as server:
        (answer,) = client(server).ask([length_of("a", max_tokens=2)])
    assert answer.failure == "the answer breaks the schema: it was cut off at max_tokens; it is no JSON (3 times)"


def test_bad_json_and_bodies_cut_off_are_asked_again_within_bounds() -> None:
    for ailment, failure, tries in (("bad_json", "breaks the schema", 3 * 3), ("cut_off", "connection broke off", 4)):
        with serve(behave="flaky", fault_share=1.0, faults=(ailment,)) as server:
            asked = client(server, price_out=1e3)
            (answer,) = asked.ask([length_of("a")])
        assert failure in (answer.failure or "") and server.counts.prompts.total() == tries
        worst_usd, billed_usd = tries * 20 * 1e-3, server.counts.tokens_out * 1e-3
        expected = worst_usd if ailment == "cut_off" else billed_usd
        assert asked.budget.spent_usd == answer.cost_usd == pytest.approx(expected), (
            "an answer lost on the way was paid for"
        )


def test_a_server_that_never_answers_is_given_up() -> None:
    with serve(behave="slow", delay_s=60.0) as server:
        started = time.monotonic()
        answers = client(server, timeout_s=0.05, concurrency=4).ask([length_of(text) for text in texts(50)])
        assert time.monotonic() - started < 5
        assert server.counts.prompts.total() < 50
    assert {answer.failure for answer in answers} == {
        "no answer within 0.05 s (4 times)",
        "the server stopped answering",
    }


def test_a_server_that_goes_away_is_given_up() -> None:
    with serve() as server:
        asked = client(server, price_in=1.0)
        asked.ask([length_of("first")])
        spent_usd = asked.budget.spent_usd
    answers = asked.ask([length_of(text) for text in texts(20)])
    assert "the server cannot be reached (4 times)" in {answer.failure for answer in answers}
    assert asked.budget.spent_usd == spent_usd > 0.0


def test_a_wait_that_is_too_long_is_not_waited() -> None:
    with serve(behave="flaky", fault_share=1.0, faults=("rate_limit",), retry_after="3600") as server:
        (answer,) = client(server).ask([length_of("a")])
    assert answer.failure == "the server answered with status 429 and asks to wait 3600 s"


def test_retry_after_is_waited_for() -> None:
    with serve(behave="flaky", fault_share=0.4, faults=("rate_limit",), retry_after="0.2") as server:
        started = time.monotonic()
        client(server).ask([length_of(text) for text in texts(4)])
        repeated = server.counts.as_json()["repeated"]
    assert repeated and time.monotonic() - started >= 0.2


def test_a_refused_key_ends_everything_at_once_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(KEY, SECRET)
    caplog.set_level(logging.DEBUG)
    with serve(key="another") as server:
        asked = client(server, tmp_path)
        with pytest.raises(LabelError, match="refuses the key") as caught:
            asked.ask([length_of(text) for text in texts(500)])
        seen = "".join(traceback.format_exception(caught.value)) + repr(vars(asked)) + caplog.text
    assert SECRET not in seen and "Bearer" not in seen
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_an_unknown_model_ends_everything_at_once() -> None:
    with serve(models=("other",)) as server, pytest.raises(LabelError, match=f"no model '{FAKE_MODEL}'"):
        client(server).ask([length_of(text) for text in texts(500)])


def test_without_key_or_server_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=KEY):
        Client(ClientConfig("some")).ask([length_of("a")])
    monkeypatch.setenv(KEY, "")
    with pytest.raises(ConfigError, match=KEY):
        Client(ClientConfig("some")).ask([length_of("a")])


def test_a_question_the_server_declines_fails_alone_in_its_words_less_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY, SECRET)
    with FakeServer(FakeConfig(), []) as server:
        (answer,) = client(server).ask([length_of("a")])
    assert (
        answer.failure == "the server declined with status 400: This server has no rule for answers of the form Length."
    )
    monkeypatch.setenv(KEY, "of-another-form")
    said = "bad\nkey of-another-form or sk-abc***xyz at http://user@10.0.0.1:80/v1, see https://some.where/help"
    response = httpx2.Response(422, request=httpx2.Request("POST", "http://x"))
    explained = explain_status(openai.UnprocessableEntityError(said, response=response, body=None), "m", tries=1)
    assert explained == "the server declined with status 422: bad key … or … at … see …"


def test_neither_key_nor_address_is_in_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    with serve(key=SECRET) as server:
        asked = client(server, tmp_path)
        assert all(answer.value for answer in asked.ask([length_of(text) for text in texts(5)]))
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        address = server.base_url
    assert len(files) == 5
    for file in files:
        content = file.read_text(encoding="utf-8")
        assert not any(word in content for word in (SECRET, address, "127.0.0.1", "http", "xx"))
        assert set(json.loads(content)) == {"value", "tokens", "cost_usd", "answered_at"}
    assert address not in repr(ClientConfig("m", address))


@pytest.mark.parametrize(("behave", "used_usd"), [("right", 0.05), ("flaky", 0.04)])
def test_the_budget_is_never_passed_by_one_call(behave: Any, used_usd: float) -> None:
    prices = {"price_in": 50.0, "price_out": 1000.0}
    with serve(behave=behave, retry_after="0.01", faults=("server_error", "cut_off", "bad_json")) as server:
        asked = client(server, budget_usd=0.1, concurrency=8, **prices)
        answers = asked.ask([length_of(text) for text in texts(40)])
        billed = (server.counts.tokens_in * 50 + server.counts.tokens_out * 1000) * 1e-6
    assert used_usd < billed <= asked.budget.spent_usd + 1e-12 and asked.budget.spent_usd <= 0.1
    failures = {answer.failure for answer in answers if not answer.value}
    assert failures == {"the budget of $0.1 has no room for it"}
    assert sum(bool(answer.value) for answer in answers) >= 5


def test_a_call_that_costs_less_than_its_worst_makes_room_for_the_next() -> None:
    question = length_of("a", max_tokens=1000)
    worst = (question.tokens_in[1] + 1000) * 1e-6
    with serve() as server:
        asked = client(server, budget_usd=worst * 1.5, concurrency=8, price_in=1.0, price_out=1.0)
        answers = asked.ask([length_of(text, max_tokens=1000) for text in texts(6)])
    assert all(answer.value for answer in answers), "one at a time has room, though not two"


@given(st.text(max_size=300))
def test_the_worst_case_of_a_prompt_is_one(text: str) -> None:
    question = length_of(text)
    assert question.tokens_in[1] > len(text.encode()) + len(json.dumps(question.json_schema))
    assert question.tokens_in[0] < question.tokens_in[1]


def test_a_dry_run_counts_and_asks_nothing(tmp_path: Path) -> None:
    questions = [length_of(text) for text in texts(10)]
    with serve() as server:
        asked = client(server, tmp_path, price_in=1.0, price_out=3.0)
        asked.ask(questions[:4])
        sent = server.counts.prompts.total()
        estimate = asked.estimate([*questions, questions[9]])
        assert server.counts.prompts.total() == sent == 4
    assert (estimate.calls, estimate.cached, estimate.tokens_out) == (6, 4, 6 * 20)
    assert estimate.cost_usd == pytest.approx((estimate.tokens_in + 3 * 120) * 1e-6)
    assert estimate.cost_usd < estimate.worst_usd


def test_progress_reports_what_was_spent() -> None:
    seen: list[tuple[str, int, int, float]] = []
    with serve() as server:
        asked = client(server, price_in=1.0)
        asked.ask([length_of(text) for text in texts(5)], lambda *report: seen.append(report), what="counted")
    assert [(what, done, total) for what, done, total, _ in seen] == [("counted", n, 5) for n in range(6)]
    spent = [value for *_, value in seen]
    assert spent[0] == 0.0 and spent == sorted(spent) and spent[-1] == asked.budget.spent_usd


def test_a_client_works_in_another_thread() -> None:
    answers: list[Any] = []
    with serve() as server:
        thread = threading.Thread(target=lambda: answers.extend(client(server).ask([length_of("a")])))
        thread.start()
        thread.join(10)
    assert answers[0].value == Length(characters=1)


_JOB = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from lfp.labels.client.client import Client, ClientConfig
from tests.lfp.labels.asking import length_of, texts
asked = Client(ClientConfig("fake", sys.argv[1], Path(sys.argv[2]), concurrency=4))
answers = asked.ask([length_of(text) for text in texts(40)], lambda *report: print(report[1], flush=True))
assert all(answer.value for answer in answers)
"""


@pytest.fixture
def slow_server() -> Iterator[FakeServer]:
    with serve(behave="slow", delay_s=0.3) as server:  # so that a busy machine still stops a job half-way
        yield server


def job(server: FakeServer, cache: Path) -> subprocess.Popen[str]:
    """Forty questions, four at once, in another process."""
    command = [sys.executable, "-c", _JOB, server.base_url, str(cache)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)


def test_stopped_twice_and_resumed_no_prompt_is_sent_twice(slow_server: FakeServer, tmp_path: Path) -> None:
    for number, stop_at in ((signal.SIGINT, 4), (signal.SIGTERM, 12)):
        with job(slow_server, tmp_path) as stopped:
            assert stopped.stdout is not None
            next(line for line in stopped.stdout if int(line) >= stop_at)
            stopped.send_signal(number)
            stopped.communicate(timeout=20)
        assert stopped.returncode != 0
        assert stop_at <= len(list(tmp_path.rglob("*.json"))) == slow_server.counts.prompts.total() < 40
    with job(slow_server, tmp_path) as resumed:
        resumed.communicate(timeout=20)
    assert resumed.returncode == 0
    assert slow_server.counts.as_json() | {"requests": 40, "repeated": 0} == slow_server.counts.as_json()


def test_killed_outright_only_calls_under_way_are_sent_again(slow_server: FakeServer, tmp_path: Path) -> None:
    with job(slow_server, tmp_path) as killed:
        assert killed.stdout is not None
        next(line for line in killed.stdout if int(line) >= 10)
        killed.kill()
    with job(slow_server, tmp_path) as resumed:
        resumed.communicate(timeout=20)
    assert resumed.returncode == 0
    counts = slow_server.counts.as_json()
    assert counts["prompts"] == 40 and counts["repeated"] <= 4
