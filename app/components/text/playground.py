"""Playground: the scores and the ledger of a typed text."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from lfp.ml.interventions.bundle_models import Reading

SHOWN = 8
"""Features of the ledger that are shown."""


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
