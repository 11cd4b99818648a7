"""Playground: the scores, the ledger and the completions of a typed text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.components.html import panels
from app.components.text.tokens import Row
from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.texts import ScoreLimits
from lfp.config import LEXICON, VADER
from lfp.probes.attribution import Ledger, LinearProbe, text_ledger, token_predictions
from lfp.report.formatting import count, signed
from lfp.texts.lexicon import token_feedback, vader_lexicon
from lfp.util.sanitize import escaped, shortened

if TYPE_CHECKING:
    from lfp.ml.interventions.bundle_models import Reading

LARGEST_PUBLIC = 20_000_000
"""Parameters of the largest model that runs in public mode."""
SHOWN = 8
"""Features of the ledger that are shown."""
LARGEST_SCALE, SCALE_STEP = 3.0, 0.25
"""The range and step of a slider; both are exact in binary."""
MOST_SCALES = 12
"""Scales that a link can hold."""


def has_lexicon(config: Mapping[str, Any]) -> bool:
    """Return whether the run's rewards of words are the built-in lexicon's, VADER's."""
    return config.get("feedback", {}).get("lexicon", VADER) == VADER


def has_reward(config: Mapping[str, Any]) -> bool:
    """Return whether the run's reward is built in, and so needs none of its files."""
    reward = config.get("feedback", {}).get("reward", VADER)
    return reward == VADER or (reward == LEXICON and has_lexicon(config))


def rewards(reading: Reading, config: Mapping[str, Any]) -> list[float | None]:
    """Return the reward per token; None where it has none, or the lexicon is not available here."""
    try:
        lexicon = vader_lexicon() if has_lexicon(config) else {}
    except ImportError:
        lexicon = {}
    text = reading.text
    return token_feedback(text.text, text.token_starts, lexicon) if lexicon else [None] * len(text.token_starts)


def score_rows(
    reading: Reading, probe: LinearProbe | None, limits: ScoreLimits, config: Mapping[str, Any], *, target: str
) -> list[Row]:
    """Return reward, implicit reward, implicit advantage and, with a probe, its estimate per token."""
    rows = [
        Row("reward", rewards(reading, config), limits.feedback, "lexicon value"),
        Row("implicit reward", reading.implicit_reward.tolist(), limits.implicit_reward, "nats"),
        Row("implicit advantage", reading.implicit_advantage.tolist(), limits.implicit_reward, "nats"),
    ]
    if probe is not None:
        rows.append(Row("probe estimate", token_predictions(reading.active, probe).tolist(), limits.predicted, target))
    return rows


def totals(reading: Reading, ledger: Ledger | None, config: Mapping[str, Any]) -> str:
    """Write the text's scores as a whole."""
    known = [value for value in rewards(reading, config) if value is not None]
    pairs = {
        "tokens": count(len(reading.text.token_ids)),
        "reward of its words": signed(sum(known)) if known else "–",
        "implicit reward": f"{signed(float(np.nansum(reading.implicit_reward)))} nats",
    }
    if ledger is not None:
        pairs["probe estimate"] = signed(ledger.predicted, 4)
    return panels.facts(pairs)


def split_estimate(
    reading: Reading, probe: Probe, feature_ids: Sequence[int], weights: Sequence[float], n_features: int
) -> tuple[LinearProbe, Ledger]:
    """Return the headline probe over all features of a dictionary, and what each adds, largest contribution first.

    Features without a weight get 0.
    """
    dense = np.zeros(n_features)
    dense[np.asarray(feature_ids, np.int64)] = weights
    linear = LinearProbe(dense, probe.intercept, probe.pooling)
    ledger = text_ledger(reading.active, linear)
    order = np.argsort(-np.abs(ledger.contributions), kind="stable")
    return linear, Ledger(ledger.features[order], ledger.contributions[order], ledger.intercept)


