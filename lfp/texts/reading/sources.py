"""Find the files that a config names: a file, a folder or pattern of shards, or an address; open them decompressed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import pyarrow as pa

from lfp.errors import CorpusError, DependencyError, first_line

READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
"""What reading a broken or missing file raises, compressed or not."""
FORMATS = {
    ".jsonl": "json", ".ndjson": "json", ".jsonlines": "json", ".json": "json", ".csv": "csv", ".tsv": "csv",
    ".tab": "csv", ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".txt": "lines",
    ".text": "lines", ".pos": "lines", ".neg": "lines",
}  # fmt: skip
"""How files are read, by their suffix."""
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zstd": "zstd"}
_READ = ".jsonl, .json, .csv, .tsv, .parquet, .arrow or .txt, where .gz, .bz2, .xz or .zst may follow"
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_DRIVERS = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp",
    "https": "aiohttp", "abfs": "adlfs", "az": "adlfs",
}  # fmt: skip
_PINNED_TO_FSSPEC = {"s3fs", "gcsfs"}
"""Drivers that are released with fsspec, under its version."""
_PATTERN = re.compile(r"[*?\[]")
_ABOUT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""What a saved data set says of itself, beside its shards."""
_DATA_FOLDER = "../shared/data"


@dataclass(frozen=True)
class DataFile:
    """A file of rows: on this machine, or in a filesystem of fsspec."""

    path: str
    filesystem: Any = None

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.path).name if self.filesystem else Path(self.path).name

    @property
    def format(self) -> str:
        """How it is read, one of the values of `FORMATS`. Raises CorpusError for another suffix."""
        suffix = _split_suffixes(self.name)[0]
        if suffix not in FORMATS:
            named = f"files ending in {suffix} are" if suffix else "a file without a suffix is"
            raise CorpusError(f"{self.path}: {named} not read; pass {_READ}")
        return FORMATS[suffix]

    @property
    def suffix(self) -> str:
        """Its suffix in small letters, without that of a compression."""
        return _split_suffixes(self.name)[0]

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open its content, decompressed."""
        with ExitStack() as opened:
            path = self.path
            raw = self.filesystem.open(path, "rb") if self.filesystem else Path(path).open("rb")  # noqa: SIM115
            opened.enter_context(raw)
            compression = _split_suffixes(self.name)[1]
            if compression is None:
                yield raw
            else:
                yield opened.enter_context(_decompress(raw, compression))

    @contextmanager
    def open_seekable(self) -> Iterator[BinaryIO]:
        """Open its content for reading in any order; what is compressed as a whole is unpacked to a temporary file."""
        with self.open() as stream:
            if _split_suffixes(self.name)[1] is None:
                yield stream
                return
            with tempfile.TemporaryFile() as unpacked:
                shutil.copyfileobj(stream, unpacked)
                unpacked.seek(0)
                yield cast("BinaryIO", unpacked)


def _decompress(raw: Any, compression: str) -> Any:
    if compression == "zstd":
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"))
    if compression == "gzip":
        return gzip.GzipFile(fileobj=raw)
    return bz2.BZ2File(raw) if compression == "bz2" else lzma.LZMAFile(raw)


def find_source(name: str, *, key: str, beside: Path | None) -> Path:
    """Find the file a config names under `key`: as given, relative to the config, or in the data folder ($LFP_DATA).

    Raises CorpusError naming the key and every place searched.
    """
    places = list_places(name, beside)
    for place in places:
        if place.is_file():
            return place
    raise CorpusError(_not_found(name, key, places))


def find_files(name: str, *, key: str, beside: Path | None) -> tuple[DataFile, ...]:
    """Find the file, the folder's or pattern's files in order, or those at an address (s3://, gs://, hf://, https://).

    Raises CorpusError where there is none, and DependencyError where an address needs a package.
    """
    if _ADDRESS.match(name):
        return _find_remote(name, key)
    places = list_places(name, beside)
    for place in places:
        if place.is_file():
            return (DataFile(str(place)),)
        if place.is_dir():
            shards = (str(path) for path in place.rglob("*") if path.is_file())
            return _shards(shards, root=str(place), key=key)
    if _PATTERN.search(name):
        for place in places:
            found = Path(place.anchor).glob(str(place.relative_to(place.anchor)))
            matched = [str(path) for path in found if path.is_file()]
            if matched:
                return _shards(matched, root=name, key=key)
    raise CorpusError(_not_found(name, key, places))


def is_address(name: str) -> bool:
    """Return whether a name is an address of the form scheme://..."""
    return _ADDRESS.match(name) is not None


def list_places(name: str, beside: Path | None) -> list[Path]:
    """List where a name in a config is looked for: as given, beside the config, in the data folder."""
    places = [Path(name)]
    if not places[0].is_absolute():
        places += [beside / name] if beside else []
        places.append(Path(os.environ.get("LFP_DATA", _DATA_FOLDER)) / name)
    return places


def _not_found(name: str, key: str, places: list[Path]) -> str:
    looked = ", ".join(str(place) for place in places)
    where = "there" if len(places) == 1 else "beside the config or into the folder that LFP_DATA names"
    return f"{key} {name}: no such file (looked at {looked}); put it {where}, or --set {key}=FILE"


def _split_suffixes(name: str) -> tuple[str, str | None]:
    """Split a name's last suffix, in small letters, from its compression."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression is not None:
        suffixes.pop()
    return (suffixes[-1] if suffixes else ""), compression


def _shards(paths: Iterable[str], *, root: str, key: str, filesystem: Any = None) -> tuple[DataFile, ...]:
    """Keep the files of rows, sorted by path. Raises CorpusError where there is none, or more than one format."""
    files = [DataFile(path, filesystem) for path in sorted(paths) if _is_shard(path, root)]
    kinds = sorted({file.suffix for file in files})
    if not files:
        raise CorpusError(f"{key} {root}: no file of rows in this folder; pass one of {_READ}")
    if len({FORMATS[kind] for kind in kinds}) > 1:
        raise CorpusError(
            f"{key} {root}: files of several formats ({', '.join(kinds)}); name those of one, such as"
            f" {root.rstrip('/')}/*{kinds[0]}"
        )
    return tuple(files)


def _is_shard(path: str, root: str) -> bool:
    """Return whether a file below `root` holds rows: no hidden file, marker or description of the data."""
    inside = path[len(root) :] if path.startswith(root) else path
    parts = PurePosixPath(inside.replace(os.sep, "/")).parts
    is_hidden = any(part.startswith((".", "_")) for part in parts)
    name = parts[-1].lower() if parts else ""
    is_about = name in _ABOUT_DATA or name.startswith(("readme", "license", "licence"))
    return not is_hidden and not is_about and _split_suffixes(name)[0] in FORMATS


def _find_remote(name: str, key: str) -> tuple[DataFile, ...]:
    scheme = _ADDRESS.match(name)[1].lower()  # type: ignore[index]
    try:
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(name)
    except (ImportError, ValueError) as error:
        driver = _DRIVERS.get(scheme)
        if isinstance(error, ModuleNotFoundError) and error.name == "fsspec":
            raise DependencyError(f"{key} {name}: needs the package fsspec; run pip install fsspec") from error
        if driver is None or isinstance(error, ValueError):
            raise CorpusError(
                f"{key} {name}: {first_line(error)}; use s3://, gs://, hf:// or https://, or --set {key}=FILE"
            ) from error
        pin = f"=={fsspec.__version__}" if driver in _PINNED_TO_FSSPEC else ""
        raise DependencyError(f"{key} {name}: needs the package {driver}; run pip install '{driver}{pin}'") from error
    try:
        if _PATTERN.search(path) and not filesystem.exists(path):
            found = [each for each in filesystem.glob(path) if filesystem.isfile(each)]
        elif scheme in ("http", "https") or filesystem.isfile(path):
            return (DataFile(path, filesystem),)
        else:
            found = filesystem.find(path)
    except Exception as error:  # those of whatever client the filesystem uses
        raise CorpusError(
            f"{key} {name}: cannot be listed ({first_line(error)}); check the address and the credentials"
        ) from error
    if not found:
        raise CorpusError(f"{key} {name}: no such file or folder; check the address, or --set {key}=FILE")
    return _shards(found, root=path, key=key, filesystem=filesystem)
