"""The report as plain text, its tables laid out by rich."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lfp.evaluation.results import Report
from lfp.report.checks import Check, write_check
from lfp.report.formatting import signed
from lfp.report.sentences.sections import sentence
from lfp.report.tables import tables
from lfp.util.sanitize import visible

if TYPE_CHECKING:
    from lfp.bundle.queries.run import Sample

_PROSE = 100
"""Columns that sentences are wrapped at."""
_UNBOUNDED = 10_000
"""Columns of a page on which no table is too wide."""


def format_report(report: Report, *, width: int | None = None) -> str:
    """Return each section's name, a sentence of what it says, and its tables.

    Without a width (no terminal) tables are as wide as they need to be; with one, long cells are folded.
    """
    parts: list[RenderableType] = []
    for name, rows in report.items():
        parts += [Text(""), Text(name), Padding(Text(visible(sentence(name, rows))), (0, 0, 0, 2), expand=False)]
        for table in tables(name, rows):
            parts.append(Padding(_table(table.heads, table.rows, table.are_figures), (1, 0, 0, 2), expand=False))
    return _render(parts[1:], width)


def format_checks(checks: Sequence[Check]) -> str:
    """Return the four checks, each a paragraph that begins with its mark and its question."""
    return _render([Text(visible(write_check(check))) for check in checks], None)


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> str:
    """Return a table whose first column is names and whose other columns are numbers."""
    return _render([_table(heads, rows, [place > 0 for place in range(len(heads))])], width)


def format_samples(samples: Sequence[Sample], writing: str) -> str:
    """Return a sentence on all continuations, then what both models wrote after each prefix, with the rewards."""
    parts: list[RenderableType] = [Text(visible(writing))]
    for sample in samples:
        parts.append(Text(f"{visible(' '.join(sample.prompt.split()))} …"))
        grid = Table.grid(padding=(0, 2, 0, 0))
        for model, text, reward in (
            ("base", sample.base, sample.base_reward),
            ("tuned", sample.tuned, sample.tuned_reward),
        ):
            grid.add_row(model, signed(reward), Text(visible(" ".join(text.split()))))
        parts.append(Padding(grid, (0, 0, 0, 2), expand=False))
    return _render(parts, None)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], are_figures: Sequence[bool]) -> Table:
    """Names to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head, is_figure in zip(heads, are_figures, strict=True):
        table.add_column(Text(head), justify="right" if is_figure else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _render(parts: Sequence[RenderableType], width: int | None) -> str:
    file = io.StringIO()
    console = Console(
        file=file, width=width or _UNBOUNDED, color_system=None, force_terminal=False, legacy_windows=False
    )
    prose = min(width or _PROSE, _PROSE)
    for part in parts:
        is_table = isinstance(part, Table) or (isinstance(part, Padding) and isinstance(part.renderable, Table))
        console.print(part, width=None if is_table else prose)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip("\n").split("\n"))
