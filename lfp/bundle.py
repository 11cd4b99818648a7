"""Write a bundle (atomic, checksummed) and open one (validated): a folder that is whole or is not there."""

from __future__ import annotations

import ctypes
import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from lfp.config import BUDGET
from lfp.errors import BundleError
from lfp.schema import BY_NAME, SCHEMA_VERSION, TABLES, Table

MANIFEST = "manifest.json"
ARTIFACTS = "artifacts"
HASHED_BYTES = 1 << 28
"""Size of all tables up to which opening a bundle hashes them."""
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TableInfo(_Record):
    """What the manifest says of a table's file."""

    rows: int
    bytes: int
    sha256: str


class FileInfo(_Record):
    """What the manifest says of an artifact's file."""

    bytes: int
    sha256: str


class ModelInfo(_Record):
    """One model of the pair; `sha256` is over its weights, not over its files."""

    name: str
    revision: str | None
    parameters: int
    sha256: str


class StageCost(_Record):
    """What a stage took on the machine it ran on, by the clock; None where it was not measured.

    Seconds of the processor are of all threads and child processes; `peak_rss_mb` is the most memory that the process
    held meanwhile, in megabytes of 10^6 bytes.
    """

    name: str
    seconds: float
    cpu_seconds: float | None = None
    peak_rss_mb: float | None = None


class Hardware(_Record):
    """The machine that a bundle was written on; None where that is not known, or no GPU was used."""

    processor: str | None = None
    cores: int | None = None
    memory_gb: float | None = None
    gpu: str | None = None


class Description(_Record):
    """What a run says of itself: the manifest less what the writer measures."""

    title: str
    config: dict[str, Any]
    seed: int
    models: dict[str, ModelInfo]
    hook_points: list[str]
    labeller: str
    versions: dict[str, str]
    licence: str
    notes: str
    stages: list[StageCost] = []
    """In the order they ran; none in a bundle made before stages were measured."""
    hardware: Hardware | None = None

    def identity(self) -> str:
        """Sixteen hex digits over config (less its budget), seed and model hashes: what was run, not when."""
        hashes = {role: model.sha256 for role, model in self.models.items()}
        config = {name: value for name, value in self.config.items() if name != BUDGET}
        what = json.dumps([config, self.seed, hashes], sort_keys=True)
        return hashlib.sha256(what.encode()).hexdigest()[:16]


class Manifest(Description):
    """The whole of manifest.json."""

    schema_version: int
    bundle_id: str
    created_at: str
    tables: dict[str, TableInfo]
    artifacts: dict[str, FileInfo] = {}

    @property
    def bytes(self) -> int:
        """Size of all tables."""
        return sum(table.bytes for table in self.tables.values())

    @property
    def tables_id(self) -> str:
        """Sixteen hex digits over the tables' hashes alone: runs that share it have the same figures."""
        hashes = [f"{name}={info.sha256}" for name, info in sorted(self.tables.items())]
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]

    @property
    def key(self) -> str:
        """Sixteen hex digits over the bundle's and the tables': what is derived of both may be kept under it."""
        return hashlib.sha256(f"{self.bundle_id}\n{self.tables_id}".encode()).hexdigest()[:16]


class BundleWriter:
    """Writes a bundle beside its final place and moves it there when whole.

    Use as a context: leaving it by an exception leaves nothing behind, and whatever stood at `path` stays.
    Tables not written are written empty on leaving, so that a bundle always has every table.
    """

    def __init__(self, path: Path, description: Description) -> None:
        self.path = path
        self.description = description
        self.folder = path.parent / f".{path.name}.writing"
        self._tables: dict[str, TableInfo] = {}

    def __enter__(self) -> BundleWriter:
        check_replaceable(self.path)
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise BundleError(
                f"{self.folder}: cannot be made ({error.strerror}); choose a folder you may write to"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, name: str, rows: pa.Table | Iterable[Mapping[str, Any]]) -> None:
        """Writes one table, checked against the schema and sorted as it states. Raises BundleError."""
        self.write_parts(name, [rows])

    def write_parts(self, name: str, parts: Iterable[pa.Table | Iterable[Mapping[str, Any]]]) -> None:
        """The same for a table that memory does not hold at once: parts that follow each other in its order."""
        spec, path, n = BY_NAME[name], self.folder / f"{name}.parquet", 0
        last: tuple[Any, ...] | None = None
        with pq.ParquetWriter(path, spec.schema, compression="zstd", write_page_index=True) as file:
            for rows in parts:
                table = conform(spec, rows)
                if table.num_rows and last is not None and _key_at(spec, table, 0) < last:
                    raise BundleError(f"table {name}: its parts do not follow each other; sort them as data/README.md")
                file.write_table(table, row_group_size=spec.row_group_rows)
                n, last = n + table.num_rows, _key_at(spec, table, -1) if table.num_rows else last
        self._tables[name] = TableInfo(rows=n, bytes=path.stat().st_size, sha256=file_sha256(path))

    def add_artifact(self, source: Path, name: str) -> None:
        """Copies a file or folder to artifacts/`name`."""
        target = self.folder / ARTIFACTS / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)

    def keep_rest(self, manifest: Manifest) -> None:
        """Takes every table not written, and all artifacts, from the bundle at `path`, whose manifest this is."""
        for name, info in manifest.tables.items():
            if name not in self._tables:
                _link(self.path / f"{name}.parquet", self.folder / f"{name}.parquet")
                self._tables[name] = info
        for file in manifest.artifacts:
            _link(self.path / file, self.folder / file)

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
            artifacts=_artifact_infos(self.folder),
        )
        (self.folder / MANIFEST).write_text(_manifest_json(manifest), encoding="utf-8")
        _swap(self.folder, self.path)


