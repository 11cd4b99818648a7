"""Write a bundle as one zip file: the manifest and the files that it lists, nothing else of the folder."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import IO

from lfp.bundle.manifest import MANIFEST, Manifest
from lfp.errors import BundleError

_DATE = (2000, 1, 1, 0, 0, 0)  # the same bundle gives the same zip, whenever it is made


def files_of(manifest: Manifest) -> dict[str, int | None]:
    """Map the paths of the bundle's files to their sizes in bytes; None for the manifest, which states none."""
    tables = {f"{name}.parquet": info.bytes for name, info in sorted(manifest.tables.items())}
    return {MANIFEST: None, **tables, **{name: info.bytes for name, info in sorted(manifest.artifacts.items())}}


def archive_bytes(manifest: Manifest) -> int:
    """Add up the sizes of tables and artifacts, which a zip stores as they are: they are compressed already."""
    return sum(size or 0 for size in files_of(manifest).values())


def write_archive(path: Path, manifest: Manifest, target: IO[bytes], *, name: str) -> None:
    """Write the bundle at `path` to `target` as a zip of one folder, `name`. Raises BundleError for a missing file."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file, size in files_of(manifest).items():
            source = path / file
            if not source.resolve().is_relative_to(path.resolve()):
                raise BundleError(f"{path}: the manifest names {file}, which is outside the bundle; make it again")
            if not source.is_file() or size not in (None, source.stat().st_size):
                raise BundleError(f"{path}: {file} is missing or of another size; copy the bundle again")
            with source.open("rb") as content, archive.open(zipfile.ZipInfo(f"{name}/{file}", _DATE), "w") as entry:
                shutil.copyfileobj(content, entry)
