"""Files by their hash in a folder that processes share; the least recently used make room for others."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lfp.bundle.manifest import FileInfo, file_sha256
from lfp.errors import BundleError
from lfp.util.object_stores import CACHE, cache_folder, read_setting

LIMIT = "LFP_CACHE_GB"
"""Environment variable: how large the cache of bundles may grow."""
_LIMIT_GB = 10.0
_ABANDONED_S = 3600.0
_SHA256 = re.compile("[0-9a-f]{64}")


class DamagedError(Exception):
    """What was fetched is not what the manifest says; the message says how it differs."""


@dataclass(frozen=True)
class Cache:
    """The folder and the bytes that it may hold.

    `files/HASH` holds each file once; the folders of bundles in `bundles` hold hard links to them. A file is written
    under another name, checked, and renamed, so that no process finds half of one. A file is used when it is fetched or
    looked up: that time is kept as its time of access.
    """

    folder: Path
    limit: int

    @classmethod
    def of_user(cls) -> Cache:
        """Return the user's cache, as the environment sets it. Raises ConfigError where its size is no number."""
        return cls(cache_folder(), int(read_setting(LIMIT, _LIMIT_GB, unit="gigabytes") * 1e9))

    def find(self, info: FileInfo) -> Path | None:
        """Return a file that is here, and mark it as used; None where it is not."""
        file = self._file(info)
        try:
            status = file.stat()
            if status.st_size != info.bytes:
                return None
            os.utime(file, ns=(time.time_ns(), status.st_mtime_ns))
        except OSError:
            return None
        return file

    def fetch(self, info: FileInfo, download: Callable[[Path], None]) -> Path:
        """Return a file, downloaded unless it is here, by one thread of one process at a time.

        Raises DamagedError where what arrives has another size or hash, BundleError where nothing can be written.
        """
        file = self._file(info)
        with self._writing(), self._lock(file.name[:2]):
            found = self.find(info)
            if found is not None:
                return found
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_name(f".{uuid.uuid4().hex}.part")
            try:
                download(draft)
                size = draft.stat().st_size
                if size != info.bytes:
                    raise DamagedError(f"it has {size} bytes where the manifest says {info.bytes}")
                if file_sha256(draft) != info.sha256:
                    raise DamagedError("its content is not what the manifest says (its sha256 differs)")
                draft.replace(file)
            finally:
                draft.unlink(missing_ok=True)
        return file

    def link(self, file: Path, target: Path) -> None:
        """Let `target` be a cached file: a hard link, or a copy where the file system has none."""
        with suppress(OSError):
            if target.samefile(file):
                return
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{uuid.uuid4().hex}.part")
            try:
                os.link(file, draft)
            except OSError:
                shutil.copyfile(file, draft)
            draft.replace(target)
            draft.unlink(missing_ok=True)  # renaming a link to the file that it replaces leaves both

    def write(self, target: Path, content: bytes) -> None:
        """Write a small file into the folder of a bundle, whole or not at all."""
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{uuid.uuid4().hex}.part")
            draft.write_bytes(content)
            draft.replace(target)

    def make_room(self, n_bytes: int, *, keep: Collection[FileInfo]) -> None:
        """Delete the files that were used least recently until `n_bytes` fit beside the others, but none of `keep`.

        Raises BundleError where they cannot fit.
        """
        kept = {self._file(info).name for info in keep}
        with self._writing(), self._lock("room"):
            sizes: dict[int, int] = {}
            used: dict[int, int] = defaultdict(int)
            names: dict[int, list[Path]] = defaultdict(list)
            for file in self._files():
                with suppress(OSError):
                    status = file.stat()
                    if file.name.endswith(".part"):
                        if time.time() - status.st_mtime > _ABANDONED_S:
                            file.unlink()
                        continue
                    sizes[status.st_ino] = status.st_size
                    used[status.st_ino] = max(used[status.st_ino], status.st_atime_ns)
                    names[status.st_ino].append(file)
            total = sum(sizes.values())
            for inode in sorted(used, key=used.__getitem__):
                if total + n_bytes <= self.limit:
                    break
                if kept.isdisjoint(file.name for file in names[inode]):
                    for file in names[inode]:
                        file.unlink(missing_ok=True)
                        with suppress(OSError):
                            file.parent.rmdir()
                    total -= sizes[inode]
            if total + n_bytes > self.limit:
                needed = (total + n_bytes) / 1e9
                raise BundleError(
                    f"{self.folder}: a cache of {self.limit / 1e9:.3g} GB holds less than the {needed:.3g} GB read"
                    f" at once; set {LIMIT} to more"
                )

    def _file(self, info: FileInfo) -> Path:
        if not _SHA256.fullmatch(info.sha256):
            raise BundleError(f"{info.sha256[:20]}: no hash of a file in a manifest; copy the bundle again")
        return self.folder / "files" / info.sha256

    def _files(self) -> Iterator[Path]:
        for kind in ("files", "bundles"):
            for folder, _, names in os.walk(self.folder / kind):
                yield from (Path(folder) / name for name in names)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BundleError(
                f"{self.folder}: the cache of remote bundles cannot be written ({error.strerror}); make room, or set"
                f" {CACHE} to another folder"
            ) from error

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Hold a lock of the operating system, which ends with the process however that ends."""
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
