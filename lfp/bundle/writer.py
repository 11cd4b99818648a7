"""Write a bundle into a temporary sibling, renamed when it is complete, and write one as a zip file."""

from __future__ import annotations

import ctypes
import datetime
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lfp.bundle.manifest import (
    ARTIFACTS,
    MANIFEST,
    Description,
    FileInfo,
    Manifest,
    TableInfo,
    check_bundle,
    checked_files,
    file_sha256,
)
from lfp.bundle.schema import BY_NAME, SCHEMA_VERSION, TABLES
from lfp.bundle.tables.columns import Table
from lfp.errors import BundleError, LfpError
from lfp.util.disk import find_refusal, sync, sync_entry

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_ZIP_DATE = (2000, 1, 1, 0, 0, 0)  # the same bundle gives the same zip, whenever it is made


class BundleWriter:
    """Writes a bundle beside its final place and moves it there when it is complete.

    Use as a context manager: after an exception nothing is left behind, and what was at `path` stays. Tables that were
    not written are written empty at the end, so that a bundle always has every table.
    """

    def __init__(self, path: Path, description: Description) -> None:
        self.path = path
        self.description = description
        self.folder = path.parent / f".{path.name}.writing"
        self._tables: dict[str, TableInfo] = {}
        self._artifacts: dict[str, FileInfo] = {}

    def __enter__(self) -> BundleWriter:
        check_replaceable(self.path)
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise BundleError(
                f"{self.folder}: cannot be created ({error.strerror}); choose a folder you may write to"
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if error is None:
                self._finish()
        except Exception as failed:
            self._explain(failed)
            raise
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        if error is not None:
            self._explain(error)

    def _explain(self, error: BaseException) -> None:
        """Raise BundleError where the disk does not take what is written."""
        refusal = None if isinstance(error, LfpError) else find_refusal(error)
        if refusal is not None:
            raise BundleError(
                f"{self.path}: the bundle cannot be written ({refusal}); make room or get the right to write there,"
                " then repeat the command"
            ) from error

    def write(self, name: str, rows: pa.Table | Iterable[Mapping[str, Any]]) -> None:
        """Write one table, checked against the schema and sorted as it says. Raises BundleError."""
        self.write_parts(name, [rows])

    def write_parts(self, name: str, parts: Iterable[pa.Table | Iterable[Mapping[str, Any]]]) -> None:
        """Write a table in parts that follow each other in its order, for one that does not fit into memory."""
        spec, path, n = BY_NAME[name], self.folder / f"{name}.parquet", 0
        last: tuple[Any, ...] | None = None

        def key_at(table: pa.Table, row: int) -> tuple[Any, ...]:
            values = [table[name][row].as_py() for name in spec.sorted_by]
            return tuple((value is None, value) for value in values)  # nulls last

        with pq.ParquetWriter(path, spec.schema, compression="zstd", write_page_index=True) as file:
            for rows in parts:
                table = conform(spec, rows)
                if table.num_rows and last is not None and key_at(table, 0) < last:
                    raise BundleError(f"table {name}: its parts are out of order; sort them as data/README.md says")
                file.write_table(table, row_group_size=spec.row_group_rows)
                n, last = n + table.num_rows, key_at(table, -1) if table.num_rows else last
        self._tables[name] = TableInfo(rows=n, bytes=path.stat().st_size, sha256=file_sha256(path))

    def add_artifact(self, source: Path, name: str, *, copy: Callable[[str, str], object] = shutil.copyfile) -> None:
        """Copy a file or folder to artifacts/`name`; `copy` copies a file."""
        target = self.folder / ARTIFACTS / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=copy)
        else:
            copy(str(source), str(target))

    def keep_rest(self, manifest: Manifest) -> None:
        """Keep all artifacts and every table not yet written of the bundle at `path`, which has this manifest."""
        for file in self.keep_listed(manifest):
            _link(self.path / file, self.folder / file)

    def keep_listed(self, manifest: Manifest) -> list[str]:
        """Keep them in the manifest alone, and return the files' names: they stay where the old bundle has them."""
        kept = {name: info for name, info in manifest.tables.items() if name not in self._tables}
        self._tables |= kept
        self._artifacts = dict(manifest.artifacts)
        return [*(f"{name}.parquet" for name in kept), *manifest.artifacts]

    def _finish(self) -> None:
        for table in TABLES:
            if table.name not in self._tables:
                self.write(table.name, [])
        manifest = Manifest(
            **self.description.model_dump(include=set(Description.model_fields)),
            schema_version=SCHEMA_VERSION,
            bundle_id=self.description.identity(),
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            tables=self._tables,
            artifacts=self._artifacts
            or {
                str(file.relative_to(self.folder)): FileInfo(bytes=file.stat().st_size, sha256=file_sha256(file))
                for file in sorted((self.folder / ARTIFACTS).rglob("*"))
                if file.is_file()
            },
        )
        text = json.dumps(manifest.model_dump(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (self.folder / MANIFEST).write_text(text, encoding="utf-8")
        _swap(self.folder, self.path)


def update_bundle(path: Path, tables: Mapping[str, pa.Table | Iterable[Mapping[str, Any]]]) -> None:
    """Replace some tables of the bundle at `path`: a complete new sibling is written and takes its place in one step.

    Whenever this is interrupted, either the old or the new bundle is there. Raises BundleError.
    """
    manifest = check_bundle(path)
    with BundleWriter(path, manifest) as writer:
        for name, rows in tables.items():
            writer.write(name, rows)
        writer.keep_rest(manifest)


def archive_bytes(manifest: Manifest) -> int:
    """Add up the sizes of tables and artifacts, which a zip stores as they are: they are compressed already."""
    return manifest.bytes + sum(info.bytes for info in manifest.artifacts.values())


def write_archive(path: Path, manifest: Manifest, target: IO[bytes], *, name: str) -> None:
    """Write the bundle at `path` to `target` as a zip of one folder, `name`.

    The zip holds the manifest and the files that it lists, nothing else of the folder. Raises BundleError for one that
    is missing or changed.
    """
    files = checked_files(path, manifest)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in (MANIFEST, *sorted(manifest.files.keys() - manifest.artifacts.keys()), *sorted(manifest.artifacts)):
            entry = zipfile.ZipInfo(f"{name}/{file}", _ZIP_DATE)
            with files[file].open("rb") as content, archive.open(entry, "w") as target_file:
                shutil.copyfileobj(content, target_file)


def check_replaceable(path: Path) -> None:
    """Raise BundleError unless a bundle may be written to `path`: nothing there, an empty folder, or a bundle."""
    try:
        if (not path.exists() and not path.is_symlink()) or (path / MANIFEST).is_file():
            return
        is_empty = path.is_dir() and not any(path.iterdir())
    except OSError as error:
        raise BundleError(f"{path}: cannot be looked at ({error.strerror}); choose another folder") from error
    if not is_empty:
        raise BundleError(f"{path}: something that is not a bundle is there; choose another folder or empty it first")


def conform(spec: Table, rows: pa.Table | Iterable[Mapping[str, Any]]) -> pa.Table:
    """Cast rows to the schema of a table: its columns in order, its types, sorted. Raises BundleError."""
    nullable = pa.schema([field.with_nullable(True) for field in spec.schema])  # Arrow names no column that has a null
    try:
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=nullable)
        table = table.select([column.name for column in spec.columns])
        for column in spec.columns:
            if not column.nullable and table[column.name].null_count:
                raise BundleError(
                    f"table {spec.name}: {column.name} is null in a row and must not be; see data/README.md"
                )
        table = table.cast(spec.schema)
    except (KeyError, pa.ArrowException) as error:
        raise BundleError(f"table {spec.name}: the rows do not fit the schema ({error}); see data/README.md") from error
    return table.sort_by([(key, "ascending") for key in spec.sorted_by]).combine_chunks()


def _swap(new: Path, path: Path) -> None:
    """Move `new` to `path`. What stood there is exchanged for it in one step, and deleted afterwards.

    Only the current folder is filled file by file, its manifest last.
    """
    sync(new)
    old = path.parent / f".{path.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if path == Path.cwd():  # the shell's current folder must not be deleted
        old.mkdir()
        for file in sorted(path.iterdir(), key=lambda file: file.name != MANIFEST):
            file.rename(old / file.name)
        for file in sorted(new.iterdir(), key=lambda file: file.name == MANIFEST):
            file.rename(path / file.name)
    elif path.exists():
        exchange = getattr(ctypes.CDLL(None), "renameat2", None)  # Linux exchanges two folders in one step
        names = (os.fsencode(new), os.fsencode(path))
        if exchange is not None and exchange(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0:
            new.rename(old)
        else:
            path.rename(old)
            new.rename(path)
    else:
        new.rename(path)
    sync_entry(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, which no writer changes in place; copy it where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
