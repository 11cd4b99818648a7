"""Bundles that lack a column or table which may be absent, or values which may be null, one after the other."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from lfp.bundle.schema import TABLES
from lfp.bundle.tables.columns import Column
from tests.hostile.bundles import Counts, Mutant, change_manifest, read, run, sources, write


def gaps(source: Path, folder: Path) -> Iterator[Mutant]:
    """Yield a copy of a bundle for each gap that the schema allows: no table, no column, all null, its first null.

    The copies are alike but for the one table, which is put back after each.
    """
    shutil.copytree(source, folder)
    manifest = (folder / "manifest.json").read_bytes()
    for table in TABLES:
        file = folder / f"{table.name}.parquet"
        if not file.is_file():
            continue
        content, rows = file.read_bytes(), read(folder, table.name)
        for column in (None, *table.columns):
            for says, changed in _without(rows, column) if column else ():
                write(folder, table.name, changed)
                yield Mutant(folder, f"{table.name}.{column.name}: {says}")
            if column is None and table.added_later:
                file.unlink()
                change_manifest(folder, lambda made, name=table.name: made["tables"].pop(name))  # type: ignore[misc]
                yield Mutant(folder, f"{table.name}: absent")
            file.write_bytes(content)
            (folder / "manifest.json").write_bytes(manifest)


def _without(rows: pa.Table, column: Column) -> Iterator[tuple[str, pa.Table]]:
    """Yield the table with each gap that the column may have."""
    if column.name not in rows.column_names or not (column.nullable or column.default is not None):
        return
    at, field = rows.schema.get_field_index(column.name), rows.schema.field(column.name)
    yield "absent", rows.remove_column(at)
    if column.nullable and len(rows):
        yield "null", rows.set_column(at, field, pa.nulls(len(rows), field.type))
        first = pa.chunked_array([pa.nulls(1, field.type), *rows[column.name].slice(1).chunks], field.type)
        yield "first null", rows.set_column(at, field, first)


def main(seed: int, count: int) -> Counts:
    """Open every page of each, at most `count` of a bundle of texts and as many of pairs, the seed being the first."""
    from tests.hostile.pages import shows

    with tempfile.TemporaryDirectory() as name, shows() as show:
        found = (
            mutant
            for number, source in enumerate(sources(Path(name)))
            for mutant in islice(gaps(source, Path(name) / f"gaps{number}"), seed, seed + count)
        )
        return run(found, show=show)
