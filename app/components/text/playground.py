"""A text of one's own: its score sheet, its ledger, and completions side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.components.html import panels
from app.components.html.numbers import count, signed
from app.components.text.tokens import Row
from lfp.bundle.manifest import Manifest
from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.texts import ScoreLimits
from lfp.config import LEXICON, VADER
from lfp.probes.attribution import Ledger, LinearProbe, text_ledger, token_predictions
from lfp.texts.lexicon import token_feedback, vader_lexicon
from lfp.util.sanitize import escaped, shortened

if TYPE_CHECKING:
    from lfp.ml.interventions.bundle_models import Reading

LARGEST_PUBLIC = 20_000_000
"""Parameters of a model up to which strangers may run it."""
SHOWN = 8
"""Features of the ledger that are shown."""
LARGEST_SCALE, SCALE_STEP = 3.0, 0.25
"""How far a feature can be scaled, and in which steps; both are whole in binary."""
MOST_SCALES = 12
"""Scales that a link can hold."""


def too_large(manifest: Manifest) -> bool:
    """Whether the bundle's models are too large to be run by strangers."""
    return any(model.parameters > LARGEST_PUBLIC for model in manifest.models.values())


def has_lexicon(config: Mapping[str, Any]) -> bool:
    """Whether the run's true feedback of words is the built-in lexicon's, VADER's."""
    return config.get("feedback", {}).get("lexicon", VADER) == VADER


def has_reward(config: Mapping[str, Any]) -> bool:
    """Whether the run's reward is built in, and so can be had without its files."""
    reward = config.get("feedback", {}).get("reward", VADER)
    return reward == VADER or (reward == LEXICON and has_lexicon(config))


def feedback(reading: Reading, config: Mapping[str, Any]) -> list[float | None]:
    """True feedback a token, None where there is none or the lexicon is not to be had here."""
    n = len(reading.text.token_starts)
    try:
        lexicon = vader_lexicon() if has_lexicon(config) else {}
    except ImportError:
        lexicon = {}
    return token_feedback(reading.text.text, reading.text.token_starts, lexicon) if lexicon else [None] * n


def rows(
    reading: Reading, probe: LinearProbe | None, limits: ScoreLimits, config: Mapping[str, Any], *, target: str
) -> list[Row]:
    """True feedback, implicit reward and advantage, and the probe's estimate where there is one, a value a token."""
    made = [
        Row("true feedback", feedback(reading, config), limits.feedback, "lexicon value"),
        Row("implicit reward", reading.implicit_reward.tolist(), limits.implicit_reward, "nats"),
        Row("implicit advantage", reading.implicit_advantage.tolist(), limits.implicit_reward, "nats"),
    ]
    if probe is not None:
        made.append(Row("probe estimate", token_predictions(reading.active, probe).tolist(), limits.predicted, target))
    return made


def totals(reading: Reading, ledger: Ledger | None, config: Mapping[str, Any]) -> str:
    """The text's scores as a whole."""
    stated = [value for value in feedback(reading, config) if value is not None]
    pairs = {
        "tokens": count(len(reading.text.token_ids)),
        "true feedback of its words": signed(sum(stated)) if stated else "–",
        "implicit reward": f"{signed(float(np.nansum(reading.implicit_reward)))} nats",
    }
    if ledger is not None:
        pairs["probe estimate"] = signed(ledger.predicted, 4)
    return panels.facts(pairs)


def dense_probe(probe: Probe, feature_ids: Sequence[int], weights: Sequence[float], n_features: int) -> LinearProbe:
    """The headline probe over all features of a dictionary [n_features]; those that it does not weigh count nothing."""
    dense = np.zeros(n_features)
    dense[np.asarray(feature_ids, np.int64)] = weights
    return LinearProbe(dense, probe.intercept, probe.pooling)


def ledger_of(reading: Reading, probe: LinearProbe) -> Ledger:
    """The estimate of the text, split over its features, largest part first."""
    ledger = text_ledger(reading.active, probe)
    order = np.argsort(-np.abs(ledger.contributions), kind="stable")
    return Ledger(ledger.features[order], ledger.contributions[order], ledger.intercept)


