"""A few spoilt bundles by seed, every way out of a bundle, and values that would take all memory."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lfp.bundle import validation
from lfp.bundle.manifest import check_bundle, read_manifest
from lfp.bundle.validation import validate
from lfp.errors import BundleError
from tests.hostile import bundles


def test_spoilt_bundles_are_refused_in_a_line() -> None:
    found = bundles.run(bundles.spoilt(seed=0, count=4))
    assert found["bundles"] == 4 and found["faults"] == []


@pytest.mark.parametrize(("name", "change"), bundles.outside(), ids=[name[:40] for name, _ in bundles.outside()])
def test_a_bundle_that_names_what_is_not_its_own_is_refused(copied_bundle: Path, name: str, change) -> None:
    change(copied_bundle)
    faults = validate(copied_bundle)
    assert faults and all("\n" not in fault and len(fault) < 400 for fault in faults)
    if "not listed" in name or "loops" in name:
        assert "not in the manifest, or is a link" in faults[0]
    else:
        with pytest.raises(BundleError):  # what opens it, labels it, ablates it and exports it begins so
            check_bundle(copied_bundle)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [("texts", "text", "a" * 3_000_000), ("histograms", "edges", [0.0] * 1_000_000)],
)
def test_a_value_that_takes_all_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch, copied_bundle: Path, table: str, column: str, value
) -> None:
    monkeypatch.setattr(validation, "_MOST_BYTES", 2_000_000)
    rows = bundles.read(copied_bundle, table)
    at, field = rows.schema.get_field_index(column), rows.schema.field(column)
    values = [value, *rows[column].to_pylist()[1:]]
    pq.write_table(
        rows.set_column(at, field, pa.array(values, field.type)), copied_bundle / f"{table}.parquet", compression="zstd"
    )
    bundles.state(copied_bundle, table, rows=len(rows))
    assert (copied_bundle / f"{table}.parquet").stat().st_size < 100_000
    assert f"table {table}: column {column} has" in validate(copied_bundle)[0]


def test_a_text_repeated_by_a_dictionary_counts_each_time(monkeypatch, copied_bundle: Path) -> None:
    monkeypatch.setattr(validation, "_MOST_BYTES", 2_000_000)
    rows = bundles.read(copied_bundle, "texts")
    at = rows.schema.get_field_index("text")
    rows = rows.set_column(at, rows.schema.field(at), pa.array(["a" * 100_000] * len(rows)))
    bundles.write(copied_bundle, "texts", rows)
    assert "table texts: column text has 4 MB" in validate(copied_bundle)[0]


@pytest.mark.parametrize("spoilt", [None, [], 3, "x"])
def test_a_section_of_the_config_is_one_or_missing(copied_bundle: Path, spoilt) -> None:
    bundles.change_manifest(copied_bundle, lambda manifest: manifest["config"].update(tune=spoilt))
    with pytest.raises(BundleError, match="config is missing or wrong"):
        read_manifest(copied_bundle)


def test_a_config_of_wrong_values_is_no_valid_one(copied_bundle: Path) -> None:
    bundles.change_manifest(copied_bundle, lambda manifest: manifest["config"]["model"].update(context="many"))
    (fault,) = validate(copied_bundle)
    assert fault.startswith("its config: model.context")


def test_a_manifest_that_is_too_large_is_refused(copied_bundle: Path) -> None:
    manifest = json.loads((copied_bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["notes"] = "a" * (1 << 23)
    (copied_bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match="cannot be read as a manifest"):
        read_manifest(copied_bundle)
