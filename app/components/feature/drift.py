"""Drift: what became of the features in counts with their nulls, and as a scatter of base against tuned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from app.components.charts.charts import BASE, GRID, NEGATIVE, POSITIVE, drawn
from app.components.html.numbers import count, fixed, percent, plain
from app.components.html.wording import pick
from lfp.evaluation.results import ResultRow
from lfp.util.sanitize import escaped, shortened

STATUSES = ("born", "strengthened", "steady", "weakened", "gone")
"""As `lfp.evaluation.drift` has them, which the explorer does not import for its statistics."""

MEANINGS: Mapping[str, str] = {
    "born": "hardly fired in the base model",
    "strengthened": "fires at least 1.5 times as much",
    "steady": "fires much as before",
    "weakened": "fires at most two thirds as much",
    "gone": "hardly fires any more",
}
PLANES: Mapping[str, tuple[str, str, str]] = {
    "contribution": ("contribution_base", "contribution", "mean contribution a token"),
    "density": ("base_density", "density", "share of tokens it is active on"),
}
"""What the scatter may show: the base model's column, the tuned model's, and what they are."""

_MARKS = {
    "born": (POSITIVE, "star"), "strengthened": (POSITIVE, "triangle-up"), "steady": (BASE, "circle"),
    "weakened": (NEGATIVE, "triangle-down"), "gone": (NEGATIVE, "x"),
}  # fmt: skip


def summary(counts: Mapping[str, int], figures: Sequence[ResultRow]) -> str:
    """The page's sentence: how many features changed, and which carry the change."""
    n = sum(counts.get(status, 0) for status in STATUSES)
    changed = [f"{count(counts[status])} {status}" for status in STATUSES if status != "steady" and counts.get(status)]
    says = f"Of {count(n)} features, {_listed(changed)}." if changed else f"All {count(n)} features fire as before."
    shares = {status: pick(figures, metric="carried_share", group=status) for status in STATUSES}
    known = {status: row.value for status, row in shares.items() if row is not None}
    if known:
        most = max(known, key=lambda status: known[status])
        part = percent(known[most]).replace(" ", "\u00a0")
        says += f" Most of the change in the estimate, {part}, is in those that are {most}."
    return says


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def status_table(counts: Mapping[str, int], figures: Sequence[ResultRow]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: each status in the tuned model's dictionary and in the base's, and what part of the drift it is.

    Counts without an interval are the bundle's own, of a run that measured no more.
    """
    heads = ["became", "features", "chance", "in the base’s dictionary", "chance", "part of the drift", "chance"]
    rows = []
    for status in STATUSES:
        own = pick(figures, metric="count", inputs="sae", group=status)
        mirror = pick(figures, metric="count", inputs="base_sae", group=status)
        share = pick(figures, metric="carried_share", group=status)
        counted = _counted(own) if own else count(counts.get(status, 0))
        cells = [counted, _chance(own), _counted(mirror), _chance(mirror), _shared(share), _chance(share, percent)]
        rows.append([f"{status}: {MEANINGS[status]}", *cells])
    flips = pick(figures, metric="sign_flips")
    counted = _counted(flips) if flips else count(counts.get("flipped", 0))
    rows.append(["sign flipped: its weight in the estimate turned round", counted, _chance(flips), *["–"] * 4])
    return heads, rows


def beating(figures: Sequence[ResultRow]) -> list[int]:
    """Rows of `status_table` whose count in the tuned model's dictionary passes its null."""
    counted = [pick(figures, metric="count", inputs="sae", group=status) for status in STATUSES]
    counted.append(pick(figures, metric="sign_flips"))
    return [at for at, row in enumerate(counted) if row and row.null_high is not None and row.value > row.null_high]


def _counted(row: ResultRow | None) -> str:
    if row is None:
        return "–"
    return count(row.value) + _span(row, lambda value: fixed(value, 0))


def _shared(row: ResultRow | None) -> str:
    return "–" if row is None else percent(row.value) + _span(row, percent)


def _span(row: ResultRow, written: Any) -> str:
    if row.ci_low is None or row.ci_high is None:
        return ""
    return f" [{written(row.ci_low)}, {written(row.ci_high)}]"


def _chance(row: ResultRow | None, written: Any = count) -> str:
    return "–" if row is None or row.null_high is None else f"up to {written(row.null_high)}"


def scatter(rows: Mapping[str, Sequence[Any]], *, plane: str) -> go.Figure:
    """Base against tuned, a point a feature, coloured and shaped by status; `plane` is one of PLANES.

    A point's `customdata` begins with its feature's number. Contributions are on a scale of square roots, with their
    sign, so that small ones are apart too; densities on a logarithmic one, with those of zero at its foot.
    """
    across, up, what = PLANES[plane]
    values = [*rows[across], *rows[up]]
    floor = _floor(values) if plane == "density" else 0.0
    place = (lambda value: max(value, floor)) if plane == "density" else _root
    traces = []
    for status in STATUSES[::-1]:
        at = [i for i, became in enumerate(rows["status"]) if became == status]
        if not at:
            continue
        colour, symbol = _MARKS[status]
        flipped = [bool(rows["sign_flipped"][i]) for i in at]
        traces.append(
            {
                "type": "scatter",
                "x": [place(rows[across][i]) for i in at],
                "y": [place(rows[up][i]) for i in at],
                "mode": "markers",
                "name": status,
                "customdata": [
                    [rows["feature_id"][i], _named(rows, i), plain(rows[across][i], 5), plain(rows[up][i], 5)]
                    for i in at
                ],
                "marker": {
                    "color": colour,
                    "symbol": symbol,
                    "size": 6 if status == "steady" else 9,
                    "opacity": 0.55 if status == "steady" else 0.85,
                    "line": {"width": [1.6 if flag else 0.3 for flag in flipped], "color": "rgba(110,110,110,.9)"},
                },
                "hovertemplate": "%{customdata[1]}<br>base %{customdata[2]}, tuned %{customdata[3]}<extra>"
                + status
                + "</extra>",
            }
        )
    placed = [place(value) for value in values] or [0.0, 1.0]
    low, high = min(placed), max(placed)
    line = {"color": "rgba(120,120,120,.75)", "width": 1, "dash": "dot"}
    diagonal = {"type": "line", "x0": low, "y0": low, "x1": high, "y1": high, "line": line, "layer": "below"}
    axis = {"type": "log", "tickformat": "~%"} if plane == "density" else _root_axis(values)
    frame = {"gridcolor": GRID, "zerolinecolor": GRID, **axis}
    x, y = ({"title": f"{model}: {what}", **frame} for model in ("base", "tuned"))
    return drawn(traces, x, y, height=480, legend=True, shapes=[diagonal])


def _named(rows: Mapping[str, Sequence[Any]], at: int) -> str:
    described = escaped(shortened(rows["description"][at] or "not described", 52))
    return f"<b>#{rows['feature_id'][at]}</b>  {described}<br>layer {rows['layer'][at]}"


def _floor(values: Iterable[float]) -> float:
    """Where densities of zero stand: below the smallest that is not."""
    return 0.5 * min((value for value in values if value > 0), default=1e-6)


def _root(value: float) -> float:
    return math.copysign(math.sqrt(abs(value)), value)


def _root_axis(values: Sequence[float]) -> dict[str, Any]:
    """Ticks at round numbers of a scale of signed square roots."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest == 0:
        return {}
    step = 10.0 ** math.floor(math.log10(largest))
    ticks = [tick for tick in (step * part for part in (0.1, 1, 3, 6)) if tick <= 1.05 * largest]
    signed = [*[-tick for tick in reversed(ticks)], 0.0, *ticks]
    texts = [f"{tick:g}".replace("-", "−") for tick in signed]
    return {"tickvals": [_root(tick) for tick in signed], "ticktext": texts}
