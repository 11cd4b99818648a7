"""Publish a bundle to an object store: files under a new name each time, the manifest last, replaced files after it."""

from __future__ import annotations

import datetime
import json
import os
import secrets
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from lfp.bundle import writer
from lfp.bundle.manifest import MANIFEST, parse_manifest, read_manifest
from lfp.bundle.remote.mirror import OBJECTS, locate_files, read_content
from lfp.errors import BundleChangedError, BundleError, LfpError
from lfp.util.object_stores import AT_ONCE, StoredFolder, is_address, open_folder

_STAMP = "%Y%m%dT%H%M%SZ"
_ABANDONED = datetime.timedelta(days=1)
"""Age of a publication's files from which those that no manifest names are deleted: its command was killed."""
_LOCK = f"{OBJECTS}/lock"
_RENEWED_S, _STALE_S = 30.0, 180.0
"""Seconds after which a command renews its lock, and after which one that was not renewed counts as left behind."""
_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


@dataclass(frozen=True)
class Target:
    """An address that a bundle will be published to, and the manifest that was there when the command began.

    The files go to a folder that no other publication uses, so that neither a reader nor another writer meets them
    before the manifest names them. The manifest is written last, and only in place of the one that was there before.
    Where the store refuses that itself (S3: If-Match and If-None-Match; gs:// and az://: for a first bundle), two
    writers cannot replace each other's bundle; elsewhere the manifest is compared just before it is written.
    """

    folder: StoredFolder
    content: bytes | None
    tag: str | None

    @classmethod
    def find(cls, address: str) -> Target:
        """Look at an address, and try that files can be written there.

        Raises BundleError where something else is there, the bucket is missing, or nothing may be written.
        """
        folder = open_folder(address)
        files = folder.filesystem
        if not PurePosixPath(folder.root).name or ("s3" in files.protocol and "/" not in folder.root):
            raise BundleError(f"{folder.address}: a bucket alone; add a name for the bundle, such as s3://bucket/run")
        tag = _read_tag(folder)
        content = read_content(folder)
        with folder.explaining("cannot be written"):
            found = [] if content is not None or not files.exists(folder.root) else files.ls(folder.root, detail=False)
            if {PurePosixPath(path).name for path in found} - {OBJECTS, PurePosixPath(folder.root).name}:
                raise BundleError(
                    f"{folder.address}: something that is not a bundle is there; choose another address or empty it"
                )
            probe = folder.path(f"{OBJECTS}/{_new_name()}/probe")
            files.pipe_file(probe, b"may be deleted\n")
            files.rm_file(probe)
        return cls(folder, content, tag)

    def publish(self, source: Path) -> None:
        """Upload the complete bundle in the folder `source` and make it the bundle at the address.

        A file that the manifest lists and `source` lacks is taken from the bundle that was there before. Whenever this
        is interrupted, either the old or the new bundle is there, whole. Raises BundleError where the store fails,
        BundleChangedError where another command wrote to the address meanwhile.
        """
        manifest, name = read_manifest(source), _new_name()
        before = {} if self.content is None else locate_files(
            self.content, parse_manifest(self.content, where=self.folder.address), where=self.folder.address
        )  # fmt: skip
        new = {file: f"{OBJECTS}/{name}/{file}" for file in manifest.files if (source / file).is_file()}
        places = {file: new.get(file) or before[file] for file in manifest.files}

        def upload(file: str) -> None:
            with self.folder.explaining(f"{file} cannot be written"):
                self.folder.filesystem.put_file(str(source / file), self.folder.path(new[file]))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(upload, new):
                pass
        with self.folder.explaining("cannot be listed"):
            found = self.folder.filesystem.find(self.folder.path(f"{OBJECTS}/{name}"), detail=True)
        arrived = sorted(info["size"] for info in found.values())
        if arrived != sorted(manifest.files[file].bytes for file in new):
            raise BundleError(f"{self.folder.address}: not every file arrived whole; publish the bundle again")
        values = json.loads((source / MANIFEST).read_bytes()) | {OBJECTS: places}
        text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        self._commit(text.encode())
        try:
            self._delete(set(before.values()) - set(places.values()), used={*places.values()})
        except LfpError as error:
            warnings.warn(f"the bundle is published, but files of the one before it are left: {error}", stacklevel=2)

    def _commit(self, content: bytes) -> None:
        """Write the manifest in place of the one that was there when the command began."""
        path, files = self.folder.path(MANIFEST), self.folder.filesystem
        changed = BundleChangedError(
            f"{self.folder.address}: another command wrote there meanwhile; its bundle was kept: look at it, and repeat"
            " this command to replace it, or choose another address"
        )
        if read_content(self.folder) != self.content:
            raise changed
        options: dict[str, Any] = {"mode": "create"} if self.content is None else {}
        if self.tag is not None:
            options["IfMatch"] = self.tag
        with self.folder.explaining(f"{MANIFEST} cannot be written"):
            try:
                files.pipe_file(path, content, **options)
            except OSError as error:
                response = getattr(error.__cause__, "response", None) or {}
                is_refused = isinstance(error, FileExistsError) or response.get("Error", {}).get("Code") in _CHANGED
                if not is_refused:
                    raise
                if read_content(self.folder) != content:  # a first attempt may have arrived without an answer
                    raise changed from None

    def _delete(self, gone: set[str], *, used: set[str]) -> None:
        """Delete the files of the bundle before, and those that publications of a day ago and more left unused."""
        files = self.folder.filesystem
        with self.folder.explaining("files cannot be deleted"):
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for _ in pool.map(files.rm_file, map(self.folder.path, sorted(gone))):
                    pass
            in_use = {PurePosixPath(place).parts[1] for place in used if place.startswith(f"{OBJECTS}/")}
            oldest = datetime.datetime.now(datetime.UTC) - _ABANDONED
            for path in files.ls(self.folder.path(OBJECTS), detail=False):
                name = PurePosixPath(path).name
                if name not in in_use and _made_at(name) < oldest:
                    files.rm(path, recursive=True)