def check(reading: Reading, probe: LinearProbe, ledger: Ledger) -> str:
    """The sum written out, beside the estimate had another way: all features pooled and weighed at once."""
    shown = ledger.contributions[:SHOWN]
    return panels.sum_check(
        shown=float(shown.sum()),
        n_shown=len(shown),
        rest=float(ledger.contributions[SHOWN:].sum()),
        n_rest=max(len(ledger.contributions) - SHOWN, 0),
        intercept=ledger.intercept,
        predicted=float(pooled(reading.dense, probe.pooling) @ probe.weights + probe.intercept),
        source="by the probe, from all features at once",
    )


def pooled(dense: NDArray[np.float32], pooling: str) -> NDArray[np.float64]:
    """A text's features [n, features] as a probe reads them [features]; all of the text is its response."""
    values = dense.astype(np.float64)
    if pooling == "last":
        return values[-1]
    ways = {"sum": values.sum, "max": values.max}
    return np.asarray(ways.get(pooling, values.mean)(axis=0))


def written_scales(scales: Mapping[int, float]) -> str:
    """Features' scales as a link holds them, as in 1253:0,7:2.5; a scale of 1 is none."""
    return ",".join(f"{id_}:{scale:g}" for id_, scale in scales.items() if scale != 1.0)


def read_scales(text: str, n_features: int) -> dict[int, float]:
    """The scales that a link holds, each as a slider can show it; what is none is passed over."""
    found = {}
    for id_, scale in re.findall(r"(?:^|,)(\d{1,9}):(\d{1,3}(?:\.\d{1,9})?)(?=,|$)", text, re.ASCII):
        if int(id_) < n_features:
            found[int(id_)] = min(round(float(scale) / SCALE_STEP) * SCALE_STEP, LARGEST_SCALE)
    return {id_: scale for id_, scale in list(found.items())[:MOST_SCALES] if scale != 1.0}


def slider_name(feature_id: int, description: str | None) -> str:
    """A slider's label, in which no character is markup: Streamlit reads labels as Markdown."""
    plain_text = shortened(description or "not described", 48)
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|$:~&@])", r"\\\1", f"#{feature_id} {plain_text}")


def completions(prompt: str, untouched: str, scaled: str, rewards: Sequence[float] | None) -> str:
    """What a model wrote untouched and with features scaled, from where they part marked, with rewards where known."""
    shared = _shared(untouched, scaled)
    parts = []
    for at, (title, text) in enumerate((("As it is", untouched), ("With features scaled", scaled))):
        reward = f"<span>reward {signed(rewards[at])}</span>" if rewards else ""
        body = f"{escaped(text[:shared])}<b>{escaped(text[shared:])}</b>" if text else "<i>nothing</i>"
        parts.append(
            f'<section class="lfp-card"><h4>{escaped(title)} {reward}</h4>'
            f'<p><span class="lfp-far">{escaped(prompt)}</span>{body}</p></section>'
        )
    return f'<div class="lfp-cards lfp-written">{"".join(parts)}</div>'


def _shared(one: str, other: str) -> int:
    """Characters that both begin with, back to the last space, so that words stay whole."""
    same = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        return min(len(one), len(other))
    return one.rfind(" ", 0, same) + 1 if " " in one[:same] else 0


def difference(rewards: Sequence[float] | None, is_scaled: bool) -> str:
    """What to make of the two completions."""
    if not is_scaled:
        return "No feature was scaled, so both are the same. Move a slider: 0 takes a feature out, 2 doubles it."
    drawn = "Both are drawn with the same random numbers, so what differs is the features’ doing. "
    if rewards is None:
        return drawn + "The run’s reward is not built in, so it cannot be told here."
    change = signed(rewards[1] - rewards[0])
    return (
        f"{drawn}The reward changed by {change}. One completion says little: a mean over many, with its interval and "
        "controls, is what an ablation measures."
    )
