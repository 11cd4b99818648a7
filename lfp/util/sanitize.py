"""Text made safe: escaped for HTML and Plotly, for labels of widgets, for cells of a CSV, and without host paths."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfp.util.object_stores import without_secrets

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


def visible(text: str) -> str:
    """The text with control, zero-width and direction characters as a mark that says which they are."""
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", text)


def escaped(text: str) -> str:
    """The same, escaped for HTML text, for attributes in double or single quotes, and for names in Plotly figures.

    Plotly knows few entities by name, and a quotation mark's is not among them: it gets its number.
    """
    return html.escape(visible(text), quote=True).replace("&quot;", "&#34;")


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
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def escaped_lines(texts: Sequence[str], length: int = 60) -> list[str]:
    """Each text shortened and escaped; many at once are escaped as one."""
    return escaped("\n".join(shortened(text, length) for text in texts)).split("\n") if texts else []


def as_label(text: str) -> str:
    """Text for the label of a widget, which is Markdown: no mark, icon or colour in it is taken for one."""
    return _MARKS.sub(r"\\\1", visible(text)).replace(":", ":\u2060")


_FORMULA = re.compile("'*[=+\\-@\t\r\n\ufeff\uff1d\uff0b\uff0d\uff20]")
"""What a spreadsheet takes for a formula (OWASP, "CSV Injection"), in full width too or after a line end or a byte
order mark, and what already looks guarded against it."""


def guarded(text: str) -> str:
    """The text, with an apostrophe in front where it begins like a formula, with apostrophes before it or none."""
    return f"'{text}" if _FORMULA.match(text) else text


def bare(cell: str) -> str:
    """The text that `guarded` made this cell of; an apostrophe before anything but a formula is the text's own."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


_PATH = re.compile(r"(?<![\w.:/\\])(?:[A-Za-z]:[\\/]|~?/|\\\\)(?:[^\s,;:'\"()]*[/\\])*([^\s,;:'\"()/\\]*)")
"""An absolute path, of Unix or Windows; what it ends in is kept."""


def without_paths(text: str, bundles: Mapping[str, Path | str]) -> str:
    """The text with bundles called by their names, and of any other absolute path only its last part."""
    places = {
        str(place): name
        for name, path in bundles.items()
        for place in ((path, path.resolve()) if isinstance(path, Path) else (path, without_secrets(path)))
    }
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


_INLINE = re.compile(r"([\\`*_\[\]<>|~$])")


def as_markdown(text: str) -> str:
    """Text as one line of Markdown: no mark, link or tag in it is taken for one."""
    return _INLINE.sub(r"\\\1", " ".join(visible(text).split()))
