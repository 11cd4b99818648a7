"""Lists whose rows lead somewhere: to a feature, a word, a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.components.panels import anchor
from lfp.util.sanitize import escaped, shortened


@dataclass(frozen=True)
class Row:
    """Where a row leads, by what name, what is said of it, and its figures."""

    href: str
    name: str
    says: str
    cells: tuple[str, ...]


def table(heads: Sequence[str], rows: Sequence[Row]) -> str:
    """Rows with their links in the first column, whose head is the first of `heads`."""
    top = "".join(f'<th scope="col">{escaped(head)}</th>' for head in heads)
    return (
        '<div class="lfp-scroll"><table class="lfp-table lfp-linked">'
        f"<thead><tr>{top}</tr></thead><tbody>{''.join(map(_row, rows))}</tbody></table></div>"
    )


def _row(row: Row) -> str:
    says = f" <span>{escaped(shortened(row.says, 64))}</span>" if row.says else ""
    cells = "".join(f"<td>{escaped(cell)}</td>" for cell in row.cells)
    return f"<tr><td>{anchor(row.href, row.name)}{says}</td>{cells}</tr>"
