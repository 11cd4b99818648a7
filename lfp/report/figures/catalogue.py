"""Every figure of a report by its section, drawn from one bundle, and as SVG files.

SVG is drawn by Kaleido in a browser of this machine; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly
import plotly.graph_objects as go

from lfp.bundle import queries
from lfp.bundle.queries.drift import DriftedFeature
from lfp.bundle.queries.run import AblatedFeature, ForecastFeature
from lfp.bundle.store.connection import Store
from lfp.errors import ConfigError
from lfp.evaluation.results import Report
from lfp.report.credits import layer_title, ledger_title
from lfp.report.figures import bars, frame, lines, points
from lfp.report.figures.intervals import Legend, Line, draw_lines
from lfp.report.figures.modules import draw_credits, draw_ledger, draw_trajectory
from lfp.util.sanitize import token_text

_NO_WORDS: Mapping[str, Sequence[Any]] = {"word": (), "feedback": (), "implicit_reward": (), "shown": (), "n": ()}
_NO_LAYERS: Mapping[str, Sequence[Any]] = {"layer": (), "divergence": (), "selected": ()}
_NO_STEPS: Mapping[str, Sequence[Any]] = {"metric": (), "step": (), "value": ()}
_NO_CHECKPOINTS: Mapping[str, Sequence[Any]] = {"step": (), "module": (), "nats": ()}
_NO_TEXTS: Mapping[str, Sequence[Any]] = {
    "text_id": (), "pca_x": (), "pca_y": (), "feedback": (), "begins": (),
}  # fmt: skip
_WIDTH, _HEIGHT, _TITLE = 760, 380, 46
"""Pixels of an SVG: its width, its height where the figure states none, and the room above it for its title."""
_INK = "#24221d"
_PLOTLY_JS = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


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
    tuning: Mapping[str, Sequence[Any]] = field(default_factory=lambda: _NO_STEPS)
    forecast: Sequence[ForecastFeature] = ()
    trajectory: Mapping[str, Sequence[Any]] = field(default_factory=lambda: _NO_CHECKPOINTS)

    @classmethod
    def from_store(cls, store: Store, report: Report) -> Material:
        """Read what the figures need from a bundle, beside its report."""
        return cls(
            report,
            queries.words.judged_words(store).to_pydict(),
            queries.run.layers(store).to_pydict(),
            queries.words.text_points(store).to_pydict(),
            queries.drift.drifted_features(store),
            queries.run.report_ablations(store),
            queries.run.ablated_features(store),
            queries.run.tuning(store).to_pydict(),
            queries.run.forecast(store),
            queries.run.trajectory(store).to_pydict(),
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
    report, words, tau = material.report, material.words, "Kendall’s τ with the reward"
    scores, of_pairs = report.get("kendall_tau", ()), report.get("preference_accuracy", ())
    signs = report.get("sign_accuracy", ())
    frequencies = lines.frequencies(report.get("activation_frequency", ()), "per_token")
    found = [
        ("reward", "Mean reward of completions", "reward",
         _lines(lines.rewards(report.get("reward", ())), Legend("mean reward"))),
        ("implicit-reward", "Implicit reward against reward", "implicit_reward",
         _lines(lines.implicit_rewards(report.get("implicit_reward", ())), Legend(tau))),
        ("words-implicit", "Words: implicit reward against reward", "implicit_reward", _words(words, points.IMPLICIT)),
        ("ledger", ledger_title(report.get("module_credits", ())), "module_credits",
         draw_ledger(report.get("module_credits", ()))),
        ("module-credits", layer_title(report.get("module_credits", ())), "module_credits",
         draw_credits(report.get("module_credits", ()))),
        *((f"kendall-tau-{target}", f"Probes of {lines.TARGETS.get(target, target)}", "kendall_tau",
           _lines(lines.probes(scores, "tau", target), Legend(f"{tau}, held-out words")))
          for target in lines.targets(scores)),
        ("words-predicted", "Words: probe estimate against reward", "token_sentiment", _words(words, points.ESTIMATE)),
        *((f"sign-accuracy-{target}", f"Probes of {lines.TARGETS.get(target, target)}", "sign_accuracy",
           _lines(lines.probes(signs, "accuracy", target), Legend("share of words"), zero=False))
          for target in lines.targets(signs)),
        ("preference-accuracy", "Chosen response picked", "preference_accuracy",
         _lines(lines.pairs(of_pairs), Legend("pair accuracy"), zero=False)),
        ("preference-difference", "Tuned minus base", "preference_accuracy",
         _lines(lines.pair_differences(of_pairs), Legend("difference of pair accuracy", is_signed=True))),
        ("forecast", "Features: in the preference data and learned", "forecast",
         points.forecast(material.forecast) if material.forecast else None),
        ("error-by-frequency", "Error by how often the model writes a word", "error_by_frequency",
         _lines(lines.errors(report.get("error_by_frequency", ())),
                Legend("mean error (lexicon value)", mark="shuffled estimates"))),
        ("divergence", "How far tuning moved each layer", "divergence_by_layer",
         bars.divergence(material.layers) if material.layers["layer"] else None),
        ("drift-status", "What became of features", "drift", bars.statuses(report.get("drift", ()))),
        ("drift-features", "Features that carry the change of the estimate", "drift", _drifted(material.drifted)),
        ("label-agreement", "Labels against weights", "label_agreement",
         _lines(lines.kappas(report.get("label_agreement", ())), Legend("Cohen’s κ"))),
        ("activation-frequency", "How often features fire", "activation_frequency",
         _lines(lines.frequency_lines(frequencies),
                Legend("share of (token, feature) pairs active", chance="as many random features (95 %)"))),
        ("ablation", "Reward without groups of features", "ablation",
         _lines(lines.effects(material.ablations),
                Legend("change of mean reward beyond controls’", "controls (95 %)", is_signed=True))),
        ("ablation-predicted", "Single features: predicted against measured effect", "ablation",
         points.effects(material.ablated) if material.ablated else None),
        ("texts", "Texts by their mean features", "pca_explained",
         points.texts(material.texts, "feedback") if set(material.texts["feedback"]) - {None} else None),
        ("autoencoders", "Dictionaries", "sae_quality", bars.autoencoders(report.get("sae_quality", ()))),
        ("tuning", lines.tuning_change(report.get("tuning", ())), "tuning",
         bars.tuning_curve(report.get("tuning", ()), material.tuning)),
        ("trajectory", "When modules learned", "trajectory", draw_trajectory(material.trajectory)),
        ("learning-curve", "How the base model learned", "base_model",
         bars.learning_curve(report.get("base_model", ()))),
    ]  # fmt: skip
    return [Drawn(name, title, section, chart) for name, title, section, chart in found if chart is not None]


def _lines(shown: Sequence[Line], legend: Legend, *, zero: bool = True) -> go.Figure | None:
    finite = [line for line in shown if abs(line.value) < float("inf")]
    return draw_lines(finite, legend, ink=None, zero=zero) if finite else None


def _words(words: Mapping[str, Sequence[Any]], up: points.Axis) -> go.Figure | None:
    is_known = any(value is not None for value in words[up[1]])
    return points.words(words, points.REWARD, up) if is_known else None


def _drifted(features: Sequence[DriftedFeature]) -> go.Figure | None:
    """The features that carry most of the change of the estimate, each with its label or the token it fires on most."""
    if not any(feature.drifted_contribution for feature in features):
        return None
    ids = [feature.feature_id for feature in features]
    names = [f"{feature.status}: {feature.description or token_text(feature.top_token or '')}" for feature in features]
    changes = [feature.drifted_contribution for feature in features]
    return frame.contributions(ids, names, changes, ink=None, title="change of mean contribution")


def write_figures(drawn: Sequence[Drawn], folder: Path) -> list[Path]:
    """Write each figure as NAME.svg, on white, with its title; make the folder where its parent exists.

    Raises ConfigError where that cannot be done, or no Chromium or Chrome is at hand to draw them.
    """
    import kaleido
    from kaleido.errors import ChromeNotFoundError, KaleidoError

    if not folder.parent.is_dir():
        raise ConfigError(f"--figures {folder}: there is no folder {folder.parent}; make it first or name another")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--figures {folder}: {error.strerror}; name a folder you may write to") from error
    jobs, files = [], [folder / f"{figure.name}.svg" for figure in drawn]
    for figure, file in zip(drawn, files, strict=True):
        chart = _on_paper(figure)
        size = {"width": _WIDTH, "height": chart.layout.height}
        jobs.append({"fig": chart, "path": str(file), "opts": {"format": "svg", **size}})
    options: dict[str, Any] = {"plotlyjs": str(_PLOTLY_JS), "mathjax": False}
    try:
        kaleido.write_fig_from_object_sync(jobs, kopts=options, cancel_on_error=True)
    except ChromeNotFoundError as error:
        raise ConfigError(
            f"--figures {folder}: SVG is drawn in Chromium or Chrome, and none was found; install one, or write --html"
        ) from error
    except (KaleidoError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(f"--figures {folder}: the browser did not draw them ({reason}); write --html") from error
    return files


def _on_paper(figure: Drawn) -> go.Figure:
    """The figure on white in dark ink, its title above it: a page's own style sheet is not there to set them."""
    chart = go.Figure(figure.chart)
    top = chart.layout.margin.t or 0
    return chart.update_layout(
        template="none",
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"color": _INK, "family": "sans-serif"},
        title={"text": figure.title, "x": 0, "xref": "paper", "y": 1, "yref": "container", "yanchor": "top",
               "pad": {"t": 14}, "font": {"size": 16}},
        height=int(chart.layout.height or _HEIGHT) + _TITLE,
        margin={"t": top + _TITLE},
    )  # fmt: skip
