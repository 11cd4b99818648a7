"""Find autoencoders' folders: here, on the hub or in its cache, and by SAELens's names of releases."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lfp.errors import ModelError
from lfp.ml.models.sources import failure_reason
from lfp.util.dependencies import OUT_OF_REACH, hub_reachable

_TABLE = "pretrained_saes.yaml"
"""SAELens's table of releases, in its package."""
_READ = (None, "gemma_2", "gemma_3", "llama_scope", "llama_scope_r1_distill", "dictionary_learning_1", "sparsify")
"""Formats of that table that are read here."""


class Release(NamedTuple):
    """Where the autoencoder of a release is on the hub, and what SAELens's table adds to its config."""

    repository: str
    folder: str
    overrides: Mapping[str, Any]


def fetch_folder(name: str, files: Sequence[str], revision: str | None = None) -> Path:
    """Return a local folder as it is, or fetch `files` of the folder `org/repo/sub/folder` of the hub into its cache.

    Without the hub the cache alone is used. Raises ModelError when there is no such folder, or it cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith((".", "~")) or len(folder.parts) < 2:
        raise ModelError(f"{name}: no such folder; pass an autoencoder's folder, or org/repo/folder of the hub")
    from huggingface_hub import snapshot_download

    repository, inside = "/".join(folder.parts[:2]), folder.parts[2:]
    patterns = ["/".join((*inside, file)) for file in files]
    local_only = not hub_reachable()
    try:
        snapshot = snapshot_download(
            repository, revision=revision, allow_patterns=patterns, local_files_only=local_only
        )
    except Exception as error:  # including those of whatever HTTP library the hub's client uses
        reason = OUT_OF_REACH if local_only else failure_reason(error)
        raise ModelError(
            f"{folder}: no such folder here, and the hub does not give it ({reason}); pass a local folder"
        ) from error
    found = Path(snapshot, *inside)
    if not found.is_dir():
        raise ModelError(
            f"{name}: no such folder in that repository{' in the local cache' * local_only}; check its name"
        )
    return found


def find_release(release: str, sae_id: str) -> Release:
    """Find a release of SAELens's table, or take `release` as a repository of the hub and `sae_id` as a folder in it.

    Raises ModelError for a name that is neither.
    """
    table = _read_table()
    if release in table:
        entry = table[release]
        found = next((sae for sae in entry["saes"] if sae["id"] == sae_id), None)
        if found is None:
            near = difflib.get_close_matches(sae_id, [str(sae["id"]) for sae in entry["saes"]], n=3)
            like = f"; it has {', '.join(near)}" if near else f"; it has {entry['saes'][0]['id']} and others"
            raise ModelError(f"{release}: has no sae_id {sae_id}{like}")
        stored_as = entry.get("conversion_func")
        if stored_as not in _READ:
            raise ModelError(f"{release}: stored in the format {stored_as}, which is not read; pass another release")
        factor = {"norm_scaling_factor": found["norm_scaling_factor"]} if "norm_scaling_factor" in found else {}
        return Release(entry["repo_id"], str(found["path"]), {**(entry.get("config_overrides") or {}), **factor})
    if release.count("/") != 1:
        where = "is not in SAELens's table" if table else "can be looked up only where sae-lens is installed"
        raise ModelError(f"{release}: {where}; pass a release that is, or a repository as org/name")
    return Release(release, sae_id, {})


def _read_table() -> dict[str, Any]:
    """Read SAELens's table where that is installed, without importing it; empty where it is not."""
    spec = importlib.util.find_spec("sae_lens")
    if spec is None or not spec.submodule_search_locations:
        return {}
    import yaml

    path = Path(spec.submodule_search_locations[0], _TABLE)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader) or {}
