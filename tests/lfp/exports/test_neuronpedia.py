"""Files for Neuronpedia, held against the tables that its importer fills.

Its importer (apps/webapp/lib/db/import.ts of github.com/hijohnnylin/neuronpedia, read at commit ebb8426 of August 2026)
takes the columns of a file from its first line, casts them to the types of the table, and leaves the others at their
defaults; its import route gives the lines of release, model, source set and source to Prisma, which refuses a key that
is not of the table. Tables are those of apps/webapp/prisma/schema.prisma there: names, types, and which must be given.
"""

from __future__ import annotations

import gzip
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lfp.bundle.manifest import read_manifest
from lfp.bundle.store.connection import Store
from lfp.exports import CREATOR_ID
from lfp.exports.files import File
from lfp.exports.neuronpedia import neuronpedia_files
from lfp.testing.synthetic import make_bundle
from precompute.run.progress import silent

TEXT, REAL, WHOLE, FLAG, DATE = "text", "real", "whole", "flag", "date"
TABLES: dict[str, dict[str, str]] = {
    "release": {
        "name!": TEXT, "visibility": TEXT, "description!": TEXT, "descriptionShort": TEXT, "urls": "text[]",
        "creatorName!": TEXT, "creatorNameShort": TEXT, "creatorId!": TEXT, "createdAt": DATE,
    },
    "model": {
        "id!": TEXT, "displayNameShort": TEXT, "displayName": TEXT, "creatorId!": TEXT, "dimension": WHOLE,
        "visibility": TEXT, "inferenceEnabled": FLAG, "instruct": FLAG, "layers!": WHOLE, "neuronsPerLayer!": WHOLE,
        "createdAt": DATE, "owner!": TEXT, "updatedAt": DATE,
    },
    "sourceset": {
        "modelId!": TEXT, "name!": TEXT, "hasDashboards": FLAG, "allowInferenceSearch": FLAG, "visibility": TEXT,
        "description!": TEXT, "type": TEXT, "creatorName!": TEXT, "urls": "text[]", "creatorId!": TEXT,
        "releaseName": TEXT, "createdAt": DATE,
    },
    "source": {
        "id!": TEXT, "modelId!": TEXT, "hasDashboards": FLAG, "inferenceEnabled": FLAG, "visibility": TEXT,
        "setName!": TEXT, "creatorId!": TEXT, "num_prompts": WHOLE, "num_tokens_in_prompt": WHOLE, "dataset": TEXT,
        "notes": TEXT, "createdAt": DATE,
    },
    "features": {
        "modelId!": TEXT, "layer!": TEXT, "index!": TEXT, "sourceSetName": TEXT, "creatorId": TEXT,
        "maxActApprox": REAL, "frac_nonzero": REAL, "topkCosSimIndices": "whole[]", "topkCosSimValues": "real[]",
        "neg_str": "text[]", "neg_values": "real[]", "pos_str": "text[]", "pos_values": "real[]",
        "freq_hist_data_bar_heights": "real[]", "freq_hist_data_bar_values": "real[]",
    },
    "activations": {
        "id!": TEXT, "tokens!": "text[]", "dataIndex": TEXT, "index!": TEXT, "layer!": TEXT, "modelId!": TEXT,
        "dataSource": TEXT, "maxValue!": REAL, "maxValueTokenIndex!": WHOLE, "minValue!": REAL, "values!": "real[]",
        "creatorId!": TEXT, "binMin": REAL, "binMax": REAL, "binContains": REAL, "qualifyingTokenIndex": WHOLE,
    },
    "explanations": {
        "id!": TEXT, "modelId!": TEXT, "layer!": TEXT, "index!": TEXT, "description!": TEXT, "authorId!": TEXT,
        "notes": TEXT,
    },
}  # fmt: skip
"""Columns that an export may fill, by file; those with ! have no default, so that every line must give them."""


def fits(value: Any, kind: str) -> bool:
    if kind.endswith("[]"):
        return isinstance(value, list) and all(fits(item, kind[:-2]) for item in value)
    if kind == DATE:
        return datetime.fromisoformat(value).tzinfo is not None
    kinds = {TEXT: (str,), REAL: (int, float), WHOLE: (int,), FLAG: (bool,)}[kind]
    return isinstance(value, kinds) and (kind == FLAG or not isinstance(value, bool))


def lines_of(file: File) -> list[dict[str, Any]]:
    assert isinstance(file.content, bytes)
    text = gzip.decompress(file.content) if file.name.endswith(".gz") else file.content
    return [json.loads(line) for line in text.decode().splitlines()]


