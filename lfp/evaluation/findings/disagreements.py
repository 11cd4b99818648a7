"""Where two judges disagree most: gaps between percentile ranks, each list compared with what chance would show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from lfp.evaluation.results import ResultRow
from lfp.evaluation.statistics.resampling import Draws, with_null_of_sizes
from lfp.util.types import Floats

_LENGTH = 10


def percentile_ranks(values: Floats) -> Floats:
    """Rank each value among all, from 0 to 1; equal values share their mean rank."""
    return np.asarray((rankdata(values) - 0.5) / max(1, len(values)), np.float64)


def queues(
    names: Sequence[str], judges: Mapping[str, Floats], pairs: Mapping[str, tuple[str, str]], draws: Draws
) -> list[ResultRow]:
    """List the largest gaps of every pair of judges: `pairs` maps a metric to the judges it compares.

    `names` are those of the things judged, as the column `group` gives them, and each judge has a value of each, NaN
    where it has none; such things are left out. A gap is the first judge's percentile rank less the second's. The null
    of a list's k-th gap is the k-th largest when the second judge's ranks are permuted.
    """
    rows = []
    for metric, (first, second) in pairs.items():
        kept = np.flatnonzero(~np.isnan(judges[first]) & ~np.isnan(judges[second]))
        ranks, others = percentile_ranks(judges[first][kept]), percentile_ranks(judges[second][kept])
        gaps, rng = ranks - others, draws.rng()
        nulls = np.array([
            -np.sort(-np.abs(ranks - rng.permutation(others)))[:_LENGTH] for _ in range(draws.permutations)
        ])  # fmt: skip
        for k, i in enumerate(np.argsort(-np.abs(gaps), kind="stable")[:_LENGTH]):
            estimate = with_null_of_sizes(float(gaps[i]), len(kept), nulls[:, k])
            rows.append(ResultRow.from_estimate("disagreements", metric, estimate, group=names[kept[i]]))
    return rows


def word_gap_rows(words: Sequence[str], gaps: Floats, draws: Draws) -> list[ResultRow]:
    """List the words that tuning rewards most above and most below what is stated (`word_gaps`), ten of each.

    The null of a list's k-th gap is the k-th largest when every gap changes its sign at random: were excesses noise,
    both lists would look alike.
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
                with_null_of_sizes(float(gaps[i]), len(known), nulls[:, k]),
                group=f"word:{words[i]}",
                model="difference",
                target="implicit_advantage",
            )
            for k, i in enumerate(order)
        ]
    return rows
