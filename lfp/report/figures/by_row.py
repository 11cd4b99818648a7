"""Every figure of the report, by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from lfp.report.figures import features, scores
from lfp.report.figures import scores as texts
from lfp.report.figures import scores as words
from lfp.report.figures.drawing import Material


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
    _Kind("divergence", "How far tuning moved each layer", "divergence_by_layer", features.divergence),
    _Kind("drift-status", "What became of features", "drift", features.statuses),
    _Kind("drift-features", "Features that carry the change of the estimate", "drift", features.drifted),
    _Kind("label-agreement", "Labels against weights", "label_agreement", features.kappas),
    _Kind("activation-frequency", "How often features fire", "activation_frequency", features.frequencies),
    _Kind("ablation", "Features taken out", "ablation", features.groups),
    _Kind("ablation-predicted", "Single features: predicted against measured; grey ones are inert", "ablation",
          features.singles),
    _Kind("texts", "Texts by their mean features", "pca_explained", texts.components),
    _Kind("learning-curve", "How the base model learned", "base_model", features.learning_curve),
    _Kind("autoencoders", "Autoencoders", "sae_quality", features.autoencoders),
)  # fmt: skip
