"""Explanations of Neuronpedia: which feature each is of, which is kept, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lfp.errors import CorpusError, DataError
from lfp.labels.neuronpedia import read_explanations
from lfp.util.types import Place

FEATURES = {(Place(2), 0): 0, (Place(2), 1): 1, (Place(5), 0): 2, (Place(5, "resid_post"), 0): 3}


def row(layer: str, index: object, description: object = "cats", **more: object) -> dict[str, Any]:
    return {"modelId": "m", "layer": layer, "index": index, "description": description, **more}


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    text = json.dumps(rows) if file.suffix == ".json" else "".join(json.dumps(each) + "\n" for each in rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


@pytest.mark.parametrize("name", ["batch-0.jsonl", "batch-0.jsonl.gz", "all.json"])
def test_layers_sites_and_indices_are_found(tmp_path: Path, name: str) -> None:
    rows = [
        row("2", "1"),
        row("5-lfp-change-mlp-out", "0", "dogs"),
        row("5-gemmascope-res-16k__a", 0, "birds", explanationModelName="gpt-x", typeName="oai_token-act-pair"),
    ]
    found = read_explanations([write(tmp_path / name, rows)], FEATURES)
    assert [(label.feature_id, label.description) for label in found] == [(1, "cats"), (2, "dogs"), (3, "birds")]
    assert found[2].model == "gpt-x" and found[2].reason == "explained by oai_token-act-pair"
    assert all(label.is_ok and label.related is None and label.score.detection is None for label in found)


def test_the_newest_explanation_of_a_feature_is_kept(tmp_path: Path) -> None:
    rows = [
        row("2-a", "0", "first", createdAt="2025-01-02"),
        row("2-a", "0", "newest", createdAt="2025-03-01"),
        row("2-a", "0", "old", createdAt="2024-01-01"),
        row("2-a", "1", "kept"),
        row("2-a", "1", "second"),
    ]
    found = read_explanations([write(tmp_path / "a.jsonl", rows)], FEATURES)
    assert [label.description for label in found] == ["newest", "kept"]


def test_a_folder_of_an_export_is_read(tmp_path: Path) -> None:
    write(tmp_path / "m" / "2-a" / "explanations" / "batch-0.jsonl.gz", [row("2-a", "0")])
    write(tmp_path / "m" / "2-a" / "explanations" / "batch-1.jsonl.gz", [row("2-a", "1")])
    write(tmp_path / "m" / "2-a" / "features" / "batch-0.jsonl.gz", [{"index": "0"}])
    for folder in (tmp_path / "m", tmp_path / "m" / "2-a", tmp_path / "m" / "2-a" / "explanations"):
        assert len(read_explanations([folder], FEATURES)) == 2
    with pytest.raises(DataError, match="holds no file of explanations"):
        read_explanations([tmp_path], FEATURES)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (row("3-a", "0"), r"row 1 is of layer 3 \(3-a\), but the bundle's features are of 2, 5; import"),
        (row("2-a", "9"), "row 1 is of feature 9 of 2-a, but the bundle's dictionary there has 2 features; import"),
        (row("5-a", "0"), "but layer 5 of the bundle is read at its MLP output and residual stream; import"),
        (row("2-b-att-16k", "0"), "but layer 2 of the bundle is read at its MLP output; import"),
        (row("e-res", "0"), "row 1 is of 'e-res', which begins with no layer's number; drop"),
        (row("2-a", "-1"), "row 1 has the index '-1', which is no feature's number; drop"),
        (row("2-a", None), "row 1 has the index '', which is no feature's number; drop"),
        (row("2-a", "1", " "), "row 1, feature 1, has no description; drop"),
        (row("2-a", "1", None), "row 1, feature 1, has no description; drop"),
    ],
)
def test_what_is_of_another_dictionary_is_refused(tmp_path: Path, bad: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_explanations([write(tmp_path / "a.jsonl", [row("2-a", "0"), bad])], FEATURES)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no column 'layer'"):
        read_explanations([write(tmp_path / "a.jsonl", [{"text": "a"}])], FEATURES)
    with pytest.raises(CorpusError, match=r"nothing\.jsonl"):
        read_explanations([tmp_path / "nothing.jsonl"], FEATURES)
