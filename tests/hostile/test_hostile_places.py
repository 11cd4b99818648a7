"""Places that cannot be written, disks that are full, and bundles that another command is writing to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lfp.bundle.writer import update_bundle
from lfp.config import load_config
from lfp.errors import BundleError, LabelError
from lfp.evaluation.results import ResultRow
from lfp.labels.client.questions import Answer, write_answer
from lfp.testing.synthetic import make_bundle
from precompute.stages.features.pass_shards import _map_array
from tests.hostile import places
from tests.hostile.measuring import call_apart
from tests.hostile.servers import Said
from tests.precompute.test_cli import call

HOLD = """
    import sys, time
    from precompute.run.work_folder import lock_output
    with lock_output(sys.argv[1]):
        print("locked", flush=True)
        time.sleep(60)
"""
small_disks = pytest.mark.skipif(not places.can_mount(), reason="needs the right to mount a small disk")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "small", n_features=12, n_texts=6)


@pytest.fixture
def writer(small: Path) -> Iterator[int]:
    """The process of another command that writes to the bundle."""
    code = "\n".join(line.removeprefix("    ") for line in HOLD.splitlines())
    with subprocess.Popen([sys.executable, "-c", code, str(small)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        yield process.pid
        process.kill()


def test_an_out_that_cannot_be_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text('[corpus]\nsource = "missing.txt"\n', encoding="utf-8")
    for name, out in places.bad_outs(tmp_path).items():
        code, _, err = call("run", str(config), "--out", str(out), capsys=capsys)
        assert not places.judge(code, err), name
        assert "missing.txt" not in err, f"{name}: the corpus is looked for first"
    assert {file.name for file in tmp_path.iterdir()} == {"tiny.toml", "a-file", "full", "loop"}


def test_the_config_of_the_long_run_is_one(tmp_path: Path) -> None:
    config = load_config(places.config_file(tmp_path), [])
    assert config.corpus.n_texts == 240 and config.ablation.completions == 4 and (tmp_path / "reviews.txt").is_file()


@pytest.mark.parametrize("command", ["label", "ablate", "import", "run", "export"])
def test_of_two_commands_on_a_bundle_the_second_says_so(
    command: str, small: Path, writer: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text('[corpus]\nsource = "missing.txt"\n', encoding="utf-8")
    typed = {
        "label": ["label", str(small), "--labeller", "offline-tokens"],
        "ablate": ["ablate", str(small), "--completions", "4"],
        "import": ["import", str(small), str(config)],
        "run": ["run", str(config), "--out", str(small)],
        "export": ["export", str(make_bundle(tmp_path / "other", n_features=3, n_texts=2)), str(small)],
    }
    if command == "export":  # two exports to one folder that is not there yet
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("precompute.commands.export.check_target", lambda target: None)
            code, _, err = call(*typed[command], "--to", "html", capsys=capsys)
    else:
        code, _, err = call(*typed[command], capsys=capsys)
    assert code == 1 and f"another command (process {writer}) is writing there; wait until it ends" in err
    assert err.count("\n") == 1 and "delete" not in err


@small_disks
def test_a_full_disk_is_a_sentence_and_the_old_bundle_stays(small: Path, tmp_path: Path) -> None:
    with places.small_disk(tmp_path / "disk", "400k") as disk:
        copy = make_bundle(disk / "copy", n_features=4, n_texts=2)
        before = sorted((file.name, file.stat().st_size) for file in copy.iterdir())
        noise = np.random.default_rng(0).bytes(300_000).hex()
        (disk / "noise").write_text(noise[: _room(disk) - 8_192], encoding="utf-8")
        with pytest.raises(BundleError, match=r"cannot be written \(No space left on device\)"):
            update_bundle(copy, {"results": _results(2_000)})
        assert sorted((file.name, file.stat().st_size) for file in copy.iterdir()) == before
        assert [file.name for file in disk.iterdir() if file.name.startswith(".")] == []
        answer = Answer(Said(description=noise[:50_000]), None, 0.0, 0, answered_at="2026-01-01")
        with pytest.raises(LabelError, match=r"answers cannot be kept \(No space left"):
            write_answer(disk / "answers", "ab" * 32, answer)


def _room(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def _results(n: int) -> list[dict[str, object]]:
    draws = np.random.default_rng(0).normal(size=n)
    return [ResultRow.from_estimate("tuning", f"metric {i}", float(draws[i])).as_dict() for i in range(n)]


@small_disks
def test_a_memory_map_that_the_disk_has_no_room_for_is_an_error_not_the_end_of_the_process(tmp_path: Path) -> None:
    with places.small_disk(tmp_path / "disk", "64k") as disk:
        outcome = call_apart(fill_map, disk / "array.npy", limit_s=60)
    assert "No space left on device" in outcome.fault


def fill_map(file: Path) -> None:
    """Fill a map of 4 MB."""
    _map_array(file, (1000, 1000))[:] = 1.0
