"""What section `module_credits` says: which modules carry the implicit reward, in a sentence and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from lfp.evaluation.module_credits import DICTIONARIES, ELSEWHERE
from lfp.evaluation.results import ResultRow
from lfp.report.figures.frame import BASE, GRID, NEGATIVE, POSITIVE, STRENGTH, draw
from lfp.report.formatting import count, percent, pick

NAMES: Mapping[str, str] = {
    "mlp": "MLPs",
    "attention": "attention",
    "unembedding": "the unembedding",
    "embedding": "the embedding",
    "norm": "norms",
    "final_norm": "the final norm",
    "other": "other modules",
}
"""Kinds of modules as sentences name them."""
_COLOURS = {
    "mlp": STRENGTH,
    "attention": POSITIVE,
    "norm": BASE,
    "final_norm": BASE,
    "embedding": "#b8912f",
    "unembedding": NEGATIVE,
    "other": "#7d5ba6",
}
_ENDS = {"embedding": "in", "final_norm": "out", "unembedding": "out", "other": "other"}
"""Bars of what stands outside the layers."""


def credits_sentence(rows: Sequence[ResultRow]) -> str:
    """Say how much of the implicit reward the dictionaries can show, and which kinds of modules carry how much."""
    error = pick(rows, metric="error")
    kinds = [row for row in rows if row.metric == "share" and row.layer is None and row.group in NAMES]
    if not kinds:
        return "Base and tuned model are equal: there is no implicit reward to split, and all credits are 0."
    parts = [f"{NAMES[str(row.group)]} {_share(row)}" for row in sorted(kinds, key=lambda row: -row.value)]
    read = pick(rows, metric="share", group=DICTIONARIES)
    first = ""
    if read is not None:
        first = (
            f"The modules that the dictionaries read carry {_share(read)} of the implicit reward; no feature of theirs"
            " can show the rest. "
        )
    exact = f" They sum to each text’s implicit reward within {percent(error.value)} of their sizes." if error else ""
    elsewhere = pick(rows, metric="share_same_position", group=ELSEWHERE)
    through = (
        f" {percent(elsewhere.value)} of a token’s own came through attention from other positions."
        if elsewhere
        else ""
    )
    return (
        f"{first}By kind of module: {', '.join(parts)}. Shares are of the absolute credits of"
        f" {count(kinds[0].n or 0)} texts, with 95 % intervals over texts.{exact}{through}"
    )


def _share(row: ResultRow) -> str:
    if row.ci_low is None or row.ci_high is None:
        return percent(row.value)
    low, high = (percent(value).removesuffix(" %") for value in (row.ci_low, row.ci_high))
    return f"{percent(row.value)} [{low}, {high}]"


def draw_credits(rows: Sequence[ResultRow]) -> go.Figure | None:
    """Draw the share of the implicit reward that each layer's modules carry, and what stands before and after them."""
    shares = [row for row in rows if row.metric == "share" and row.group in NAMES]
    layers = sorted({row.layer for row in shares if row.layer is not None})
    if not layers:
        return None
    shown = [row for row in shares if row.layer is not None or row.group in _ENDS]
    order = ["in", *map(str, layers), "out", "other"]
    traces = []
    for kind, name in NAMES.items():
        of_kind = [row for row in shown if row.group == kind and (row.layer is not None or kind in _ENDS)]
        if not of_kind:
            continue
        traces.append(
            {
                "type": "bar",
                "x": [_ENDS[kind] if row.layer is None else str(row.layer) for row in of_kind],
                "y": [row.value for row in of_kind],
                "name": name.removeprefix("the "),
                "marker": {"color": _COLOURS[kind], "opacity": 0.6 if kind == "final_norm" else 1.0},
                "hovertemplate": "%{x}: %{y:.1%}<extra>" + name.removeprefix("the ") + "</extra>",
            }
        )
    used = {x for trace in traces for x in list(trace["x"])}
    x = {
        "title": "layer",
        "type": "category",
        "categoryorder": "array",
        "categoryarray": [name for name in order if name in used],
        "showgrid": False,
    }
    y = {"title": "share of the implicit reward", "gridcolor": GRID, "tickformat": ".0%", "rangemode": "tozero"}
    return draw(traces, x, y, height=400, legend=True, barmode="stack", bargap=0.3)
