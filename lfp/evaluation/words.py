"""Score words and texts: predictions against the truth, with intervals over words and nulls of shuffled truths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import numpy as np

from lfp.config import ProbesConfig
from lfp.errors import DataError
from lfp.evaluation.results import Estimate, ResultRow, name_dictionaries
from lfp.evaluation.statistics.resampling import (
    Statistic,
    average_seeds,
    bootstrap,
    bootstrap_difference,
    bootstrap_r2,
    permutations_of_groups,
    permutations_within_bins,
    with_null,
)
from lfp.evaluation.statistics.scores import (
    r2,
    r2_linear,
    sign_accuracy,
    sign_ceiling,
    slope,
    spearman,
    tau,
    tau_within_sign,
)
from lfp.util.types import Flags, Floats, Ints

_TAU: dict[str, Statistic] = {"tau": tau, "tau_within_sign": tau_within_sign, "sign_ceiling": sign_ceiling}
_OF_SCALE: dict[str, Statistic] = {"r2": r2, "calibration_slope": slope}
_OF_TEXTS: dict[str, Statistic] = {"tau": tau, "spearman": spearman, "r2_linear": r2_linear}
_SIDES = ("all", "positive", "negative")
_FEWEST = 10


@dataclass(frozen=True)
class ScoredWords:
    """Words with a true value: `rows` are their places in the vocabulary, `true` their values, all [words].

    `shuffled` [permutations, words] are the values permuted among words of similar frequency.
    """

    rows: Ints
    true: Floats
    shuffled: Floats
    config: ProbesConfig
    seed: int

    @staticmethod
    def from_vocabulary(
        values: Floats, counts: Floats, config: ProbesConfig, *, seed: int, is_needed: bool = True
    ) -> ScoredWords:
        """Select the scored words of a vocabulary whose `values` are NaN where the lexicon has none.

        Where fewer than ten words are scored, or all have the same value, there is nothing to judge: raises DataError
        if that `is_needed`, else no word is selected.
        """
        rows = np.flatnonzero(~np.isnan(values))
        reason = _why_unusable(values, values[rows])
        if reason is not None and is_needed:
            raise DataError(reason)
        rows = rows if reason is None else rows[:0]
        true = values[rows]
        rng = np.random.default_rng(seed)
        shuffled = np.empty((config.permutations, 0))
        if len(rows):
            shuffled = permutations_within_bins(
                true, counts[rows], bins=config.frequency_bins, n=config.permutations, rng=rng
            )
        return ScoredWords(rows, true, shuffled, config, seed)


def _why_unusable(values: Floats, true: Floats) -> str | None:
    """Say why the scored words' values `true` of a vocabulary's `values` rank nothing; None where they do."""
    if not len(true):
        return (
            f"the lexicon has no word in the corpus (none of its {len(values)} words that are common enough), so "
            "no probe can be judged; pass a lexicon in the language of the texts, or other texts"
        )
    if len(true) < _FEWEST:
        return (
            f"the lexicon has {len(true)} of the corpus's {len(values)} words, and at least ten words are needed "
            "to judge a probe; pass more texts, a larger lexicon, or lower probes.min_word_count"
        )
    if np.ptp(true) == 0:
        return (
            f"the feedback is constant: the lexicon gives each of its {len(true)} words in the corpus the value "
            f"{true[0]:g}, so there is nothing to rank; give words at least two values"
        )
    return None


def word_rows(
    words: ScoredWords,
    predicted: Floats,
    nulls: Floats | None,
    report_row: str,
    *,
    same_unit: bool = False,
    **keys: Any,
) -> list[ResultRow]:
    """Compute all rows about predictions [words]: Kendall's tau over all, positive and negative words, with the
    sign-only ceiling, Spearman's correlation and sign accuracy.

    With `same_unit` (predictions are in the unit of the true values) also R2 and the slope of the true values on the
    predictions. `nulls` [permutations, words] are the predictions refitted on each shuffled lexicon; predictions that
    do not depend on the lexicon have none, and are compared with the shuffled values themselves. null_p is one-sided,
    the share of nulls at least as large. Raises DataError where a prediction is not finite.
    """
    of_all: dict[str, Statistic] = {"spearman": spearman} | (_OF_SCALE if same_unit else {})
    figures = [
        *((report_row, metric, statistic, "all") for metric, statistic in _TAU.items()),
        *((report_row, "tau", tau, side) for side in _SIDES[1:]),
        *((report_row, metric, statistic, "all") for metric, statistic in of_all.items()),
        *(("sign_accuracy", "accuracy", sign_accuracy, side) for side in _SIDES),
    ]
    rows = []
    for section, metric, statistic, side in figures:
        estimate = _estimate(statistic, words, predicted, nulls, side)
        rows.append(ResultRow.from_estimate(section, metric, estimate, words=side, **keys))
    return rows


@dataclass(frozen=True)
class HeldOutTokens:
    """A probe's own target on tokens of words that it never saw, and its predictions; `words` are the tokens'."""

    true: Floats
    predicted: Floats
    words: Ints


def variance_row(tokens: HeldOutTokens, config: ProbesConfig, *, seed: int, **keys: Any) -> ResultRow:
    """Compute R2 of a probe's own target over tokens of held-out words, with interval over words; 0 predicts the mean.

    A rank correlation over words can be high where this is near 0, and then hangs on the penalty.
    """
    require_finite(tokens.predicted)
    estimate = Estimate(r2(tokens.true, tokens.predicted), len(tokens.true))
    if len(np.unique(tokens.words)) > 1:
        rng = np.random.default_rng(seed)
        low, high = bootstrap_r2(tokens.true, tokens.predicted, n=config.bootstraps, rng=rng, groups=tokens.words)
        estimate = replace(estimate, ci_low=low, ci_high=high)
    return ResultRow.from_estimate("kendall_tau", "r2_of_target", estimate, **keys)


def difference_row(
    words: ScoredWords,
    tuned: Floats,
    base: Floats,
    *,
    nulls: tuple[Floats, Floats] | None = None,
    others: Sequence[tuple[Floats, Floats]] = (),
    **keys: Any,
) -> ResultRow:
    """Compute tau of the tuned model's predictions minus tau of the base model's, the same words drawn for both.

    With predictions of `others`, by dictionaries of both models from other seeds, it is the mean over the seeds, its
    interval covers words and dictionaries, and `group` says how many; otherwise it covers words only. Its null is the
    same difference under each shuffled lexicon, with both models' predictions refitted on it (`nulls`, [permutations,
    words] each) or, where they do not depend on the lexicon, as they are: the difference between two probes that know
    nothing. null_p is two-sided: the share of nulls at least as far from 0. Whether base and tuned model know equally
    much is what the interval answers.
    """
    estimates = []
    for side, other in ((tuned, base), *others):
        require_finite(side, other)
        rng = np.random.default_rng(words.seed)
        low, high = bootstrap_difference(tau, words.true, side, other, n=words.config.bootstraps, rng=rng)
        estimates.append(Estimate(tau(words.true, side) - tau(words.true, other), len(words.true), low, high))
    estimate = average_seeds(estimates)
    refitted = zip(*nulls, strict=True) if nulls is not None else repeat((tuned, base), len(words.shuffled))
    of_null = [tau(true, a) - tau(true, b) for true, (a, b) in zip(words.shuffled, refitted, strict=True)]
    figure = with_null(estimate, np.array(of_null), two_sided=True)
    group = name_dictionaries(len(estimates))
    return ResultRow.from_estimate("kendall_tau", "tau", figure, words="all", model="difference", group=group, **keys)


def seed_rows(words: ScoredWords, sides: Sequence[tuple[Floats, Floats]], **keys: Any) -> list[ResultRow]:
    """Report tau of the tuned and the base model by each dictionary, the run's own first, and the difference."""
    rows = []
    for number, predicted in enumerate(sides if len(sides) > 1 else ()):
        tuned, base = (tau(words.true, values) for values in predicted)
        for model, value in (("tuned", tuned), ("base", base), ("difference", tuned - base)):
            estimate = Estimate(value, len(words.true))
            group = f"dictionary={number}"
            rows.append(
                ResultRow.from_estimate("kendall_tau", "tau_by_dictionary", estimate, model=model, group=group, **keys)
            )
    return rows


