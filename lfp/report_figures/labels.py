"""Figures of rows about labels: agreement with weights, and how often features fire."""

from __future__ import annotations

import plotly.graph_objects as go

from lfp.report_figures.drawing import dots
from lfp.report_figures.material import Material


def kappas(material: Material) -> go.Figure | None:
    """Agreement of each labeller with the weights."""
    rows = [one for one in material.report["label_agreement"] if one["metric"] == "kappa"]
    return dots([(str(one.get("group")), one) for one in rows], "Cohen's kappa")


def frequencies(material: Material) -> go.Figure | None:
    """How often features fire where the estimate is high, and on the rest."""
    rows = [one for one in material.report["activation_frequency"] if one["metric"] == "per_token"]
    kept = [one for one in rows if "less" not in str(one.get("group"))]
    return dots([(str(one.get("group")).replace("_", ", "), one) for one in kept], "share of (token, feature) active")
