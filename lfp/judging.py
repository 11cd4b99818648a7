"""Judge words: predictions against the lexicon, with intervals over words and nulls over shuffled lexicons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfp.config import ProbesConfig
from lfp.errors import DataError
from lfp.metrics import (
    Estimate,
    Statistic,
    bootstrap,
    bootstrap_difference,
    permutations_within_bins,
    sign_accuracy,
    sign_ceiling,
    tau,
    tau_within_sign,
    with_null,
)
from lfp.report import result

Floats = NDArray[np.float64]

_TAU: dict[str, Statistic] = {"tau": tau, "tau_within_sign": tau_within_sign, "sign_ceiling": sign_ceiling}
_SIDES = ("all", "positive", "negative")


@dataclass(frozen=True)
class ScoredWords:
    """Words with a true value: `rows` are their places in the vocabulary, `true` their values, all [words].

    `shuffled` [permutations, words] are the values rearranged among words of like frequency.
    """

    rows: NDArray[np.int64]
    true: Floats
    shuffled: Floats
    config: ProbesConfig
    seed: int

    @staticmethod
    def of(values: Floats, counts: Floats, config: ProbesConfig, *, seed: int) -> ScoredWords:
        """The scored words of a vocabulary whose `values` are NaN where the lexicon is silent.

        Raises DataError where fewer than ten words are scored, or all alike.
        """
        rows = np.flatnonzero(~np.isnan(values))
        true = values[rows]
        if len(rows) < 10 or np.ptp(true) == 0:
            raise DataError(
                f"{len(rows)} words of the corpus are in the lexicon, with {len(np.unique(true))} different values; "
                "at least ten words and two values are needed, so pass more texts or another lexicon"
            )
        rng = np.random.default_rng(seed)
        shuffled = permutations_within_bins(
            true, counts[rows], bins=config.frequency_bins, n=config.permutations, rng=rng
        )
        return ScoredWords(rows, true, shuffled, config, seed)


def tau_rows(
    words: ScoredWords, predicted: Floats, nulls: Floats | None, report_row: str, **keys: Any
) -> list[dict[str, Any]]:
    """Kendall's tau of predictions [words] over all, positive and negative words, with the sign-only ceiling.

    `nulls` [permutations, words] are the predictions refitted on each shuffled lexicon; without them (predictions that
    do not depend on the lexicon) the same predictions meet the shuffled values.
    """
    rows = []
    for side in _SIDES:
        statistics = _TAU if side == "all" else {"tau": tau}
        rows += [
            result(report_row, metric, _estimate(statistic, words, predicted, nulls, side), words=side, **keys)
            for metric, statistic in statistics.items()
        ]
    return rows


def sign_rows(words: ScoredWords, predicted: Floats, nulls: Floats | None, **keys: Any) -> list[dict[str, Any]]:
    """Sign accuracy of predictions over positive and over negative words."""
    return [
        result("sign_accuracy", "accuracy", _estimate(sign_accuracy, words, predicted, nulls, side), words=side, **keys)
        for side in _SIDES
    ]


def difference_row(words: ScoredWords, tuned: Floats, base: Floats, **keys: Any) -> dict[str, Any]:
    """Tau of the tuned model's predictions minus tau of the base model's, the same words drawn for both."""
    rng = np.random.default_rng(words.seed)
    low, high = bootstrap_difference(tau, words.true, tuned, base, n=words.config.bootstraps, rng=rng)
    value = tau(words.true, tuned) - tau(words.true, base)
    return result(
        "kendall_tau", "tau", Estimate(value, len(words.true), low, high), words="all", model="difference", **keys
    )


def _estimate(statistic: Statistic, words: ScoredWords, predicted: Floats, nulls: Floats | None, side: str) -> Estimate:
    kept = _side(words.true, side)
    true, ours = words.true[kept], predicted[kept]
    if len(true) < 2:
        return Estimate(statistic(true, ours), len(true))
    low, high = bootstrap(statistic, true, ours, n=words.config.bootstraps, rng=np.random.default_rng(words.seed))
    estimate = Estimate(statistic(true, ours), len(true), low, high)
    of_null = [
        statistic(shuffled[_side(shuffled, side)], (predicted if nulls is None else nulls[i])[_side(shuffled, side)])
        for i, shuffled in enumerate(words.shuffled)
    ]
    return with_null(estimate, np.array(of_null))


def _side(values: Floats, side: str) -> NDArray[np.bool_]:
    if side == "all":
        return np.ones(len(values), bool)
    return values > 0 if side == "positive" else values < 0
