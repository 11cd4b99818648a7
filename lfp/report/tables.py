"""Tables of the report: rows laid out in lines and columns, as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lfp.evaluation.results import ResultRow
from lfp.report.columns import Layout, full
from lfp.report.formatting import pick, sort_rows
from lfp.report.layouts import LAYOUTS
from lfp.util.sanitize import visible
from lfp.util.types import SITE_NAMES


@dataclass(frozen=True)
class TextTable:
    """A table as text: heads, rows of cells, and which columns are numbers (set to the right)."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    are_figures: tuple[bool, ...]


def tables(section: str, rows: Sequence[ResultRow]) -> list[TextTable]:
    """Return the tables of a section. Rows that no column shows stand in a general table at the end."""
    found, rest = [], list(rows)
    for layout in LAYOUTS.get(section, ()):
        wanted = [row for row in rest if not layout.metrics or row.metric in layout.metrics]
        table, shown = _lay_out([row for row in wanted if layout.accepts is None or layout.accepts(row)], layout)
        rest = [row for row in rest if id(row) not in shown]
        found += [table] if shown else []
    while rest:  # once, unless two rows have the same keys
        keys = {key: key for key in _KEYS if any(getattr(row, key) is not None for row in rest)}
        if any(row.probe_id is not None for row in rest):
            keys["probe_id"] = "probe"
        table, shown = _lay_out(rest, Layout(keys, full("value")))
        rest = [row for row in rest if id(row) not in shown]
        found.append(table)
    return found


_KEYS = ("target", "model", "inputs", "layer", "site", "words", "split", "group", "metric")


def _lay_out(rows: Sequence[ResultRow], layout: Layout) -> tuple[TextTable, set[int]]:
    """Return the table without its empty columns, and which rows it shows (by identity)."""
    if not any(row.site not in (None, "mlp_out") for row in rows):  # then sites go without saying
        layout = replace(layout, keys={key: head for key, head in layout.keys.items() if key != "site"})
    lines: dict[tuple[Any, ...], list[ResultRow]] = {}
    for row in sorted(rows, key=layout.order) if layout.order else sort_rows(rows, *layout.keys):
        lines.setdefault(tuple(getattr(row, key) for key in layout.keys), []).append(row)
    cells, shown = [], set()
    for keys, of_line in lines.items():
        line = [_key_text(name, key) for name, key in zip(layout.keys, keys, strict=True)]
        for column in layout.columns:
            first = pick(of_line, **column.where)
            line.append("" if first is None else column.show(first))
            shown |= set() if first is None else {id(first)}
        if any(line[len(keys) :]):
            cells.append(line)
    heads = [*layout.keys.values(), *(column.head for column in layout.columns)]
    used = [place for place in range(len(heads)) if any(line[place] for line in cells)]
    table = TextTable(
        tuple(heads[place] for place in used),
        tuple(tuple(line[place] for place in used) for line in cells),
        tuple(place >= len(layout.keys) for place in used),
    )
    return table, shown


def _key_text(name: str, key: Any) -> str:
    return "" if key is None else visible(SITE_NAMES.get(key, str(key)) if name == "site" else str(key))
