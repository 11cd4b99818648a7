"""Text from models and corpora made safe to show: escaped, shortened, and tokens as names in a list."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lfp.escape import escaped, visible

__all__ = ["as_label", "escaped", "escaped_lines", "shortened", "token_text", "visible"]

_MARKS = re.compile(r"([\\`*_{}\[\]()#+!~$<>|.-])")
"""What Markdown may take for a mark."""


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
    return line if len(line) <= length else _cut(line, length)


def escaped_lines(texts: Sequence[str], length: int = 60) -> list[str]:
    """Each text shortened and escaped; many at once are marked and escaped as one."""
    marked = visible("\n".join(text.replace("\n", " ") for text in texts))
    lines = (" ".join(line.split()) for line in marked.split("\n"))
    cut = "\n".join(line if len(line) <= length else _cut(line, length) for line in lines)
    return escaped(cut).split("\n") if texts else []


def _cut(line: str, length: int) -> str:
    return line[: length - 1].rstrip() + "…"


def as_label(text: str) -> str:
    """Text for the label of a widget, which is Markdown: no mark, icon or colour in it is taken for one."""
    return _MARKS.sub(r"\\\1", visible(text)).replace(":", ":\u2060")
