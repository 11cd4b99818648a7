"""Agreement of predictions with outcomes: calibration in bins, and labels against weights as counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.components.charts.intervals import told
from app.components.html.numbers import count, percent, plain
from lfp.evaluation.results import ResultRow

BINS = 10


_Z95 = 1.959964


@dataclass(frozen=True)
class Bin:
    """Pairs of like probability: how many, the mean stated, the share chosen, and its 95 % (Wilson) interval."""

    n: int
    stated: float
    chosen: float
    low: float
    high: float


def reliability(margins: Sequence[float], *, bins: int = BINS) -> list[Bin]:
    """Bins of margins (log-odds that the chosen side wins), as many pairs in each; weakest first.

    A pair is folded to the side predicted to win, so that probabilities run from a half to 1; a margin of 0 counts as
    half won. Equal probabilities share a bin, so that the order of pairs does not matter.
    """
    values = np.asarray(margins, np.float64)
    if not len(values):
        return []
    won, sizes = 0.5 + 0.5 * np.sign(values), np.abs(values)
    _, group, times = np.unique(sizes, return_inverse=True, return_counts=True)
    middle = (np.cumsum(times) - 0.5 * times)[group]
    bin_of = (middle * bins / len(values)).astype(int)
    stated = 1.0 / (1.0 + np.exp(-sizes))
    return [
        _bin(int(mine.sum()), float(stated[mine].mean()), float(won[mine].mean()))
        for mine in (bin_of == place for place in range(bins))
        if mine.any()
    ]


def _bin(n: int, stated: float, share: float) -> Bin:
    """Wilson (1927): an interval that keeps to [0, 1] also for few pairs."""
    centre = (share + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n)) / (1 + _Z95**2 / n)
    return Bin(n, stated, share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


CELLS = (("related_and_weighty", "related_only"), ("weighty_only", "neither"))
"""Metrics of the report row label_agreement: rows are related or not, columns weighty or not."""


MEASURES = {"odds_ratio": "odds ratio", "kappa": "Cohen’s κ", "accuracy": "agreement"}


def heat(found: Mapping[str, ResultRow]) -> str:
    """The four counts, shaded by their share of the row, with the share of the row beside each."""
    counts = [[int(found[name].value) if name in found else 0 for name in row] for row in CELLS]
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(_cell(n, sum(row)) for n in row)}<td>{count(sum(row))}</td></tr>'
        for name, row in zip(("related", "not related"), counts, strict=True)
    )
    sums = "".join(f"<td>{count(sum(column))}</td>" for column in zip(*counts, strict=True))
    return (
        '<div class="lfp-scroll"><table class="lfp-heat"><thead><tr><td></td><th scope="col">weighty</th>'
        f'<th scope="col">not weighty</th><td>all</td></tr></thead><tbody>{body}'
        f'<tr><th scope="row">all</th>{sums}<td>{count(sum(map(sum, counts)))}</td></tr></tbody></table></div>'
    )


def _cell(n: int, of: int) -> str:
    share = n / of if of else 0.0
    return (
        f'<td class="cell" style="--a:{100 * share:.0f}"><b>{count(n)}</b><span>{percent(share)} of the row</span></td>'
    )


def measures(found: Mapping[str, ResultRow]) -> dict[str, str]:
    """The table in numbers: each with its interval and what labels dealt anew reach."""
    return {
        name: told(row.value, row.ci_low, row.ci_high)
        + (f" · null {plain(row.null_high)}" if row.null_high is not None else "")
        for metric, name in MEASURES.items()
        if (row := found.get(metric)) is not None
    }
