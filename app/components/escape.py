"""Text from models and corpora made safe to show: escaped, and without characters that reorder or hide others."""

from __future__ import annotations

import html
import re

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


def visible(text: str) -> str:
    """The text with control, zero-width and direction characters as a mark that says which they are."""
    return _HIDDEN.sub(_mark, text)


def escaped(text: str) -> str:
    """The same, escaped for HTML text and for attributes in double or single quotes."""
    return html.escape(visible(text), quote=True)


def token_text(piece: str) -> str:
    """A token as a name in a list: spaces at its ends and line breaks marked, never empty. Not escaped."""
    if not piece:
        return "‥"
    core = visible(piece).replace("\n", "↵").replace("\t", "⇥")
    inner = core.strip(" ")
    left, right = len(core) - len(core.lstrip(" ")), len(core) - len(core.rstrip(" "))
    return core.replace(" ", "␣") if not inner else "␣" * left + inner + "␣" * right


def shortened(text: str, length: int = 60) -> str:
    """At most so many characters, on one line. Not escaped."""
    line = " ".join(visible(text).split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def _mark(match: re.Match[str]) -> str:
    return f"⟨U+{ord(match.group()):04X}⟩"
