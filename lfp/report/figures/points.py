"""Scatters of words, texts, features and pairs; a point's `customdata` is its number or name, for clicks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import plotly.graph_objects as go

from lfp.bundle.queries.run import AblatedFeature, ForecastFeature
from lfp.evaluation.results import FATES
from lfp.report.figures.frame import BASE, DIVERGING, GRID, STRENGTH, draw
from lfp.report.formatting import count, plain, signed, with_interval
from lfp.util.sanitize import escaped, shortened

Axis = tuple[str, str]
"""The title of an axis, and the column of its values."""
REWARD: Axis = ("reward (lexicon value)", "feedback")
IMPLICIT: Axis = ("implicit reward (nats)", "implicit_reward")
ESTIMATE: Axis = ("probe estimate, on the lexicon’s range", "shown")
COLOURS = {
    "feedback": ("reward", True),
    "predicted": ("probe estimate", True),
    "implicit_reward": ("implicit reward", True),
    "rating": ("rating", False),
}
"""Columns that texts may be coloured by: the title, and whether values have a sign."""

_EDGE = {"width": 0.6, "color": "rgba(120,120,120,.6)"}
_Z95 = 1.959964


def words(rows: Mapping[str, Sequence[Any]], across: Axis, up: Axis) -> go.Figure:
    """Draw a point per word, coloured by its reward; common words are larger."""
    (title_x, column_x), (title_y, column_y) = across, up
    largest = math.sqrt(max(rows["n"], default=1) or 1)
    hover = [
        f"<b>{escaped(word)}</b><br>{title_x}: {signed(x)}<br>{title_y}: {signed(y, 3)}<br>{count(n)} times"
        for word, x, y, n in zip(rows["word"], rows[column_x], rows[column_y], rows["n"], strict=True)
    ]
    marker = {
        "size": [6 + 16 * math.sqrt(n) / largest for n in rows["n"]],
        "color": list(rows["feedback"]),
        "colorscale": DIVERGING,
        "cmid": 0,
        "opacity": 0.78,
        "line": _EDGE,
    }
    places = rows[column_x], rows[column_y]
    return _draw(*places, title_x, title_y, hover=hover, keys=rows["word"], marker=marker, height=430)


def texts(rows: Mapping[str, Sequence[Any]], column: str) -> go.Figure:
    """Draw a point per sampled text on its two principal components, coloured by one of COLOURS; grey without it."""
    (colour, is_signed), values = COLOURS[column], rows[column]
    hover = [
        f"<b>text {text_id}</b><br>{escaped(shortened(begins, 70))}<br>{colour}: {plain(value, 3)}"
        for text_id, begins, value in zip(rows["text_id"], rows["begins"], values, strict=True)
    ]
    known = [abs(value) for value in values if value is not None]
    limit = float(np.quantile(known, 0.98)) if known else 1.0
    marker: dict[str, Any] = {
        "size": 9,
        "color": [math.nan if value is None else value for value in values],
        "colorscale": DIVERGING if is_signed else [[0, "rgba(26,156,142,.12)"], [1, STRENGTH]],
        "colorbar": {"title": {"text": colour, "side": "right"}, "thickness": 10, "outlinewidth": 0},
        "line": _EDGE,
        "opacity": 0.85,
    }
    if is_signed:
        marker |= {"cmin": -(limit or 1.0), "cmax": limit or 1.0}
    titles = ("first component", "second component")
    places = rows["pca_x"], rows["pca_y"]
    return _draw(*places, *titles, hover=hover, keys=rows["text_id"], marker=marker, height=440)


def beliefs(rows: Mapping[str, Sequence[Any]]) -> go.Figure:
    """Draw how surely features are labelled related against the size of their weight, a point per feature."""
    columns = (rows[name] for name in ("feature_id", "description", "belief", "size"))
    hover = [
        f"<b>#{feature}</b> {escaped(shortened(label or 'no label', 60))}<br>related, from −1 to 1: {signed(belief)}"
        f"<br>size of weight: {plain(size, 4)}"
        for feature, label, belief, size in zip(*columns, strict=True)
    ]
    marker = {
        "size": 7,
        "color": [STRENGTH if belief > 0 else BASE for belief in rows["belief"]],
        "opacity": 0.6,
        "line": {"width": 0},
    }
    return _draw(
        rows["belief"],
        [size or None for size in rows["size"]],
        "surely unrelated  ←   →  surely related",
        "size of weight, logarithmic",
        hover=hover,
        keys=rows["feature_id"],
        marker=marker,
        height=400,
        x={"range": [-1.05, 1.05]},
        y={"type": "log", "dtick": 1, "tickformat": "~g"},
    )


def effects(features: Sequence[AblatedFeature]) -> go.Figure:
    """Draw the predicted effect of removing one feature against the measured one beyond that of controls.

    The band holds 95 % of controls. Without controls the measured effect is drawn as it is.
    """
    known = [(feature, feature.predicted_effect) for feature in features if feature.predicted_effect is not None]
    measures = [feature.measured for feature, _ in known]
    hover = []
    for (feature, predicted), (value, low, high) in zip(known, measures, strict=True):
        measured = with_interval(value, low, high, is_signed=True)
        hover.append(
            f"<b>#{feature.feature_id}</b> {escaped(shortened(feature.description or 'no label', 60))}<br>predicted "
            f"{signed(predicted, 4)}<br>measured {measured}"
        )
    bars = {
        "array": [high - value for value, _, high in measures],
        "arrayminus": [value - low for value, low, _ in measures],
        "color": "rgba(26,156,142,.35)",
        "thickness": 1.4,
        "width": 0,
    }
    reach = next((feature.contrast_reach for feature, _ in known if feature.contrast_reach is not None), None)
    band = {
        "type": "rect", "xref": "x domain", "x0": 0, "x1": 1, "yref": "y", "y0": -(reach or 0), "y1": reach,
        "line": {"width": 0}, "fillcolor": "rgba(141,145,153,.16)", "layer": "below",
    }  # fmt: skip
    return _draw(
        [predicted for _, predicted in known],
        [value for value, _, _ in measures],
        "predicted effect (probe estimate per token)",
        "measured effect on the mean reward, beyond controls’",
        hover=hover,
        keys=[feature.feature_id for feature, _ in known],
        marker={"size": 9, "color": STRENGTH, "line": {"width": 0}},
        height=400,
        error_y=bars,
        shapes=[] if reach is None else [band],
    )


def forecast(features: Sequence[ForecastFeature]) -> go.Figure:
    """Draw what the data hold of each feature against what was learned of it, coloured by what became of it."""
    known = [(feature, feature.preferred) for feature in features if feature.preferred is not None]
    hover = [
        f"<b>#{feature.feature_id}</b> {escaped(shortened(' '.join(feature.tokens[:5]), 60))}<br>in the data "
        f"{with_interval(feature.in_data, feature.in_data_low, feature.in_data_high, is_signed=True)}<br>preferred "
        f"{with_interval(learned, feature.preferred_low, feature.preferred_high, is_signed=True)}<br>"
        f"{feature.status or 'not judged'}"
        for feature, learned in known
    ]
    colours = [_OF_STATUS.get(feature.status or "", "rgba(141,145,153,.45)") for feature, _ in known]
    return _draw(
        [feature.in_data for feature, _ in known],
        [learned for _, learned in known],
        "in the data: chosen minus rejected, standard deviations",
        "learned: in responses of higher implicit reward",
        hover=hover,
        keys=[feature.feature_id for feature, _ in known],
        marker={"size": 7, "color": colours, "line": {"width": 0}},
        height=400,
    )


_OF_STATUS = {FATES[0]: STRENGTH, FATES[1]: "#c08a2b", FATES[2]: "#7a5cc2"}


@dataclass(frozen=True)
class Bin:
    """Pairs of similar probability: how many, the mean predicted, the share chosen, and its 95 % (Wilson) interval."""

    n: int
    predicted: float
    chosen: float
    low: float
    high: float


def reliability_bins(margins: Sequence[float], *, bins: int = 10) -> list[Bin]:
    """Return bins of margins (log-odds that the chosen side wins), as many pairs in each; weakest first.

    A pair is folded to the side predicted to win, so that probabilities run from a half to 1; a margin of 0 counts as
    half won. Equal probabilities share a bin, so that the order of pairs does not matter. The interval is Wilson's
    (1927), which keeps to [0, 1] also for few pairs.
    """
    values = np.asarray(margins, np.float64)
    if not len(values):
        return []
    won, sizes = 0.5 + 0.5 * np.sign(values), np.abs(values)
    _, group, times = np.unique(sizes, return_inverse=True, return_counts=True)
    middle = (np.cumsum(times) - 0.5 * times)[group]
    bin_of = (middle * bins / len(values)).astype(int)
    probability = 1.0 / (1.0 + np.exp(-sizes))
    found = []
    for place in range(bins):
        members = bin_of == place
        if n := int(members.sum()):
            share = float(won[members].mean())
            centre = (share + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
            half = _Z95 * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n)) / (1 + _Z95**2 / n)
            ends = min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
            found.append(Bin(n, float(probability[members].mean()), share, *ends))
    return found


def reliability(bins: Sequence[Bin]) -> go.Figure:
    """Draw how often the side predicted to win was chosen, against the predicted probability, a point per bin."""
    diagonal = {
        "type": "scatter", "x": [0.5, 1], "y": [0.5, 1], "mode": "lines", "line": {"color": BASE, "dash": "dot"},
        "hoverinfo": "skip", "name": "perfectly calibrated",
    }  # fmt: skip
    points = {
        "type": "scatter", "x": [pairs.predicted for pairs in bins], "y": [pairs.chosen for pairs in bins],
        "mode": "markers+lines", "name": "held-out pairs",
        "marker": {"size": 9, "color": STRENGTH},
        "line": {"color": STRENGTH, "width": 1},
        "error_y": {
            "array": [pairs.high - pairs.chosen for pairs in bins],
            "arrayminus": [pairs.chosen - pairs.low for pairs in bins],
            "color": "rgba(26,156,142,.45)", "width": 0,
        },
        "hovertemplate": "predicted %{x:.2f}<br>chosen in %{y:.0%} of pairs<extra></extra>",
    }  # fmt: skip
    far = min(1.0, max([0.6, *(pairs.predicted for pairs in bins)]) + 0.05)
    x = {"title": "predicted probability", "gridcolor": GRID, "zeroline": False, "range": [0.49, far + 0.01]}
    y = {"title": "share chosen", "gridcolor": GRID, "zeroline": False}
    return draw([diagonal, points], x, y, height=400, legend=True)


def _draw(
    across: Sequence[float | None],
    up: Sequence[float | None],
    title_x: str,
    title_y: str,
    *,
    hover: Sequence[str],
    keys: Sequence[object],
    marker: Mapping[str, object],
    height: int,
    x: Mapping[str, object] = MappingProxyType({}),
    y: Mapping[str, object] = MappingProxyType({}),
    error_y: Mapping[str, object] | None = None,
    shapes: Sequence[Mapping[str, object]] = (),
) -> go.Figure:
    """Return a scatter with a point per key; `x` and `y` are further settings of its axes."""
    trace = {
        "type": "scatter",
        "x": list(across),
        "y": list(up),
        "mode": "markers",
        "customdata": list(keys),
        "hovertext": list(hover),
        "hovertemplate": "%{hovertext}<extra></extra>",
        "marker": marker,
        "error_y": error_y,
    }
    axis = {"gridcolor": GRID, "zeroline": True, "zerolinecolor": GRID}
    axes = {"title": title_x, **axis, **x}, {"title": title_y, **axis, **y}
    return draw([trace], *axes, height=height, shapes=list(shapes))
