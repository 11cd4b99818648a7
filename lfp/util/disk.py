"""What is written to a disk: whole or not at all, synced before it counts; and a disk's refusals apart from faults."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

REFUSALS = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG, errno.ENOTDIR,
    errno.EISDIR, errno.ELOOP, errno.EFBIG,
})  # fmt: skip
"""Errors by which a system refuses to write, for want of room, of the right, or of a place."""
_QUOTED = re.compile(r"(No space left on device|Disk quota exceeded|Read-only file system)|\(os error (28|122|30)\)")


def find_refusal(error: BaseException) -> str | None:
    """Return the system's words where an error says that the disk cannot be written; None for any other.

    Libraries that write files by themselves raise errors of their own, which quote the system's.
    """
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return os.strerror(error.errno)
    found = _QUOTED.search(str(error))
    return (found[1] or os.strerror(int(found[2]))) if found else None


def write_whole(file: Path, text: str) -> None:
    """Write a file so that it is complete or as it was, whenever this is interrupted."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.writing")
    try:
        partial.write_text(text, encoding="utf-8")
        sync(partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all that it holds, is on the disk."""
    if path.is_dir():
        for inside in path.iterdir():
            sync(inside)
    sync_entry(path)


def sync_entry(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reserve(file: Path) -> None:
    """Give a file that has holes its room on the disk. Raises OSError where there is none.

    Writing to a memory map of a hole that the disk has no room for ends the process without a word.
    """
    allocate = getattr(os, "posix_fallocate", None)  # not on macOS
    if allocate is not None and (n_bytes := file.stat().st_size):
        with file.open("rb+") as opened:
            allocate(opened.fileno(), 0, n_bytes)
