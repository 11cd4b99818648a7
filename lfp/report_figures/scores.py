"""Figures of rows that score a model or a probe: reward, implicit reward, tau, sign and preference accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from lfp.report_cells import Figure, in_order
from lfp.report_figures.drawing import dots, named
from lfp.report_figures.material import Material


def reward(material: Material) -> go.Figure | None:
    """Mean reward of completions, a line a model."""
    rows = [one for one in material.report["reward"] if one["metric"] == "reward"]
    return dots([(str(one.get("model")), one) for one in in_order(rows, "model")], "mean reward")


def implicit(material: Material) -> go.Figure | None:
    """How well implicit reward ranks what has true feedback."""
    rows = [one for one in material.report["implicit_reward"] if one["metric"] == "tau"]
    return dots([(named(one, "target", "words", "group"), one) for one in in_order(rows, "target", "words")], "tau")


def taus(material: Material) -> go.Figure | None:
    """How well each probe ranks words, its controls included."""
    return dots(_probes(material.report["kendall_tau"], metric="tau", words="all"), "tau on held-out words")


def tau_differences(material: Material) -> go.Figure | None:
    """The same, tuned minus base."""
    return dots(_differences(material.report["kendall_tau"], metric="tau"), "tau, tuned minus base")


def signs(material: Material) -> go.Figure | None:
    """How often each probe has the sign right."""
    return dots(_probes(material.report["sign_accuracy"], metric="accuracy", words="all"), "sign accuracy")


def preferences(material: Material) -> go.Figure | None:
    """How often each probe, and length alone, tell chosen from rejected."""
    figures = material.report["preference_accuracy"]
    length = [("the longer answer", one) for _, one in _probes(figures, metric="accuracy_of_length")]
    return dots(_probes(figures, metric="accuracy") + length, "accuracy on held-out pairs")


def preference_differences(material: Material) -> go.Figure | None:
    """The same, tuned minus base."""
    figures = [one for one in material.report["preference_accuracy"] if one.get("inputs")]
    return dots(_differences(figures, metric="accuracy"), "accuracy, tuned minus base")


def _probes(figures: Sequence[Figure], **keys: str) -> list[tuple[str, Figure]]:
    """One line a probe: tuned and base beside their controls, on what they never saw."""
    kept = [
        one
        for one in figures
        if all(one.get(key) == value for key, value in keys.items())
        and one.get("split") != "random_rows"
        and not (one.get("model") == "difference" and one.get("inputs"))
    ]
    return [(named(one, "target", "inputs", "model"), one) for one in in_order(kept, "target", "inputs")]


def _differences(figures: Sequence[Figure], *, metric: str) -> list[tuple[str, Figure]]:
    """Tuned minus base, one line a probe."""
    kept = [one for one in figures if one["metric"] == metric and one.get("model") == "difference"]
    return [(named(one, "target", "inputs"), one) for one in in_order(kept, "target", "inputs")]
