"""Plotly figures of the report. The page sets the colour of text; every name is escaped and stands above its bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from lfp.escape import escaped
from lfp.queries import DriftedFeature
from lfp.report_tables import Figure, in_order, is_single

POSITIVE, NEGATIVE, TUNED, BASE = "#3b82c4", "#e0852b", "#1a9c8e", "#8d9199"
GRID, NULL = "rgba(141, 145, 153, 0.22)", "rgba(141, 145, 153, 0.55)"
INK = "#7a8089"
"""Grey that is read on light and on dark; the page sets its own colour of text over it."""
_DIVERGING = [[0.0, NEGATIVE], [0.5, "rgba(141, 145, 153, 0.35)"], [1.0, POSITIVE]]
_ROW, _FRAME = 44, 90  # pixels a line of a dot plot, and around it
_MODELS = {"tuned": TUNED, "base": BASE, "difference": POSITIVE}


@dataclass(frozen=True)
class Material:
    """What figures are drawn from: the report, scored words, sampled texts, and the features that drifted most.

    `words` have word, feedback, implicit_reward, shown (the estimate on the lexicon's range) and n; `texts` pca_x,
    pca_y and feedback.
    """

    report: Mapping[str, Sequence[Figure]]
    words: Sequence[Mapping[str, Any]]
    texts: Sequence[Mapping[str, Any]]
    drifted: Sequence[DriftedFeature]


@dataclass(frozen=True)
class Drawn:
    """A figure with its name (of a file), its title, and the row of the report it stands at."""

    name: str
    title: str
    report_row: str
    chart: go.Figure


def draw_all(material: Material) -> list[Drawn]:
    """Every figure that the run has figures for."""
    drawn = [(kind, kind.draw(material)) for kind in _KINDS]
    return [Drawn(kind.name, kind.title, kind.report_row, chart) for kind, chart in drawn if chart is not None]


@dataclass(frozen=True)
class _Kind:
    name: str
    title: str
    report_row: str
    draw: Callable[[Material], go.Figure | None]


def _reward(material: Material) -> go.Figure | None:
    rows = [one for one in material.report["reward"] if one["metric"] == "reward"]
    return _dots([(str(one.get("model")), one) for one in in_order(rows, "model")], "mean reward")


def _implicit(material: Material) -> go.Figure | None:
    rows = [one for one in material.report["implicit_reward"] if one["metric"] == "tau"]
    return _dots([(_named(one, "target", "words", "group"), one) for one in in_order(rows, "target", "words")], "tau")


def _taus(material: Material) -> go.Figure | None:
    return _dots(_probes(material.report["kendall_tau"], metric="tau", words="all"), "tau on held-out words")


def _tau_differences(material: Material) -> go.Figure | None:
    return _dots(_differences(material.report["kendall_tau"], metric="tau"), "tau, tuned minus base")


def _signs(material: Material) -> go.Figure | None:
    return _dots(_probes(material.report["sign_accuracy"], metric="accuracy", words="all"), "sign accuracy")


def _preferences(material: Material) -> go.Figure | None:
    figures = material.report["preference_accuracy"]
    rows = _probes(figures, metric="accuracy") + _probes(figures, metric="accuracy_of_length")
    return _dots(rows, "accuracy on held-out pairs")


def _preference_differences(material: Material) -> go.Figure | None:
    figures = [one for one in material.report["preference_accuracy"] if one.get("inputs")]
    return _dots(_differences(figures, metric="accuracy"), "accuracy, tuned minus base")


def _probes(figures: Sequence[Figure], **keys: str) -> list[tuple[str, Figure]]:
    """One line a probe: tuned and base beside their controls, on what they never saw."""
    kept = [
        one
        for one in figures
        if all(one.get(key) == value for key, value in keys.items())
        and one.get("split") != "random_rows"
        and not (one.get("model") == "difference" and one.get("inputs"))
    ]
    return [(_named(one, "target", "inputs", "model"), one) for one in in_order(kept, "target", "inputs")]


def _differences(figures: Sequence[Figure], *, metric: str) -> list[tuple[str, Figure]]:
    kept = [one for one in figures if one["metric"] == metric and one.get("model") == "difference"]
    return [(_named(one, "target", "inputs"), one) for one in in_order(kept, "target", "inputs")]


def _words(value: str, title: str) -> Callable[[Material], go.Figure | None]:
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
                    "colorscale": _DIVERGING,
                    "cmid": 0,
                    "opacity": 0.75,
                    "line": {"width": 0},
                },
            )
        )
        return _framed(chart, x="true feedback (lexicon value)", y=title)

    return draw


def _errors(material: Material) -> go.Figure | None:
    rows = [one for one in in_order(material.report["error_by_frequency"], "group") if one.get("group", "all") != "all"]
    if not rows:
        return None
    names = [f"{one['group']} times" for one in rows]
    chart = go.Figure()
    chart.add_scatter(
        x=names,
        y=[one["value"] for one in rows],
        error_y=_whiskers(rows),
        mode="lines+markers",
        name="error",
        line={"color": TUNED},
        hovertemplate="%{x}: %{y:.3f}<extra></extra>",
    )
    chart.add_scatter(
        x=names,
        y=[one.get("null_mean") for one in rows],
        mode="lines",
        name="estimates dealt anew",
        line={"color": BASE, "dash": "dot"},
        hovertemplate="dealt anew, %{x}: %{y:.3f}<extra></extra>",
    )
    chart.update_yaxes(rangemode="tozero")
    return _framed(chart, x="written by the tuned model", y="mean absolute error", legend=True)


def _divergence(material: Material) -> go.Figure | None:
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
    return _framed(chart, x="layer", y="divergence (L2 norm)", legend=True)


def _statuses(material: Material) -> go.Figure | None:
    """What became of features in either model's dictionary, as shares."""
    rows = [one for one in material.report["drift"] if one["metric"] == "share" and "group" in one]
    if not rows:
        return None
    chart = go.Figure()
    for inputs, name, colour in (
        ("sae", "tuned model's dictionary", TUNED),
        ("base_sae", "base model's dictionary", BASE),
    ):
        mine = in_order([one for one in rows if one.get("inputs") == inputs], "group")
        chart.add_bar(
            x=[one["group"] for one in mine],
            y=[one["value"] for one in mine],
            error_y=_whiskers(mine),
            name=name,
            marker_color=colour,
            hovertemplate="%{x}: %{y:.1%}<extra>" + name + "</extra>",
        )
    chart.update_yaxes(tickformat=".0%", rangemode="tozero")
    return _framed(chart, x="", y="share of live features", legend=True)


def _drifted(material: Material) -> go.Figure | None:
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
    return _listed(chart, names, "change of its mean contribution")


def _kappas(material: Material) -> go.Figure | None:
    rows = [one for one in material.report["label_agreement"] if one["metric"] == "kappa"]
    return _dots([(str(one.get("group")), one) for one in rows], "Cohen's kappa")


def _activity(material: Material) -> go.Figure | None:
    rows = [one for one in material.report["activation_frequency"] if one["metric"] == "per_token"]
    kept = [one for one in rows if "less" not in str(one.get("group"))]
    return _dots([(str(one.get("group")).replace("_", ", "), one) for one in kept], "share of (token, feature) active")


def _ablations(material: Material) -> go.Figure | None:
    """Effects of groups; the bar is what their controls reach either way."""
    rows = [one for one in material.report["ablation"] if one["metric"] == "effect" and not is_single(one)]
    banded = [one if one.get("null_high") is None else {**one, "null_mean": -one["null_high"]} for one in rows]
    named = [(str(one.get("group")), one) for one in banded]
    return _dots(named, "effect on the mean reward", null="95 % of controls")


def _predicted(material: Material) -> go.Figure | None:
    """The effect predicted of each single feature against the one measured, and what single controls reach."""
    by_group: dict[str, dict[str, Figure]] = {}
    for one in material.report["ablation"]:
        if is_single(one) and one["value"] is not None:
            by_group.setdefault(str(one["group"]), {})[one["metric"]] = one
    known = {name: told for name, told in by_group.items() if {"predicted", "effect"} <= told.keys()}
    if not known:
        return None
    measured = [told["effect"] for told in known.values()]
    chart = go.Figure(
        go.Scatter(
            x=[told["predicted"]["value"] for told in known.values()],
            y=[one["value"] for one in measured],
            error_y=_whiskers(measured),
            mode="markers",
            text=[escaped(name) for name in known],
            marker={"size": 9, "color": [BASE if "inert" in told else TUNED for told in known.values()]},
            hovertemplate="%{text}<br>predicted %{x:.4f}<br>measured %{y:.3f}<extra></extra>",
        )
    )
    high = measured[0].get("null_high")
    if high is not None:
        chart.add_hrect(y0=-high, y1=high, fillcolor=GRID, line_width=0)
    return _framed(chart, x="effect predicted (probe target a token)", y="effect measured on the mean reward")


def _texts(material: Material) -> go.Figure | None:
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
                "colorscale": _DIVERGING,
                "cmid": 0,
                "opacity": 0.8,
                "colorbar": {"title": {"text": "feedback"}, "thickness": 10, "outlinewidth": 0},
            },
        )
    )
    return _framed(chart, x="first component", y="second component")


