"""Rows of files of any format, every value as it is written; rows that cannot be used are counted by reason."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from lfp.errors import CorpusError, first_line
from lfp.texts.reading.encodings import LONGEST, TOO_LONG, split_lines, split_rows, text_blocks
from lfp.texts.reading.json_values import Unreadable, json_rows
from lfp.texts.reading.sources import READ_ERRORS, DataFile
from lfp.util.object_stores import without_secrets

_BATCH_ROWS, _BATCH_BYTES = 64, 1 << 26
_DELIMITERS = ",;\t|"
_STATED = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The first line in which Excel states a delimiter."""
_SHOWN_ROWS, _SHOWN_COLUMNS = 5, 30

_Item = TypeVar("_Item")


class RowError(Exception):
    """A row that cannot be used; its message says what it has, as in "no text for chosen"."""


class NoColumnError(RowError):
    """A row without a column that is needed; a fault of the file where no row has it."""

    def __init__(self, reason: str, *, column: str) -> None:
        super().__init__(reason)
        self.column = column


@dataclass(frozen=True)
class Row:
    """A row: where it stands, as in "3" or "3 of part-1.jsonl", its values, and all columns of its file.

    Where `fault` is set the row could not be read, and has no values.
    """

    place: str
    values: Mapping[str, Any]
    columns: Sequence[str] = ()
    fault: str | None = None


@dataclass(frozen=True)
class RowSource:
    """Rows of files or of a data set: `name` is short, `where` begins errors, `read` yields rows with some columns."""

    name: str
    where: str
    read: Callable[[Sequence[str]], Iterator[Row]]


@dataclass
class DroppedRows:
    """How many rows were read, and those that could not be used: their places by what they have."""

    n_rows: int = 0
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, place: str, reason: str) -> None:
        """Count a row that cannot be used."""
        self.places.setdefault(reason, []).append(place)

    def merge(self, other: DroppedRows) -> None:
        """Add the rows of another source."""
        self.n_rows += other.n_rows
        for reason, places in other.places.items():
            self.places.setdefault(reason, []).extend(places)

    @property
    def counts(self) -> dict[str, int]:
        """Rows by reason, most first."""
        return {reason: len(places) for reason, places in sorted(self.places.items(), key=lambda item: -len(item[1]))}

    def sentence(self) -> str:
        """Say which rows have what: "rows 1, 4 and 8 more have no text for chosen; row 3 has ..."."""
        parts = []
        for reason, n in self.counts.items():
            shown = self.places[reason][:_SHOWN_ROWS]
            more = f" and {n - len(shown)} more" if n > len(shown) else ""
            parts.append(f"row{'s' if n > 1 else ''} {', '.join(shown)}{more} ha{'ve' if n > 1 else 's'} {reason}")
        return "; ".join(parts)


def file_source(files: Sequence[DataFile], *, name: str) -> RowSource:
    """Read files, one after another, as one source. Raises CorpusError for a suffix that is not read."""
    for file in files:
        _ = file.format
    name = without_secrets(name)
    where = files[0].path if len(files) == 1 else f"{name} ({len(files)} files)"

    def read(columns: Sequence[str]) -> Iterator[Row]:
        for file in files:
            inside = "" if len(files) == 1 else f" of {file.name}"
            yield from _file_rows(file, columns, inside)

    return RowSource(Path(name.rstrip("/")).name, where, read)


