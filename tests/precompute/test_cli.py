"""The command line: help with examples, exit codes 0, 1 and 2, errors in one sentence on stderr."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lfp.bundle.manifest import MANIFEST, read_manifest
from lfp.evaluation.results import ROWS
from lfp.util.sanitize import visible
from precompute import cli
from precompute.cli import main
from precompute.commands import VERBS
from precompute.commands.bench import app as bench
from precompute.presets import NAMES, preset
from tests.app.serving import CHROMIUM

COMMANDS = (
    "demo", "run", "config", "validate", "report", "ablate", "sweep", "plant", "label", "write", "screen",
    "fake-openai", "mcp", "export", "import",
)  # fmt: skip


def call(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, run in this process."""
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["precompute", *arguments])
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def broken(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle for a test to break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(command, "--help", capsys=capsys)
    assert code == 0
    assert f"python -m precompute {command}" in " ".join(out.split())


@pytest.mark.parametrize("name", VERBS)
def test_a_command_has_the_options_and_defaults_of_its_library_function(name: str) -> None:
    module, _, function = VERBS[name].partition(":")
    verb = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    commands = {
        command.callback.__name__: command.callback for app in (cli.app, bench) for command in app.registered_commands
    }
    options = inspect.signature(commands[name]).parameters
    renamed = {"overrides": "set_", "path": "bundle"}
    for parameter in (verb[key] for key in verb if key != "progress"):
        option = options[renamed.get(parameter.name, parameter.name)]
        assert parameter.default == option.default or (parameter.default, option.default) == ((), None)


def test_validate_says_valid(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read_manifest(tiny_bundle)
    line = f"{tiny_bundle}: valid, bundle {manifest.bundle_id}, tables {manifest.tables_id}\n"
    assert call("validate", str(tiny_bundle), capsys=capsys) == (0, line, "")


def test_validate_gives_a_line_a_fault(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (broken / "labels.parquet").unlink()
    file = broken / "layers.parquet"
    file.write_bytes(file.read_bytes()[:-20] + bytes(20))
    code, out, _ = call("validate", str(broken), capsys=capsys)
    assert code == 1
    assert "table labels is missing" in out and "table layers was changed" in out


def test_report_prints_json_and_lines(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("report", str(tiny_bundle), "--json", capsys=capsys)
    rows = json.loads(out)
    assert code == 0 and {row["model"] for row in rows["reward"]} == {"base", "tuned", "difference"}
    assert set(rows) >= set(ROWS) and rows["preference_accuracy"] == []
    assert all(value is not None for figures in rows.values() for row in figures for value in row.values())
    code, out, _ = call("report", str(tiny_bundle), capsys=capsys)
    checks, _, rest = out.partition("\n\n")
    assert sum(line[0] in "✓✗◐–" and "?" in line for line in checks.split("\n")) == 4
    assert code == 0 and rest.startswith("reward\n") and "kendall_tau" in out and "95 % interval" in out


def test_report_prints_what_both_models_wrote(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("report", str(tiny_bundle), "--samples", "2", capsys=capsys)
    rows = pq.read_table(tiny_bundle / "completions.parquet").to_pylist()
    written = {(row["group"], row["index"]): row for row in rows}
    writing, *lines = out.splitlines()
    assert code == 0 and len(lines) == 6 and "continuations" in writing
    for at in range(2):
        prompt, base, tuned = lines[3 * at : 3 * at + 3]
        assert prompt.removesuffix(" …") == visible(" ".join(written["base", at]["prompt"].split()))
        for line, model in ((base, "base"), (tuned, "tuned")):
            name, reward, text = [*line.split(maxsplit=2), ""][:3]
            assert (name, text) == (model, visible(" ".join(written[model, at]["completion"].split())))
            assert float(reward) == pytest.approx(written[model, at]["reward"], abs=0.006)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_report_writes_a_page_and_figures(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, folder = tmp_path / "report.html", tmp_path / "figures"
    code, out, _ = call("report", str(tiny_bundle), "--html", str(page), "--figures", str(folder), capsys=capsys)
    assert code == 0 and out.startswith(f"{page}: report written, ") and "figures written" in out
    assert "<h1>Tiny run</h1>" in page.read_text(encoding="utf-8")
    assert {file.suffix for file in folder.iterdir()} == {".svg"}
    names = {file.stem for file in folder.iterdir()}
    assert {"kendall-tau-delta", "drift-status", "divergence"} <= names
    code, out, err = call("report", str(tiny_bundle), "--json", "--html", str(page), capsys=capsys)
    assert code == 0 and json.loads(out)["reward"] and "report written" in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--html", "{there}/no/report.html"), "there is no folder {there}/no"),
        (("--html", "{there}"), "Is a directory"),
        (("--figures", "{there}/no/figures"), "there is no folder {there}/no"),
        (("--figures", "{there}/file"), "File exists"),
    ],
)
def test_a_report_that_cannot_be_written_is_one_sentence_with_exit_code_2(
    arguments: tuple[str, str], named: str, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    filled = [part.format(there=tmp_path) for part in arguments]
    code, _, err = call("report", str(tiny_bundle), *filled, capsys=capsys)
    assert code == 2 and named.format(there=tmp_path) in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("command", ["validate", "report"])
def test_no_bundle_is_one_sentence(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(command, str(tmp_path / "none"), capsys=capsys)
    assert code == 1
    text = out + err
    assert text.count("\n") == 1 and str(tmp_path / "none") in text and "Traceback" not in text


def test_another_schema_version_is_one_sentence(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = broken / MANIFEST
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    code, _, err = call("report", str(broken), capsys=capsys)
    assert code == 1 and "schema version 99" in err and "update the program" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("run", "missing.toml"), "missing.toml"),
        (("run", "{bad}"), "tune.stepz"),
        (("run", "{good}", "--set", "tune.steps=many"), "tune.steps"),
        (("run", "{good}", "--set", "nonsense"), "nonsense"),
        (("run", "{good}", "--set", "sae.variant=magic"), "sae.variant"),
    ],
)
def test_a_wrong_config_is_named_with_exit_code_2(
    arguments: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.toml").write_text("[tune]\nstepz = 4\n", encoding="utf-8")
    (tmp_path / "good.toml").write_text("seed = 3\n", encoding="utf-8")
    filled = [part.format(bad=tmp_path / "bad.toml", good=tmp_path / "good.toml") for part in arguments]
    code, _, err = call(*filled, "--out", str(tmp_path / "out"), capsys=capsys)
    assert code == 2 and named in err and err.startswith("error: ") and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.toml", "good.toml"]


@pytest.mark.parametrize(
    ("corpus", "named"),
    [("", "no rows"), ("body\nfine\n", "no column 'text' (found: body)"), ("text\n \n", "row 0 has no text")],
)
def test_a_corpus_that_cannot_be_used_is_named(
    corpus: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus.csv").write_text(corpus or "text\n", encoding="utf-8")
    (tmp_path / "run.toml").write_text('[corpus]\nsource = "corpus.csv"\n', encoding="utf-8")
    code, _, err = call("run", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out"), capsys=capsys)
    assert code == 1 and named in err.splitlines()[-1] and "corpus.csv" in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_an_unknown_hub_name_without_a_network_says_what_would_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "corpus.txt").write_text("\n".join(f"good or bad text {i}" for i in range(30)), encoding="utf-8")
    (tmp_path / "run.toml").write_text('[corpus]\nsource = "corpus.txt"\n[model]\nbase = "no-such/model"\n')
    code, _, err = call("run", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out"), capsys=capsys)
    last = err.splitlines()[-1]
    assert code == 1 and "no-such/model" in last and "model.base" in last and "Traceback" not in err


def test_every_preset_is_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    from lfp.config import load_config

    assert {"demo", "demo-fast", "imdb", "hh", "paper-vader", "paper-hh"} <= set(NAMES)
    for name in NAMES:
        config = load_config(preset(name))
        assert config.title != "Untitled run" and config.licence != "unstated"


def test_the_module_runs_as_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "precompute", "--help"], capture_output=True, text=True, check=True)
    assert all(command in done.stdout for command in COMMANDS)


def test_an_interrupted_command_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "precompute", "demo", "--fast", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "base" in line:  # the first stage that takes seconds has begun
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 1
    assert rest.strip().endswith("interrupted; add --resume to continue after the last finished stage")
    assert "Traceback" not in rest
    assert not (tmp_path / "out").exists()
