"""Files of an export: nothing half-written, nothing replaced, nothing outside the bundle or the target."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from lfp.bundle.manifest import MANIFEST, checked_files, read_manifest
from lfp.errors import BundleError, ConfigError
from lfp.exports.files import File, json_file, name_in_addresses, new_folder, select, write_file


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "made" / "here"
    with new_folder(target) as part:
        write_file(File("a/b.txt", b"one"), part)
        assert not target.exists()
    assert [file.name for file in target.rglob("*") if file.is_file()] == ["b.txt"]
    assert list(target.parent.iterdir()) == [target]


def test_after_an_error_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "here") as part:
        write_file(File("a", b"one"), part)
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_is_there_is_not_replaced(tmp_path: Path, is_folder: bool) -> None:
    kept = tmp_path / "here" / "kept" if is_folder else tmp_path / "here"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("kept")
    with pytest.raises(ConfigError, match="something is there already"), new_folder(tmp_path / "here"):
        pass
    assert kept.read_text() == "kept"


def test_an_empty_folder_may_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with new_folder(tmp_path / "here") as part:
        write_file(File("a", b"one"), part)
    assert (tmp_path / "here" / "a").read_bytes() == b"one"


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/tmp/out"])
def test_a_name_that_leaves_the_target_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "here").mkdir()
    with pytest.raises(ConfigError, match="outside"):
        write_file(File(name, b"one"), tmp_path / "here")
    assert [file.name for file in tmp_path.iterdir()] == ["here"]


def test_json_lines_are_the_same_bytes_each_time_and_hold_no_nan() -> None:
    file = json_file("a.jsonl.gz", [{"token": "\u0000 café"}, {"token": "b"}])
    assert isinstance(file.content, bytes) and file == json_file(
        "a.jsonl.gz", [{"token": "\u0000 café"}, {"token": "b"}]
    )
    assert [json.loads(line)["token"] for line in gzip.decompress(file.content).splitlines()] == ["\u0000 café", "b"]
    assert b"\\u0000" in gzip.decompress(file.content) and file.bytes == len(file.content)
    with pytest.raises(BundleError, match="not finite"):
        json_file("a.jsonl", [{"value": float("nan")}])


@pytest.mark.parametrize("name", ["artifacts/../../secret", "/etc/hostname", "artifacts/link"])
def test_a_file_outside_the_bundle_is_not_read(copied_bundle: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("secret")
    (copied_bundle / "artifacts").mkdir()
    (copied_bundle / "artifacts" / "link").symlink_to(tmp_path / "secret")
    values = read_manifest(copied_bundle).model_dump()
    values["artifacts"] = {name: {"bytes": 6, "sha256": "0" * 64}}
    (copied_bundle / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(BundleError, match="outside the bundle"):
        checked_files(copied_bundle, read_manifest(copied_bundle))


def test_a_table_that_is_a_link_out_of_the_bundle_is_not_read(copied_bundle: Path, tmp_path: Path) -> None:
    table = copied_bundle / "texts.parquet"
    table.rename(tmp_path / "elsewhere.parquet").touch()
    table.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(BundleError, match=r"texts\.parquet, which is outside"):
        checked_files(copied_bundle, read_manifest(copied_bundle))


def test_names_and_numbers() -> None:
    assert name_in_addresses("SmolLM2-135M, très <b>gai</b>!") == "smollm2-135m-tres-b-gai-b"
    assert name_in_addresses("../../etc/passwd") == "etc-passwd"
    with pytest.raises(ConfigError, match="pass --name"):
        name_in_addresses("漢字")
    assert select(None, 3) == [0, 1, 2] and select([2, 0, 2], 3) == [0, 2]
    with pytest.raises(ConfigError, match="no feature 3, -1 in the bundle, which holds 0 to 2"):
        select([3, -1], 3)
