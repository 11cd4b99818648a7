"""A person's labels from a file: read as written, and every fault named with its row."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfp.errors import CorpusError, DataError
from lfp.labels.result_rows import read_labels


def file(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_are_read_as_written(tmp_path: Path) -> None:
    rows = "feature_id,description,related,reason\n3,Praise,true,it is\n5, names of people ,no,\n"
    first, second = read_labels(file(tmp_path, rows))
    assert (first.feature_id, first.description, first.related, first.reason) == (3, "Praise", True, "it is")
    assert (second.description, second.related, second.reason, second.is_ok) == ("names of people", False, None, True)
    assert first.confidence is None and first.prompt_version == "human-1"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("x,Praise,true\n", "row 0 has the feature_id 'x'"),
        ("1,Praise,true\n1,Blame,false\n", "row 1 labels feature 1 again"),
        ("1,,true\n", "row 0, feature 1, has no description"),
        ("1,Praise,perhaps\n", "row 0 says 'perhaps' of related"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_labels(file(tmp_path, f"feature_id,description,related\n{rows}"))


def test_a_missing_column_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="related"):
        read_labels(file(tmp_path, "feature_id,description\n1,Praise\n"))
    with pytest.raises(CorpusError, match="nowhere"):
        read_labels(tmp_path / "nowhere.csv")
