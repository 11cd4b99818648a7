"""Text from models and corpora made safe for HTML: escaped, without characters that reorder or hide others."""

from __future__ import annotations

import html
import re

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


def visible(text: str) -> str:
    """The text with control, zero-width and direction characters as a mark that says which they are."""
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", text)


def escaped(text: str) -> str:
    """The same, escaped for HTML text, for attributes in double or single quotes, and for names in Plotly figures.

    Plotly knows few entities by name, and a quotation mark's is not among them: it gets its number.
    """
    return html.escape(visible(text), quote=True).replace("&quot;", "&#34;")
