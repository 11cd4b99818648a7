"""A table of a bundle and a column of it: name, type, unit and meaning, and the types that columns have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

FLOAT, DOUBLE, INT, LONG, TEXT, FLAG = pa.float32(), pa.float64(), pa.int32(), pa.int64(), pa.string(), pa.bool_()
TOKEN_VALUES = pa.list_(pa.struct([("token", TEXT), ("value", FLOAT)]))
GROUP_VALUES = pa.list_(pa.struct([("group", TEXT), ("value", DOUBLE)]))


@dataclass(frozen=True)
class Column:
    """One column: `unit` is empty where the value is a name or a count; `nullable` says whether null is an answer.

    A column with a `default` was added later: a bundle without it reads as if every row had that value.
    """

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    nullable: bool = False
    default: str | None = None


@dataclass(frozen=True)
class Table:
    """One table of a bundle: what a row is, how rows are sorted, which columns there are.

    `row_group_rows` keeps one feature or one text a cheap read at a million features. A bundle made before a table
    that was `added_later` may lack its file; the table is then empty.
    """

    name: str
    row: str
    sorted_by: tuple[str, ...]
    columns: tuple[Column, ...]
    row_group_rows: int = 122_880
    added_later: bool = False

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the Parquet file."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])


def column_faults(table: Table, schema: pa.Schema) -> Iterator[str]:
    """Yield a line for each column that a file of this schema lacks, has twice, or has of another type than the table.

    A column that was added to the schema after the bundle was made may be missing: it reads as null or its default.
    """
    for column in table.columns:
        found = [field.type for field in schema if field.name == column.name]
        if not found and (column.nullable or column.default is not None):
            continue
        if not found:
            yield f"table {table.name}: column {column.name} is missing"
        elif len(found) > 1:
            yield f"table {table.name}: column {column.name} occurs {len(found)} times"
        elif found[0] != column.type:
            yield f"table {table.name}: column {column.name} is {found[0]} and must be {column.type}"


def null(name: str, type_: pa.DataType, meaning: str, unit: str = "") -> Column:
    """Build a column of which null is an answer."""
    return Column(name, type_, meaning, unit, nullable=True)


SITES_IN_WORDS = (
    "mlp_out (the MLP's output), resid_post (the residual stream after the layer) or attn_out (attention's output)"
)


def site(meaning: str) -> Column:
    """Build the column `site`, which bundles of MLP outputs alone may lack."""
    return Column("site", TEXT, f"{meaning}: {SITES_IN_WORDS}.", default="mlp_out")
