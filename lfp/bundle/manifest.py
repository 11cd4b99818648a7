"""The manifest of a bundle: read it, check the files that it lists, and read whole tables."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lfp.bundle.schema import BY_NAME, SCHEMA_VERSION, TABLES
from lfp.config import RunConfig, Section, drop_retired
from lfp.errors import BundleError
from lfp.util.sanitize import shortened

MANIFEST = "manifest.json"
ARTIFACTS = "artifacts"
HASHED_BYTES = 1 << 28
"""Size of all tables up to which opening a bundle hashes them."""
_NESTED = 50
"""Levels of lists and objects that a manifest may have."""
_LARGEST = 1 << 23
"""Bytes that a manifest may have."""
_SECTIONS = {
    name for name, field in RunConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}  # fmt: skip
"""Keys of a config that hold keys themselves."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FileInfo(_Record):
    """An artifact's file as the manifest describes it."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class TableInfo(FileInfo):
    """A table's file as the manifest describes it."""

    rows: int = Field(ge=0)


class ModelInfo(_Record):
    """One model of the pair; `sha256` is over its weights, not over its files."""

    name: str
    revision: str | None
    parameters: int
    sha256: str
    adapter: str | None = None
    """Kind of the adapter that makes it of the base, such as LORA; None for a model of its own."""
    by_name: bool = False
    """Whether the bundle keeps its name and hash only, because the hub, a package or a GGUF file has the model."""


class StageCost(_Record):
    """Cost of a stage on the machine that it ran on; None where it was not measured.

    `cpu_seconds` counts all threads and child processes; `peak_rss_mb` is the peak memory of the process in megabytes
    of 10^6 bytes.
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
    """A run's description of itself: the manifest without what the writer measures."""

    title: str
    config: dict[str, Any]
    seed: int = Field(ge=0)
    models: dict[str, ModelInfo]
    hook_points: list[str]
    labeller: str
    versions: dict[str, str]
    licence: str
    notes: str
    stages: list[StageCost] = []
    """In the order they ran; none in a bundle made before stages were measured."""
    hardware: Hardware | None = None
    forecast_sha256: str | None = None
    """Hash of the forecast (`lfp.bundle.forecasts`), made before the model was tuned; None where there was none."""

    @field_validator("config")
    @classmethod
    def _has_sections(cls, config: dict[str, Any]) -> dict[str, Any]:
        if faulty := sorted(name for name in _SECTIONS & config.keys() if not isinstance(config[name], dict)):
            raise ValueError(f"{faulty[0]} is no section")
        return config

    @field_validator("models")
    @classmethod
    def _has_both(cls, models: dict[str, ModelInfo]) -> dict[str, ModelInfo]:
        if not {"base", "tuned"} <= models.keys():
            raise ValueError("a model of the pair is missing")
        return models

    def identity(self) -> str:
        """Sixteen hex digits over config, seed and model hashes: what was run, not when."""
        hashes = {role: model.sha256 for role, model in self.models.items()}
        what = json.dumps([drop_retired(self.config), self.seed, hashes], sort_keys=True)
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
    def files(self) -> dict[str, FileInfo]:
        """Every file of the bundle but the manifest, by its path below the bundle."""
        return {**{f"{name}.parquet": info for name, info in self.tables.items()}, **self.artifacts}

    @property
    def tables_id(self) -> str:
        """Sixteen hex digits over the tables' hashes alone: runs that share it have the same figures."""
        hashes = [f"{name}={info.sha256}" for name, info in sorted(self.tables.items())]
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]

    @property
    def key(self) -> str:
        """Sixteen hex digits over the bundle's and the tables': what is derived of both may be kept under it."""
        return hashlib.sha256(f"{self.bundle_id}\n{self.tables_id}".encode()).hexdigest()[:16]


