"""Rows as files: read back they are the same, and no cell is a formula."""

from __future__ import annotations

import csv as standard
import io
import json

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.html import exports
from lfp.util.sanitize import bare

ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), max_size=12)
TEXT = ANY | st.from_regex(r"\A'{0,3}[=+\-@\ta][a-z']{0,3}\Z")


@pytest.mark.parametrize("start", [*"=+-@\t\r\n\uff1d\uff0b\uff0d\uff20", "\ufeff="])
def test_a_cell_that_a_spreadsheet_would_run_is_text(start: str) -> None:
    cells = [f"{start}cmd|' /C calc'!A0", "plain", f"in the {start} middle"]
    rows = list(standard.reader(io.StringIO(exports.csv(pa.table({"description": cells})).decode(), newline="")))
    assert [row[0] for row in rows] == ["description", f"'{cells[0]}", cells[1], cells[2]]


def test_names_of_columns_and_lists_are_neutralised_too() -> None:
    table = pa.table({"=bad": [["=1+1", "b"]], "n": [[{"token": "-x", "value": 1.5}]]})
    head, row = list(standard.reader(io.StringIO(exports.csv(table).decode())))
    assert head == ["'=bad", "n"]
    assert json.loads(row[0]) == ["=1+1", "b"] and not row[0].startswith(("=", "+", "-", "@"))
    assert json.loads(row[1]) == [{"token": "-x", "value": 1.5}]


@given(
    st.lists(
        st.tuples(TEXT, st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), st.integers(-9, 9)),
        min_size=1,
    )
)
def test_csv_reads_back(rows: list[tuple[str, float | None, int]]) -> None:
    words, values, numbers = zip(*rows, strict=True)
    table = pa.table({"word": pa.array(words, pa.string()), "value": pa.array(values, pa.float64()), "n": numbers})
    options = pyarrow.csv.ConvertOptions(column_types={"word": pa.string(), "value": pa.float64(), "n": pa.int64()})
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    read = pyarrow.csv.read_csv(
        io.BytesIO(exports.csv(table)), convert_options=options, parse_options=parsing
    ).to_pydict()
    assert read["value"] == list(values) and read["n"] == list(numbers), "negative numbers stay numbers"
    for found, word in zip(read["word"], words, strict=True):
        assert bare(found) == word


def test_parquet_is_the_same_table() -> None:
    table = pa.table({"id": pa.array([1, 2], pa.int32()), "tokens": [["a"], []], "value": [1.0, None]})
    assert pyarrow.parquet.read_table(io.BytesIO(exports.parquet(table))).equals(table)


def test_json_holds_what_is_no_number_as_null() -> None:
    table = pa.table({"value": [1.5, float("nan"), float("inf")], "more": [[float("nan")], [2.0], None]})
    rows = json.loads(exports.as_json(table))
    assert rows == [{"value": 1.5, "more": [None]}, {"value": None, "more": [2.0]}, {"value": None, "more": None}]
