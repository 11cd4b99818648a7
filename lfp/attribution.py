"""Contributions: the exact split of a prediction over features, tokens and the intercept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ledger:
    """A text's prediction, split: `features` [m], whose `contributions` [m] sum with the intercept to `predicted`."""

    features: Ints
    contributions: Floats
    intercept: float

    @property
    def predicted(self) -> float:
        """The prediction the ledger adds up to."""
        return float(self.contributions.sum()) + self.intercept


def text_ledger(feature_ids: Ints, values: Floats, weights: Floats, *, intercept: float, n_tokens: int) -> Ledger:
    """The ledger of a text under mean pooling: weight times activation, over its tokens (DESIGN.md, Exactness).

    `feature_ids` and `values` are the text's non-zero activations; `weights` is dense over features.
    """
    sums = np.bincount(feature_ids, weights[feature_ids] * values, minlength=0) / max(1, n_tokens)
    features = np.unique(feature_ids)
    return Ledger(features, sums[features], intercept)


def token_predictions(
    positions: Ints, feature_ids: Ints, values: Floats, weights: Floats, *, intercept: float, n_tokens: int
) -> Floats:
    """The prediction at each token [n_tokens], intercept included; their mean is the text's prediction."""
    sums = np.bincount(positions, weights[feature_ids] * values, minlength=n_tokens)
    return np.asarray(sums + intercept, np.float64)


def display_scale(predicted: Floats, true: Floats) -> tuple[float, float]:
    """Slope and offset that lay the 10th and 90th percentile of predictions on those of the true values.

    For display only: the paper rescales predictions to the lexicon's range between these percentiles.
    """
    low, high = np.quantile(predicted, [0.1, 0.9])
    true_low, true_high = np.quantile(true, [0.1, 0.9])
    if high == low:
        return 1.0, 0.0
    slope = (true_high - true_low) / (high - low)
    return float(slope), float(true_low - slope * low)
