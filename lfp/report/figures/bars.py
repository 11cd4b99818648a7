"""Bars and curves: layers, dictionaries, statuses of features, activations, and how base and tuned model learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from lfp.evaluation.results import ResultRow
from lfp.report.figures.frame import BASE, GRID, STRENGTH, draw
from lfp.report.figures.lines import TUNING, tuning_curves
from lfp.report.formatting import place_name, sort_rows
from lfp.util.sanitize import escaped

_MODELS = {"tuned": STRENGTH, "base": BASE}


def divergence(layers: Mapping[str, Sequence[Any]]) -> go.Figure:
    """Draw how far tuning moved each layer (rows of the table `layers`); those with a dictionary stand out."""
    traces = []
    for selected, name, colour in ((True, "with a dictionary", STRENGTH), (False, "without", BASE)):
        rows = [i for i, flag in enumerate(layers["selected"]) if flag == selected]
        traces.append(
            {
                "type": "bar",
                "x": [layers["layer"][i] for i in rows],
                "y": [layers["divergence"][i] for i in rows],
                "name": name,
                "marker": {"color": colour},
                "hovertemplate": "layer %{x}<br>divergence %{y:.3f}<extra></extra>",
            }
        )
    x = {"title": "layer", "dtick": 1 if len(layers["layer"]) <= 24 else None, "showgrid": False}
    y = {"title": "divergence (L2 norm)", "gridcolor": GRID, "zeroline": False, "rangemode": "tozero"}
    return draw(traces, x, y, height=400, legend=True, bargap=0.35)


def activation_histogram(edges: Sequence[float], counts: Sequence[int], base_counts: Sequence[int]) -> go.Figure:
    """Draw how often a feature is active how strongly, tuned over base, on a logarithmic axis."""
    traces = []
    for name, values, opacity in (("base", base_counts, 0.25), ("tuned", counts, 0.35)):
        red, green, blue = (int(_MODELS[name][i : i + 2], 16) for i in (1, 3, 5))
        traces.append(
            {
                "type": "scatter",
                "x": edges,
                "y": [*values, values[-1] if values else 0],
                "name": name,
                "line": {"shape": "hv", "color": _MODELS[name], "width": 1.8},
                "fill": "tozeroy",
                "fillcolor": f"rgba({red},{green},{blue},{opacity})",
                "hovertemplate": f"{name}: %{{y:,}} tokens from %{{x:.3g}}<extra></extra>",
            }
        )
    is_narrow = len(edges) > 1 and edges[0] > 0 and edges[-1] < 1000 * edges[0]
    ticks = {"tickformat": "~g", "dtick": "D2" if is_narrow else 1}
    x = {"type": "log", "title": "activation, scaled", "showgrid": False, **ticks}
    y = {"title": "tokens", "gridcolor": GRID, "rangemode": "tozero", "zeroline": False}
    return draw(traces, x, y, height=240, legend=True)


def statuses(rows: Sequence[ResultRow]) -> go.Figure | None:
    """Draw what became of the features of either model's dictionary, as shares (section `drift`)."""
    shares = sort_rows([row for row in rows if row.metric == "share" and row.group], "group")
    if not shares:
        return None
    traces = []
    for inputs, model in (("sae", "tuned"), ("base_sae", "base")):
        shown = [row for row in shares if row.inputs == inputs]
        traces.append(
            {
                "type": "bar",
                "x": [row.group for row in shown],
                "y": [row.value for row in shown],
                "error_y": {
                    "array": [0.0 if row.ci_high is None else row.ci_high - row.value for row in shown],
                    "arrayminus": [0.0 if row.ci_low is None else row.value - row.ci_low for row in shown],
                    "thickness": 1.4,
                    "width": 0,
                },
                "name": f"{model} model’s dictionary",
                "marker": {"color": _MODELS[model]},
                "hovertemplate": f"%{{x}}: %{{y:.1%}}<extra>{model}</extra>",
            }
        )
    y = {"title": "share of live features", "gridcolor": GRID, "tickformat": ".0%", "rangemode": "tozero"}
    return draw(traces, {"showgrid": False}, y, height=340, legend=True)


