"""Every figure of the report, by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from lfp.report_figures import ablations, drift, labels, layers, scores, texts, words
from lfp.report_figures.material import Material


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


_KINDS = (
    _Kind("reward", "Mean reward of completions", "reward", scores.reward),
    _Kind("implicit-reward", "Implicit reward against true feedback", "implicit_reward", scores.implicit),
    _Kind("words-implicit", "Words: implicit reward against true feedback", "implicit_reward",
          words.scatter("implicit_reward", "implicit reward (nats)")),
    _Kind("kendall-tau", "Every probe, its interval and its null", "kendall_tau", scores.taus),
    _Kind("kendall-tau-difference", "Tuned minus base", "kendall_tau", scores.tau_differences),
    _Kind("words-predicted", "Words: estimate against true feedback", "token_sentiment",
          words.scatter("shown", "estimate, rescaled for display")),
    _Kind("sign-accuracy", "Sign accuracy of every probe", "sign_accuracy", scores.signs),
    _Kind("preference-accuracy", "Chosen told from rejected", "preference_accuracy", scores.preferences),
    _Kind("preference-difference", "Tuned minus base", "preference_accuracy", scores.preference_differences),
    _Kind("error-by-frequency", "Error by how often the model writes a word", "error_by_frequency", words.errors),
    _Kind("divergence", "How far tuning moved each layer", "divergence_by_layer", layers.divergence),
    _Kind("drift-status", "What became of features", "drift", drift.statuses),
    _Kind("drift-features", "Features that carry the change of the estimate", "drift", drift.drifted),
    _Kind("label-agreement", "Labels against weights", "label_agreement", labels.kappas),
    _Kind("activation-frequency", "How often features fire", "activation_frequency", labels.frequencies),
    _Kind("ablation", "Features taken out", "ablation", ablations.groups),
    _Kind("ablation-predicted", "Single features: predicted against measured; grey ones are inert", "ablation",
          ablations.singles),
    _Kind("texts", "Texts by their mean features", "pca_explained", texts.components),
    _Kind("learning-curve", "How the base model learned", "base_model", layers.learning_curve),
    _Kind("autoencoders", "Autoencoders", "sae_quality", layers.autoencoders),
)  # fmt: skip
