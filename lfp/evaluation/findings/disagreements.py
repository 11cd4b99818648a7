"""Where two judges disagree most: gaps between percentile ranks, each queue beside what chance would show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from lfp.evaluation.results import ResultRow
from lfp.evaluation.statistics.resampling import Draws, beside_sizes
from lfp.util.types import Floats

_LENGTH = 10


def percentile_ranks(values: Floats) -> Floats:
    """Each value's place among all, from 0 to 1, equal values sharing the middle of their places."""
    return np.asarray((rankdata(values) - 0.5) / max(1, len(values)), np.float64)


def queues(
    names: Sequence[str], judges: Mapping[str, Floats], pairs: Mapping[str, tuple[str, str]], draws: Draws
) -> list[ResultRow]:
    """The largest gaps of every pair of judges: `pairs` gives a metric's name and the judges it ranks against.

    `names` are what the judges' values [things] are of, as `group` says it; a thing that one of the two is silent on
    (NaN) is left out. A gap is the first judge's percentile rank less the second's.
    """
    return [
        row
        for metric, (first, second) in pairs.items()
        for row in _queue(metric, names, judges[first], judges[second], draws)
    ]


def paid_otherwise(words: Sequence[str], gaps: Floats, draws: Draws) -> list[ResultRow]:
    """The words that tuning pays most above and most below what is stated (`word_gaps`), `_LENGTH` of each.

    The null of a list's k-th gap is the k-th largest when every gap changes its sign at random: were excesses noise,
    they would lie alike on both sides.
    """
    known = np.flatnonzero(~np.isnan(gaps))
    signs = draws.rng().choice((-1.0, 1.0), size=(draws.permutations, len(known)))
    nulls = -np.sort(-signs * np.abs(gaps[known]), axis=1)[:, :_LENGTH]
    rows = []
    for metric, sign in (("gap_over_paid", 1.0), ("gap_under_paid", -1.0)):
        order = known[np.argsort(-sign * gaps[known], kind="stable")][:_LENGTH]
        rows += [
            ResultRow.from_estimate(
                "disagreements",
                metric,
                beside_sizes(float(gaps[i]), len(known), nulls[:, k]),
                group=f"word:{words[i]}",
                model="difference",
                target="implicit_advantage",
            )
            for k, i in enumerate(order)
        ]
    return rows


def _queue(metric: str, names: Sequence[str], first: Floats, second: Floats, draws: Draws) -> list[ResultRow]:
    """One queue; the null of its k-th gap is the k-th largest when the second judge's ranks are dealt anew."""
    kept = np.flatnonzero(~np.isnan(first) & ~np.isnan(second))
    ranks = percentile_ranks(first[kept]), percentile_ranks(second[kept])
    gaps, rng = ranks[0] - ranks[1], draws.rng()
    top = np.argsort(-np.abs(gaps), kind="stable")[:_LENGTH]
    nulls = np.array([_largest(ranks[0] - rng.permutation(ranks[1])) for _ in range(draws.permutations)])
    return [
        ResultRow.from_estimate(
            "disagreements", metric, beside_sizes(float(gaps[i]), len(kept), nulls[:, k]), group=names[kept[i]]
        )
        for k, i in enumerate(top)
    ]


def _largest(gaps: Floats) -> Floats:
    return -np.sort(-np.abs(gaps))[:_LENGTH]
