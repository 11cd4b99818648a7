"""Drift: how features changed in tuning, as counts with chance, and as a scatter of base against tuned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from lfp.evaluation.results import STATUSES, ResultRow
from lfp.report.checks import is_beyond_null
from lfp.report.figures.frame import BASE, GRID, NEGATIVE, POSITIVE, draw
from lfp.report.formatting import count, fixed, percent, pick, place_name, plain, share, signed
from lfp.util.sanitize import escaped, shortened, token_text
from lfp.util.types import SITE_NAMES

LONGEST = 72
"""Characters of a name that three lines of a list's column hold."""
_NAMED = ("feature_id", "description", "layer", "site")
STATUS_NAMES: Mapping[str, str] = {
    "born": "new", "strengthened": "strengthened", "steady": "steady", "weakened": "weakened", "gone": "lost",
}  # fmt: skip
"""How statuses are shown."""
MEANINGS: Mapping[str, str] = {
    "born": "hardly fired in the base model",
    "strengthened": "fires at least 1.5 times as much",
    "steady": "fires much as before",
    "weakened": "fires at most two thirds as much",
    "gone": "hardly fires in the tuned model",
}
PLANES: Mapping[str, tuple[str, str, str]] = {
    "contribution": ("contribution_base", "contribution", "mean contribution per token"),
    "density": ("base_density", "density", "share of tokens where it is active"),
}
"""What the scatter may show: the base model's column, the tuned model's, and their axis title."""

_MARKS = {
    "born": (POSITIVE, "star"), "strengthened": (POSITIVE, "triangle-up"), "steady": (BASE, "circle"),
    "weakened": (NEGATIVE, "triangle-down"), "gone": (NEGATIVE, "x"),
}  # fmt: skip


def summary(counts: Mapping[str, int], figures: Sequence[ResultRow]) -> str:
    """Say how many features changed, and which carry the change of the estimate."""
    n, fire = _count_firing(counts, figures)
    changed = [
        f"{count(counts[name])} {STATUS_NAMES[name]}" for name in STATUSES if name != "steady" and counts.get(name)
    ]
    listed = " and ".join([", ".join(changed[:-1]), changed[-1]] if len(changed) > 1 else changed)
    which = f"{count(fire)} features" if fire == n else f"{count(fire)} features that fire in either model"
    says = f"Of {which}, {listed}." if changed else f"All {which} fire as before."
    if fire < n:
        says += f" {count(n - fire)} of {count(n)} never fire."
    shares = {status: pick(figures, metric="carried_share", group=status) for status in STATUSES}
    known = {status: row.value for status, row in shares.items() if row is not None}
    if known:
        most = max(known, key=lambda status: known[status])
        which = "Features that fire as before" if most == "steady" else f"{STATUS_NAMES[most].capitalize()} features"
        share = percent(known[most]).replace(" ", "\u00a0")
        says += f" {which} carry {share} of the change in the estimate."
    return says


def _count_firing(counts: Mapping[str, int], figures: Sequence[ResultRow]) -> tuple[int, int]:
    """Return the number of features, and of those that fire in either model: all where the report does not say."""
    n = sum(counts.get(status, 0) for status in STATUSES)
    counted = pick(figures, metric="count", inputs="sae", group="steady")
    fire = n if counted is None or counted.n is None else int(counted.n)
    return n, min(n, fire)


def counts_title(figures: Sequence[ResultRow]) -> str:
    """Say how many features strengthened and weakened, beside their numbers with the models exchanged."""
    found = {name: pick(figures, metric="count", inputs="sae", group=name) for name in ("strengthened", "weakened")}
    parts = [
        f"{count(row.value)}{_interval(row)} features {name}{_exchanged(row)}"
        for name, row in found.items()
        if row is not None
    ]
    return "; ".join(parts) or "How features changed"