def update_bundle(path: Path, tables: Mapping[str, pa.Table | Iterable[Mapping[str, Any]]]) -> None:
    """Replaces some tables of the bundle at `path`: a whole new sibling is written and takes its place at once.

    Whenever this is stopped, the old bundle or the new one is there. Raises BundleError.
    """
    manifest = open_bundle(path)
    with BundleWriter(path, manifest) as writer:
        for name, rows in tables.items():
            writer.write(name, rows)
        writer.keep_rest(manifest)


def read_table(path: Path, name: str) -> pa.Table:
    """A whole table of the bundle at `path`.

    Where the bundle was made before there was such a table it is empty, and columns added since are null.
    """
    file, schema = path / f"{name}.parquet", BY_NAME[name].schema
    if BY_NAME[name].added_later and not file.exists():
        return schema.empty_table()
    return pa.concat_tables([schema.empty_table(), pq.read_table(file)], promote_options="default")


def check_replaceable(path: Path) -> None:
    """Raises BundleError unless a bundle may be written at `path`: nothing there, an empty folder, or a bundle."""
    if not path.exists() or (path / MANIFEST).is_file():
        return
    if not path.is_dir() or any(path.iterdir()):
        raise BundleError(f"{path}: something that is not a bundle is there; choose another folder or empty it first")


def conform(spec: Table, rows: pa.Table | Iterable[Mapping[str, Any]]) -> pa.Table:
    """The rows as the schema has them: its columns in order, its types, sorted. Raises BundleError."""
    try:
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=_with_nulls(spec))
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


def _key_at(spec: Table, table: pa.Table, row: int) -> tuple[Any, ...]:
    """What row `row` is sorted by, nulls last."""
    values = [table[name][row].as_py() for name in spec.sorted_by]
    return tuple((value is None, value) for value in values)


def _with_nulls(spec: Table) -> pa.Schema:
    """The schema with nulls allowed everywhere: Arrow itself does not say in which column one must not be."""
    return pa.schema([field.with_nullable(True) for field in spec.schema])


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle at `path`. Raises BundleError where there is none, or of another version."""
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path}: no bundle here ({MANIFEST} is missing); make one with python -m precompute")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        version = values["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file}: cannot be read as a manifest; copy the bundle again from its source") from error
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema version {version}, and this program reads {SCHEMA_VERSION}; {_version_mend(version)}"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise BundleError(f"{file}: {key} is missing or wrong; copy the bundle again from its source") from error


def open_bundle(path: Path, *, hash_up_to_bytes: int = HASHED_BYTES) -> Manifest:
    """The manifest, after checking that every table is there, of the size stated and, where small enough, unchanged.

    Raises BundleError naming the first table that is not. `validate` in lfp.validation reads everything.
    """
    manifest = read_manifest(path)
    for fault in table_faults(path, manifest, with_hashes=manifest.bytes <= hash_up_to_bytes):
        raise BundleError(f"{path}: {fault}; copy the bundle again from its source, or make it anew")
    return manifest


def table_faults(path: Path, manifest: Manifest, *, with_hashes: bool) -> Iterable[str]:
    """A line for each table file that is missing, of another size or, with hashes, changed."""
    for table in TABLES:
        file, info = path / f"{table.name}.parquet", manifest.tables.get(table.name)
        if info is None and table.added_later and not file.exists():
            continue
        if info is None or not file.is_file():
            yield f"table {table.name} is missing"
        elif file.stat().st_size != info.bytes:
            yield f"table {table.name} has {file.stat().st_size} bytes where the manifest says {info.bytes}"
        elif with_hashes and file_sha256(file) != info.sha256:
            yield f"table {table.name} was changed after it was written (its sha256 differs)"


def has_models(manifest: Manifest) -> bool:
    """Whether the bundle carries both models and its dictionaries, to read and write texts with."""
    parts = [f"{ARTIFACTS}/{part}/" for part in ("base", "tuned", "saes")]
    return all(any(name.startswith(part) for name in manifest.artifacts) for part in parts)


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version_mend(version: object) -> str:
    newer = isinstance(version, int) and version > SCHEMA_VERSION
    return "update the program" if newer else "make the bundle anew"


def _manifest_json(manifest: Manifest) -> str:
    return json.dumps(manifest.model_dump(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _artifact_infos(folder: Path) -> dict[str, FileInfo]:
    files = sorted(file for file in (folder / ARTIFACTS).rglob("*") if file.is_file())
    return {
        str(file.relative_to(folder)): FileInfo(bytes=file.stat().st_size, sha256=file_sha256(file)) for file in files
    }


def _swap(new: Path, path: Path) -> None:
    """Moves `new` to `path`. What stood there is exchanged for it in one step, and deleted afterwards."""
    for file in [*new.rglob("*"), new]:
        _sync(file)
    old = path.parent / f".{path.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if path.exists() and _exchange(new, path):
        new.rename(old)
    else:
        if path.exists():
            path.rename(old)
        new.rename(path)
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Whether two folders changed places in one step: Linux's renameat2, which not every file system has."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    names = (os.fsencode(one), os.fsencode(other))
    return rename is not None and rename(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0


def _link(source: Path, target: Path) -> None:
    """A second name for a file, which no writer changes in place; a copy where the file system has no such names."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
