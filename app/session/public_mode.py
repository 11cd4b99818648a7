"""Public mode: whether strangers read, and the host's folders taken out of what they see."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.session import permalinks

PUBLIC = "LFP_PUBLIC"


def is_public() -> bool:
    """Whether strangers use this explorer: nothing is written then, and nothing of the host's files is shown."""
    return os.environ.get(PUBLIC, "") not in ("", "0")


def told(error: Exception) -> str:
    """What an error says; to strangers, without the host's folders."""
    return without_paths(str(error), permalinks.listed_bundles()) if is_public() else str(error)


_PATH = re.compile(r"(?<![\w.:/\\])(?:[A-Za-z]:[\\/]|~?/|\\\\)(?:[^\s,;:'\"()]*[/\\])*([^\s,;:'\"()/\\]*)")
"""An absolute path, of Unix or Windows; what it ends in is kept."""


def without_paths(text: str, bundles: Mapping[str, Path]) -> str:
    """The text with bundles called by their names, and of any other absolute path only its last part."""
    places = {str(place): name for name, path in bundles.items() for place in (path, path.resolve())}
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    return _PATH.sub(lambda found: found[1] or "…", text)


def source_name(text: str) -> str:
    """Where a text comes from, without the folders of any path in it, an address's aside."""
    return _PATH.sub(lambda found: found[1] or "…", path_name(text))


def values_without_paths(values: Any) -> Any:
    """A config's values, however nested, with every text that is an absolute path cut to its last part."""
    if isinstance(values, dict):
        return {name: values_without_paths(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [values_without_paths(value) for value in values]
    return path_name(values) if isinstance(values, str) else values


def path_name(text: str) -> str:
    """The last part of an absolute path; any other text as it is."""
    is_path = re.match(r"(?:[A-Za-z]:)?[/\\]|~", text) is not None
    return (re.split(r"[/\\]", text.rstrip("/\\"))[-1] or "…") if is_path else text
