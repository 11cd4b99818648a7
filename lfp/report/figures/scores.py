"""Figures of rows that score a model or a probe: reward, tau, sign and preference accuracy, words, texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from lfp.evaluation.results import ResultRow
from lfp.report.figures.drawing import BASE, DIVERGING, TUNED, Material, dots, framed, named, whiskers
from lfp.report.formatting import in_order
from lfp.util.sanitize import escaped


def reward(material: Material) -> go.Figure | None:
    """Mean reward of completions, a line a model."""
    rows = [one for one in material.report["reward"] if one.metric == "reward"]
    return dots([(str(one.model), one) for one in in_order(rows, "model")], "mean reward")


def implicit(material: Material) -> go.Figure | None:
    """How well implicit reward ranks what has true feedback."""
    rows = [one for one in material.report["implicit_reward"] if one.metric == "tau"]
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
    figures = [one for one in material.report["preference_accuracy"] if one.inputs]
    return dots(_differences(figures, metric="accuracy"), "accuracy, tuned minus base")


def _probes(figures: Sequence[ResultRow], **keys: str) -> list[tuple[str, ResultRow]]:
    """One line a probe: tuned and base beside their controls, on what they never saw."""
    kept = [
        one
        for one in figures
        if all(getattr(one, key) == value for key, value in keys.items())
        and one.split != "random_rows"
        and not (one.model == "difference" and one.inputs)
    ]
    return [(named(one, "target", "inputs", "model"), one) for one in in_order(kept, "target", "inputs")]


def _differences(figures: Sequence[ResultRow], *, metric: str) -> list[tuple[str, ResultRow]]:
    """Tuned minus base, one line a probe."""
    kept = [one for one in figures if one.metric == metric and one.model == "difference"]
    return [(named(one, "target", "inputs"), one) for one in in_order(kept, "target", "inputs")]


def scatter(value: str, title: str) -> Callable[[Material], go.Figure | None]:
    """True feedback against an estimate, a point a word; common words are larger."""

    def draw(material: Material) -> go.Figure | None:
        words = [word for word in material.words if word[value] is not None]
        if not words:
            return None
        largest = math.sqrt(max(word["n"] for word in words) or 1)
        chart = go.Figure(
            go.Scatter(
                x=[word["feedback"] for word in words],
                y=[word[value] for word in words],
                mode="markers",
                text=[f"<b>{escaped(word['word'])}</b>" for word in words],
                customdata=[[word["n"], word["shown"], word["implicit_reward"]] for word in words],
                hovertemplate="%{text}<br>true %{x:.2f}<br>estimate, rescaled %{customdata[1]:.2f}"
                "<br>implicit reward %{customdata[2]:.2f}<br>%{customdata[0]:,} times<extra></extra>",
                marker={
                    "size": [5 + 15 * math.sqrt(word["n"]) / largest for word in words],
                    "color": [word["feedback"] for word in words],
                    "colorscale": DIVERGING,
                    "cmid": 0,
                    "opacity": 0.75,
                    "line": {"width": 0},
                },
            )
        )
        return framed(chart, x="true feedback (lexicon value)", y=title)

    return draw


def errors(material: Material) -> go.Figure | None:
    """How far the estimate is off, by how often the model writes a word, beside estimates dealt anew."""
    rows = [one for one in in_order(material.report["error_by_frequency"], "group") if (one.group or "all") != "all"]
    if not rows:
        return None
    names = [f"{one.group} times" for one in rows]
    chart = go.Figure()
    chart.add_scatter(
        x=names,
        y=[one.value for one in rows],
        error_y=whiskers(rows),
        mode="lines+markers",
        name="error",
        line={"color": TUNED},
        hovertemplate="%{x}: %{y:.3f}<extra></extra>",
    )
    chart.add_scatter(
        x=names,
        y=[one.null_mean for one in rows],
        mode="lines",
        name="estimates dealt anew",
        line={"color": BASE, "dash": "dot"},
        hovertemplate="dealt anew, %{x}: %{y:.3f}<extra></extra>",
    )
    chart.update_yaxes(rangemode="tozero")
    return framed(chart, x="written by the tuned model", y="mean absolute error", legend=True)


def components(material: Material) -> go.Figure | None:
    """Texts on two principal components of their mean features."""
    texts = [text for text in material.texts if text["feedback"] is not None]
    if not texts:
        return None
    chart = go.Figure(
        go.Scatter(
            x=[text["pca_x"] for text in texts],
            y=[text["pca_y"] for text in texts],
            mode="markers",
            customdata=[[text["text_id"], text["feedback"]] for text in texts],
            hovertemplate="text %{customdata[0]}<br>feedback %{customdata[1]:.2f}<extra></extra>",
            marker={
                "size": 7,
                "color": [text["feedback"] for text in texts],
                "colorscale": DIVERGING,
                "cmid": 0,
                "opacity": 0.8,
                "colorbar": {"title": {"text": "feedback"}, "thickness": 10, "outlinewidth": 0},
            },
        )
    )
    return framed(chart, x="first component", y="second component")
