"""Rank scores of many bootstrap draws at once, exact with ties; a draw is how often it contains each word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lfp.evaluation.statistics.scores import auroc, sign_ceiling, spearman, tau, tau_within_sign
from lfp.util.types import Floats, Ints

OfDraws = Callable[[Floats, Floats, Ints], Floats]
"""A score of (true [words], predicted [words]) for draws `counts` [draws, words]: [draws]."""

_BLOCK = 512
MOST_WORDS = 2500
"""Above this a score of pairs of words costs more by its matrix of pairs than by sorting each draw."""


def fast(statistic: Callable[[Floats, Floats], float], n_words: int) -> OfDraws | None:
    """Find the function that computes the same score for many draws at once; None where there is none."""
    of_pairs: Mapping[object, OfDraws] = {
        tau: _tau_b,
        tau_within_sign: _tau_within_sign,
        sign_ceiling: partial(_tau_b, by_sign=True),
    }
    of_ranks: Mapping[object, OfDraws] = {spearman: _spearman, auroc: _auroc}
    return of_ranks.get(statistic) or (of_pairs.get(statistic) if n_words <= MOST_WORDS else None)


def _tau_within_sign(true: Floats, predicted: Floats, counts: Ints) -> Floats:
    total = weighted = np.zeros(len(counts))
    for side in (true > 0, true < 0):
        n = counts[:, side].sum(axis=1).astype(float)
        total = total + n * (n - 1.0)
        weighted = weighted + n * (n - 1.0) * _tau_b(true[side], predicted[side], counts[:, side])
    return weighted / np.maximum(total, 1.0)


def _tau_b(true: Floats, predicted: Floats, counts: Ints, *, by_sign: bool = False) -> Floats:
    """Compute Kendall's tau-b, w'Sw over the untied pairs; `by_sign`, predictions agree with their signs alone."""
    if not len(true):
        return np.zeros(len(counts))
    untied = np.ones(len(counts))  # ordered pairs of each draw with different values, of both sides
    for values in (true, predicted):
        tied = _tie_sizes(values, counts)[0].astype(float)
        untied = untied * (counts.sum(axis=1).astype(float) ** 2 - (tied**2).sum(axis=1))
    order = np.sign(predicted) if by_sign else predicted
    return _agreement(true, order, counts) / np.sqrt(np.maximum(untied, 1.0))  # no untied pair, no agreement


def _agreement(true: Floats, order: Floats, counts: Ints) -> Floats:
    """Count concordant minus discordant ordered pairs of each draw.

    In float32, which is exact here: sums of whole numbers no larger than the number of words stay below 2^24.
    """

    def above(some: Floats, values: Floats) -> NDArray[np.float32]:  # 1, or -1 for below, [some, values]
        return np.subtract(some[:, None] > values, some[:, None] < values, dtype=np.float32)

    weights = counts.astype(np.float32)
    total = np.zeros(len(counts))
    for start in range(0, len(true), _BLOCK):
        rows = slice(start, start + _BLOCK)
        signs = above(true[rows], true)
        signs *= above(order[rows], order)
        total += np.einsum("dw,dw->d", weights @ signs.T, weights[:, rows], dtype=np.float64)
    return total


def _tie_sizes(values: Floats, counts: Ints) -> tuple[Ints, Ints]:
    """Count how many words of a draw share each distinct value, smallest first [draws, values]; each word's [words]."""
    distinct, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(distinct)))
    return np.add.reduceat(counts[:, order], starts, axis=1), place


def _ranks(values: Floats, counts: Ints) -> Floats:
    """Compute each word's mean rank in each draw [draws, words], also of words that are not in it."""
    sizes, place = _tie_sizes(values, counts)
    middle = np.cumsum(sizes, axis=1) - (sizes - 1) / 2.0
    return np.asarray(middle[:, place])


def _spearman(true: Floats, predicted: Floats, counts: Ints) -> Floats:
    n = counts.sum(axis=1, keepdims=True)
    a, b = (_ranks(values, counts) - (n + 1) / 2.0 for values in (true, predicted))
    product, a_squares, b_squares = (np.einsum("dw,dw,dw->d", counts, x, y) for x, y in ((a, b), (a, a), (b, b)))
    size = np.sqrt(a_squares * b_squares)
    return np.divide(product, size, out=np.zeros(len(counts)), where=size > 0)


def _auroc(true: Floats, predicted: Floats, counts: Ints) -> Floats:
    ones = true > 0
    n_ones, n_zeros = (counts[:, side].sum(axis=1).astype(float) for side in (ones, ~ones))
    rank_sum = np.einsum("dw,dw->d", counts[:, ones], _ranks(predicted, counts)[:, ones])
    above, pairs = rank_sum - n_ones * (n_ones + 1.0) / 2.0, n_ones * n_zeros
    return np.divide(above, pairs, out=np.full(len(counts), 0.5), where=pairs > 0)
