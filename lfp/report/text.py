"""The report: figures as rows of `results`, grouped as JSON, or laid out as readable tables."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lfp.evaluation.results import Report
from lfp.report.sentences import sentence
from lfp.report.tables import Shown, tables
from lfp.util.sanitize import visible

if TYPE_CHECKING:
    from lfp.bundle.queries.run import Sample

_WIDTH = 100


def lines(report: Report) -> list[str]:
    """The report as plain text: of each row its name, a sentence of what it says, and aligned tables."""
    return [
        line
        for name, figures in report.items()
        for line in ("", name, *_wrapped(sentence(name, figures)), *_blocks(tables(name, figures)))
    ][1:]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(visible(text), _WIDTH, initial_indent="  ", subsequent_indent="  ")


def _blocks(shown: Sequence[Shown]) -> list[str]:
    return [line for table in shown for line in ("", *_aligned(table))]


def _aligned(table: Shown) -> list[str]:
    """Names to the left, figures to the right."""
    cells = [list(table.heads), *table.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if is_figure else cell.ljust(width)
            for cell, width, is_figure in zip(row, widths, table.are_figures, strict=True)
        ).rstrip()
        for row in cells
    ]


def sample_lines(samples: Sequence[Sample]) -> list[str]:
    """What both models wrote after each prefix, with the rewards: a paragraph a prefix."""
    told = []
    for one in samples:
        told += [visible(" ".join(one.prompt.split())) + " …"]
        for model, text, reward in (("base", one.base, one.base_reward), ("tuned", one.tuned, one.tuned_reward)):
            told.append(f"  {model:5s} {reward:+.2f}  {visible(' '.join(text.split()))}")
    return told