def autoencoders(rows: Sequence[ResultRow]) -> go.Figure | None:
    """Draw what each dictionary leaves unexplained against how many features it uses (section `sae_quality`)."""
    metrics: dict[tuple[str, str, str | None], dict[str, float]] = {}
    for row in rows:
        metrics.setdefault((row.model or "", place_name(row.layer, row.site), row.group), {})[row.metric] = row.value
    known = {key: values for key, values in metrics.items() if {"l0", "fvu"} <= values.keys()}
    if not known:
        return None
    traces = []
    for model in sorted({model for model, *_ in known}, reverse=True):
        shown = {key: values for key, values in known.items() if key[0] == model}
        traces.append(
            {
                "type": "scatter",
                "x": [values["l0"] for values in shown.values()],
                "y": [values["fvu"] for values in shown.values()],
                "mode": "markers",
                "name": escaped(f"{model} model"),
                "marker": {"size": 11, "color": _MODELS.get(model, BASE)},
                "text": [escaped(f"{place}, {group}") for _, place, group in shown],
                "hovertemplate": "%{text}<br>L0 %{x:.1f}<br>FVU %{y:.3f}<extra></extra>",
            }
        )
    x = {"title": "active features per token (L0)", "gridcolor": GRID, "zeroline": False}
    y = {"title": "unexplained variance (FVU)", "gridcolor": GRID, "zeroline": False, "rangemode": "tozero"}
    return draw(traces, x, y, height=380, legend=True)


def tuning_curve(rows: Sequence[ResultRow], steps: Mapping[str, Sequence[Any]]) -> go.Figure | None:
    """Draw reward and KL, or margin and accuracy, each on its own axis by step.

    Thick lines are the section's means of consecutive steps; `steps`, columns of the table `tuning`, are thin ones.
    """
    curves = tuning_curves(rows)
    drawn = [(metric, *TUNING[metric]) for metric in TUNING if metric in curves]
    if not drawn:
        return None
    traces: list[dict[str, Any]] = []
    for (metric, name, unit), colour, axis in zip(drawn, (STRENGTH, BASE), ("y", "y2"), strict=False):
        of_metric = [i for i, other in enumerate(steps["metric"]) if other == metric]
        each = ([steps["step"][i] for i in of_metric], [steps["value"][i] for i in of_metric], 0.35, 1, False)
        means = (*map(list, zip(*curves[metric], strict=True)), 1.0, 3, True)
        for x, y, opacity, width, is_named in (each, means):
            traces.append(
                {
                    "type": "scatter", "x": x, "y": y, "mode": "lines", "opacity": opacity, "name": f"{name}, {unit}",
                    "line": {"color": colour, "width": width}, "yaxis": axis, "showlegend": is_named,
                    "hovertemplate": f"step %{{x}}<br>{name} %{{y:.3g}}<extra></extra>",
                }
            )  # fmt: skip
    x_axis = {"title": "step", "gridcolor": GRID}
    y_axis = {"title": ", ".join(drawn[0][1:]), "gridcolor": GRID, "zerolinecolor": GRID, "automargin": True}
    right = {
        "title": ", ".join(drawn[-1][1:]), "overlaying": "y", "side": "right", "automargin": True, "showgrid": False,
        "zeroline": False, "rangemode": "tozero", "tickmode": "auto", "tickformat": ".2~g",
    }  # fmt: skip
    return draw(traces, x_axis, y_axis, height=360, legend=True, **({"yaxis2": right} if len(drawn) > 1 else {}))


def learning_curve(rows: Sequence[ResultRow]) -> go.Figure | None:
    """Draw the base model's training loss and, on an axis of its own, bits per byte of held-out texts by step."""
    curves = {
        metric: sorted(
            (int(row.group or 0), row.value) for row in rows if row.metric == metric and (row.group or "").isdigit()
        )
        for metric in ("train_loss", "held_out_bits")
    }
    if not curves["train_loss"]:
        return None
    traces = []
    for metric, name, colour, axis in (
        ("train_loss", "training loss, nats per token", BASE, "y"),
        ("held_out_bits", "held-out texts, bits per byte", STRENGTH, "y2"),
    ):
        traces.append(
            {
                "type": "scatter",
                "x": [step for step, _ in curves[metric]],
                "y": [value for _, value in curves[metric]],
                "mode": "lines+markers",
                "name": name,
                "line": {"color": colour},
                "yaxis": axis,
            }
        )
    right = {
        "title": "bits per byte", "overlaying": "y", "side": "right", "automargin": True, "showgrid": False,
        "zeroline": False, "tickformat": ".2f",
    }  # fmt: skip
    x, y = {"title": "step", "gridcolor": GRID}, {"title": "nats per token", "gridcolor": GRID}
    return draw(traces, x, y, height=380, legend=True, yaxis2=right)
