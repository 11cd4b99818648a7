"""Public mode: whether strangers read, and the host's folders taken out of what they see."""

from __future__ import annotations

import os

from app.session import permalinks
from lfp.util import sanitize

PUBLIC = "LFP_PUBLIC"


def is_public() -> bool:
    """Whether strangers use this explorer: nothing is written then, and nothing of the host's files is shown."""
    return os.environ.get(PUBLIC, "") not in ("", "0")


def told(error: Exception) -> str:
    """What an error says; to strangers, without the host's folders."""
    return sanitize.without_paths(str(error), permalinks.listed_bundles()) if is_public() else str(error)
