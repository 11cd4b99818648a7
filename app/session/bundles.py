"""Which bundles are offered, which one is open, and public mode, in which the host's folders stay hidden."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import streamlit as st

from lfp.bundle.manifest import MANIFEST, read_manifest
from lfp.errors import BundleError
from lfp.util import sanitize

DEMOS = tuple(Path(__file__).resolve().parents[2] / "data" / name for name in ("demo", "demo-helpful"))
"""What is offered where LFP_BUNDLES is not set, the first of them opened."""
BUNDLES, PUBLIC = "LFP_BUNDLES", "LFP_PUBLIC"
HELP = "A bundle holds the results of one run. Set LFP_BUNDLES to offer others."


def listed_bundles(setting: str | None = None) -> dict[str, Path]:
    """Return the offered bundles by name: the folders that LFP_BUNDLES lists, or the bundles in them; else the demos.

    A name is a folder's name, with as many parents in front as it takes to make it unique.
    """
    setting = os.environ.get(BUNDLES, "") if setting is None else setting
    folders = [Path(part.strip()).expanduser() for part in re.split(f"[,{os.pathsep}]", setting) if part.strip()]
    paths = [path for folder in folders for path in _bundles_in(folder)] if folders else DEMOS
    names: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        if not path.exists():
            continue
        parts, depth = path.resolve().parts, 1
        while "/".join(parts[-depth:]) in names and depth < len(parts):
            depth += 1
        names["/".join(parts[-depth:])] = path
    return names


def _bundles_in(folder: Path) -> list[Path]:
    """Return the folder itself if it is a bundle or contains none, else the bundles in it."""
    if (folder / MANIFEST).is_file() or not folder.is_dir():
        return [folder]
    inside = sorted(child for child in folder.iterdir() if not child.name.startswith(".") and child.is_dir())
    return [child for child in inside if (child / MANIFEST).is_file()] or [folder]


def nothing_listed() -> str:
    """Say that no bundle was found, where it was looked for, and what to do."""
    setting = os.environ.get(BUNDLES, "")
    where = f"no bundle at {setting}" if setting and not is_public() else "there is no bundle to open"
    return f"{where}. Run make demo, or set LFP_BUNDLES to a bundle’s folder or a folder of bundles, and start again."


def bundle_name() -> str:
    """Return the name of the bundle that is open."""
    name: str = st.session_state.bundle
    return name


def set_bundle(name: str) -> None:
    """Open another bundle; for callbacks."""
    st.session_state.bundle = name


def find_bundles(bundle_id: str) -> list[str]:
    """Return the names of the offered bundles with this id; those that cannot be read are left out."""
    found = []
    for name, path in listed_bundles().items():
        with contextlib.suppress(BundleError, OSError):
            found += [name] if read_manifest(path).bundle_id == bundle_id else []
    return found


def is_public() -> bool:
    """Return whether strangers use this explorer: nothing is written, and no path of the host is shown."""
    return os.environ.get(PUBLIC, "") not in ("", "0")


def error_text(error: Exception) -> str:
    """Return an error's message; in public mode without the host's folders."""
    return sanitize.without_paths(str(error), listed_bundles()) if is_public() else str(error)