def read_table(path: Path, name: str) -> pa.Table:
    """Read a whole table of the bundle at `path`.

    In a bundle that is older than the table it is empty; columns added to the schema later have their default, or are
    null.
    """
    file, schema = path / f"{name}.parquet", BY_NAME[name].schema
    if BY_NAME[name].added_later and not file.exists():
        return schema.empty_table()
    table = pq.read_table(file)
    for column in BY_NAME[name].columns:
        if column.default is not None and column.name not in table.column_names:
            table = table.append_column(schema.field(column.name), pa.repeat(column.default, len(table)))
    return pa.concat_tables([schema.empty_table(), table], promote_options="default")


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the bundle at `path`. Raises BundleError where there is none, or of another version."""
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path}: no bundle here ({MANIFEST} is missing); make one with lfp demo or lfp run")
    if leads_outside(path, MANIFEST):
        raise BundleError(f"{file}: is a link, and a bundle holds its own files; copy the bundle with what it links to")
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
    except OSError as error:
        raise BundleError(f"{file}: cannot be read as a manifest; copy the bundle again from its source") from error
    return parse_manifest(content, where=str(path))


def parse_manifest(content: bytes, *, where: str) -> Manifest:
    """Read the content of a manifest of the bundle at `where`. Raises BundleError."""
    file = f"{where}/{MANIFEST}"
    try:
        if len(content) > _LARGEST:
            raise ValueError("larger than any manifest")
        values = json.loads(content.decode("utf-8"))
        version = values["schema_version"]
        json.dumps(values, ensure_ascii=False, allow_nan=False).encode()  # refuses lone surrogates and NaN
        if _depth(values) > _NESTED:
            raise ValueError("nested too deeply for the programs that show it")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{file}: cannot be read as a manifest; copy the bundle again from its source") from error
    if version != SCHEMA_VERSION:
        is_newer = isinstance(version, int) and version > SCHEMA_VERSION
        fix = "update the program" if is_newer else "make the bundle again"
        raise BundleError(f"{where}: schema version {version}, and this program reads {SCHEMA_VERSION}; {fix}")
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise BundleError(f"{file}: {key} is missing or wrong; copy the bundle again from its source") from error


def check_bundle(path: Path, *, hash_up_to_bytes: int = HASHED_BYTES) -> Manifest:
    """Read the manifest and check that every table is there, of the stated size and, where small enough, unchanged.

    Raises BundleError that names the first faulty table. `lfp.bundle.validation.validate` reads everything.
    """
    manifest = read_manifest(path)
    of_tables = table_faults(path, manifest, with_hashes=manifest.bytes <= hash_up_to_bytes)
    for fault in itertools.chain(foreign_faults(path, manifest), of_tables):
        raise BundleError(f"{path}: {fault}; copy the bundle again from its source, or make it again")
    return manifest


def table_faults(path: Path, manifest: Manifest, *, with_hashes: bool) -> Iterable[str]:
    """Yield a line for each table file that is missing, of another size or, with hashes, changed."""
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


def foreign_faults(path: Path, manifest: Manifest) -> Iterable[str]:
    """Yield a line for each file that the manifest names and the bundle does not hold itself: elsewhere, or a link.

    Nothing of such a bundle may be read or written.
    """
    for name in manifest.tables:
        if PurePosixPath(name).name != name or leads_outside(path, f"{name}.parquet"):
            yield f"table {quoted_name(name)} lies outside the bundle, or is a link"
    for name in manifest.artifacts:
        if leads_outside(path, name) or not name.startswith(f"{ARTIFACTS}/"):
            yield f"artifact {quoted_name(name)} lies outside the bundle, or is a link"


def artifact_faults(path: Path, manifest: Manifest, *, below: Iterable[str] = ("",)) -> Iterable[str]:
    """Yield a line for each artifact that is missing, changed or not listed; `below` names some folders of them."""
    for folder in below:
        place = f"{ARTIFACTS}/{folder}/" if folder else f"{ARTIFACTS}/"
        for name, info in manifest.artifacts.items():
            file = path / name
            if not name.startswith(place):
                continue
            if not file.is_file():
                yield f"artifact {quoted_name(name)} is missing"
            elif file.stat().st_size != info.bytes or file_sha256(file) != info.sha256:
                yield f"artifact {quoted_name(name)} was changed after it was written (its sha256 differs)"
        for file in sorted((path / place).rglob("*")):
            name = file.relative_to(path).as_posix()
            if file.is_symlink() or (not file.is_dir() and name not in manifest.artifacts):
                yield f"artifact {quoted_name(name)} is not in the manifest, or is a link"


def checked_files(path: Path, manifest: Manifest) -> dict[str, Path]:
    """Return the files of a bundle by name: the manifest, and all that it lists, each compared with its hash.

    Raises BundleError for one that is missing, changed or outside the bundle: it must not travel as what was written.
    """
    found = {MANIFEST: path / MANIFEST}
    for name, info in manifest.files.items():
        file = path / name
        if leads_outside(path, name):
            raise BundleError(
                f"{path}: the manifest names {quoted_name(name)}, which is outside the bundle; make it again"
            )
        if not file.is_file() or file.stat().st_size != info.bytes:
            raise BundleError(f"{path}: {quoted_name(name)} is missing or of another size; copy the bundle again")
        if file_sha256(file) != info.sha256:
            raise BundleError(f"{path}: {quoted_name(name)} was changed after it was written; copy the bundle again")
        found[name] = file
    return found


def check_models(path: Path, manifest: Manifest) -> None:
    """Raise BundleError unless the files of models and dictionaries are those that were written, and no others."""
    of_models = artifact_faults(path, manifest, below=("base", "tuned", "saes"))
    for fault in itertools.chain(foreign_faults(path, manifest), of_models):
        raise BundleError(f"{path}: {fault}; copy the bundle again from its source, or make it again")


def quoted_name(name: str, *, length: int = 120) -> str:
    """Return a name in a manifest or a folder as a message can hold it: on one line, short, and printable anywhere."""
    return shortened(name.encode("utf-8", "backslashreplace").decode(), length)


def leads_outside(path: Path, name: str) -> bool:
    """Whether a name in a manifest is of no file of its own in the bundle at `path`: it leads out, or through a link.

    A name that no file can have leads outside as well.
    """
    place = PurePosixPath(name)
    if place.is_absolute() or not place.parts or ".." in place.parts or "\x00" in name:
        return True
    try:
        return any((path / part).is_symlink() for part in (place, *list(place.parents)[:-1]))
    except OSError:  # too long for the file system
        return True


def has_models(manifest: Manifest) -> bool:
    """Whether the bundle holds its dictionaries and both models, or the names under which these are found."""
    kept = {name.split("/")[1] for name in manifest.artifacts if name.startswith(f"{ARTIFACTS}/")}
    named = {role for role, model in manifest.models.items() if model.by_name}
    return {"base", "tuned", "saes"} <= kept | named


def file_sha256(path: Path) -> str:
    """Compute the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _depth(values: Any) -> int:
    """Count the levels of nested lists and objects. Raises RecursionError for a thousand of them."""
    inside = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return 1 + max(map(_depth, inside), default=0)