def carried_title(figures: Sequence[ResultRow]) -> str:
    """Say which features carry most of the change of the estimate, with the share's interval and its null."""
    rows = [row for row in figures if row.metric == "carried_share" and row.group in STATUSES]
    top = max((row for row in rows if math.isfinite(row.value)), key=lambda row: row.value, default=None)
    if top is None or not top.value:
        return "Base against tuned"
    which = "that fire as before" if top.group == "steady" else f"that are {STATUS_NAMES[str(top.group)]}"
    if top.group in ("strengthened", "weakened"):
        which = f"that {top.group}"
    beyond = is_beyond_null(top)
    side = "" if beyond is None else f", {'above' if beyond else 'not clearly above'} chance ({percent(top.null_high)})"
    return f"Features {which} carry the largest share of the change in the estimate: {share(top)}{side}"


def first_title(row: Mapping[str, Any] | None) -> str:
    """Say which feature's contribution changed most, against chance at its rank."""
    if row is None:
        return "Feature by feature"
    says = f"Feature {row['feature_id']} changed most: contribution {signed(row['drifted_contribution'])} per token"
    null = row["drifted_null"]
    if null is None:
        return says
    side = "beyond" if abs(row["drifted_contribution"]) > null else "within"
    return f"{says}, {side} chance ({plain(null)})"


def _interval(row: ResultRow) -> str:
    if row.ci_low is None or row.ci_high is None:
        return ""
    return f" [{fixed(row.ci_low, 0)}, {fixed(row.ci_high, 0)}]"


def _exchanged(row: ResultRow) -> str:
    return "" if row.null_mean is None else f", about {count(row.null_mean)} with the models exchanged"


def status_table(
    counts: Mapping[str, int], figures: Sequence[ResultRow]
) -> tuple[list[str], list[list[str]], list[int]]:
    """Return heads, rows, and which rows have a share of the change, or flipped signs, beyond chance.

    A row is a status in the tuned and in the base model's dictionary, and its share of the total change. Without
    figures of the report, counts are the bundle's own, without intervals.
    """
    heads = [
        "change", "features", "chance", "measured in the base model’s dictionary", "chance", "share of total change",
        "chance",
    ]  # fmt: skip
    rows: list[list[str]] = []
    beyond = []
    for status in (*STATUSES, "flipped"):
        share = None
        if status == "flipped":
            name, counted = "sign flipped: its probe weight changed sign", pick(figures, metric="sign_flips")
            others = ["–"] * 4
        else:
            name = f"{STATUS_NAMES[status]}: {MEANINGS[status]}"
            counted = pick(figures, metric="count", inputs="sae", group=status)
            base = pick(figures, metric="count", inputs="base_sae", group=status)
            share = pick(figures, metric="carried_share", group=status)
            others = [*_with_chance(base), *_with_chance(share, percent, percent)]
        measured = _with_chance(counted) if counted else [count(counts.get(status, 0)), "–"]
        judged = counted if status == "flipped" else share  # counts have no null: one tuning gives none
        if is_beyond_null(judged):
            beyond.append(len(rows))
        rows.append([name, *measured, *others])
    n, fire = _count_firing(counts, figures)
    if fire < n:
        rows.append(["silent: fires in neither model", count(n - fire), *["–"] * 5])
    return heads, rows, beyond


def _with_chance(
    row: ResultRow | None, written: Callable[[float], str] = count, end: Callable[[float], str] = lambda n: fixed(n, 0)
) -> list[str]:
    """Return a figure with its interval, and what chance reaches."""
    if row is None:
        return ["–", "–"]
    span = ""
    if row.ci_low is not None and row.ci_high is not None:
        span = f" [{end(row.ci_low)}, {end(row.ci_high)}]"
    return [f"{written(row.value)}{span}", _chance(row, written)]


def _chance(row: ResultRow, written: Callable[[float], str]) -> str:
    """Write what chance reaches in 95 % of draws, or else its mean."""
    if row.null_high is not None:
        return f"up to {written(row.null_high)}"
    return "–" if row.null_mean is None else f"about {written(row.null_mean)}"