def text_rows(
    true: Floats,
    predicted: Floats,
    config: ProbesConfig,
    *,
    seed: int,
    groups: Ints | None = None,
    report_row: str = "implicit_reward",
    **keys: Any,
) -> list[ResultRow]:
    """Compare a prediction per text [texts], such as its implicit reward, with its feedback: tau, Spearman, linear R2.

    Units need not agree. Texts of one of `groups` [texts] (the two sides of a pair, completions of one prompt) are
    drawn together, and permuted together for the null; null_p is one-sided. Raises DataError where feedback is
    constant, a prediction is not finite, or there are fewer than ten texts.
    """
    require_finite(true, predicted)
    if len(true) < _FEWEST or np.ptp(true) == 0:
        raise DataError(
            f"{len(true)} texts have {len(np.unique(true))} different values of feedback; at least ten texts and two "
            "values are needed, so pass more texts or check the reward"
        )
    of_group = np.arange(len(true)) if groups is None else groups
    shuffled = permutations_of_groups(true, of_group, n=config.permutations, rng=np.random.default_rng(seed))
    rows = []
    for metric, statistic in _OF_TEXTS.items():
        rng = np.random.default_rng(seed)
        low, high = bootstrap(statistic, true, predicted, n=config.bootstraps, rng=rng, groups=groups)
        estimate = Estimate(statistic(true, predicted), len(true), low, high)
        nulls = np.array([statistic(values, predicted) for values in shuffled])
        rows.append(ResultRow.from_estimate(report_row, metric, with_null(estimate, nulls), **keys))
    return rows


def require_finite(*predictions: Floats) -> None:
    """Raise DataError naming the first row of predictions that are not finite: their ranks mean nothing."""
    for values in predictions:
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            raise DataError(
                f"{len(wrong)} of {len(values)} predictions are not finite, the first at row {int(wrong[0])}; "
                "leave out what has no prediction, or check the model's activations"
            )


def _estimate(statistic: Statistic, words: ScoredWords, predicted: Floats, nulls: Floats | None, side: str) -> Estimate:
    def select(true: Floats) -> Flags:
        return {"all": np.ones(len(true), bool), "positive": true > 0, "negative": true < 0}[side]

    require_finite(predicted)
    kept = select(words.true)
    true, known = words.true[kept], predicted[kept]
    if len(true) < 2:
        return Estimate(statistic(true, known), len(true))
    low, high = bootstrap(statistic, true, known, n=words.config.bootstraps, rng=np.random.default_rng(words.seed))
    refitted = repeat(predicted, len(words.shuffled)) if nulls is None else nulls
    of_null = []
    for shuffled, values in zip(words.shuffled, refitted, strict=True):
        kept = select(shuffled)
        of_null.append(statistic(shuffled[kept], values[kept]))
    return with_null(Estimate(statistic(true, known), len(true), low, high), np.array(of_null))
