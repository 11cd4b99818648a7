"""Words judged: which are scored, what is reported of them, and against which nulls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lfp.config import ProbesConfig
from lfp.errors import DataError
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
from lfp.evaluation.words import ScoredWords, difference_row, text_rows, word_rows

CONFIG = ProbesConfig(permutations=30, bootstraps=40, frequency_bins=2)
VALUES = np.random.default_rng(0).normal(size=40).round(1) * np.where(np.arange(40) % 4, 1.0, np.nan)


COUNTS = np.random.default_rng(1).permutation(40).astype(float)


def scored(values: np.ndarray = VALUES, config: ProbesConfig = CONFIG, seed: int = 0) -> ScoredWords:
    return ScoredWords.from_vocabulary(values, COUNTS[: len(values)], config, seed=seed)


def by_key(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row.metric, row.words): row for row in rows}


def test_words_the_lexicon_is_silent_on_are_left_out() -> None:
    words = scored()
    assert words.rows.tolist() == [i for i in range(40) if i % 4]
    assert np.array_equal(words.true, VALUES[words.rows])
    assert words.shuffled.shape == (30, 30)
    rare = COUNTS[words.rows].argsort()[:15]
    assert all(np.array_equal(np.sort(row[rare]), np.sort(words.true[rare])) for row in words.shuffled)


def test_the_seed_decides_the_shuffles() -> None:
    assert np.array_equal(scored().shuffled, scored().shuffled)
    assert not np.array_equal(scored().shuffled, scored(seed=1).shuffled)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.full(20, np.nan), "the lexicon has no word in the corpus .none of its 20 words"),
        (np.zeros(0), "the lexicon has no word in the corpus"),
        (np.arange(9.0), "the lexicon has 9 of the corpus's 9 words, and at least ten words are needed"),
        (
            np.full(20, 1.5),
            "the feedback is constant: the lexicon gives each of its 20 words in the corpus the value",
        ),
    ],
)
def test_too_few_words_or_values_are_refused(values: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        scored(values)


def test_tau_is_told_over_all_and_each_sign_with_its_ceiling() -> None:
    words = scored()
    predicted = words.true + np.random.default_rng(1).normal(size=30)
    rows = by_key(word_rows(words, predicted, None, "kendall_tau", model="tuned", target="delta"))
    assert set(rows) == {
        ("tau", "all"), ("tau_within_sign", "all"), ("sign_ceiling", "all"), ("tau", "positive"), ("tau", "negative"),
        ("spearman", "all"), ("accuracy", "all"), ("accuracy", "positive"), ("accuracy", "negative"),
    }  # fmt: skip
    positive = words.true > 0
    assert rows["tau", "all"].value == tau(words.true, predicted)
    assert rows["tau_within_sign", "all"].value == tau_within_sign(words.true, predicted)
    assert rows["sign_ceiling", "all"].value == sign_ceiling(words.true, predicted)
    assert rows["tau", "positive"].value == tau(words.true[positive], predicted[positive])
    assert rows["tau", "positive"].n == positive.sum()
    assert rows["tau", "negative"].n == (words.true < 0).sum()
    for row in rows.values():
        assert row.ci_low <= row.value <= row.ci_high
        section = "sign_accuracy" if row.metric == "accuracy" else "kendall_tau"
        assert (row.report_row, row.model, row.target) == (section, "tuned", "delta")


def test_without_refits_the_same_predictions_meet_the_shuffled_values() -> None:
    words = scored()
    predicted = np.random.default_rng(2).normal(size=30)
    rows = by_key(word_rows(words, predicted, None, "kendall_tau"))
    assert rows["tau", "all"].null_mean == np.mean([tau(values, predicted) for values in words.shuffled])
    positive = [tau(values[values > 0], predicted[values > 0]) for values in words.shuffled]
    assert rows["tau", "positive"].null_mean == np.mean(positive)


def test_refitted_predictions_meet_the_values_they_were_fitted_on() -> None:
    words = scored()
    rows = by_key(word_rows(words, words.true, words.shuffled, "kendall_tau"))
    assert rows["tau", "all"].value == pytest.approx(1.0)
    assert rows["tau", "all"].null_mean == pytest.approx(1.0)
    assert rows["tau", "all"].null_p == 1.0
    signs = by_key(word_rows(words, words.true, words.shuffled, "kendall_tau"))
    assert signs["accuracy", "negative"].null_mean == 1.0


def test_a_perfect_prediction_beats_every_shuffle() -> None:
    words = scored()
    rows = by_key(word_rows(words, words.true, None, "kendall_tau"))
    assert rows["tau", "all"].null_p == 1 / 31
    assert rows["tau", "all"].null_high < 0.7


def test_sign_accuracy_is_reported_for_each_sign() -> None:
    words = scored()
    rows = by_key(word_rows(words, np.ones(30), None, "kendall_tau", model="base"))
    assert rows["accuracy", "positive"].value == 1.0
    assert rows["accuracy", "negative"].value == 0.0
    assert rows["accuracy", "all"].value == sign_accuracy(words.true, np.ones(30))
    assert rows["accuracy", "positive"].null_p == 1.0, "always saying positive is no evidence"


def test_a_side_of_one_word_has_no_interval() -> None:
    words = scored(np.concatenate([np.arange(1.0, 12.0), [-1.0]]))
    row = by_key(word_rows(words, words.true, None, "kendall_tau"))["tau", "negative"]
    assert (row.n, row.ci_low, row.null_p) == (1, None, None)


def test_the_difference_is_tuned_minus_base_on_the_same_words() -> None:
    words = scored()
    noise = np.random.default_rng(3).normal(size=30)
    row = difference_row(words, words.true, noise, target="delta")
    assert row.value == pytest.approx(1.0 - tau(words.true, noise))
    assert row.ci_low < row.value < row.ci_high
    assert (row.report_row, row.metric, row.model, row.n) == ("kendall_tau", "tau", "difference", 30)
    same = difference_row(words, noise, noise)
    assert (same.value, same.ci_low, same.ci_high) == (0.0, 0.0, 0.0)


def test_the_differences_null_is_of_probes_refitted_on_shuffled_lexicons() -> None:
    words = scored()
    rng = np.random.default_rng(4)
    tuned, base = words.true + rng.normal(size=30), rng.normal(size=30)
    nulls = words.shuffled + rng.normal(size=(30, 30)), rng.normal(size=(30, 30))
    row = difference_row(words, tuned, base, nulls=nulls)
    expected = [tau(t, a) - tau(t, b) for t, a, b in zip(words.shuffled, *nulls, strict=True)]
    assert row.null_mean == pytest.approx(np.mean(expected))
    assert row.null_high == pytest.approx(np.quantile(np.abs(expected), 0.95))
    assert row.null_p == pytest.approx((np.sum(np.abs(expected) >= abs(row.value)) + 1) / 31)
    swapped = difference_row(words, base, tuned, nulls=nulls[::-1])
    assert (swapped.value, swapped.null_p) == (-row.value, row.null_p), "two-sided"


def test_without_refits_the_difference_meets_the_shuffled_values() -> None:
    words = scored()
    tuned, base = words.true, np.random.default_rng(5).normal(size=30)
    row = difference_row(words, tuned, base)
    assert row.null_mean == pytest.approx(np.mean([tau(t, tuned) - tau(t, base) for t in words.shuffled]))
    assert row.null_p == 1 / 31


def test_every_figure_of_words_has_an_interval_and_a_null() -> None:
    words = scored()
    predicted = words.true + np.random.default_rng(6).normal(size=30)
    rows = word_rows(words, predicted, None, "kendall_tau", target="delta")
    assert {row.metric for row in rows} == {"tau", "tau_within_sign", "sign_ceiling", "spearman", "accuracy"}
    of_scale = word_rows(words, predicted, None, "kendall_tau", same_unit=True, target="feedback")
    found = by_key(of_scale)
    assert found["spearman", "all"].value == spearman(words.true, predicted)
    assert found["r2", "all"].value == r2(words.true, predicted)
    assert found["r2", "all"].null_mean == pytest.approx(np.mean([r2(t, predicted) for t in words.shuffled]))
    assert found["calibration_slope", "all"].value == slope(words.true, predicted)
    assert len(of_scale) == len(rows) + 2
    for row in of_scale:
        assert row.ci_low <= row.value <= row.ci_high
        assert 1 / 31 <= row.null_p <= 1.0
        assert row.target == "feedback"


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_predictions_that_are_not_finite_are_refused(wrong: float) -> None:
    words = scored()
    predicted = words.true.copy()
    predicted[7] = wrong
    for judge in (lambda: word_rows(words, predicted, None, "x"), lambda: difference_row(words, words.true, predicted)):
        with pytest.raises(DataError, match="1 of 30 predictions are not finite, the first at row 7"):
            judge()


def test_texts_are_judged_whatever_the_unit() -> None:
    rng = np.random.default_rng(7)
    true, noise = rng.normal(size=(2, 60))
    predicted = 1000.0 * (true + noise)
    rows = {row.metric: row for row in text_rows(true, predicted, CONFIG, seed=0, target="implicit_reward")}
    assert rows["tau"].value == tau(true, predicted)
    assert rows["spearman"].value == spearman(true, predicted)
    assert rows["r2_linear"].value == r2_linear(true, predicted)
    for row in rows.values():
        assert row.ci_low <= row.value <= row.ci_high
        assert (row.null_p, row.n, row.report_row) == (1 / 31, 60, "implicit_reward")


def test_texts_of_one_group_are_less_evidence() -> None:
    """Thirty copies of two dozen texts: alone they pass for far more evidence than in groups."""
    rng = np.random.default_rng(8)
    true, predicted = np.repeat(rng.normal(size=(2, 24)), 30, axis=1)
    groups = np.repeat(np.arange(24), 30)
    alone, grouped = (
        next(row for row in text_rows(true, predicted, CONFIG, seed=0, groups=of) if row.metric == "spearman")
        for of in (None, groups)
    )
    assert alone.null_high < 0.5 * grouped.null_high
    assert alone.ci_high - alone.ci_low < 0.5 * (grouped.ci_high - grouped.ci_low)


@pytest.mark.parametrize("true", [np.ones(20), np.arange(9.0)])
def test_too_few_texts_or_constant_feedback_are_refused(true: np.ndarray) -> None:
    with pytest.raises(DataError, match="at least ten texts and two values are needed"):
        text_rows(true, np.arange(float(len(true))), CONFIG, seed=0)
