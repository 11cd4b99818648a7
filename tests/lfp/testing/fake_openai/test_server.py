"""The fake server: it speaks the protocol, behaves as configured, counts requests, and shuts down."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.errors import ConfigError
from lfp.labels.client.questions import Form
from lfp.labels.rewriting import Rewriting, build_question
from lfp.testing.fake_openai.answers import ChatRequest, SwapWords, random_value
from lfp.testing.fake_openai.server import FAKE_MODEL, FakeConfig, FakeServer
from tests.lfp.labels.asking import Length, Lengths, client, length_of, texts
from tests.precompute.test_cli import call

ROOT = Path(__file__).parents[4]
LEXICON = {"good": 2.0, "superb": 3.0, "awful": -2.0, "ugly": -3.0, "poor": -2.1}


def serve(**changes: Any) -> FakeServer:
    return FakeServer(FakeConfig(**changes), [Lengths(), SwapWords(LEXICON)])


def body(text: str = "abc", **changes: Any) -> dict[str, Any]:
    form = {"name": "Length", "schema": Length.model_json_schema(), "strict": True}
    asked = {"model": FAKE_MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 20}
    return asked | {"response_format": {"type": "json_schema", "json_schema": form}} | changes


def send(server: FakeServer, path: str, asked: dict[str, Any] | None = None, *, key: str = "") -> tuple[int, Any]:
    """Status and JSON of a request by the standard library, GET where nothing is asked."""
    data = None if asked is None else json.dumps(asked).encode()
    request = urllib.request.Request(server.base_url + path, data, {"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error) | {"headers": dict(error.headers)}


def test_a_completion_has_what_the_protocol_states() -> None:
    with serve() as server:
        status, completion = send(server, "/chat/completions", body())
    (choice,) = completion["choices"]
    assert (status, completion["object"], completion["model"]) == (200, "chat.completion", FAKE_MODEL)
    assert json.loads(choice["message"]["content"]) == {"characters": 3}
    assert (choice["finish_reason"], choice["message"]["role"]) == ("stop", "assistant")
    usage = completion["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    counts = server.counts.as_json()
    assert (counts["tokens_in"], counts["tokens_out"]) == (usage["prompt_tokens"], usage["completion_tokens"])


def test_an_answer_is_no_longer_than_it_may_be() -> None:
    with serve() as server:
        _, completion = send(server, "/chat/completions", body(max_tokens=None, max_completion_tokens=2))
    (choice,) = completion["choices"]
    assert choice["finish_reason"] == "length" and choice["message"]["content"] == '{"charac'
    assert completion["usage"]["completion_tokens"] == 2


def test_models_and_counts_are_listed() -> None:
    with serve() as server:
        assert [model["id"] for model in send(server, "/models")[1]["data"]] == [FAKE_MODEL]
        for text in ("a", "b", "a"):
            send(server, "/chat/completions", body(text))
        counts = send(server, "/counts")[1]
    assert (counts["requests"], counts["prompts"], counts["repeated"], counts["answers"]) == (3, 2, 1, 3)
    with serve(models=("one", "two")) as server:
        assert [model["id"] for model in send(server, "/models")[1]["data"]] == ["one", "two"]


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("/nothing", None, 404),
        ("/chat/completions", None, 404),
        ("/models", body(), 404),
        ("/chat/completions", {"model": "m"}, 400),
        ("/chat/completions", body(response_format={"type": "text"}), 400),
        ("/chat/completions", body(messages="hello"), 400),
        ("/chat/completions", body(response_format={"json_schema": {"name": "Other", "schema": {}}}), 400),
    ],
)
def test_other_requests_are_refused_in_words(path: str, asked: dict[str, Any] | None, status: int) -> None:
    with serve() as server:
        found, answer = send(server, path, asked)
    assert found == status and answer["error"]["message"]


def test_a_wrong_key_and_an_unknown_model_are_refused() -> None:
    with serve(key="right", models=("known",)) as server:
        assert send(server, "/models", key="wrong")[0] == 401
        assert send(server, "/models", key="right")[0] == 200
        status, answer = send(server, "/chat/completions", body(), key="right")
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert send(server, "/chat/completions", body(model="known"), key="right")[0] == 200


def test_wrong_answers_have_the_right_form() -> None:
    with serve(behave="wrong") as server:
        (answer,) = client(server).ask([length_of("abc")])
    assert answer.value == Length(characters=4)


def test_random_answers_have_the_right_form_and_repeat_by_seed() -> None:
    def drawn(seed: int) -> list[Any]:
        with serve(behave="random", seed=seed) as server:
            return [answer.value for answer in client(server).ask([length_of(text) for text in texts(20)])]

    first = drawn(0)
    assert all(first) and first == drawn(0) != drawn(1)
    assert len(set(first)) > 3


def test_slow_answers_come_late_and_do_not_hold_up_the_end() -> None:
    import time

    started = time.monotonic()
    with serve(behave="slow", delay_s=0.2) as server:
        assert send(server, "/chat/completions", body())[0] == 200
    assert time.monotonic() - started >= 0.2
    started = time.monotonic()
    with serve(behave="slow", delay_s=60.0) as server:
        thread = threading.Thread(target=lambda: send(server, "/chat/completions", body()))
        thread.start()
        while not server.counts.prompts:
            time.sleep(0.01)
    thread.join(5)
    assert time.monotonic() - started < 5 and not thread.is_alive()


@pytest.mark.parametrize(("ailment", "status"), [("rate_limit", 429), ("server_error", 500)])
def test_refusals_say_when_to_come_again(ailment: Any, status: int) -> None:
    with serve(behave="flaky", fault_share=1.0, faults=(ailment,), retry_after="7") as server:
        found, answer = send(server, "/chat/completions", body())
    assert found == status
    assert answer["headers"].get("Retry-After") == ("7" if ailment == "rate_limit" else None)
    assert server.counts.as_json() | {"answers": 0, "tokens_in": 0, "requests": 1} == server.counts.as_json()


def test_a_body_that_is_cut_off_ends_half_way() -> None:
    with (
        serve(behave="flaky", fault_share=1.0, faults=("cut_off",)) as server,
        pytest.raises(http.client.IncompleteRead),
    ):
        send(server, "/chat/completions", body())
    assert server.counts.answers == 0 and server.counts.tokens_out > 0, "it is billed, as half an answer is"


def test_bad_json_is_a_completion_whose_content_is_none() -> None:
    with serve(behave="flaky", fault_share=1.0, faults=("bad_json",)) as server:
        status, completion = send(server, "/chat/completions", body())
    assert status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(completion["choices"][0]["message"]["content"])


def test_faults_have_the_share_asked_for_and_repeat() -> None:
    def faults() -> list[int]:
        with serve(behave="flaky", fault_share=0.3, faults=("server_error",)) as server:
            return [send(server, "/chat/completions", body(text))[0] for text in texts(80) for _ in range(2)]

    statuses = faults()
    assert 0.15 < statuses.count(500) / len(statuses) < 0.45
    assert statuses == faults()
    assert any(first != second for first, second in zip(statuses[::2], statuses[1::2], strict=True)), "tries differ"


def test_a_port_in_use_is_named() -> None:
    with serve() as server:
        port = int(server.base_url.split(":")[2].split("/")[0])
        with pytest.raises(ConfigError, match=f"port {port}"):
            FakeServer(FakeConfig(), [], port=port)
    with pytest.raises(ConfigError, match="port 70000"):
        FakeServer(FakeConfig(), [], port=70000)


class _Part(Form):
    kind: Literal["a", "b"]
    score: float | None


class _Nested(Form):
    parts: list[_Part]
    flags: list[bool]
    n: int
    text: str
    always: Literal["yes"]


@given(st.text(max_size=50), st.integers(0, 1000))
def test_random_values_fit_their_form(text: str, seed: int) -> None:
    request = ChatRequest("m", (("user", text),), "_Nested", _Nested.model_json_schema())
    value = random_value(request, seed=seed)
    assert _Nested.model_validate(value).always == "yes"
    assert value == random_value(request, seed=seed)


def rewriting(sentence: str, *words: str) -> ChatRequest:
    asked = build_question(sentence, words)
    return ChatRequest("m", asked.messages, Rewriting.__name__, asked.json_schema)


def test_words_are_swapped_by_the_lexicon_and_nothing_else_is() -> None:
    answer = SwapWords(LEXICON).answer(rewriting("Good film, a GOOD one; goodness.", "good"), right=True)
    assert answer is not None
    for sentence, signs in ((answer["negative"], {-1}), (answer["neutral"], {0})):
        match = re.fullmatch(r"(\w+) film, a (\w+) one; goodness\.", sentence)
        assert match is not None
        values = [LEXICON.get(word.casefold(), 0.0) for word in match.groups()]
        assert {(value > 0) - (value < 0) for value in values} == signs
        assert match.group(1)[0].isupper()
        assert match.group(2)[0].casefold() not in "aeiou" or answer["neutral"] != sentence


def test_a_wrong_rewriting_differs_from_the_right_one() -> None:
    request = rewriting("A good film.", "good")
    wrong, right = (SwapWords(LEXICON).answer(request, right=right) for right in (False, True))
    assert wrong is not None and right is not None
    assert wrong["neutral"] == "A good film." and LEXICON.get(wrong["negative"].split()[1], 0.0) == 0.0
    assert wrong != right
    assert SwapWords(LEXICON).answer(ChatRequest("m", (), "Other", {}), right=True) is None
    with pytest.raises(ConfigError, match="negative"):
        SwapWords({"good": 1.0})


@pytest.mark.parametrize("behave", ["right", "flaky"])
def test_the_command_serves_until_it_is_stopped(behave: str) -> None:
    arguments = [sys.executable, "-m", "precompute", "fake-openai", "--port", "0", "--behave", behave]
    with subprocess.Popen(arguments, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            address, _, rest = process.stdout.readline().partition(": ")
            assert behave in rest
            with urllib.request.urlopen(f"{address}/models", timeout=10) as response:
                assert json.load(response)["data"][0]["id"] == FAKE_MODEL
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert out.startswith("requests 0, ")


@pytest.mark.parametrize("arguments", [("--port", "70000"), ("--port", "0", "--behave", "ill")])
def test_wrong_arguments_end_with_exit_code_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call("fake-openai", *arguments, capsys=capsys)
    assert code == 2 and err