def read_usable(
    source: RowSource,
    parse: Callable[[Mapping[str, Any]], _Item],
    *,
    columns: Sequence[str],
    dropped: DroppedRows,
) -> Iterator[_Item]:
    """Yield what `parse` makes of each row, and count in `dropped` those for which it raises RowError.

    `columns` are those that `parse` reads. Raises CorpusError where there is no row, every row that could be read lacks
    a column, or more than half of the rows cannot be used.
    """
    found: dict[str, None] = {}
    missing: dict[str, None] = {}
    has_columns = False
    for row in source.read(columns):
        dropped.n_rows += 1
        if row.fault is not None:
            dropped.add(row.place, row.fault)
            continue
        if len(found) < _SHOWN_COLUMNS:
            found |= dict.fromkeys(row.columns or row.values)
        try:
            item = parse(row.values)
        except NoColumnError as error:
            missing[error.column] = None
            dropped.add(row.place, str(error))
        except RowError as error:
            has_columns = True
            dropped.add(row.place, str(error))
        else:
            has_columns = True
            yield item
    if dropped.n_rows == 0:
        raise CorpusError(f"{source.where}: no rows; pass a file with at least one text")
    if found and not has_columns:
        raise CorpusError(
            f"{source.where}: no column {next(iter(missing))!r} (found: {', '.join(found)}); name one of those in the"
            " config"
        )
    n_bad = sum(dropped.counts.values())
    if 2 * n_bad > dropped.n_rows:
        raise CorpusError(
            f"{source.where}: {n_bad} of {dropped.n_rows} rows cannot be used: {dropped.sentence()};"
            " correct them, or pass a file in which most rows can be"
        )


