"""The job that labels a bundle: everything lands, nothing is asked twice, and the bundle is whole at every moment."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai._base_client
import pytest

from lfp.bundle.manifest import MANIFEST, file_sha256, read_manifest, read_table
from lfp.bundle.validation import validate
from lfp.labels.client.transport import KEY
from lfp.testing.fake_openai.server import FakeConfig, FakeServer
from precompute.commands.basic import knows
from tests.precompute.test_cli import call

SECRET = "sk-very-secret-9876543210"
ROOT = Path(__file__).parents[3]
PRICES = ("--price-in", "1", "--price-out", "4")
FEW = [
    part
    for name, n in {"stable": 5, "weighted": 8, "drifted": 8, "credited": 0, "random": 9}.items()
    for part in ("--set", f"labels.{name}={n}")
]
SOME = ("--features", ",".join(map(str, range(16))))


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.1)


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A synthetic bundle of 60 features to label."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


@pytest.fixture
def server(copy: Path, request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    """A server that knows the bundle's features, behaving as the test's marker says."""
    config = FakeConfig(**getattr(request, "param", {}))
    with FakeServer(config, [knows(copy)]) as running:
        yield running


def label(copy: Path, server: FakeServer, *more: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    return call("label", str(copy), "--model", "fake", "--base-url", server.base_url, *more, capsys=capsys)


def labelled(copy: Path, labeller: str = "openai:fake") -> list[dict[str, Any]]:
    return [row for row in read_table(copy, "labels").to_pylist() if row["labeller"] == labeller]


def hashes(copy: Path) -> dict[str, str]:
    return {file.name: file_sha256(file) for file in sorted(copy.glob("*.parquet"))}


def test_every_label_class_and_score_lands_beside_what_was_there(
    copy: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {
        name: labelled(copy, name) for name in {row["labeller"] for row in read_table(copy, "labels").to_pylist()}
    }
    code, out, err = label(copy, server, *PRICES, *FEW, capsys=capsys)
    rows = labelled(copy)
    assert code == 0 and f"{len(rows)} features labelled" in out and "$0.1" in out and "labels: answers" in err
    assert len(rows) > 25 and validate(copy) == []
    for row in rows:
        assert row["status"] == "ok" and row["description"] == f"what feature {row['feature_id']} fires on"
        assert row["score_detection"] in (None, 1.0) and row["score_fuzzing"] in (None, 1.0)
        assert row["agreement"] == 1.0 and row["task"] and row["prompt_sha256"] and row["created_at"]
    assert sum(row["score_detection"] == 1.0 for row in rows) > 20
    assert {name: labelled(copy, name) for name in before} == before
    report = read_table(copy, "results").to_pylist()
    scored = {row["group"] for row in report if row["report_row"] == "label_scores"}
    assert "labeller=openai:fake,features=all" in scored and "labeller=openai:fake,features=random" in scored
    assert any("openai:fake" in (row["group"] or "") for row in report if row["report_row"] == "label_agreement")


@pytest.mark.parametrize(
    ("server", "n", "low", "high"),
    [({"behave": "right"}, 16, 0.95, 1.0), ({"behave": "random"}, 60, 0.45, 0.55), ({"behave": "wrong"}, 16, 0.3, 0.6)],
    indirect=["server"],
)
def test_the_score_tells_good_labels_from_bad(
    copy: Path, server: FakeServer, n: int, low: float, high: float, capsys: pytest.CaptureFixture[str]
) -> None:
    label(copy, server, "--features", ",".join(map(str, range(n))), capsys=capsys)
    scores = [row["score_detection"] for row in labelled(copy) if row["score_detection"] is not None]
    assert len(scores) > n / 2 and low <= sum(scores) / len(scores) <= high


@pytest.mark.parametrize(
    "server", [{"behave": "flaky", "faults": ("rate_limit", "server_error"), "retry_after": "0"}], indirect=True
)
def test_all_labels_arrive_though_three_answers_in_ten_are_refused(
    copy: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = label(copy, server, "--features", "0,1,2,3,4", capsys=capsys)
    assert code == 0 and "failed" not in out and all(row["status"] == "ok" for row in labelled(copy))
    assert server.counts.as_json()["requests"] > 1.1 * server.counts.answers


def test_the_budget_is_not_passed_and_what_it_leaves_out_is_named(
    copy: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = ("--price-in", "5", "--price-out", "20")
    _, out, _ = label(copy, server, *prices, "--dry-run", capsys=capsys)
    assert float(re.findall(r"\$([\d.]+)", out)[-1]) > 0.10 and server.counts.answers == 0
    code, out, _ = label(copy, server, *prices, "--budget-usd", "0.10", capsys=capsys)
    billed = (server.counts.tokens_in * 5 + server.counts.tokens_out * 20) / 1e6
    assert 0.05 < billed <= 0.10 and code == 0
    assert "failed" in out and "the budget of $0.1 has no room" in out
    failed = [row for row in labelled(copy) if row["status"] == "failed"]
    assert failed and all("budget" in row["failure"] for row in failed)
    total = sum(row["cost_usd"] for row in labelled(copy))
    assert total == pytest.approx(billed)


def test_a_dry_run_counts_asks_nothing_and_changes_nothing(
    copy: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashes(copy)
    code, out, _ = label(copy, server, *PRICES, "--features", "1,2,3", "--dry-run", capsys=capsys)
    assert code == 0 and re.search(r"\d+ calls to make, 0 answers cached", out) and "$" in out
    assert server.counts.as_json()["requests"] == 0 and hashes(copy) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("server", [{"behave": "slow", "delay_s": 0.05}], indirect=True)
def test_stopped_half_way_the_bundle_is_as_it_was_and_nothing_is_asked_twice(
    copy: Path, server: FakeServer, number: int, equal_prompts: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before, asked = hashes(copy), server.counts.prompts
    command = [sys.executable, "-m", "precompute", "label", str(copy), "--model", "fake", "--concurrency", "2",
               "--base-url", server.base_url, *SOME]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        waited = time.monotonic()
        while asked.total() < 25 and time.monotonic() - waited < 60:
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=30)
    stopped = asked.total()
    assert process.returncode != 0 and 25 <= stopped < 150 and hashes(copy) == before
    code, _, _ = label(copy, server, *SOME, "--concurrency", "16", capsys=capsys)
    assert code == 0 and all(row["status"] == "ok" for row in labelled(copy))
    again = sum(n - 1 for n in asked.values()) - equal_prompts
    under_way = 2 if number == signal.SIGKILL else 0  # what was being answered when it was killed is lost
    assert again <= under_way


@pytest.fixture(scope="module")
def equal_prompts(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many of the questions are repeats of one prompt, asked on purpose, by a labelling of a fresh copy."""
    other = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("fresh") / "fresh"))
    with FakeServer(FakeConfig(), [knows(other)]) as server:
        with pytest.MonkeyPatch.context() as patch:
            command = ["precompute", "label", str(other), "--model", "fake", "--base-url", server.base_url, *SOME]
            patch.setattr(sys, "argv", command)
            from precompute.cli import app

            app(standalone_mode=False)
        return server.counts.as_json()["repeated"]


