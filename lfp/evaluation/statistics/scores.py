"""Scores of predictions against the truth: functions of (true, predicted), one value per word, text or pair."""

from __future__ import annotations

import numpy as np
from scipy.stats import kendalltau, rankdata

from lfp.util.types import Floats

_TAU_B = kendalltau.__wrapped__
"""scipy's own function without its checks of axes and NaNs, which take two to four times as long as the score."""


def tau(true: Floats, predicted: Floats) -> float:
    """Kendall's tau-b of finite values, 0 where either side is constant (scipy.stats.kendalltau)."""
    value = float(_TAU_B(true, predicted).statistic) if len(true) > 1 else 0.0
    return 0.0 if np.isnan(value) else value


def tau_within_sign(true: Floats, predicted: Floats) -> float:
    """Kendall's tau over pairs of words of the same sign: both signs' taus, weighted by their numbers of pairs."""
    signs = [true > 0, true < 0]
    pairs = [float(side.sum() * (side.sum() - 1)) for side in signs]
    taus = [tau(true[side], predicted[side]) for side in signs]
    return float(np.dot(pairs, taus) / max(1.0, sum(pairs)))


def sign_ceiling(true: Floats, predicted: Floats) -> float:
    """The tau that these predictions' signs alone would have, with their sizes in random order.

    Pairs of words predicted with different signs count as in tau; pairs predicted with the same sign count 0. Ties
    remove pairs as in tau-b, so that this is the mean of `tau` over all shuffles of sizes within a sign.
    """
    negative, zero, positive = (np.sort(true[np.sign(predicted) == sign]) for sign in (-1, 0, 1))
    agreement = 0.0
    for high, low in ((positive, negative), (positive, zero), (zero, negative)):
        below, up_to = np.searchsorted(low, high, side="left"), np.searchsorted(low, high, side="right")
        agreement += float(below.sum() - (len(low) - up_to).sum())
    n_pairs, untied = len(true) * (len(true) - 1) / 2.0, 1.0
    for values in (true, predicted):
        counts = np.unique(values, return_counts=True)[1].astype(float)
        untied *= n_pairs - float((counts * (counts - 1.0)).sum() / 2.0)
    return float(agreement / np.sqrt(untied)) if untied else 0.0


def sign_accuracy(true: Floats, predicted: Floats) -> float:
    """Share of words whose prediction has the sign of their true value."""
    return float((np.sign(true) == np.sign(predicted)).mean()) if len(true) else 0.0


def spearman(true: Floats, predicted: Floats) -> float:
    """Spearman's correlation: Pearson's of the ranks, tied values sharing their mean rank; 0 where one is constant."""
    return _correlation(rankdata(true), rankdata(predicted)) if len(true) else 0.0


def r2(true: Floats, predicted: Floats) -> float:
    """1 - SSE / SST: the share of the truth's variance predicted, both in one unit; 0 where the truth is constant.

    Predicting the mean scores 0, and worse predictions score less, without a lower bound. Uninformative predictions
    score about minus their own variance over the truth's, so the null lies below 0 and a score of 0 may beat it.
    """
    total = float(((true - true.mean()) ** 2).sum()) if len(true) else 0.0
    return 1.0 - float(((true - predicted) ** 2).sum()) / total if total else 0.0


def r2_linear(true: Floats, predicted: Floats) -> float:
    """R2 of the best line through predictions of any unit: Pearson's correlation squared, so never below 0."""
    return _correlation(true, predicted) ** 2 if len(true) else 0.0


def slope(true: Floats, predicted: Floats) -> float:
    """Slope of the true values on predictions in the same unit: 1 if calibrated, less if predictions are too wide."""
    spread = predicted - predicted.mean() if len(predicted) else predicted
    squares = float(spread @ spread)
    return float(spread @ true) / squares if squares else 0.0


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip((a @ b) / size, -1.0, 1.0)) if size else 0.0


def accuracy(true: Floats, log_odds: Floats) -> float:
    """Share of outcomes (0 or 1) on the side of their log-odds; log-odds of 0 count half."""
    return float(np.where(log_odds == 0, 0.5, (log_odds > 0) == (true > 0)).mean()) if len(true) else 0.0


def auroc(true: Floats, predicted: Floats) -> float:
    """Share of pairs in which an outcome of 1 is predicted above an outcome of 0, ties counting half (Mann-Whitney).

    0.5 where all outcomes are the same.
    """
    ones = true > 0
    n_ones, n_zeros = int(ones.sum()), int((~ones).sum())
    if not n_ones or not n_zeros:
        return 0.5
    above = float(rankdata(predicted)[ones].sum()) - n_ones * (n_ones + 1) / 2.0
    return above / (n_ones * n_zeros)


def pair_accuracy(margins: Floats) -> float:
    """Share of pairs whose margin (chosen minus rejected) is positive; a margin of 0 counts half."""
    return float(((np.sign(margins) + 1.0) / 2.0).mean()) if len(margins) else 0.0


def length_controlled_accuracy(margins: Floats, length_differences: Floats) -> float:
    """Accuracy with length controlled: the mean of the accuracies where the longer and where the shorter was chosen.

    Pairs of equal length are a third stratum that counts by its share of pairs, so that a predictor of length alone
    scores 0.5 whatever people prefer. Where all unequal pairs are on one side, a predictor cannot be
    distinguished from length, and their mean is 0.5.
    """
    if not len(margins):
        return 0.0
    longer, shorter = margins[length_differences > 0], margins[length_differences < 0]
    equal = margins[length_differences == 0]
    mean = (pair_accuracy(longer) + pair_accuracy(shorter)) / 2.0 if len(longer) and len(shorter) else 0.5
    share = len(equal) / len(margins)
    return share * pair_accuracy(equal) + (1.0 - share) * mean


def mirrored(margins: Floats) -> tuple[Floats, Floats]:
    """Pairs as outcomes and log-odds, [2 pairs] each: every pair as it is and with its sides swapped.

    Scores must not depend on which side is named first; the area under the curve is then that of the chosen side's
    margins against the rejected side's.
    """
    return np.repeat([1.0, 0.0], len(margins)), np.concatenate([margins, -margins])


def folded(margins: Floats) -> tuple[Floats, Floats]:
    """Pairs as outcomes and log-odds [pairs] of the side predicted to win: whether it did (0.5: neither side is)."""
    return (np.sign(margins) + 1.0) / 2.0, np.abs(margins)