def read_rows(path: Path, *, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read columns of a file of any format (one text per line of .txt); every row must be readable.

    Cells of .csv and .tsv are texts, None where they are empty. `optional` columns are returned where the file has
    them. Raises CorpusError when the file cannot be read, a column is missing, or there is no row.
    """
    source, names = file_source([DataFile(str(path))], name=str(path)), (*columns, *optional)
    rows: list[dict[str, Any]] = []
    for row in source.read(names):
        if row.fault is not None:
            raise CorpusError(f"{path}: row {row.place} has {row.fault}; correct or drop it")
        known = row.columns or tuple(row.values)
        if not rows:
            for column in columns:
                if column not in known:
                    found = ", ".join(known) or "none"
                    raise CorpusError(f"{path}: no column {column!r} (found: {found}); name one of those in the config")
        rows.append({name: row.values.get(name) for name in names if name in columns or name in known})
    if not rows:
        raise CorpusError(f"{path}: no rows; pass a file with at least one text")
    return rows


def written(value: Any) -> str | None:
    """Return a cell as the text that its file shows; None for what is no single value, or missing.

    Numbers are as a JSON file writes them, dates as in ISO 8601. Raises RowError for bytes that are not UTF-8, and for
    more of a text than any has.
    """
    if value is None:
        return value
    if isinstance(value, str | bytes) and len(value) > LONGEST:
        raise RowError(f"a text {TOO_LONG}")
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise RowError("bytes that are not UTF-8") from None
    return None if isinstance(value, list | tuple | dict | set) else str(value)


def _file_rows(file: DataFile, columns: Sequence[str], inside: str) -> Iterator[Row]:
    """Yield the rows of a file, each with its number and `inside`. Raises CorpusError where it cannot be read."""
    read = {"json": _json, "csv": _csv, "parquet": _parquet, "arrow": _arrow, "lines": _lines}[file.format]
    try:
        with file.explaining():
            yield from read(file, columns, inside)
    except READ_ERRORS as error:
        raise CorpusError(
            f"{file.path}: cannot be read ({first_line(error)}); check that it is whole and what its suffix says"
        ) from error


def _json(file: DataFile, columns: Sequence[str], inside: str) -> Iterator[Row]:
    with file.open() as stream:
        for number, values in enumerate(json_rows(text_blocks(stream, file.path), file.path)):
            if isinstance(values, Unreadable):
                yield Row(f"{number}{inside}", {}, fault=str(values))
            else:
                kept = {name: values[name] for name in columns if name in values}
                yield Row(f"{number}{inside}", kept, tuple(values))


def _lines(file: DataFile, _: Sequence[str], inside: str) -> Iterator[Row]:
    with file.open() as stream:
        texts = (line for line in split_lines(text_blocks(stream, file.path), file.path) if line.strip())
        for number, text in enumerate(texts):
            yield Row(f"{number}{inside}", {"text": text}, ("text",))


def _csv(file: DataFile, columns: Sequence[str], inside: str) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
    with file.open() as stream:
        lines = split_rows(text_blocks(stream, file.path), file.path)
        first = next(lines, "")
        if (stated := _STATED.fullmatch(first)) is not None:
            first = next(lines, "")
        delimiter = (
            stated[1]
            if stated
            else "\t"
            if file.suffix in (".tsv", ".tab")
            else next((d for d in _DELIMITERS if d in first), ",")
        )
        if "\r" in first.removesuffix("\r\n").removesuffix("\n"):  # lines that end in a carriage return alone
            lines = iter([line + "\n" for rest in (first, *lines) for line in rest.splitlines()])
            first = next(lines)
        reader = csv.reader(_chain(first, lines), delimiter=delimiter, strict=True)
        names: tuple[str, ...] = ()
        number = start = 0
        try:
            names = tuple(next(reader, ()))
            _check_names(names, columns, file.path)
            start = reader.line_num
            for cells in reader:
                if cells:
                    place = f"{number}{inside}"
                    if len(cells) != len(names):
                        n = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"
                        yield Row(place, {}, names, fault=f"{n} where the header has {len(names)}")
                    else:
                        row = dict(zip(names, cells, strict=True))
                        yield Row(place, {name: row[name] or None for name in columns if name in row}, names)
                    number += 1
                start = reader.line_num
        except csv.Error as error:
            if "larger than field limit" in str(error):
                fault = f"is {TOO_LONG}: its quotation mark is not closed"
            else:
                fault = f"has a quotation mark that is not closed or not doubled ({first_line(error)})"
            raise CorpusError(
                f"{file.path}: row {number}, which begins on line {start + 1}, {fault}; correct it"
            ) from error


def _chain(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _parquet(file: DataFile, columns: Sequence[str], inside: str) -> Iterator[Row]:
    with file.open_seekable() as stream:
        stored = pa.parquet.ParquetFile(stream, buffer_size=_BATCH_BYTES // 64)
        names = tuple(stored.schema_arrow.names)
        _check_names(names, columns, file.path)
        wanted = [name for name in names if name in columns] or list(names[:1])
        rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, _mean_bytes(stored.metadata, wanted, file.path))))
        batches = stored.iter_batches(batch_size=rows, columns=wanted)
        yield from _batch_rows(batches, [name for name in wanted if name in columns], names, file.path, inside)


def _mean_bytes(metadata: Any, names: Sequence[str], where: str) -> int:
    """Return the largest mean size of a column's values in a group of rows. Raises CorpusError for one beyond any text.

    That is known before anything is unpacked.
    """
    largest = 0
    for group in range(metadata.num_row_groups):
        for i in range(metadata.num_columns):
            column = metadata.row_group(group).column(i)
            if column.path_in_schema.partition(".")[0] in names and column.num_values:
                mean = column.total_uncompressed_size // column.num_values
                if mean > LONGEST:
                    first = sum(metadata.row_group(earlier).num_rows for earlier in range(group))
                    name = column.path_in_schema
                    raise CorpusError(f"{where}: from row {first} on, {name} is {TOO_LONG}; split it into texts")
                largest = max(largest, mean)
    return largest


def _check_names(names: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """Raise CorpusError where a column that is read has the name of another."""
    twice = [name for name in dict.fromkeys(names) if name in wanted and names.count(name) > 1]
    if twice:
        raise CorpusError(f"{where}: it has column {twice[0]!r} twice; rename one of them")


def _arrow(file: DataFile, columns: Sequence[str], inside: str) -> Iterator[Row]:
    with file.open_seekable() as stream:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        reader = pa.ipc.open_file(stream) if is_file else pa.ipc.open_stream(stream)
        names = tuple(reader.schema.names)
        _check_names(names, columns, file.path)
        wanted = [name for name in names if name in columns]
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else iter(reader)
        pieces = (
            batch.select(wanted or list(names[:1])).slice(start, _BATCH_ROWS)
            for batch in batches
            for start in range(0, batch.num_rows, _BATCH_ROWS)
        )
        yield from _batch_rows(pieces, wanted, names, file.path, inside)


def _batch_rows(
    batches: Iterator[pa.RecordBatch], wanted: Sequence[str], names: tuple[str, ...], where: str, inside: str
) -> Iterator[Row]:
    number = 0
    for batch in batches:
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError as error:
            raise CorpusError(f"{where}: after row {number}, not text in UTF-8; save it in that encoding") from error
        for values in rows:
            yield Row(f"{number}{inside}", {name: values[name] for name in wanted}, names)
            number += 1
