"""Which bundles are offered, which one is open, and public mode, in which the host's folders stay hidden."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from app.session import remote
from lfp.bundle.manifest import MANIFEST, Manifest, read_manifest
from lfp.errors import BundleError
from lfp.util import sanitize
from lfp.util.object_stores import is_address

DEMOS = tuple(Path(__file__).resolve().parents[2] / "data" / name for name in ("demo", "demo-helpful"))
"""What is offered where LFP_BUNDLES is not set, the first of them opened."""
BUNDLES, PUBLIC = "LFP_BUNDLES", "LFP_PUBLIC"
LARGEST_PUBLIC = 20_000_000
"""Parameters of the largest model that runs in public mode."""
_SEPARATOR = re.compile(rf",|{re.escape(os.pathsep)}(?!//|\d+/)")
"""What stands between two places in LFP_BUNDLES; no part of an address."""
HELP = "A bundle holds the results of one run. Set LFP_BUNDLES to offer others."


def listed_bundles(setting: str | None = None) -> dict[str, Path | str]:
    """Return the offered bundles by name: what LFP_BUNDLES lists, or the bundles in it; else the demos.

    It lists folders and addresses in object stores, which stay text. A name is that of the last folder, with as many
    parents in front as it takes to make it unique.
    """
    listed = _listed(os.environ.get(BUNDLES, "") if setting is None else setting)
    places = [place for part in listed for place in _bundles_in(part)] if listed else list(DEMOS)
    names: dict[str, Path | str] = {}
    for path in dict.fromkeys(places):
        if isinstance(path, Path) and not path.exists():
            continue
        parts, depth = path.resolve().parts if isinstance(path, Path) else path.rstrip("/").split("/"), 1
        while "/".join(parts[-depth:]) in names and depth < len(parts):
            depth += 1
        names["/".join(parts[-depth:])] = path
    return names


def _listed(setting: str) -> list[str]:
    """Return the places that LFP_BUNDLES lists."""
    return [part.strip() for part in _SEPARATOR.split(setting) if part.strip()]


def _bundles_in(place: str) -> Sequence[Path | str]:
    """Return the folder or address itself if it is a bundle or contains none, else the bundles in it."""
    if is_address(place):
        return remote.look(place).bundles
    folder = Path(place).expanduser()
    if (folder / MANIFEST).is_file() or not folder.is_dir():
        return [folder]
    inside = sorted(child for child in folder.iterdir() if not child.name.startswith(".") and child.is_dir())
    return [child for child in inside if (child / MANIFEST).is_file()] or [folder]


def nothing_listed() -> str:
    """Say that no bundle was found, where it was looked for, and what to do."""
    setting = os.environ.get(BUNDLES, "")
    where = f"no bundle at {setting}" if setting and not is_public() else "there is no bundle to open"
    return f"{where}. Run make demo, or set LFP_BUNDLES to a bundle’s folder or a folder of bundles, and start again."


def missing_places() -> list[str]:
    """Return the folders that LFP_BUNDLES lists and that are not there; in public mode none."""
    if is_public():
        return []
    listed = _listed(os.environ.get(BUNDLES, ""))
    return [part for part in listed if not is_address(part) and not Path(part).expanduser().exists()]


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
            stated = remote.look(path) if isinstance(path, str) else read_manifest(path)
            found += [name] if stated.bundle_id == bundle_id else []
    return found


def is_public() -> bool:
    """Return whether strangers use this explorer: nothing is written, and no path of the host is shown."""
    return os.environ.get(PUBLIC, "") not in ("", "0")


def has_too_large_models(manifest: Manifest) -> bool:
    """Return whether public mode does not run a bundle's models."""
    return is_public() and any(model.parameters > LARGEST_PUBLIC for model in manifest.models.values())


def error_text(error: Exception) -> str:
    """Return an error's message; in public mode without the host's folders."""
    return sanitize.without_paths(str(error), listed_bundles()) if is_public() else str(error)


def unforeseen_text() -> str:
    """Say of a page that failed in a way nobody foresaw what to do; in public mode without the host's folders."""
    offered = listed_bundles()
    name = st.session_state.get("bundle") or next(iter(offered), "BUNDLE")
    place = name if is_public() else offered.get(name, name)
    return (
        f"the page failed on this bundle, as tables of faulty content make it; run lfp validate {place}, and report the"
        " page if it finds nothing"
    )
