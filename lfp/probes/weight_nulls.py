"""Which weights of a probe lie further from those of shuffled targets than chance takes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lfp.evaluation.statistics.discoveries import RATE, adjusted_p
from lfp.util.types import Flags, Floats

_HIGH = 0.95


@dataclass(frozen=True)
class WeightNull:
    """Weights against those of shuffled targets, [features]; p and q are NaN for a feature without any weight.

    `mean` and `high` are the mean of the shuffled targets' weights and the 95th percentile of their sizes. `p` is
    two-sided, of the weight less that mean; `q` is the smallest false discovery rate among the probe's features at
    which the weight is a discovery.
    """

    mean: Floats
    high: Floats
    p: Floats
    q: Floats

    @property
    def beats(self) -> Flags:
        """Discoveries at a false discovery rate of 5 % within the probe."""
        return np.asarray(self.q <= RATE)

    @staticmethod
    def of_none(n_features: int) -> WeightNull:
        """Return the null of a probe whose weights are all 0, which tests nothing."""
        zeros, unknown = np.zeros(n_features), np.full(n_features, np.nan)
        return WeightNull(zeros, zeros, unknown, unknown)

    @staticmethod
    def from_weights(weights: Floats, nulls: Floats) -> WeightNull:
        """Compare weights [features] with those of shuffled targets, `nulls` [features, shuffles].

        A shuffled target may keep a part of the real one (what tokens have beyond their word), so that its weights are
        not 0 on average: their mean is subtracted. Each weight and each null weight is divided by the standard
        deviation of the feature's other draws, so that under the null all of them are exchangeable. The p-value of a
        feature is the share of the null weights of all features that lie as far out: it is exact on average over the
        features, whatever the distribution, and as fine as features times shuffles allow (Tusher, Tibshirani and Chu
        2001). Benjamini and Hochberg's q is over the features of the probe.
        """
        tested = np.flatnonzero(np.ptp(np.column_stack([weights, nulls]), axis=1) > 0)
        drawn = np.column_stack([weights, nulls])[tested]
        distances = np.abs(_studentise(drawn))
        pool = np.sort(distances[:, 1:].ravel())
        as_far = len(pool) - np.searchsorted(pool, distances[:, 0] * (1.0 - 1e-12), side="left")
        p = np.full(len(weights), np.nan)
        p[tested] = (as_far + 1.0) / (len(pool) + 1.0)
        return WeightNull(nulls.mean(axis=1), np.quantile(np.abs(nulls), _HIGH, axis=1), p, adjusted_p(p))


def _studentise(drawn: Floats) -> Floats:
    """Divide each draw's distance from the mean of the row's other draws by their standard deviation, [rows, draws]."""
    n = drawn.shape[1]
    centred = drawn - drawn.mean(axis=1, keepdims=True)
    squares = (centred**2).sum(axis=1, keepdims=True)
    left = np.maximum(squares - centred**2 * n / (n - 1), 1e-12 * squares)  # of the others, about their own mean
    return np.asarray(centred * n / (n - 1) / np.sqrt(left / (n - 2)))
