"""Labels against weights as a table of four counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lfp.evaluation.results import ResultRow
from lfp.report.figures.lines import keys_of
from lfp.report.formatting import count, percent

CELLS = (("related_and_weighty", "related_only"), ("weighty_only", "neither"))
"""Metrics of section `label_agreement`: rows are related or not, columns have a large weight or not."""


def of_labeller(rows: Sequence[ResultRow], labeller: str, against: str) -> dict[str, ResultRow]:
    """Return a labeller's agreement with one reference, by metric."""
    return {row.metric: row for row in rows if keys_of(row) == {"labeller": labeller, "against": against}}


def heat(found: Mapping[str, ResultRow]) -> str:
    """Return the four counts as HTML, shaded by their share of the row, with that share below each."""
    counts = [[int(found[name].value) if name in found else 0 for name in row] for row in CELLS]

    def cell(n: int, of: int) -> str:
        share = n / of if of else 0.0
        says = f"<b>{count(n)}</b><span>{percent(share)} of the row</span>"
        return f'<td class="cell" style="--a:{100 * share:.0f}">{says}</td>'

    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(cell(n, sum(row)) for n in row)}<td>{count(sum(row))}</td></tr>'
        for name, row in zip(("related", "not related"), counts, strict=True)
    )
    sums = "".join(f"<td>{count(sum(column))}</td>" for column in zip(*counts, strict=True))
    return (
        '<div class="lfp-scroll"><table class="lfp-heat"><thead><tr><td></td><th scope="col">large weight</th>'
        f'<th scope="col">small weight</th><td>all</td></tr></thead><tbody>{body}'
        f'<tr><th scope="row">all</th>{sums}<td>{count(sum(map(sum, counts)))}</td></tr></tbody></table></div>'
    )