def export(bundle: Path, features: list[int] | None = None) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Lines by source and file, batches joined."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with Store.open(bundle) as store:
        ids = list(range(store.manifest.tables["features"].rows)) if features is None else features
        for file in neuronpedia_files(store, ids, model_id="some-model", creator_id=CREATOR_ID, progress=silent):
            parts = re.fullmatch(r"some-model/(\d+-[a-z-]+)/(?:(\w+)\.jsonl|(\w+)/batch-\d+\.jsonl\.gz)", file.name)
            assert parts is not None, file.name
            found.setdefault(parts[1], {}).setdefault(parts[2] or parts[3], []).extend(lines_of(file))
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, hostile_bundle: Path) -> dict[str, Any]:
    """Of a bundle of two sites, and of one whose texts are not just text."""
    two = make_bundle(tmp_path_factory.mktemp("bundle") / "two", n_features=48, sites=("mlp_out", "resid_post"))
    return {"two": export(two), "hostile": export(hostile_bundle), "path": two}


@pytest.mark.parametrize("bundle", ["two", "hostile"])
def test_every_line_fits_its_table(exported: dict[str, Any], bundle: str) -> None:
    for source, files in exported[bundle].items():
        assert set(files) == set(TABLES), source
        for name, lines in files.items():
            columns = {column.rstrip("!"): kind for column, kind in TABLES[name].items()}
            required = {column[:-1] for column in TABLES[name] if column.endswith("!")}
            for line in lines:
                assert line.keys() == lines[0].keys() <= columns.keys() and required <= line.keys()
                assert all(fits(value, columns[column]) for column, value in line.items()), (name, line)


@pytest.mark.parametrize("bundle", ["two", "hostile"])
def test_every_row_belongs_to_one_that_is_imported_before_it(exported: dict[str, Any], bundle: str) -> None:
    ids = []
    for source, files in exported[bundle].items():
        (release,), (model,), (set_,), (own,) = (files[name] for name in ("release", "model", "sourceset", "source"))
        assert set_["modelId"] == own["modelId"] == model["id"] and set_["releaseName"] == release["name"]
        assert own["id"] == source and own["setName"] == set_["name"] and source.partition("-")[2] == set_["name"]
        neurons = {(row["modelId"], row["layer"], row["index"]) for row in files["features"]}
        assert len(neurons) == len(files["features"]) and {key[:2] for key in neurons} == {("some-model", source)}
        for row in (*files["activations"], *files["explanations"]):
            assert (row["modelId"], row["layer"], row["index"]) in neurons
            ids.append(row["id"])
    assert len(set(ids)) == len(ids) and all(re.fullmatch("c[0-9a-f]{24}", id_) for id_ in ids)


def test_an_example_is_the_windows_of_the_bundle(exported: dict[str, Any]) -> None:
    with Store.open(exported["path"]) as store:
        firing = store.rows("SELECT count(*) AS n FROM examples WHERE bucket >= 0")[0]["n"]
        top = store.rows(
            'SELECT "index", position - window_start AS at, activation FROM examples JOIN features USING (feature_id) '
            "WHERE bucket = 0 AND rank = 0 AND layer = 1 AND site = 'resid_post' ORDER BY feature_id LIMIT 1"
        )[0]
    rows = [row for files in exported["two"].values() for row in files["activations"]]
    assert len(rows) == firing
    for row in rows:
        assert len(row["tokens"]) == len(row["values"]) and row["values"][row["maxValueTokenIndex"]] == row["maxValue"]
        assert row["minValue"] == min(row["values"]) and row["maxValue"] == max(row["values"]) > 0
        assert row["binMin"] <= row["values"][row["qualifyingTokenIndex"]] <= row["binMax"]
    first = next(row for row in exported["two"]["1-lfp-resid-post"]["activations"] if row["index"] == str(top["index"]))
    assert first["binMin"] == -1 and first["qualifyingTokenIndex"] == top["at"]
    assert first["values"][top["at"]] == pytest.approx(top["activation"], rel=1e-5)


def test_labels_say_who_made_them_and_how_they_scored(exported: dict[str, Any]) -> None:
    rows = [row for files in exported["two"].values() for row in files["explanations"]]
    with Store.open(exported["path"]) as store:
        wanted = store.rows("SELECT count(*) AS n FROM labels WHERE status = 'ok'")[0]["n"]
    assert len(rows) == wanted
    assert any(re.fullmatch(r"by \S+; detection 0\.\d+ \[.*\] on \d+ held-out examples", row["notes"]) for row in rows)


def test_neighbours_are_named_by_index(exported: dict[str, Any]) -> None:
    for files in exported["two"].values():
        known = {int(row["index"]) for row in files["features"]}
        assert all(known.issuperset(row["topkCosSimIndices"]) for row in files["features"])
    assert any(row["topkCosSimIndices"] for files in exported["two"].values() for row in files["features"])


def test_some_features_are_exported_alone_and_the_same_each_time(exported: dict[str, Any]) -> None:
    path = exported["path"]
    some = export(path, [3, 5])
    assert sum(len(files["features"]) for files in some.values()) == 2 and some == export(path, [3, 5])
    dataset = {files["source"][0]["dataset"] for files in some.values()}
    assert dataset == {read_manifest(path).config["corpus"]["source"]}
