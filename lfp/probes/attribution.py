"""Contributions: the exact split of a prediction over features, tokens, words and the intercept, in two ledgers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lfp.probes.pooling import Pooling, token_shares
from lfp.texts.lexicon import Word, word_tokens, words_of
from lfp.util.types import Floats, Ints


@dataclass(frozen=True)
class ActiveText:
    """A text's active features: `positions` (tokens, ascending), `features` and `values` (above 0), [m] each.

    `response_start` is the first token of its response: 0 where there is no prompt, `n_tokens` where nothing of the
    response was read.
    """

    positions: Ints
    features: Ints
    values: Floats
    n_tokens: int
    response_start: int = 0

    def credited(self, pooling: Pooling | str) -> Floats:
        """Each activation's part in its feature's pooled value [m]: these sum, by feature, to what `pool` gives.

        Under max all of it is the first token's that has the largest activation, the others' part is 0.
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
        """What each token counts for [n_tokens]; not defined for max."""
        tokens = np.arange(self.n_tokens)
        return token_shares(np.zeros_like(tokens), pooling, tokens >= self.response_start)


@dataclass(frozen=True)
class LinearProbe:
    """A probe of pooled features: `weights` [features], dense, an intercept, and how tokens are pooled."""

    weights: Floats
    intercept: float
    pooling: Pooling | str = "mean"

    def contributions(self, text: ActiveText) -> Floats:
        """What each activation of a text adds to its prediction [m]."""
        return self.weights[text.features] * text.credited(self.pooling)


@dataclass(frozen=True)
class Ledger:
    """A prediction, split: `features` [m], ascending, whose `contributions` [m] sum with the intercept to it."""

    features: Ints
    contributions: Floats
    intercept: float

    @property
    def predicted(self) -> float:
        """The prediction the ledger adds up to."""
        return float(self.contributions.sum()) + self.intercept


@dataclass(frozen=True)
class RawLedger:
    """The estimate of a probe of raw MLP outputs, split by what the autoencoders keep and miss of them.

    `contributions` [m] of `features`, `bias` (v . b_dec), `intercept` and `miss` (v . (x - x_hat)) sum to it.
    """

    features: Ints
    contributions: Floats
    bias: float
    intercept: float
    miss: float

    @property
    def predicted(self) -> float:
        """The estimate the ledger adds up to."""
        return float(self.contributions.sum()) + self.bias + self.intercept + self.miss


@dataclass(frozen=True)
class WordContributions:
    """What words add to a prediction: `contributions` [n_words]; `rest` is that of tokens that are of no word."""

    words: tuple[Word, ...]
    contributions: Floats
    rest: float


def text_ledger(text: ActiveText, probe: LinearProbe) -> Ledger:
    """A text's prediction split over its active features (DESIGN.md, Exactness)."""
    features, at = np.unique(text.features, return_inverse=True)
    return Ledger(features, _summed(at, probe.contributions(text), len(features)), probe.intercept)


def raw_ledger(text: ActiveText, probe: LinearProbe, *, bias: float, miss: float) -> RawLedger:
    """The second ledger: `probe` has the weights v . d_i and the raw probe's intercept, `bias` is v . b_dec.

    Under sum pooling the bias counts once a token.
    """
    kept = text_ledger(text, probe)
    times = text.n_tokens if probe.pooling == "sum" else 1
    return RawLedger(kept.features, kept.contributions, bias * times, probe.intercept, miss)


def token_contributions(text: ActiveText, probe: LinearProbe) -> Floats:
    """What each token adds to the text's prediction [n_tokens]: with the intercept they sum to it."""
    return _summed(text.positions, probe.contributions(text), text.n_tokens)


def token_predictions(text: ActiveText, probe: LinearProbe) -> Floats:
    """The prediction for each token by itself [n_tokens], intercept included.

    Their mean is the text's prediction under mean pooling (over the response's tokens under response), the last one
    is it under last.
    """
    return _summed(text.positions, probe.weights[text.features] * text.values, text.n_tokens) + probe.intercept


def word_contributions(tokens: Floats, text: str, token_starts: Sequence[int]) -> WordContributions:
    """What each word of a text adds, from what its tokens add [n_tokens]; a token is of the first word it touches."""
    words = words_of(text)
    word_of = np.full(len(tokens), len(words))  # the last one stands for no word
    for row, spelled in reversed(list(enumerate(word_tokens(words, token_starts, len(text))))):
        word_of[list(spelled)] = row
    sums = _summed(word_of, tokens, len(words) + 1)
    return WordContributions(tuple(words), sums[:-1], float(sums[-1]))


def difference(one: Ledger, other: Ledger) -> Ledger:
    """What one prediction has over another, by feature: chosen minus rejected, or a text minus the average text.

    Contributions sum to the difference of the predictions; of one probe's ledgers the intercepts cancel.
    """
    features = np.union1d(one.features, other.features)
    contributions = np.zeros(len(features))
    contributions[np.searchsorted(features, one.features)] += one.contributions
    contributions[np.searchsorted(features, other.features)] -= other.contributions
    return Ledger(features, contributions, one.intercept - other.intercept)


def average(ledgers: Sequence[Ledger]) -> Ledger:
    """The mean of one or more ledgers of one probe: what the average text's features add, silent ones counted as 0."""
    features, at = np.unique(np.concatenate([one.features for one in ledgers]), return_inverse=True)
    total = _summed(at, np.concatenate([one.contributions for one in ledgers]), len(features))
    return Ledger(features, total / len(ledgers), ledgers[0].intercept)


def _summed(places: NDArray[np.integer], values: Floats, n: int) -> Floats:
    """Values summed by place [n]."""
    return np.asarray(np.bincount(places, values, n), np.float64)


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
