"""Text in the cells of a CSV: an apostrophe in front of what a spreadsheet would run, and off again, exactly."""

from __future__ import annotations

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""What a spreadsheet takes for a formula (OWASP, "CSV Injection"), and what already looks guarded against it."""


def guarded(text: str) -> str:
    """The text, with an apostrophe in front where it begins like a formula, with apostrophes before it or none."""
    return f"'{text}" if _FORMULA.match(text) else text


def bare(cell: str) -> str:
    """The text that `guarded` made this cell of; an apostrophe before anything but a formula is the text's own."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
