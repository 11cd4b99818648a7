"""Folders, patterns and addresses of shards are read as one; drivers that are missing are named with their command."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lfp.errors import CorpusError, DependencyError
from lfp.texts.reading.sources import find_files
from precompute.run.inputs import find_corpus_files
from tests.lfp.texts.reading.test_rows import LINES, TEXTS, texts, write
from tests.precompute.conftest import tiny_config

SHARDS = {f"train/part-{i}-of-3.parquet": [f"shard {i}, text {j}" for j in range(4)] for i in range(3)}
SHARD_TEXTS = {text for shard in SHARDS.values() for text in shard}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved data set: shards, what it says of itself, and a marker of the job that wrote it."""
    for name, shard in SHARDS.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": shard}), tmp_path / "data" / name)
    for name in ("dataset_info.json", "train/state.json", "train/_SUCCESS", ".hidden.parquet", "README.txt"):
        (tmp_path / "data" / name).write_text("{}")
    return tmp_path / "data"


@pytest.mark.parametrize(
    "name", ["", "/", "/train", "/train/part-*.parquet", "/**/*-of-3.parquet", "/train/part-[0-2]*"]
)
def test_shards_are_read_as_one(folder: Path, name: str) -> None:
    assert texts(Path(f"{folder}{name}")) == SHARD_TEXTS


def test_shards_beside_the_config_are_what_a_stage_reads(folder: Path) -> None:
    config = tiny_config(corpus={"source": "data/train/*.parquet"})
    assert [file.name for file in find_corpus_files(config, folder.parent)] == [Path(name).name for name in SHARDS]


def test_a_row_of_a_shard_is_named_with_it(folder: Path) -> None:
    pq.write_table(pa.table({"text": [None] * 30}), folder / "train" / "part-9.parquet")
    with pytest.raises(CorpusError, match=r"data \(4 files\): 30 of 42 rows .* rows 0 of part-9.parquet, 1 of part-9"):
        texts(folder)


def test_files_of_several_formats_are_refused_by_name(folder: Path) -> None:
    (folder / "other.csv").write_text("text\na\n")
    with pytest.raises(CorpusError, match=r"several formats \(.csv, .parquet\); name those of one, such as .*\*\.csv"):
        texts(folder)


def test_nothing_to_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no file of rows in this folder"):
        texts(tmp_path)
    with pytest.raises(CorpusError, match=r"corpus\.source .*/x-\*\.txt: no such file"):
        texts(tmp_path / "x-*.txt")


def read(address: str) -> set[str]:
    return texts(address)  # type: ignore[arg-type]


def test_an_address_is_read_by_fsspec(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/texts/a.jsonl", LINES.encode())
    memory.pipe("/texts/deep/b.jsonl", b'{"text": "deep"}')
    assert read("memory://texts/a.jsonl") == TEXTS
    assert read("memory://texts") == {*TEXTS, "deep"}
    assert read("memory://texts/*.jsonl") == TEXTS
    with pytest.raises(CorpusError, match=r"memory://none: no such file or folder"):
        read("memory://none")
    with pytest.raises(CorpusError, match="Protocol not known: nowhere"):
        read("nowhere://bucket/a.jsonl")
    assert find_corpus_files(tiny_config(corpus={"source": "memory://texts"}), tmp_path) == ()


@pytest.mark.parametrize(
    ("address", "package"),
    [("s3://b/a.jsonl", "s3fs"), ("gs://b/a.jsonl", "gcsfs"), ("az://b/a.csv", "adlfs")],
)
def test_a_missing_driver_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, address: str, package: str
) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, address.partition("://")[0], raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    pin = f"=={fsspec.__version__}" if package == "s3fs" else ""
    with pytest.raises(DependencyError, match=rf"corpus\.source {address}: .* run pip install '{package}{pin}'"):
        find_files(address, key="corpus.source", beside=None)


def test_shards_in_a_bucket_are_read_as_one(bucket: str, folder: Path, tmp_path: Path) -> None:
    remote = fsspec.filesystem("s3")
    remote.put(str(folder), f"{bucket}/data", recursive=True)
    remote.put(str(write(tmp_path / "a.jsonl.gz", gzip.compress(LINES.encode()))), f"{bucket}/a.jsonl.gz")
    assert read(f"{bucket}/data/train") == SHARD_TEXTS
    assert read(f"{bucket}/data/train/part-*.parquet") == SHARD_TEXTS
    assert read(f"{bucket}/a.jsonl.gz") == TEXTS
    with pytest.raises(CorpusError, match=r"corpus\.source s3://.*/absent: no such file or folder"):
        read(f"{bucket}/absent")
