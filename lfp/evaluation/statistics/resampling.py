"""Scores with their uncertainty: bootstrap intervals and permutation nulls, over words, texts, pairs or features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from lfp.evaluation.results import Estimate
from lfp.evaluation.statistics.scores import auroc, sign_ceiling, spearman, tau, tau_within_sign
from lfp.util.types import Floats, Ints

Statistic = Callable[[Floats, Floats], float]
"""A score of (true, predicted), one value per word."""

OfDraws = Callable[[Floats, Floats, Ints], Floats]
"""A score of (true [words], predicted [words]) for draws `counts` [draws, words]: [draws]."""

_BLOCK = 512
MOST_WORDS = 2500
"""Above this a score of pairs of words costs more by its matrix of pairs than by sorting each draw."""
_ROUNDING = 1e-12
"""Values closer than this are equal: differences of equal shares may differ in their last bits."""


@dataclass(frozen=True)
class Draws:
    """How many resamples an interval has, how many permutations a null, and the seed of both."""

    bootstraps: int
    permutations: int
    seed: int

    def rng(self) -> np.random.Generator:
        """Return a new generator for one figure, so that no figure depends on which others were made."""
        return np.random.default_rng(self.seed)


def bootstrap(
    statistic: Statistic,
    true: Floats,
    predicted: Floats,
    *,
    n: int,
    rng: np.random.Generator,
    groups: Ints | None = None,
) -> tuple[float, float]:
    """Compute the 95 % interval of a statistic over `n` draws of words with replacement; `groups` are drawn whole."""
    counts, n_units = _draw(len(true), groups, n=n, rng=rng)
    return _expanded_interval(_score_draws(statistic, true, predicted, counts), n_units)


def bootstrap_difference(
    statistic: Statistic,
    true: Floats,
    predicted: Floats,
    other: Floats,
    *,
    n: int,
    rng: np.random.Generator,
    groups: Ints | None = None,
) -> tuple[float, float]:
    """Compute the 95 % interval of statistic(predicted) - statistic(other), the same words drawn for both."""
    counts, n_units = _draw(len(true), groups, n=n, rng=rng)
    scores, others = (_score_draws(statistic, true, values, counts) for values in (predicted, other))
    return _expanded_interval(scores - others, n_units)


def bootstrap_r2(
    true: Floats, predicted: Floats, *, n: int, rng: np.random.Generator, groups: Ints
) -> tuple[float, float]:
    """Compute the 95 % interval of R2 over draws of whole groups, from sums by group: for many values of few groups."""
    place = np.unique(groups, return_inverse=True)[1]
    counts, n_units = _draw(int(place.max()) + 1, None, n=n, rng=rng)
    centred = true - true.mean()
    parts = (np.ones(len(true)), centred, centred**2, (true - predicted) ** 2)
    size, total, squares, errors = (counts @ np.bincount(place, part) for part in parts)
    spread = squares - total**2 / size
    shares = np.divide(errors, spread, out=np.ones(n), where=spread > 0)
    return _expanded_interval(1.0 - shares, n_units)


def mean_interval(
    values: Floats, *, n: int, rng: np.random.Generator, groups: Ints | None = None
) -> tuple[float, float]:
    """Compute the 95 % interval of a mean over values drawn with replacement; `groups` [values] are drawn whole."""
    counts, n_units = _draw(len(values), groups, n=n, rng=rng)
    return _expanded_interval(counts @ values / counts.sum(axis=1), n_units)


def interval_of_sums(
    figures: Callable[[Floats], Floats],
    columns: Floats,
    *,
    n: int,
    rng: np.random.Generator,
    groups: Ints | None = None,
) -> tuple[Floats, Floats]:
    """Compute 95 % intervals, lower and upper ends [figures], of figures made from sums of columns [units, columns].

    `figures` takes sums [draws, columns] and returns [draws, figures]; units are drawn with replacement, `groups`
    [units] of them whole.
    """
    counts, n_units = _draw(len(columns), groups, n=n, rng=rng)
    drawn = figures(counts @ columns)
    ends = np.array([_expanded_interval(values, n_units) for values in drawn.T])
    return ends[:, 0], ends[:, 1]


def _draw(n_words: int, groups: Ints | None, *, n: int, rng: np.random.Generator) -> tuple[Ints, int]:
    """Draw units (words, or groups of them): how often each word is in each draw [n, words], and how many units."""
    units, place = n_words, np.arange(n_words)
    if groups is not None:
        names, place = np.unique(groups, return_inverse=True)
        units = len(names)
    drawn = rng.integers(units, size=(n, units)) + units * np.arange(n)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * units).reshape(n, units)[:, place], units


def _score_draws(statistic: Statistic, true: Floats, predicted: Floats, counts: Ints) -> Floats:
    at_once = vectorised(statistic, len(true))
    if at_once is not None:
        return at_once(true, predicted, counts)
    rows = (np.repeat(np.arange(len(true)), count) for count in counts)
    return np.array([statistic(true[drawn], predicted[drawn]) for drawn in rows])


def _expanded_interval(values: Floats, n_units: int) -> tuple[float, float]:
    """Compute the expanded percentile interval: quantiles further out than 2.5 and 97.5 %.

    Percentile intervals are too narrow by sqrt((n - 1) / n) and use a normal instead of a t quantile; moving the levels
    corrects both (Hesterberg 2015, "What teachers should know about the bootstrap", section 5.2), but no bias.
    """
    out = float(stdtrit(n_units - 1, 0.975)) * np.sqrt(n_units / (n_units - 1)) if n_units > 1 else 0.0
    low, high = np.quantile(values, [ndtr(-out), ndtr(out)])
    return float(low), float(high)


def interval(values: Floats) -> tuple[float, float]:
    """Compute the 95 % percentile interval of resampled values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def number_pairs(pair_ids: Sequence[int | None]) -> Ints:
    """Number texts [texts] by their pair, whose sides depend on each other; a text of no pair is a group of its own."""
    return np.array([-1 - i if pair_id is None else pair_id for i, pair_id in enumerate(pair_ids)], np.int64)


