"""`export`: write a bundle for Neuronpedia, as repositories of the hub, or as static pages."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lfp.bundle.manifest import MANIFEST
from lfp.bundle.store.connection import Store
from lfp.errors import BundleError, ConfigError
from lfp.exports import CREATOR_ID, ExportKind, hub, neuronpedia, pages
from lfp.exports.files import File, check_target, name_in_addresses, new_folder, select, write_file
from lfp.util.dependencies import jobs_packages
from lfp.util.types import Progress
from precompute.run.progress import silent
from precompute.run.work_folder import lock_work_folder


@dataclass(frozen=True)
class Exported:
    """What `export` wrote, or would write: sizes in bytes by name, and the addresses of repositories uploaded."""

    files: dict[str, int] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(self.files.values())


def export(
    bundle: str | Path,
    target: str | Path,
    *,
    to: ExportKind,
    features: Sequence[int] | None = None,
    name: str | None = None,
    creator_id: str = CREATOR_ID,
    dry_run: bool = False,
    push: bool = False,
    progress: Progress = silent,
) -> Exported:
    """Write a bundle in the format of others, into a new folder that appears whole or not at all.

    `neuronpedia` writes features, examples and labels as the files that Neuronpedia imports; `hub` the whole bundle
    with a card, its dictionaries for SAELens and its adapter for PEFT, a folder for each repository; `html` a static
    page per feature with a list. See docs/EXPORT.md.

    Args:
        bundle: Folder of the bundle.
        target: Folder to write, which must not exist or be empty; with `push` the repository, as owner/name.
        to: `neuronpedia`, `hub` or `html`.
        features: `neuronpedia`, `html`: ids of features; all by default.
        name: Name to publish under, by default made of the bundle's title: the model's id on Neuronpedia, or
            the repository that the cards of `hub` name, best as owner/name.
        creator_id: `neuronpedia`: id of the user who owns what is imported.
        dry_run: Make everything and write nothing.
        push: `hub`: upload to private repositories of the account that huggingface_hub knows, and keep no folder.
        progress: Called as features are written.

    Raises:
        ConfigError: An argument is wrong, something is at the target, or the hub refuses.
        BundleError: There is no such bundle, it names a file outside it, or with `hub` a file was changed.
        DependencyError: `push` without huggingface_hub.
    """
    path = Path(bundle).expanduser()
    if to != "hub" and push:
        raise ConfigError(f"--push: only --to hub uploads, and this is {to}; leave it out")
    if to == "hub" and features is not None:
        raise ConfigError("--features: a bundle travels to the hub whole; leave it out")
    if push and name is not None:
        raise ConfigError("--name: --push takes the name from the repository; leave it out")
    if push and not hub.REPOSITORY.fullmatch(str(target)):
        raise ConfigError(f"{target}: not the name of a repository; write it as owner/name")
    folder = Path(target).expanduser().absolute()
    if not push:
        check_target(folder)
    with Store.open(path) as store:
        before = (path / MANIFEST).read_bytes()
        title = store.manifest.title
        files: Iterator[File]
        if to == "hub":
            named = str(target) if push else name or ""
            if not hub.REPOSITORY.fullmatch(named):
                named = f"OWNER/{name_in_addresses(name or title)}"
            files = hub.hub_files(store, repository=named)
        else:
            ids = select(features, store.manifest.tables["features"].rows)
            if to == "html":
                files = pages.page_files(store, ids, progress=progress)
            else:
                model = name_in_addresses(name or title)
                files = neuronpedia.neuronpedia_files(
                    store, ids, model_id=model, creator_id=creator_id, progress=progress
                )
        if dry_run:
            return Exported({file.name: file.bytes for file in files})
        if not push:
            with lock_work_folder(folder), new_folder(folder) as part:
                written = _write(files, part)
                _check_unchanged(path, before)
                return Exported(written)
        with jobs_packages("lfp export --push"), tempfile.TemporaryDirectory() as part_name:
            written = _write(files, Path(part_name))
            _check_unchanged(path, before)
            return Exported(written, tuple(hub.upload(Path(part_name), str(target))))


def _check_unchanged(path: Path, before: bytes) -> None:
    """Raise BundleError where another command replaced the bundle meanwhile."""
    if (path / MANIFEST).read_bytes() != before:
        raise BundleError(f"{path}: it was replaced while it was exported; export it again")


def _write(files: Iterator[File], folder: Path) -> dict[str, int]:
    written = {}
    for file in files:
        write_file(file, folder)
        written[file.name] = file.bytes
    return written
