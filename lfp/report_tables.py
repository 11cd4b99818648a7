"""Tables of the report as text, by their layouts; no figure is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lfp.escape import visible
from lfp.report_cells import Figure, in_order
from lfp.report_layouts import LAYOUTS, Column, Layout, general


@dataclass(frozen=True)
class Shown:
    """A table as text: heads, rows of cells, and which columns are figures (set to the right)."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    are_figures: tuple[bool, ...]


def tables(report_row: str, figures: Sequence[Figure]) -> list[Shown]:
    """The tables of a row of the report. Figures that no column takes stand in a table of their own at the end."""
    shown, rest = [], list(figures)
    for layout in LAYOUTS.get(report_row, ()):
        mine = [one for one in rest if _is_of(one, layout)]
        table, taken = _laid_out(mine, layout)
        rest = [one for one in rest if id(one) not in taken]
        shown += [table] if taken else []
    while rest:  # once, unless two figures have the same keys
        table, taken = _laid_out(rest, general(rest))
        rest = [one for one in rest if id(one) not in taken]
        shown.append(table)
    return shown


def _is_of(figure: Figure, layout: Layout) -> bool:
    is_named = not layout.metrics or figure["metric"] in layout.metrics
    return is_named and (layout.takes is None or layout.takes(figure))


def _laid_out(figures: Sequence[Figure], layout: Layout) -> tuple[Shown, set[int]]:
    """The table, and which figures it shows (by identity): the first that a column asks for, of every line."""
    places: dict[tuple[Any, ...], list[Figure]] = {}
    ordered = sorted(figures, key=layout.order) if layout.order else in_order(figures, *layout.keys)
    for one in ordered:
        places.setdefault(tuple(one.get(key) for key in layout.keys), []).append(one)
    picked = [[_first(line, column) for column in layout.columns] for line in places.values()]
    cells = [
        [*map(_name, place), *("" if one is None else c.show(one) for one, c in zip(line, layout.columns, strict=True))]
        for place, line in zip(places, picked, strict=True)
        if any(one is not None for one in line)
    ]
    heads = [*layout.keys.values(), *(column.head for column in layout.columns)]
    used = [i for i in range(len(heads)) if any(row[i] for row in cells)]
    shown = Shown(
        tuple(heads[i] for i in used),
        tuple(tuple(row[i] for i in used) for row in cells),
        tuple(i >= len(layout.keys) for i in used),
    )
    return shown, {id(one) for line in picked for one in line if one is not None}


def _first(line: Sequence[Figure], column: Column) -> Figure | None:
    return next((one for one in line if all(one.get(k) == v for k, v in column.where.items())), None)


def _name(key: Any) -> str:
    return "" if key is None else visible(str(key))