def _autoencoders(material: Material) -> go.Figure | None:
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
            marker={"size": 11, "color": _MODELS.get(model, BASE)},
            text=[escaped(f"layer {layer}, {group}") for _, layer, group in mine],
            hovertemplate="%{text}<br>L0 %{x:.1f}<br>FVU %{y:.3f}<extra></extra>",
        )
    chart.update_yaxes(rangemode="tozero")
    return _framed(chart, x="active features a token (L0)", y="variance unexplained (FVU)", legend=True)


def _dots(rows: Sequence[tuple[str, Figure]], title: str, *, null: str = "null, mean to 95 %") -> go.Figure | None:
    """A line a figure: a dot with its interval, and its null from mean to 95th percentile as a grey bar."""
    rows = [(name, figure) for name, figure in rows if figure["value"] is not None]
    if not rows:
        return None
    figures = [figure for _, figure in rows]
    chart, places = go.Figure(), list(range(len(rows)))
    nulls = [i for i in places if figures[i].get("null_mean") is not None and figures[i].get("null_high") is not None]
    if nulls:
        chart.add_bar(
            x=[figures[i]["null_high"] - figures[i]["null_mean"] for i in nulls],
            base=[figures[i]["null_mean"] for i in nulls],
            y=nulls,
            orientation="h",
            width=0.28,
            marker_color=NULL,
            name=null,
            hovertemplate=null + ": from %{base:.3f}<extra></extra>",
        )
    chart.add_scatter(
        x=[one["value"] for one in figures],
        y=places,
        error_x=_whiskers(figures),
        mode="markers",
        marker={"size": 10, "color": [_MODELS.get(str(one.get("model")), TUNED) for one in figures]},
        name="figure, 95 % interval",
        hovertext=[escaped(name) for name, _ in rows],
        hovertemplate="%{hovertext}: %{x:.3f}<extra></extra>",
    )
    return _listed(chart, [name for name, _ in rows], title, legend=bool(nulls))