def test_whenever_it_is_killed_while_writing_the_old_bundle_or_a_whole_new_one_is_there(
    copy: Path,
) -> None:
    before, found = read_table(copy, "labels").num_rows, set[int]()
    command = [sys.executable, "-c", _WRITE, str(copy)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        for delay_s in (0.0, 0.05, 0.2):
            print(file=process.stdin, flush=True)
            writer = int(process.stdout.readline())  # ready to write
            time.sleep(delay_s)
            os.kill(writer, signal.SIGKILL)
            assert process.stdout.readline() == f"{-signal.SIGKILL}\n", "it was killed, and had not failed before"
            assert validate(copy) == []
            found.add(read_table(copy, "labels").num_rows)
    assert found == {before}, "the rule's labels of three features stand where they stood"


_WRITE = """
import os, sys
from pathlib import Path
from precompute.commands.label import label
for _ in sys.stdin:
    child = os.fork()  # a new interpreter would only import all of this again
    if not child:
        for written in range(50):
            label(Path(sys.argv[1]), labeller="offline-tokens", features=[1, 2, 3])
            if not written:  # from here on it is killed while it writes again
                print(os.getpid(), flush=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.parametrize("server", [{"key": SECRET}], indirect=True)
def test_no_key_and_no_address_is_in_the_bundle_the_log_or_the_kept_answers(
    copy: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KEY, SECRET)
    code, out, err = label(copy, server, *SOME, capsys=capsys)
    assert code == 0
    words = [SECRET, server.base_url, "127.0.0.1", server.base_url.split(":")[-1].split("/")[0] + "/v1"]
    kept = copy.parent / ".copy.answers"
    files = [file for folder in (copy, kept) for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 100 and (copy / MANIFEST) in files
    for file in files:
        content = file.read_bytes()
        assert not any(word.encode() in content for word in words), file
    for row in read_table(copy, "labels").to_pylist():  # Parquet is compressed: look inside too
        assert not any(word in json.dumps(row) for word in words)
    assert not any(word in out + err for word in words)


def test_a_refused_key_or_an_unknown_model_ends_the_job_and_changes_nothing(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashes(copy)
    monkeypatch.setenv(KEY, "sk-wrong")
    with FakeServer(FakeConfig(key=SECRET), [knows(copy)]) as server:
        code, _, err = label(copy, server, capsys=capsys)
        assert code == 1 and "refuses the key" in err and "sk-wrong" not in err
    with FakeServer(FakeConfig(models=("other",)), [knows(copy)]) as server:
        code, _, err = label(copy, server, capsys=capsys)
        assert code == 1 and "knows no model 'fake'" in err
    assert hashes(copy) == before


def test_a_server_that_never_answers_fails_every_feature_and_the_job(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(FakeConfig(behave="slow", delay_s=60.0), [knows(copy)]) as server:
        started = time.monotonic()
        code, out, _ = label(copy, server, "--timeout-s", "0.2", "--features", "1,2,3,4", capsys=capsys)
    assert time.monotonic() - started < 40
    assert code == 1 and "0 features labelled, 4 failed" in out and "description: " in out
    rows = labelled(copy)
    assert len(rows) == 4 and all(row["status"] == "failed" and row["failure"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--model", "m", *PRICES), 2, "no key in $OPENAI_API_KEY"),
        (("--model", "m"), 2, "--price-in and --price-out"),
        (("--base-url", "http://127.0.0.1:9/v1"), 2, "--model"),
        (("--model", "m", "--base-url", "http://127.0.0.1:9/v1", "--features", "1,60,99"), 2, "no feature 60, 99"),
        (("--model", "m", "--base-url", "http://127.0.0.1:9/v1", "--features", "one"), 2, '"one" is not the id'),
        (("--model", "m", "--base-url", "http://127.0.0.1:9/v1", "--set", "sae.k=3"), 2, "reads only [labels]"),
        (("--model", "m", "--base-url", "http://127.0.0.1:9/v1", "--set", "labels.repeats=0"), 2, "repeats"),
        (("--labeller", "human"), 2, "--from"),
        (("--labeller", "human", "--from", "nowhere.csv"), 1, "nowhere.csv"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_change_nothing(
    copy: Path, arguments: tuple[str, ...], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashes(copy)
    found, _, err = call("label", str(copy), *arguments, capsys=capsys)
    assert found == code and says in err and err.count("\n") == 1
    assert hashes(copy) == before


def test_a_persons_label_stands_beside_the_machines(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("feature_id,description,related\n3,praise,true\n", encoding="utf-8")
    before = labelled(copy, read_manifest(copy).labeller)
    code, out, _ = call(
        "label", str(copy), "--labeller", "human", "--from", str(file), "--reviewer", "ann", capsys=capsys
    )
    assert code == 0 and "1 features labelled" in out
    (row,) = labelled(copy, "human:ann")
    assert (row["description"], row["related"], row["model"]) == ("praise", True, None)
    assert labelled(copy, read_manifest(copy).labeller) == before and validate(copy) == []
    file.write_text("feature_id,description,related\n60,praise,true\n", encoding="utf-8")
    assert call("label", str(copy), "--labeller", "human", "--from", str(file), capsys=capsys)[0] == 2


def test_the_offline_labeller_labels_a_bundle_again(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("label", str(copy), "--labeller", "offline-tokens", capsys=capsys)
    rows = labelled(copy, "offline-tokens")
    assert code == 0 and "60 features labelled" in out and len(rows) == 60
    assert sum(row["score_detection"] is not None for row in rows) > 30
    assert {row["task"] for row in rows} == {None}


def test_a_custom_task_is_used_and_stored(copy: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    label(copy, server, "--features", "1,2", "--task", 'It was paid for "rhymes".', capsys=capsys)
    assert {row["task"] for row in labelled(copy)} == {'It was paid for "rhymes".'}


def test_two_models_labels_stand_side_by_side(
    copy: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in ("fake", "other"):
        call("label", str(copy), "--model", model, "--base-url", server.base_url, "--features", "1", capsys=capsys)
    assert [len(labelled(copy, f"openai:{model}")) for model in ("fake", "other")] == [1, 1]


def test_calls_run_side_by_side() -> None:
    from tests.lfp.labels.asking import Lengths, client, length_of

    with FakeServer(FakeConfig(behave="slow", delay_s=0.1), [Lengths()]) as server:
        asked = client(server, concurrency=32, timeout_s=60.0)
        answers = asked.ask([length_of("x", key=str(i)) for i in range(150)])
    assert all(answer.value for answer in answers) and 16 <= max(server.counts.at_once) <= 32
