"""Every figure of a report by its section, drawn from one bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from lfp.bundle import queries
from lfp.bundle.queries.run import AblatedFeature, DriftedFeature
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import Report
from lfp.report.figures import bars, frame, lines, points
from lfp.report.figures.intervals import Legend, Line, draw_lines
from lfp.util.sanitize import token_text

_NO_WORDS: Mapping[str, Sequence[Any]] = {"word": (), "feedback": (), "implicit_reward": (), "shown": (), "n": ()}
_NO_LAYERS: Mapping[str, Sequence[Any]] = {"layer": (), "divergence": (), "selected": ()}
_NO_TEXTS: Mapping[str, Sequence[Any]] = {
    "text_id": (), "pca_x": (), "pca_y": (), "feedback": (), "begins": (),
}  # fmt: skip


@dataclass(frozen=True)
class Material:
    """What figures are drawn from: the report, and columns or rows of other tables of the bundle."""

    report: Report
    words: Mapping[str, Sequence[Any]] = field(default_factory=lambda: _NO_WORDS)
    layers: Mapping[str, Sequence[Any]] = field(default_factory=lambda: _NO_LAYERS)
    texts: Mapping[str, Sequence[Any]] = field(default_factory=lambda: _NO_TEXTS)
    drifted: Sequence[DriftedFeature] = ()
    ablations: Sequence[lines.Ablation] = ()
    ablated: Sequence[AblatedFeature] = ()

    @classmethod
    def from_store(cls, store: Store, report: Report) -> Material:
        """Read what the figures need from a bundle, beside its report."""
        return cls(
            report,
            queries.words.judged_words(store).to_pydict(),
            queries.run.layers(store).to_pydict(),
            queries.words.text_points(store).to_pydict(),
            queries.run.drifted_features(store),
            queries.run.report_ablations(store),
            queries.run.ablated_features(store),
        )


@dataclass(frozen=True)
class Drawn:
    """A figure with its name (of a file), its title, and the section of the report it stands in."""

    name: str
    title: str
    section: str
    chart: go.Figure


def draw_all(material: Material) -> list[Drawn]:
    """Return every figure that the run has data for, in reading order. The page sets the colour of text."""
    report, words = material.report, material.words
    scores, of_pairs = report.get("kendall_tau", ()), report.get("preference_accuracy", ())
    signs = report.get("sign_accuracy", ())
    frequencies = lines.frequencies(report.get("activation_frequency", ()), "per_token")
    tau = "Kendall’s τ with the reward"
    found = [
        _lines("reward", "Mean reward of completions", "reward",
               lines.rewards(report.get("reward", ())), Legend("mean reward")),
        _lines("implicit-reward", "Implicit reward against reward", "implicit_reward",
               lines.implicit_rewards(report.get("implicit_reward", ())), Legend(tau)),
        _words("words-implicit", "Words: implicit reward against reward", "implicit_reward", words, points.IMPLICIT),
        *(_lines(f"kendall-tau-{target}", f"Probes of {lines.TARGETS.get(target, target)}", "kendall_tau",
                 lines.probes(scores, "tau", target), Legend(f"{tau}, held-out words"))
          for target in lines.targets(scores)),
        _words("words-predicted", "Words: probe estimate against reward", "token_sentiment", words, points.ESTIMATE),
        *(_lines(f"sign-accuracy-{target}", f"Probes of {lines.TARGETS.get(target, target)}", "sign_accuracy",
                 lines.probes(signs, "accuracy", target), Legend("share of words"), zero=False)
          for target in lines.targets(signs)),
        _lines("preference-accuracy", "Chosen response picked", "preference_accuracy",
               lines.pairs(of_pairs), Legend("pair accuracy"), zero=False),
        _lines("preference-difference", "Tuned minus base", "preference_accuracy",
               lines.pair_differences(of_pairs), Legend("difference of pair accuracy", is_signed=True)),
        _lines("error-by-frequency", "Error by how often the model writes a word", "error_by_frequency",
               lines.errors(report.get("error_by_frequency", ())),
               Legend("mean error (lexicon value)", mark="shuffled estimates")),
        Drawn("divergence", "How far tuning moved each layer", "divergence_by_layer", bars.divergence(material.layers))
        if material.layers["layer"] else None,
        _chart("drift-status", "What became of features", "drift", bars.statuses(report.get("drift", ()))),
        _chart("drift-features", "Features that carry the change of the estimate", "drift", _drifted(material.drifted)),
        _lines("label-agreement", "Labels against weights", "label_agreement",
               lines.kappas(report.get("label_agreement", ())), Legend("Cohen’s κ")),
        _lines("activation-frequency", "How often features fire", "activation_frequency",
               lines.frequency_lines(frequencies),
               Legend("share of (token, feature) pairs active", chance="as many random features (95 %)")),
        _lines("ablation", "Reward without groups of features", "ablation",
               lines.effects(material.ablations), Legend("change of mean reward", "controls (95 %)", is_signed=True)),
        _chart("ablation-predicted", "Single features: predicted against measured effect", "ablation",
               points.effects(material.ablated) if material.ablated else None),
        _chart("texts", "Texts by their mean features", "pca_explained",
               points.texts(material.texts, "feedback") if set(material.texts["feedback"]) - {None} else None),
        _chart("autoencoders", "SAEs", "sae_quality", bars.autoencoders(report.get("sae_quality", ()))),
        _chart("learning-curve", "How the base model learned", "base_model",
               bars.learning_curve(report.get("base_model", ()))),
    ]  # fmt: skip
    return [figure for figure in found if figure is not None]


def _lines(
    name: str, title: str, section: str, shown: Sequence[Line], legend: Legend, *, zero: bool = True
) -> Drawn | None:
    finite = [line for line in shown if abs(line.value) < float("inf")]
    return Drawn(name, title, section, draw_lines(finite, legend, ink=None, zero=zero)) if finite else None


def _words(name: str, title: str, section: str, words: Mapping[str, Sequence[Any]], up: points.Axis) -> Drawn | None:
    known = any(value is not None for value in words[up[1]])
    return Drawn(name, title, section, points.words(words, points.REWARD, up)) if known else None


def _chart(name: str, title: str, section: str, chart: go.Figure | None) -> Drawn | None:
    return None if chart is None else Drawn(name, title, section, chart)


def _drifted(features: Sequence[DriftedFeature]) -> go.Figure | None:
    """The features that carry most of the change of the estimate, each with its label or the token it fires on most."""
    if not any(feature.drifted_contribution for feature in features):
        return None
    ids = [feature.feature_id for feature in features]
    names = [f"{feature.status}: {feature.description or token_text(feature.top_token or '')}" for feature in features]
    changes = [feature.drifted_contribution for feature in features]
    return frame.contributions(ids, names, changes, ink=None, title="change of mean contribution")
