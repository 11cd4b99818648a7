"""What is at the addresses of bundles in object stores, looked up at most twice a minute."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import streamlit as st

from lfp.bundle.manifest import parse_manifest
from lfp.bundle.remote.mirror import list_bundles, read_content
from lfp.errors import LfpError
from lfp.util.object_stores import open_folder, without_secrets

FRESH_S = 30


@dataclass(frozen=True)
class Found:
    """What is at an address."""

    bundles: tuple[str, ...]
    """The address itself where it is a bundle or cannot be read, else those of the bundles below it."""
    state: str = ""
    """A hash of the bundle's manifest; empty where it is no bundle."""
    bundle_id: str = ""


@st.cache_data(ttl=FRESH_S, max_entries=100, show_spinner=False)
def look(address: str) -> Found:
    """Look at an address. Where that fails the address stands for itself: opening it says why."""
    try:
        folder = open_folder(address)
        content = read_content(folder)
        if content is None:
            return Found(tuple(list_bundles(address)) or (address,))
        bundle_id = parse_manifest(content, where=without_secrets(address)).bundle_id
        return Found((address,), hashlib.sha256(content).hexdigest(), bundle_id)
    except LfpError:
        return Found((address,))


def forget() -> None:
    """Look again at the next request."""
    look.clear()
