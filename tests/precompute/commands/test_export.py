"""`export` and `import`: what lands where, what is refused, and that nothing is half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lfp
from lfp.bundle.manifest import read_manifest, read_table
from lfp.bundle.validation import validate
from lfp.errors import BundleError, ConfigError, DataError
from lfp.exports import neuronpedia
from precompute.commands.export import export
from precompute.commands.import_labels import import_labels
from tests.conftest import ROOT
from tests.precompute.test_cli import call


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A synthetic bundle of 60 features to label."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_a_command_writes_a_folder_and_says_what(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(
        "export", str(bundle), str(tmp_path / "pages"), "--to", "html", "--features", "3,5", capsys=capsys
    )
    files = [file for file in (tmp_path / "pages").rglob("*") if file.is_file()]
    assert code == 0 and len(files) == 3 and f"{tmp_path}/pages: 3 files written, " in out
    code, out, err = call("export", str(bundle), str(tmp_path / "pages"), "--to", "hub", capsys=capsys)
    assert (
        code == 2
        and err == f"error: {tmp_path}/pages: something is there already; name a new folder, or remove what is there\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["pages"]


@pytest.mark.parametrize("to", ["neuronpedia", "hub", "html"])
def test_a_dry_run_lists_what_is_then_written(
    bundle: Path, tmp_path: Path, to: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "here"
    some = () if to == "hub" else ("--features", "3,5")
    code, out, _ = call("export", str(bundle), str(target), "--to", to, "--dry-run", *some, capsys=capsys)
    *lines, last = out.splitlines()
    assert code == 0 and not target.exists() and f"{len(lines)} files would be written" in last
    listed = {name: int(size.replace(",", "")) for size, name in (line.split() for line in lines)}
    assert listed == export(bundle, target, to=to, features=[3, 5] if some else None).files
    found = {str(file.relative_to(target)): file.stat().st_size for file in target.rglob("*") if file.is_file()}
    assert found == listed


def test_an_export_that_fails_leaves_nothing(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BundleError("a table broke")

    monkeypatch.setattr(neuronpedia, "_explanation", broken)
    with pytest.raises(BundleError, match="a table broke"):
        export(bundle, tmp_path / "here", to="neuronpedia")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"to": "html", "push": True}, "--push: only --to hub uploads"),
        ({"to": "hub", "features": [1]}, "--features: a bundle travels to the hub whole"),
        ({"to": "hub", "push": True, "name": "a"}, "--name: --push takes the name"),
        ({"to": "hub", "push": True}, "not the name of a repository; write it as owner/name"),
        ({"to": "html", "features": [60]}, "no feature 60 in the bundle, which holds 0 to 59"),
        ({"to": "neuronpedia", "name": "漢字"}, "has no letter or digit to make a name of"),
    ],
)
def test_wrong_arguments_are_one_sentence(bundle: Path, tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        export(bundle, tmp_path / "here", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_without_features_has_nothing_for_neuronpedia(empty_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no features to export"):
        export(empty_bundle, tmp_path / "here", to="neuronpedia")
    assert list(tmp_path.iterdir()) == []


def test_no_file_outside_the_bundle_is_exported(copy: Path, tmp_path: Path) -> None:
    (copy / "texts.parquet").rename(tmp_path / "texts.parquet")
    (copy / "texts.parquet").symlink_to(tmp_path / "texts.parquet")
    for to in ("neuronpedia", "hub", "html"):
        with pytest.raises(BundleError, match="outside the bundle"):
            export(copy, tmp_path / "here", to=to)  # type: ignore[arg-type]
    assert not (tmp_path / "here").exists()


def test_an_export_needs_no_package_of_the_jobs(tmp_path: Path) -> None:
    code = (
        "import sys, lfp\n"
        f"for to in ('neuronpedia', 'html'): lfp.export('data/demo', '{tmp_path}/' + to, to=to, features=[3])\n"
        f"lfp.export('data/demo', '{tmp_path}/hub', to='hub', dry_run=True)\n"
        "heavy = {'torch', 'transformers', 'safetensors', 'huggingface_hub', 'sklearn', 'openai'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)


def test_what_was_exported_comes_back_as_labels(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(copy, tmp_path / "out", to="neuronpedia", name="m")
    before = {row["feature_id"]: row for row in read_table(copy, "labels").to_pylist()}
    others = read_manifest(copy).tables
    code, out, _ = call("import", str(copy), str(tmp_path / "out" / "m"), capsys=capsys)
    assert (code, out) == (0, f"{copy}: 60 of 60 features labelled by Neuronpedia's explanations\n")
    assert validate(copy) == []
    added = [row for row in read_table(copy, "labels").to_pylist() if row["labeller"] == "neuronpedia"]
    assert [row["feature_id"] for row in added] == list(range(60)) and len(before) == 60
    for row in added:
        assert row["status"] == "ok" and row["related"] is None and row["score_detection"] is None
    changed = {name for name, info in read_manifest(copy).tables.items() if info != others[name]}
    assert changed == {"labels"}
    assert lfp.import_labels(copy, tmp_path / "out" / "m").labelled == 60
    assert len(read_table(copy, "labels")) == len(added) + read_manifest(copy).tables["labels"].rows - 60


def test_a_label_that_nobody_scored_names_no_feature(copy: Path, tmp_path: Path) -> None:
    with lfp.open_bundle(copy) as run:
        before = run.features(sort="id", columns=["description"])
    file = tmp_path / "a.jsonl"
    rows = [{"layer": "0-x", "index": str(index), "description": "something else"} for index in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert import_labels(copy, [file]).labelled == 3
    with lfp.open_bundle(copy) as run:
        assert run.features(sort="id", columns=["description"]).equals(before)
        said = run.feature(0).labels()
        assert "something else" in set(said.description) and said.labeller[0] != "neuronpedia"


def test_a_refused_import_changes_nothing(copy: Path, tmp_path: Path) -> None:
    file, before = tmp_path / "a.jsonl", read_manifest(copy)
    file.write_text(json.dumps({"layer": "99-x", "index": "0", "description": "a"}))
    with pytest.raises(DataError, match="is of layer 99"):
        import_labels(copy, [file])
    with pytest.raises(ConfigError, match="none is named"):
        import_labels(copy, [])
    assert read_manifest(copy) == before