def for_screen(rows: pa.Table, *, with_site: bool = False) -> pa.Table:
    """Return drift for the screen: tokens with their spaces shown, flips as marks, without nulls the run lacks."""
    table = rows.to_pydict()
    table["sign_flipped"] = [{True: "flipped", False: "", None: "–"}[flag] for flag in table["sign_flipped"]]
    table["top_tokens"] = [[token_text(token) for token in tokens] for tokens in table["top_tokens"]]
    table["description"] = [shortened(text or "", LONGEST) for text in table["description"]]
    table["status"] = [STATUS_NAMES.get(status, status) for status in table["status"]]
    table["site"] = [SITE_NAMES.get(site, site) for site in table["site"]]
    silent = {name for name in ("drifted_null", "unexplained_null") if set(table[name]) <= {None}}
    silent |= set() if with_site else {"site"}
    return pa.table({name: table[name] for name in rows.schema.names if name not in silent})


def scatter(rows: Mapping[str, Sequence[Any]], *, plane: str) -> go.Figure:
    """Draw base against tuned, one point per feature, coloured and shaped by status; `plane` is a name of PLANES.

    A point's `customdata` starts with its feature's number. Contributions are on a signed square-root scale, which
    spreads small ones; densities on a logarithmic scale, with zeros at its lower end.
    """
    across, up, what = PLANES[plane]
    values = [*rows[across], *rows[up]]
    smallest = 0.5 * min((value for value in values if value > 0), default=1e-6)
    place = (lambda value: max(value, smallest)) if plane == "density" else signed_root
    names = [
        f"<b>#{feature_id}</b>  {escaped(shortened(label or 'no label', 52))}<br>{place_name(layer, site)}"
        for feature_id, label, layer, site in zip(*(rows[name] for name in _NAMED), strict=True)
    ]
    traces = []
    for status in STATUSES[::-1]:
        at = [i for i, row_status in enumerate(rows["status"]) if row_status == status]
        if not at:
            continue
        colour, symbol = _MARKS[status]
        rims = [1.6 if rows["sign_flipped"][i] else 0.3 for i in at]
        traces.append(
            {
                "type": "scatter",
                "x": [place(rows[across][i]) for i in at],
                "y": [place(rows[up][i]) for i in at],
                "mode": "markers",
                "name": STATUS_NAMES[status],
                "customdata": [
                    [rows["feature_id"][i], names[i], plain(rows[across][i], 5), plain(rows[up][i], 5)] for i in at
                ],
                "marker": {
                    "color": colour,
                    "symbol": symbol,
                    "size": 6 if status == "steady" else 9,
                    "opacity": 0.55 if status == "steady" else 0.85,
                    "line": {"width": rims, "color": "rgba(110,110,110,.9)"},
                },
                "hovertemplate": "%{customdata[1]}<br>base %{customdata[2]}, tuned %{customdata[3]}<extra>"
                + STATUS_NAMES[status]
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
    return draw(traces, x, y, height=480, legend=True, shapes=[diagonal])


def signed_root(value: float) -> float:
    """Return the square root of a value's size, with its sign."""
    return math.copysign(math.sqrt(abs(value)), value)


def _root_axis(values: Sequence[float]) -> dict[str, Any]:
    """Return ticks at round numbers on a signed square-root scale."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest == 0:
        return {}
    step = 10.0 ** math.floor(math.log10(largest))
    ticks = [tick for tick in (step * part for part in (0.1, 1, 3, 6)) if tick <= 1.05 * largest]
    signed = [*[-tick for tick in reversed(ticks)], 0.0, *ticks]
    texts = [f"{tick:g}".replace("-", "−") for tick in signed]
    return {"tickvals": [signed_root(tick) for tick in signed], "ticktext": texts}
