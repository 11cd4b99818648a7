"""What is on screen as a file: CSV with nothing in it that a spreadsheet would run, Parquet, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from lfp.util.sanitize import guarded


def as_table(kind: type[Any], rows: Sequence[Any]) -> pa.Table:
    """Return dataclasses of one kind as a table, a column per field; an empty column is text."""
    columns = {field.name: pa.array([getattr(row, field.name) for row in rows]) for field in fields(kind)}
    return pa.table({n: c.cast(pa.string()) if pa.types.is_null(c.type) else c for n, c in columns.items()})


def csv(rows: pa.Table) -> bytes:
    """Return rows as CSV in UTF-8. Lists and structs are JSON; text like a formula gets an apostrophe in front.

    `lfp.util.sanitize.bare` takes it off again.
    """
    columns = []
    for column in rows.columns:
        kind = column.type
        is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
        columns.append(column if is_number else pa.array([_cell(value) for value in column.to_pylist()]))
    sink = pa.BufferOutputStream()
    names = [_cell(name) for name in rows.schema.names]
    pyarrow.csv.write_csv(pa.table(columns, names=names), sink)
    return sink.getvalue().to_pybytes()


def parquet(rows: pa.Table) -> bytes:
    """Rows as Parquet, every column in its own type."""
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(rows, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def as_json(rows: pa.Table) -> bytes:
    """Rows as a JSON list of objects; a number that JSON cannot hold is null."""
    return json.dumps([_finite(row) for row in rows.to_pylist()], ensure_ascii=False, allow_nan=False).encode()


FORMATS: Mapping[str, tuple[Callable[[pa.Table], bytes], str]] = {
    "CSV": (csv, "text/csv"),
    "Parquet": (parquet, "application/vnd.apache.parquet"),
    "JSON": (as_json, "application/json"),
}
"""By the name people choose: how rows become bytes, and the media type. The name in lower case is the file's ending."""


def _cell(value: Any) -> str | None:
    """Anything but a number as text that is only text."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(_finite(value), ensure_ascii=False, default=str)
    return guarded(text.replace("\x00", ""))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