def _whiskers(figures: Sequence[Figure]) -> dict[str, Any]:
    def reach(one: Figure, end: str) -> float:
        known = one.get(end) is not None and one["value"] is not None
        return abs(one[end] - one["value"]) if known else 0.0

    return {
        "type": "data",
        "symmetric": False,
        "array": [reach(one, "ci_high") for one in figures],
        "arrayminus": [reach(one, "ci_low") for one in figures],
        "color": INK,
        "thickness": 1.6,
        "width": 4,
    }


def _named(figure: Figure, *keys: str) -> str:
    return " · ".join(str(figure[key]) for key in keys if figure.get(key) is not None)


def _shortened(text: str, length: int = 46) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def _listed(chart: go.Figure, names: Sequence[str], title: str, *, legend: bool = False) -> go.Figure:
    """Lines from top to bottom, each name above its own, so that long ones are read on a narrow screen too."""
    for row, name in enumerate(names):
        chart.add_annotation(
            text=escaped(name),
            x=0,
            xref="paper",
            xanchor="left",
            y=row - 0.38,
            yref="y",
            showarrow=False,
            font={"size": 12},
        )
    _framed(chart, x=title, y="", legend=legend)
    chart.update_xaxes(zeroline=True, zerolinecolor=NULL)
    chart.update_yaxes(range=[len(names) - 0.4, -0.8], visible=False)
    return chart.update_layout(height=_FRAME + (40 if legend else 0) + _ROW * len(names))


def _framed(chart: go.Figure, *, x: str, y: str, legend: bool = False) -> go.Figure:
    """The frame that all figures share: no background, grey grid, nothing to drag."""
    axis = {"gridcolor": GRID, "zeroline": False, "automargin": True, "fixedrange": True, "exponentformat": "power"}
    chart.update_xaxes(title={"text": x}, **axis)
    chart.update_yaxes(title={"text": y}, **axis)
    return chart.update_layout(
        template="none",
        height=380,
        margin={"l": 12, "r": 12, "t": 40 if legend else 12, "b": 44},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "size": 13},
        hoverlabel={"align": "left"},
        dragmode=False,
    )


_KINDS = (
    _Kind("reward", "Mean reward of completions", "reward", _reward),
    _Kind("implicit-reward", "Implicit reward against true feedback", "implicit_reward", _implicit),
    _Kind("words-implicit", "Words: implicit reward against true feedback", "implicit_reward",
          _words("implicit_reward", "implicit reward (nats)")),
    _Kind("kendall-tau", "Every probe, its interval and its null", "kendall_tau", _taus),
    _Kind("kendall-tau-difference", "Tuned minus base", "kendall_tau", _tau_differences),
    _Kind("words-predicted", "Words: estimate against true feedback", "token_sentiment",
          _words("shown", "estimate, rescaled for display")),
    _Kind("sign-accuracy", "Sign accuracy of every probe", "sign_accuracy", _signs),
    _Kind("preference-accuracy", "Chosen told from rejected", "preference_accuracy", _preferences),
    _Kind("preference-difference", "Tuned minus base", "preference_accuracy", _preference_differences),
    _Kind("error-by-frequency", "Error by how often the model writes a word", "error_by_frequency", _errors),
    _Kind("divergence", "How far tuning moved each layer", "divergence_by_layer", _divergence),
    _Kind("drift-status", "What became of features", "drift", _statuses),
    _Kind("drift-features", "Features that carry the change of the estimate", "drift", _drifted),
    _Kind("label-agreement", "Labels against weights", "label_agreement", _kappas),
    _Kind("activation-frequency", "How often features fire", "activation_frequency", _activity),
    _Kind("ablation", "Features taken out", "ablation", _ablations),
    _Kind("ablation-predicted", "Single features: predicted against measured; grey ones are inert", "ablation",
          _predicted),
    _Kind("texts", "Texts by their mean features", "pca_explained", _texts),
    _Kind("autoencoders", "Autoencoders", "sae_quality", _autoencoders),
)  # fmt: skip