def update_bundle(bundle: str | Path, tables: Mapping[str, pa.Table | Iterable[Mapping[str, Any]]]) -> None:
    """Replace some tables of a bundle, in a folder or at an address, in one step; see `writer.update_bundle`."""
    if not is_address(bundle):
        writer.update_bundle(Path(bundle), tables)
        return
    target = Target.find(str(bundle))
    if target.content is None:
        raise BundleError(f"{target.folder.address}: no bundle here ({MANIFEST} is missing); check the address")
    manifest = parse_manifest(target.content, where=target.folder.address)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        with writer.BundleWriter(path, manifest) as writing:
            for name, rows in tables.items():
                writing.write(name, rows)
            writing.keep_listed(manifest)
        target.publish(path)


@contextmanager
def hold_address(address: str) -> Iterator[None]:
    """Hold the only right to write to an address: an object there, renewed until the block ends.

    Raises BundleError where another command holds it. A lock that was not renewed for minutes, by the store's clock, or
    whose process on this machine has ended, was left behind by a command that was killed, and is taken over.
    """
    folder, owner = open_folder(address), {"host": socket.gethostname(), "process": os.getpid(), "key": _new_name()}
    files, path, content = folder.filesystem, folder.path(_LOCK), json.dumps(owner).encode()
    with folder.explaining("cannot be locked"):
        if not _write_new(files, path, content):
            held = _read_lock(files, path)
            if held is not None and not _is_left(folder, held):
                raise BundleError(
                    f"{folder.address}: another command (process {held['process']} on {held['host']}) is writing there;"
                    " wait until it ends or choose another address"
                )
            with suppress(FileNotFoundError):
                files.rm_file(path)
            if not _write_new(files, path, content):
                raise BundleError(f"{folder.address}: another command has just begun to write there; wait for its end")
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEWED_S):
            with suppress(Exception):  # the next time may succeed, and publishing notices what another wrote
                files.pipe_file(path, content)

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        with suppress(Exception):  # a lock that cannot be deleted counts as left behind in minutes
            if (_read_lock(files, path) or {}).get("key") == owner["key"]:
                files.rm_file(path)


def _write_new(files: Any, path: str, content: bytes) -> bool:
    """Write a file where there is none, and return whether that was so."""
    try:
        files.pipe_file(path, content, mode="create")
    except OSError as error:
        response = getattr(error.__cause__, "response", None) or {}
        if isinstance(error, FileExistsError) or response.get("Error", {}).get("Code") in _CHANGED:
            return False
        raise
    return True


def _read_lock(files: Any, path: str) -> dict[str, Any] | None:
    """Return what a lock says; None where it has gone."""
    try:
        held = json.loads(files.cat_file(path))
    except FileNotFoundError:
        return None
    except ValueError:
        held = None
    unknown = {"host": "another machine", "process": 0, "key": ""}
    return unknown | held if isinstance(held, dict) else unknown


def _is_left(folder: StoredFolder, held: Mapping[str, Any]) -> bool:
    """Return whether the command that holds a lock has ended."""
    if held["host"] == socket.gethostname() and isinstance(held["process"], int) and held["process"] > 0:
        return not Path(f"/proc/{held['process']}").exists() and Path("/proc/self").exists()
    files, probe = folder.filesystem, folder.path(f"{OBJECTS}/{_new_name()}/probe")
    files.pipe_file(probe, b"may be deleted\n")
    try:
        age = files.modified(probe) - files.modified(folder.path(_LOCK))
    finally:
        files.rm_file(probe)
    return bool(age > datetime.timedelta(seconds=_STALE_S))


def _read_tag(folder: StoredFolder) -> str | None:
    """Return the version of the manifest that S3 compares when it is replaced; None elsewhere, or where none is."""
    if "s3" not in folder.filesystem.protocol:
        return None
    with folder.explaining("cannot be opened"):
        try:
            return str(folder.filesystem.info(folder.path(MANIFEST))["ETag"])
        except FileNotFoundError:
            return None


def _new_name() -> str:
    return f"{datetime.datetime.now(datetime.UTC):{_STAMP}}-{secrets.token_hex(4)}"


def _made_at(name: str) -> datetime.datetime:
    """Return when a publication's folder was named; now for a name of another kind, which is nobody's to delete."""
    try:
        return datetime.datetime.strptime(name.partition("-")[0], _STAMP).replace(tzinfo=datetime.UTC)
    except ValueError:
        return datetime.datetime.now(datetime.UTC)
