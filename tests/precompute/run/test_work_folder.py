"""The work folder: one writer at a time, a stage that is complete or absent, and folders that cannot be written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from lfp.bundle.manifest import read_manifest
from lfp.bundle.validation import validate
from lfp.config import RunConfig
from lfp.errors import BundleError
from lfp.testing.synthetic import make_bundle
from lfp.util import disk
from precompute import pipeline
from precompute.pipeline import run_pipeline
from precompute.run import work_folder
from precompute.run.work_folder import Output, Run, lock_work_folder
from tests.precompute.conftest import TINY, replace_jobs, silent, tiny_config
from tests.precompute.test_cli import call

HOLD = """
    import sys, time
    from pathlib import Path
    from precompute.run.work_folder import lock_work_folder

    with lock_work_folder(Path(sys.argv[1])) as work:
        (work / "base").mkdir()
        print("locked", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def config_file(corpus_folder: Path, tmp_path: Path) -> Path:
    """The tiny run as a file."""
    config = tiny_config(corpus={"source": str(corpus_folder / "reviews.txt")}).model_dump(mode="json")
    sections = {name: {key: config[name][key] for key in keys} for name, keys in TINY.items() if isinstance(keys, dict)}
    lines = ["threads = 1"]
    for name, keys in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    file = tmp_path / "tiny.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the work folder of `out`."""
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_second_run_to_the_same_folder_ends_at_once_and_harms_nothing(
    other_process: subprocess.Popen[str], config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    code, _, err = call("run", str(config_file), "--out", str(tmp_path / "out"), "--resume", capsys=capsys)
    assert code == 1 and time.monotonic() - started < 20
    assert err == (
        f"error: {tmp_path / 'out'}: another command (process {other_process.pid}) is writing there;"
        " wait until it ends or choose another --out\n"
    )
    assert sorted(file.name for file in (tmp_path / ".out.run").iterdir()) == ["base", "lock"]
    assert other_process.poll() is None and not (tmp_path / "out").exists()


def test_the_lock_of_a_killed_process_is_not_in_the_way(other_process: subprocess.Popen[str], tmp_path: Path) -> None:
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    with lock_work_folder(tmp_path / "out") as work:
        assert (work / "lock").read_text(encoding="utf-8") == str(os.getpid()) and (work / "base").is_dir()


def test_a_lock_that_kept_nothing_leaves_no_folder(tmp_path: Path) -> None:
    for _ in range(2):
        with lock_work_folder(tmp_path / "out"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_the_current_folder_may_be_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into an empty folder, then in place of a bundle; whoever stands in the folder sees what was written."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(pipeline, "run_stages", lambda run, names: None)
    for n_texts in (3, 4):
        monkeypatch.setattr(
            pipeline, "write_bundle", lambda run, out, names, n=n_texts: make_bundle(out, n_features=3, n_texts=n)
        )
        assert run_pipeline(RunConfig(), Path(), config_dir=None, resume=False, progress=silent) == here
        assert validate(here) == [] and Path("manifest.json").is_file()
        assert read_manifest(here).tables["texts"].rows == n_texts
    assert [file.name for file in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("is_file", ["out", "parent"])
def test_a_folder_that_cannot_be_written_is_named_and_can_be_made_good(
    is_file: str, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    replace_jobs(monkeypatch, corpus=lambda run, output: 1 / 0)
    out = tmp_path / "parent" / "out"
    in_the_way = out if is_file == "out" else out.parent
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("letters", encoding="utf-8")
    code, _, err = call("run", str(config_file), "--out", str(out), capsys=capsys)
    assert code == 1 and err.startswith(f"error: {out}: ") and err.count("\n") == 1 and "choose" in err
    assert in_the_way.read_text(encoding="utf-8") == "letters"
    in_the_way.unlink()
    with pytest.raises(ZeroDivisionError):  # it starts
        run_pipeline(
            tiny_config(corpus={"source": str(config_file)}), out, config_dir=None, resume=True, progress=silent
        )


def test_a_full_disk_is_one_sentence_and_the_run_resumes(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(run: Run, output: Output) -> None:
        (output.folder / "half.parquet").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output.folder / "half.parquet"))

    with monkeypatch.context() as patch:
        replace_jobs(patch, base=fill)
        with pytest.raises(BundleError, match=r"stage base cannot be written \(No space left on device\); make room"):
            run_pipeline(tiny_config(), tmp_path / "out", config_dir=corpus_folder, resume=False, progress=silent)
    replace_jobs(monkeypatch, base=lambda run, output: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_pipeline(tiny_config(), tmp_path / "out", config_dir=corpus_folder, resume=True, progress=silent)


def write(run: Run, key: str) -> None:
    with run.writing("base", key) as output:
        output.json("facts", {"key": key})
        output.table("features", pa.table({"feature_id": [1]}))


def test_a_stage_that_misses_a_file_or_a_part_of_one_is_not_done(tmp_path: Path) -> None:
    run = Run(tiny_config(), tmp_path, None, silent)
    assert not run.is_done("base", "k")
    for damage in (
        lambda folder: (folder / "facts.json").unlink(),
        lambda folder: (folder / "facts.json").write_text("{", encoding="utf-8"),
        lambda folder: (folder / "stage.json").write_text('{"key": "k"', encoding="utf-8"),
        lambda folder: (folder / "stage.json").unlink(),
    ):
        write(run, "k")
        assert run.is_done("base", "k") and not run.is_done("base", "another")
        damage(run.folder("base"))
        assert not run.is_done("base", "k")


@pytest.mark.parametrize("nth", range(1, 10))
def test_a_stage_interrupted_at_any_moment_of_its_end_is_the_old_one_the_new_one_or_none(
    nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at every sync and rename in turn: whatever stands there as done is complete."""
    run, calls = Run(tiny_config(), tmp_path, None, silent), [0]
    write(run, "old")

    def stop_at_nth(original):
        def stopped(*arguments: object) -> object:
            calls[0] += 1
            if calls[0] == nth:
                raise KeyboardInterrupt
            return original(*arguments)

        return stopped

    with monkeypatch.context() as patch:
        stopping = stop_at_nth(disk.sync_entry)
        for module in (disk, work_folder):
            patch.setattr(module, "sync_entry", stopping)
        patch.setattr(Path, "rename", stop_at_nth(Path.rename))
        with suppress(KeyboardInterrupt):
            write(run, "new")
    done = [key for key in ("old", "new") if run.is_done("base", key)]
    assert len(done) <= 1 and all(run.json("base", "facts") == {"key": key} for key in done)
    write(run, "new")
    assert run.is_done("base", "new") and [file.name for file in tmp_path.iterdir()] == ["base"]


def test_interrupted_attempts_count_where_the_next_resumes_from_them(tmp_path: Path) -> None:
    run = Run(tiny_config(), tmp_path, None, silent)

    def attempt(*, leaves_checkpoint: bool) -> None:
        with pytest.raises(KeyboardInterrupt), run.writing("base", "key") as output:
            if leaves_checkpoint:
                (output.scratch / "checkpoint.pt").touch()
            time.sleep(0.3)
            raise KeyboardInterrupt

    attempt(leaves_checkpoint=False)
    write(run, "key")
    assert run.costs(["base"])[0].seconds < 0.3
    attempt(leaves_checkpoint=True)
    attempt(leaves_checkpoint=True)
    write(run, "key")
    (cost,) = run.costs(["base"])
    assert cost.name == "base" and 0.6 <= cost.seconds < 5 and cost.cpu_seconds is not None
