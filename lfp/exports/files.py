"""Files of an export: named, written beside their place, and moved there when all are complete."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfp.errors import BundleError, ConfigError

_LONGEST_NAME = 96


@dataclass(frozen=True)
class File:
    """A file to be written: its name relative to the target, with slashes, and its bytes or where they are."""

    name: str
    content: bytes | Path

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def json_file(name: str, rows: Iterable[Mapping[str, Any]]) -> File:
    """Make a file of JSON lines, compressed where its name ends in .gz. The same rows give the same bytes.

    Raises BundleError for a number that is not finite, which JSON cannot hold.
    """
    try:
        text = "".join(f"{json.dumps(row, allow_nan=False, separators=(',', ':'))}\n" for row in rows)
    except ValueError as error:
        raise BundleError(f"{name}: a number of the bundle is not finite; make the bundle again") from error
    content = text.encode()
    return File(name, gzip.compress(content, compresslevel=6, mtime=0) if name.endswith(".gz") else content)


def check_target(target: Path) -> None:
    """Raise ConfigError unless an export may be written to `target`: nothing there, or an empty folder."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: something is there already; name a new folder, or remove what is there")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside `target` that becomes `target` when the block ends, and is removed if it fails.

    Raises ConfigError where something is at `target`, or the folder cannot be written.
    """
    check_target(target)
    part = target.parent / f".{target.name}.writing"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        part.replace(target)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{target}: cannot be written ({reason}); name a folder you may write to") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_file(file: File, folder: Path) -> None:
    """Write a file below `folder`. Raises ConfigError for a name that would leave it."""
    place = folder / file.name
    if not place.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{file.name}: would be written outside {folder}; make the bundle again")
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(file.content, bytes):
        place.write_bytes(file.content)
    else:
        shutil.copyfile(file.content, place)


def name_in_addresses(text: str) -> str:
    """Return a text as a name of small letters, digits and dashes. Raises ConfigError where none is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_LONGEST_NAME].strip("-")
    if not name:
        raise ConfigError(f"{text!r}: has no letter or digit to make a name of; pass --name")
    return name


def select(feature_ids: Sequence[int] | None, n_features: int) -> list[int]:
    """Return the features to export, each once and in order; all by default.

    Raises ConfigError for numbers that the bundle lacks.
    """
    if feature_ids is None:
        return list(range(n_features))
    if missing := [number for number in feature_ids if not 0 <= number < n_features]:
        held = f"0 to {n_features - 1}" if n_features else "none"
        raise ConfigError(f"features: no feature {', '.join(map(str, missing))} in the bundle, which holds {held}")
    return sorted(set(feature_ids))