def check(reading: Reading, probe: LinearProbe, ledger: Ledger) -> str:
    """Write the sum, beside the estimate computed another way: all features pooled and weighted at once."""
    shown = ledger.contributions[:SHOWN]
    return panels.sum_check(
        shown=float(shown.sum()),
        n_shown=len(shown),
        rest=float(ledger.contributions[SHOWN:].sum()),
        n_rest=max(len(ledger.contributions) - SHOWN, 0),
        intercept=ledger.intercept,
        predicted=float(pooled(reading.dense, probe.pooling) @ probe.weights + probe.intercept),
        source="computed by the probe from all features at once",
    )


def pooled(dense: NDArray[np.float32], pooling: str) -> NDArray[np.float64]:
    """Pool a text's features [n_tokens, n_features] to [n_features] as a probe does; the whole text is the response."""
    values = dense.astype(np.float64)
    if pooling == "last":
        return np.asarray(values[-1])
    ways: dict[str, Callable[..., Any]] = {"sum": values.sum, "max": values.max}
    return np.asarray(ways.get(pooling, values.mean)(axis=0))


def written_scales(scales: Mapping[int, float]) -> str:
    """Write features' scales for a link, such as 1253:0,7:2.5, without those at 1."""
    return ",".join(f"{id_}:{scale:g}" for id_, scale in scales.items() if scale != 1.0)


def read_scales(text: str, n_features: int) -> dict[int, float]:
    """Read the scales in a link, each rounded to a slider's step; what is not a scale is ignored."""
    found = {}
    for id_, scale in re.findall(r"(?:^|,)(\d{1,9}):(\d{1,3}(?:\.\d{1,9})?)(?=,|$)", text, re.ASCII):
        if int(id_) < n_features:
            found[int(id_)] = min(round(float(scale) / SCALE_STEP) * SCALE_STEP, LARGEST_SCALE)
    return {id_: scale for id_, scale in list(found.items())[:MOST_SCALES] if scale != 1.0}


def slider_name(feature_id: int, label: str | None) -> str:
    """Return a slider's name, escaped as Streamlit reads names as Markdown."""
    plain_text = shortened(label or "no label", 48)
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|$:~&@])", r"\\\1", f"#{feature_id} {plain_text}")


def completions(prompt: str, unchanged: str, scaled: str, rewards: Sequence[float] | None) -> str:
    """Write both completions side by side, in bold from where they differ, with rewards where known."""
    shared = shared_length(unchanged, scaled)
    parts = []
    for at, (title, text) in enumerate((("Unchanged", unchanged), ("With features scaled", scaled))):
        reward = f"<span>reward {signed(rewards[at])}</span>" if rewards else ""
        body = f"{escaped(text[:shared])}<b>{escaped(text[shared:])}</b>" if text else "<i>nothing</i>"
        parts.append(
            f'<section class="lfp-card"><h4>{escaped(title)} {reward}</h4>'
            f'<p><span class="lfp-far">{escaped(prompt)}</span>{body}</p></section>'
        )
    return f'<div class="lfp-cards lfp-written">{"".join(parts)}</div>'


def shared_length(first: str, second: str) -> int:
    """Return how many characters both texts start with, up to the last space, so that words stay whole."""
    same = next((at for at, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        return min(len(first), len(second))
    return first.rfind(" ", 0, same) + 1 if " " in first[:same] else 0


def difference(rewards: Sequence[float] | None, is_scaled: bool) -> str:
    """Say what the two completions show, and what they do not."""
    if not is_scaled:
        return "No feature was scaled, so both are the same. Move a slider: 0 removes a feature, 2 doubles it."
    same = "Both use the same random numbers, so differences come from the scaled features. "
    if rewards is None:
        return same + "The run’s reward is not built in, so it is not known here."
    change = signed(rewards[1] - rewards[0])
    return (
        f"{same}The reward changed by {change}. One completion says little: an ablation measures the mean over many, "
        "with its interval and controls."
    )
