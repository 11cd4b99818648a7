"""Figures of rows about layers and features: divergence, dictionaries, labels, drift, ablations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from lfp.evaluation.results import ResultRow
from lfp.report.figures.drawing import (
    BASE,
    GRID,
    MODELS,
    NEGATIVE,
    POSITIVE,
    TUNED,
    Material,
    dots,
    framed,
    listed,
    whiskers,
)
from lfp.report.formatting import in_order, is_single
from lfp.util.sanitize import escaped


def divergence(material: Material) -> go.Figure | None:
    """How far tuning moved each layer and its MLP."""
    rows = in_order([one for one in material.report["divergence_by_layer"] if one.layer is not None], "layer")
    if not rows:
        return None
    chart = go.Figure()
    for metric, colour in (("divergence", TUNED), ("divergence_mlp", BASE)):
        mine = [one for one in rows if one.metric == metric]
        chart.add_bar(
            x=[str(one.layer) for one in mine],
            y=[one.value for one in mine],
            name={"divergence": "all parameters", "divergence_mlp": "its MLP"}[metric],
            marker_color=colour,
            hovertemplate="layer %{x}: %{y:.3f}<extra></extra>",
        )
    chart.update_xaxes(type="category")
    return framed(chart, x="layer", y="divergence (L2 norm)", legend=True)


def autoencoders(material: Material) -> go.Figure | None:
    """What each autoencoder leaves unexplained against how many features it spends."""
    by_key: dict[tuple[Any, ...], dict[str, float]] = {}
    for one in material.report["sae_quality"]:
        by_key.setdefault((one.model, one.layer, one.group), {})[one.metric] = one.value
    known = {key: metrics for key, metrics in by_key.items() if {"l0", "fvu"} <= metrics.keys()}
    if not known:
        return None
    chart = go.Figure()
    for model in sorted({key[0] for key in known}, key=str, reverse=True):
        mine = {key: metrics for key, metrics in known.items() if key[0] == model}
        chart.add_scatter(
            x=[metrics["l0"] for metrics in mine.values()],
            y=[metrics["fvu"] for metrics in mine.values()],
            mode="markers",
            name=f"{model} model",
            marker={"size": 11, "color": MODELS.get(model, BASE)},
            text=[escaped(f"layer {layer}, {group}") for _, layer, group in mine],
            hovertemplate="%{text}<br>L0 %{x:.1f}<br>FVU %{y:.3f}<extra></extra>",
        )
    chart.update_yaxes(rangemode="tozero")
    return framed(chart, x="active features a token (L0)", y="variance unexplained (FVU)", legend=True)


def learning_curve(material: Material) -> go.Figure | None:
    """How the base model learned: loss of what it read, and bits a byte of held-out texts on an axis of their own."""
    curves = {
        metric: sorted(
            (int(one.group), one.value)
            for one in material.report["base_model"]
            if one.metric == metric and one.group is not None
        )
        for metric in ("train_loss", "held_out_bits")
    }
    if not curves["train_loss"]:
        return None
    chart = go.Figure()
    for metric, name, colour, axis in (
        ("train_loss", "loss of what is read, nats a token", BASE, "y"),
        ("held_out_bits", "held-out texts, bits a byte", TUNED, "y2"),
    ):
        if curves[metric]:
            steps, values = zip(*curves[metric], strict=True)
            chart.add_scatter(x=steps, y=values, mode="lines+markers", name=name, line={"color": colour}, yaxis=axis)
    framed(chart, x="step", y="nats a token", legend=True)
    right = {"overlaying": "y", "side": "right", "automargin": True, "showgrid": False, "zeroline": False}
    return chart.update_layout(yaxis2={"title": {"text": "bits a byte"}, "tickformat": ".2f", **right})


def kappas(material: Material) -> go.Figure | None:
    """Agreement of each labeller with the weights."""
    rows = [one for one in material.report["label_agreement"] if one.metric == "kappa"]
    return dots([(str(one.group), one) for one in rows], "Cohen's kappa")


def frequencies(material: Material) -> go.Figure | None:
    """How often features fire where the estimate is high, and on the rest."""
    rows = [one for one in material.report["activation_frequency"] if one.metric == "per_token"]
    kept = [one for one in rows if "less" not in str(one.group)]
    return dots([(str(one.group).replace("_", ", "), one) for one in kept], "share of (token, feature) active")


def statuses(material: Material) -> go.Figure | None:
    """What became of features in either model's dictionary, as shares."""
    rows = [one for one in material.report["drift"] if one.metric == "share" and one.group is not None]
    if not rows:
        return None
    chart = go.Figure()
    for inputs, name, colour in (
        ("sae", "tuned model's dictionary", TUNED),
        ("base_sae", "base model's dictionary", BASE),
    ):
        mine = in_order([one for one in rows if one.inputs == inputs], "group")
        chart.add_bar(
            x=[one.group for one in mine],
            y=[one.value for one in mine],
            error_y=whiskers(mine),
            name=name,
            marker_color=colour,
            hovertemplate="%{x}: %{y:.1%}<extra>" + name + "</extra>",
        )
    chart.update_yaxes(tickformat=".0%", rangemode="tozero")
    return framed(chart, x="", y="share of live features", legend=True)


def drifted(material: Material) -> go.Figure | None:
    """The features that carry most of the change of the estimate, each named above its bar."""
    top = material.drifted
    names = [f"#{one.feature_id} {one.status}: {_shortened(one.description or one.top_token or '')}" for one in top]
    values = [one.drifted_contribution for one in top]
    if not any(values):
        return None
    chart = go.Figure(
        go.Bar(
            x=values,
            y=list(range(len(top))),
            orientation="h",
            width=0.4,
            marker_color=[POSITIVE if value >= 0 else NEGATIVE for value in values],
            hovertext=[escaped(name) for name in names],
            hovertemplate="%{hovertext}<br>%{x:+.4f}<extra></extra>",
        )
    )
    return listed(chart, names, "change of its mean contribution")


def _shortened(text: str, length: int = 46) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def groups(material: Material) -> go.Figure | None:
    """Effects of groups; the bar is what their controls reach either way."""
    rows = [one for one in material.report["ablation"] if one.metric == "effect" and not is_single(one)]
    banded = [one if one.null_high is None else replace(one, null_mean=-one.null_high) for one in rows]
    named = [(str(one.group), one) for one in banded]
    return dots(named, "effect on the mean reward", null="95 % of controls")


def singles(material: Material) -> go.Figure | None:
    """The effect predicted of each single feature against the one measured, and what single controls reach."""
    by_group: dict[str, dict[str, ResultRow]] = {}
    for one in material.report["ablation"]:
        if is_single(one) and one.value is not None:
            by_group.setdefault(str(one.group), {})[one.metric] = one
    known = {name: told for name, told in by_group.items() if {"predicted", "effect"} <= told.keys()}
    if not known:
        return None
    measured = [told["effect"] for told in known.values()]
    chart = go.Figure(
        go.Scatter(
            x=[told["predicted"].value for told in known.values()],
            y=[one.value for one in measured],
            error_y=whiskers(measured),
            mode="markers",
            text=[escaped(name) for name in known],
            marker={"size": 9, "color": [BASE if "inert" in told else TUNED for told in known.values()]},
            hovertemplate="%{text}<br>predicted %{x:.4f}<br>measured %{y:.3f}<extra></extra>",
        )
    )
    high = measured[0].null_high
    if high is not None:
        chart.add_hrect(y0=-high, y1=high, fillcolor=GRID, line_width=0)
    return framed(chart, x="effect predicted (probe target a token)", y="effect measured on the mean reward")
