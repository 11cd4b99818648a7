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
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import pyarrow as pa

from lfp.errors import CorpusError
from lfp.util.object_stores import explaining, is_address, open_folder, scheme_of, without_secrets

BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, pa.ArrowException)
"""What reading a file raises that is not whole, or not what its suffix says."""
READ_ERRORS = (OSError, *BROKEN)
"""What reading a broken or missing file raises, compressed or not."""
FORMATS = {
    ".jsonl": "json", ".ndjson": "json", ".jsonlines": "json", ".json": "json", ".csv": "csv", ".tsv": "csv",
    ".tab": "csv", ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".txt": "lines",
    ".text": "lines", ".pos": "lines", ".neg": "lines",
}  # fmt: skip
"""How files are read, by their suffix."""
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zstd": "zstd"}
_READ = ".jsonl, .json, .csv, .tsv, .parquet, .arrow or .txt, where .gz, .bz2, .xz or .zst may follow"
_PATTERN = re.compile(r"[*?\[]")
_ABOUT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""What a saved data set says of itself, beside its shards."""
_DATA_FOLDER = "../shared/data"


@dataclass(frozen=True)
class DataFile:
    """A file of rows: on this machine, or in a filesystem of fsspec."""

    path: str
    filesystem: Any = None
    signed: str | None = None
    """The path with the query that signs it, which no message shows."""

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
            path = self.signed or self.path
            raw = self.filesystem.open(path, "rb") if self.filesystem else Path(path).open("rb")  # noqa: SIM115
            opened.enter_context(raw)
            compression = _split_suffixes(self.name)[1]
            if compression is None:
                yield raw
            else:
                yield opened.enter_context(_decompress(raw, compression))

    def explaining(self) -> AbstractContextManager[None]:
        """Turn the store's errors in the block into CorpusError; those of broken content, and a disk's own, pass."""
        if self.filesystem is None:
            return nullcontext()
        return explaining(self.path, "cannot be read", kind=CorpusError, unless=BROKEN)

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
    if is_address(name):
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
    folder = open_folder(name, kind=CorpusError, what=key)
    filesystem, path = folder.filesystem, folder.root
    with folder.explaining("cannot be listed"):
        if _PATTERN.search(path) and not filesystem.exists(path):
            found = [each for each in filesystem.glob(path) if filesystem.isfile(each)]
        elif scheme_of(name) in ("http", "https") or filesystem.isfile(path):
            return (DataFile(without_secrets(path), filesystem, path),)
        else:
            found = filesystem.find(path)
    if not found:
        raise CorpusError(f"{folder.address}: no such file or folder; check the address, or --set {key}=FILE")
    return _shards(found, root=path, key=key, filesystem=filesystem)