def permutations_within_bins(values: Floats, counts: Floats, *, bins: int, n: int, rng: np.random.Generator) -> Floats:
    """Permute the words' values `n` times [n, words], among words of similar frequency only."""
    rank = np.argsort(np.argsort(counts, kind="stable"), kind="stable")
    bin_of = rank * bins // max(1, len(values))
    shuffled = np.tile(values, (n, 1))
    for b in range(bins):
        members = np.flatnonzero(bin_of == b)
        shuffled[:, members] = rng.permuted(shuffled[:, members], axis=1)
    return shuffled


def permutations_of_groups(values: Floats, groups: Ints, *, n: int, rng: np.random.Generator) -> Floats:
    """Permute values `n` times [n, texts]: a group's values go, in any order, to a group of the same size.

    Texts of one group (a pair, a prompt) depend on each other, and still do after this; a group of a size that no other
    has keeps its values, which makes the null harder to beat, never easier.
    """
    place, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    shuffled = np.tile(values, (n, 1))
    for size in np.unique(sizes):
        members = np.flatnonzero(sizes[place] == size)
        of_group = members[np.argsort(place[members], kind="stable")].reshape(-1, size)  # [groups of this size, size]
        order = rng.permuted(np.tile(np.arange(len(of_group)), (n, 1)), axis=1)
        moved = rng.permuted(values[of_group][order], axis=2)
        shuffled[:, of_group.ravel()] = moved.reshape(n, -1)
    return shuffled


def average_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """Average estimates from several seeds; the interval covers what the estimates' do and the spread over seeds.

    Half-widths of both are added as independent (root of the sum of squares): the mean of the estimates' own, and
    Student's t times the standard error of the mean over seeds. A single estimate stays as it is.
    """
    if len(estimates) == 1:
        return estimates[0]
    values = np.array([estimate.value for estimate in estimates])
    mean, n = float(values.mean()), len(values)
    between = float(stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / np.sqrt(n)
    known = [
        (e.value - e.ci_low, e.ci_high - e.value) for e in estimates if e.ci_low is not None and e.ci_high is not None
    ]
    below, above = np.mean(known, axis=0) if known else (0.0, 0.0)
    low, high = mean - float(np.hypot(below, between)), mean + float(np.hypot(above, between))
    return replace(estimates[0], value=mean, ci_low=low, ci_high=high)


def with_null(estimate: Estimate, nulls: Floats, *, two_sided: bool = False) -> Estimate:
    """Add a null to an estimate: mean, 95th percentile, and the share of permutations that reach the value.

    p is (r + 1) / (n + 1), so never 0 and never too small: r is how many of n are at least as large. Two-sided, sizes
    are compared whatever the sign, in p and in the 95th percentile; the mean stays signed.
    """
    sized, value = (np.abs(nulls), abs(estimate.value)) if two_sided else (nulls, estimate.value)
    return replace(
        estimate,
        null_mean=float(nulls.mean()),
        null_high=float(np.quantile(sized, 0.95)),
        null_p=(int((sized >= value - _ROUNDING).sum()) + 1) / (len(nulls) + 1),
    )


def with_null_of_sizes(value: float, n: int, nulls: Floats) -> Estimate:
    """Compare a signed value with a null of sizes: `null_p` is the share of them that reach its size."""
    return replace(with_null(Estimate(abs(value), n), nulls), value=value)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """Convert an estimate to another unit: value, interval and null times `factor`; p and n stay."""
    names = ("value", "ci_low", "ci_high", "null_mean", "null_high")
    known = {name: getattr(estimate, name) for name in names}
    return replace(estimate, **{name: value * factor for name, value in known.items() if value is not None})


def vectorised(statistic: Statistic, n_words: int) -> OfDraws | None:
    """Find the function that computes the same score, exact with ties, for many draws at once; None without one."""
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
