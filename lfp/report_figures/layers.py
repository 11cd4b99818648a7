"""Figures of rows about what was trained: the base model, divergence by layer, and the autoencoders."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from lfp.escape import escaped
from lfp.report_cells import in_order
from lfp.report_figures.drawing import BASE, MODELS, TUNED, framed
from lfp.report_figures.material import Material


def divergence(material: Material) -> go.Figure | None:
    """How far tuning moved each layer and its MLP."""
    rows = in_order([one for one in material.report["divergence_by_layer"] if "layer" in one], "layer")
    if not rows:
        return None
    chart = go.Figure()
    for metric, colour in (("divergence", TUNED), ("divergence_mlp", BASE)):
        mine = [one for one in rows if one["metric"] == metric]
        chart.add_bar(
            x=[str(one["layer"]) for one in mine],
            y=[one["value"] for one in mine],
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
        by_key.setdefault((one.get("model"), one.get("layer"), one.get("group")), {})[one["metric"]] = one["value"]
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
            (int(one["group"]), one["value"])
            for one in material.report["base_model"]
            if one["metric"] == metric and one.get("group") is not None
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
