"""Values that validation must refuse: NaN, infinity and nulls in every number column, and manifests made to harm."""

import json
import math

import pyarrow as pa
import pytest

from lfp.bundle.exactness import exactness_faults
from lfp.bundle.manifest import read_manifest
from lfp.bundle.schema import TABLES
from lfp.bundle.store.connection import Store
from lfp.bundle.validation import validate
from tests.conftest import rewrite, with_column


def holds_floats(type_):
    if pa.types.is_list(type_):
        return holds_floats(type_.value_type)
    if pa.types.is_struct(type_):
        return any(holds_floats(field.type) for field in type_)
    return pa.types.is_floating(type_)


FLOAT_COLUMNS = [(table.name, column.name) for table in TABLES for column in table.columns if holds_floats(column.type)]


def with_value(value, type_, bad):
    """The value of a row with one of its numbers replaced by `bad`, also where it had none."""
    if pa.types.is_list(type_):
        items = list(value or [None])
        return [with_value(items[0], type_.value_type, bad), *items[1:]]
    if pa.types.is_struct(type_):
        parts = {field.name: (value or {}).get(field.name, "x") for field in type_}
        name = next(field.name for field in type_ if pa.types.is_floating(field.type))
        return {**parts, name: bad}
    return bad


def blank(type_):
    """A value of a type, for the columns of a row that is made for another."""
    if pa.types.is_list(type_):
        return []
    return "x" if pa.types.is_string(type_) else False if pa.types.is_boolean(type_) else 0


def change_one(bundle, table, column, bad):
    """Put `bad` into the first row of a column, or into a first row made for it."""

    def change(rows):
        values = rows[column].to_pylist()
        if not values:
            row = {field.name: blank(field.type) for field in rows.schema if not field.nullable}
            return pa.Table.from_pylist(
                [{**row, column: with_value(None, rows.schema.field(column).type, bad)}], rows.schema
            )
        return with_column(rows, column, [with_value(values[0], rows.schema.field(column).type, bad), *values[1:]])

    rewrite(bundle, table, change)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_a_fault_in_every_column(copied_bundle, bad):
    """One value of every column at once: validation lists each of them."""
    assert len(FLOAT_COLUMNS) > 90
    for table, column in FLOAT_COLUMNS:
        change_one(copied_bundle, table, column, bad)
    said = validate(copied_bundle)
    assert [
        f"{table}.{column}"
        for table, column in FLOAT_COLUMNS
        if not any(fault == f"table {table}: column {column} has 1 values that are NaN or infinite" for fault in said)
    ] == []


@pytest.mark.parametrize(("table", "column"), [("texts", "predicted"), ("results", "value"), ("weights", "weight")])
def test_a_single_nan_is_the_only_fault_named(copied_bundle, table, column):
    change_one(copied_bundle, table, column, math.nan)
    assert validate(copied_bundle) == [f"table {table}: column {column} has 1 values that are NaN or infinite"]


def test_predictions_that_are_all_nan_do_not_pass_as_exact(copied_bundle):
    for bad in (math.nan, math.inf):
        rewrite(copied_bundle, "texts", lambda rows, bad=bad: with_column(rows, "predicted", [bad] * rows.num_rows))
        with Store(copied_bundle, read_manifest(copied_bundle)) as store:
            assert any("table texts: predicted is not the sum" in fault for fault in exactness_faults(store))


def test_a_null_inside_a_list_is_a_fault_where_no_token_may_lack_a_value(copied_bundle):
    def change(rows):
        first, *rest = rows["top_tokens"].to_pylist()
        return with_column(rows, "top_tokens", [[{"token": None, "value": 1.0}, *first[1:]], *rest])

    rewrite(copied_bundle, "features", change)
    assert validate(copied_bundle) == ["table features: column top_tokens has 1 nulls inside its lists and must not"]


def test_a_column_that_occurs_twice_is_one_fault(copied_bundle):
    rewrite(copied_bundle, "features", lambda rows: rows.append_column("density", rows["density"]))
    assert validate(copied_bundle) == ["table features: column density occurs 2 times"]


@pytest.mark.parametrize(
    "nested", ["[" * 100_000 + "]" * 100_000, "[" * 900 + "]" * 900, '"\\ud800"', "NaN", "-Infinity"]
)
def test_a_manifest_made_to_harm_is_one_fault(copied_bundle, nested):
    file = copied_bundle / "manifest.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "config": {**content["config"], "notes": "HERE"}}).replace('"HERE"', nested))
    (fault,) = validate(copied_bundle)
    assert "cannot be read as a manifest" in fault


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("artifacts/" + "x" * 5000, "lies outside"),
        ("artifacts/a\0b", "lies outside"),
        ("artifacts/../../out", "lies outside"),
        ("/etc/passwd", "lies outside"),
        ("artifacts/link", "lies outside"),
    ],
)
def test_an_artifact_that_is_no_file_of_the_bundle_is_one_short_fault(copied_bundle, name, says):
    (copied_bundle / "artifacts").mkdir()
    if name.endswith("link"):
        (copied_bundle / name).symlink_to("/etc/passwd")
    file = copied_bundle / "manifest.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "artifacts": {name: {"bytes": 1, "sha256": "0" * 64}}}))
    (fault,) = validate(copied_bundle)
    assert says in fault and len(fault) < 200
