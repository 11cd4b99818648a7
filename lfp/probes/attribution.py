"""Contributions: the exact split of a prediction over features and tokens, also of probes of raw activations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lfp.probes.pooling import Pooling, token_shares
from lfp.util.types import Flags, Floats, Ints


@dataclass(frozen=True)
class ActiveText:
    """A text's active features: `positions` (tokens, ascending), `features` and `values` (above 0), [m] each.

    `response_start` is the first token of its response: 0 where there is no prompt, `n_tokens` where nothing of the
    response was read. `in_response` [n_tokens] marks its tokens, where those of several turns are known.
    """

    positions: Ints
    features: Ints
    values: Floats
    n_tokens: int
    response_start: int = 0
    in_response: Flags | None = None

    def credits(self, pooling: Pooling | str) -> Floats:
        """Compute each activation's part in its feature's pooled value [m]: per feature they sum to what `pool` gives.

        Under max the first token with the largest activation has all of it, the others have 0.
        """
        if pooling == "max":
            order = np.lexsort((self.positions, -self.values, self.features))
            ranked = self.features[order]
            first = order[np.append(True, ranked[1:] != ranked[:-1])[: len(order)]]
            credits = np.zeros(len(self.values))
            credits[first] = self.values[first]
            return credits
        return self.shares(pooling)[self.positions] * self.values

    def shares(self, pooling: Pooling | str) -> Floats:
        """Compute the weight of each token in the pooled value [n_tokens]; not defined for max."""
        tokens = np.arange(self.n_tokens)
        response = tokens >= self.response_start if self.in_response is None else self.in_response
        return token_shares(np.zeros_like(tokens), pooling, response)


@dataclass(frozen=True)
class LinearProbe:
    """A probe of pooled features: `weights` [features], dense, an intercept, and how tokens are pooled."""

    weights: Floats
    intercept: float
    pooling: Pooling | str = "mean"


@dataclass(frozen=True)
class Ledger:
    """A prediction, split: `features` [m], ascending, whose `contributions` [m] sum with the intercept to it."""

    features: Ints
    contributions: Floats
    intercept: float

    @property
    def predicted(self) -> float:
        """The prediction that the ledger adds up to."""
        return float(self.contributions.sum()) + self.intercept


def text_ledger(text: ActiveText, probe: LinearProbe) -> Ledger:
    """Split a text's prediction over its active features (DESIGN.md, Exactness)."""
    features, place = np.unique(text.features, return_inverse=True)
    contributions = probe.weights[text.features] * text.credits(probe.pooling)
    return Ledger(features, np.bincount(place, contributions, len(features)).astype(np.float64), probe.intercept)


def raw_ledger(text: ActiveText, probe: LinearProbe, *, bias: float, miss: float) -> Ledger:
    """Split the estimate of a probe v of raw activations over the features that the autoencoders keep of them.

    `probe` has the weights v . d_i and the raw probe's intercept, `bias` is v . b_dec, once per token under sum
    pooling, and `miss` is v . (x - x_hat), what the autoencoders lose; both join the intercept.
    """
    kept = text_ledger(text, probe)
    times = text.n_tokens if probe.pooling == "sum" else 1
    return replace(kept, intercept=bias * times + probe.intercept + miss)


def token_predictions(text: ActiveText, probe: LinearProbe) -> Floats:
    """Predict each token by itself [n_tokens], intercept included.

    Their mean is the text's prediction under mean pooling (over the response's tokens under response); under last it is
    the last token's.
    """
    values = probe.weights[text.features] * text.values
    return np.bincount(text.positions, values, text.n_tokens).astype(np.float64) + probe.intercept


def display_scale(predicted: Floats, true: Floats) -> tuple[float, float]:
    """Find the slope and offset that map the 10th and 90th percentile of predictions to those of the true values.

    For display only: the paper rescales predictions to the lexicon's range between these percentiles.
    """
    low, high = np.quantile(predicted, [0.1, 0.9])
    true_low, true_high = np.quantile(true, [0.1, 0.9])
    if high == low:
        return 1.0, 0.0
    slope = (true_high - true_low) / (high - low)
    return float(slope), float(true_low - slope * low)
