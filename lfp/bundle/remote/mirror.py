"""A bundle in an object store as a folder of this machine: the manifest at once, the other files when they are read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from lfp.bundle.manifest import MANIFEST, FileInfo, Manifest, parse_manifest
from lfp.bundle.remote.cache import Cache, DamagedError
from lfp.bundle.schema import TABLES
from lfp.errors import BundleChangedError, BundleError
from lfp.util.object_stores import AT_ONCE, StoredFolder, is_address, open_folder

OBJECTS = "objects"
"""Key of a published manifest: for each file its path below the bundle's address."""


class Mirror:
    """A bundle in an object store, and what was fetched of it.

    The files of a bundle that `publish` wrote are where its manifest says, under a name that no other state of the
    bundle uses; those of a folder that was copied into the store are where they are in a folder. Each is checked
    against the manifest's hash when it arrives.
    """

    def __init__(self, folder: StoredFolder, content: bytes, cache: Cache) -> None:
        self.address = folder.address
        self.manifest: Manifest = parse_manifest(content, where=folder.address)
        """As it was when the bundle was opened."""
        self._folder, self._content, self._cache = folder, content, cache
        self._places = locate_files(content, self.manifest, where=folder.address)
        for table in TABLES:
            if table.name not in self.manifest.tables and not table.added_later:
                raise BundleError(f"{self.address}: table {table.name} is missing; publish the bundle again")
        key = hashlib.sha256(folder.address.encode() + b"\n" + content).hexdigest()[:16]
        name = PurePosixPath(folder.root).name or "bundle"
        self.path: Path = cache.folder / "bundles" / f"{name}-{key}"
        """The local folder; what was not fetched is missing there."""

    @classmethod
    def open(cls, address: str, *, cache: Cache | None = None) -> Mirror:
        """Read the manifest of the bundle at an address, and nothing else. Raises BundleError, DependencyError."""
        folder = open_folder(address)
        content = read_content(folder)
        if content is None:
            raise BundleError(f"{folder.address}: no bundle here ({MANIFEST} is missing); check the address")
        return cls(folder, content, cache or Cache.of_user())

    def fetch(self, names: Iterable[str] | None = None) -> None:
        """Bring files of the bundle to `path`, all of them where none is named, unless they are there.

        Raises BundleError for a file that is missing, cut off or changed, BundleChangedError where the bundle was
        replaced since it was opened.
        """
        files = self.manifest.files
        wanted = {name: files[name] for name in (files if names is None else names)}
        missing = {name: info for name, info in wanted.items() if self._cache.find(info) is None}
        if missing:
            distinct = {info.sha256: info.bytes for info in missing.values()}
            self._cache.make_room(sum(distinct.values()), keep=wanted.values())
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for _ in pool.map(self._bring, missing, missing.values()):
                    pass
        for name in wanted.keys() - missing.keys():
            self._bring(name, wanted[name])
        if not (self.path / MANIFEST).is_file():
            self._cache.write(self.path / MANIFEST, self._content)

    def has(self, name: str) -> bool:
        """Return whether a file is in `path`, fetched and not yet deleted to make room."""
        return (self.path / name).is_file()

    def _bring(self, name: str, info: FileInfo) -> None:
        def download(target: Path) -> None:
            with self._folder.explaining(f"{name} cannot be read"):
                try:
                    self._folder.filesystem.get_file(self._folder.path(self._places[name]), str(target))
                except FileNotFoundError:
                    self._check_unchanged()
                    raise BundleError(f"{self.address}: {name} is missing; publish the bundle again") from None

        try:
            file = self._cache.fetch(info, download)
        except DamagedError as damage:
            self._check_unchanged()
            raise BundleError(f"{self.address}: {name} is damaged ({damage}); publish the bundle again") from None
        self._cache.link(file, self.path / name)

    def _check_unchanged(self) -> None:
        if read_content(self._folder) != self._content:
            raise BundleChangedError(f"{self.address}: the bundle was replaced while it was open; open it again")


def read_content(folder: StoredFolder) -> bytes | None:
    """Read a manifest as it is now; None where there is none. Raises the folder's error where it cannot be read."""
    with folder.explaining("cannot be opened"):
        try:
            return bytes(folder.filesystem.cat_file(folder.path(MANIFEST)))
        except FileNotFoundError as error:
            if "bucket does not exist" in str(error):
                raise
            return None


def list_bundles(address: str) -> list[str]:
    """List the addresses of bundles right below an address. Raises BundleError where it cannot be listed."""
    folder = open_folder(address)
    with folder.explaining("cannot be listed"):
        inside = sorted(folder.filesystem.ls(folder.root, detail=False))
        names = [PurePosixPath(path).name for path in inside]
        return [
            f"{address.rstrip('/')}/{name}"
            for name in names
            if folder.filesystem.isfile(folder.path(f"{name}/{MANIFEST}"))
        ]


def locate_files(content: bytes, manifest: Manifest, *, where: str) -> dict[str, str]:
    """Return where each file of a bundle is below its address, by its name; at its name where nothing is stated.

    Raises BundleError where a name or a place leads out of the bundle.
    """
    stated = json.loads(content).get(OBJECTS)
    places = stated if isinstance(stated, dict) else {}
    found = {name: str(places.get(name, name)) for name in manifest.files}
    for name, place in found.items():
        for path in (PurePosixPath(name), PurePosixPath(place)):
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise BundleError(f"{where}: its manifest names {str(path)[:120]}, which is outside; publish it again")
    return found


def local_folder(bundle: str | Path, *, tables_only: bool = False) -> Path:
    """Return the folder of a bundle; one at an address is fetched first, for commands that read everything."""
    if not is_address(bundle):
        return Path(bundle)
    mirror = Mirror.open(str(bundle))
    mirror.fetch([f"{name}.parquet" for name in mirror.manifest.tables] if tables_only else None)
    return mirror.path


def count_bytes(bundle: str | Path) -> int:
    """Add up the sizes of a bundle's files; one at an address is read no further than its manifest."""
    if is_address(bundle):
        return sum(info.bytes for info in Mirror.open(str(bundle)).manifest.files.values())
    return sum(file.stat().st_size for file in Path(bundle).rglob("*") if file.is_file())


def place_beside(bundle: str | Path) -> Path:
    """Return the path beside which files about a bundle are kept: its folder, or its name in the current folder."""
    return Path.cwd() / PurePosixPath(str(bundle)).name if is_address(bundle) else Path(os.path.realpath(bundle))
