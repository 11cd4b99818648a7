"""Labels against weights as two by two counts, and the measures of their agreement."""

from __future__ import annotations

from collections.abc import Mapping

from app.components.intervals import told
from app.components.numbers import count, percent, plain
from lfp.bundle.queries.run import Figure

CELLS = (("related_and_weighty", "related_only"), ("weighty_only", "neither"))
"""Metrics of the report row label_agreement: rows are related or not, columns weighty or not."""
MEASURES = {"odds_ratio": "odds ratio", "kappa": "Cohen’s κ", "accuracy": "agreement"}


def heat(found: Mapping[str, Figure]) -> str:
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


def measures(found: Mapping[str, Figure]) -> dict[str, str]:
    """The table in numbers: each with its interval and what labels dealt anew reach."""
    return {
        name: told(row.value, row.ci_low, row.ci_high)
        + (f" · null {plain(row.null_high)}" if row.null_high is not None else "")
        for metric, name in MEASURES.items()
        if (row := found.get(metric)) is not None
    }
