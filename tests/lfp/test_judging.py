"""Words judged: which are scored, what is reported of them, and against which nulls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lfp.config import ProbesConfig
from lfp.errors import DataError
from lfp.judging import ScoredWords, difference_row, sign_rows, tau_rows
from lfp.metrics import sign_accuracy, sign_ceiling, tau, tau_within_sign

CONFIG = ProbesConfig(permutations=30, bootstraps=40, frequency_bins=2)
VALUES = np.random.default_rng(0).normal(size=40).round(1) * np.where(np.arange(40) % 4, 1.0, np.nan)


COUNTS = np.random.default_rng(1).permutation(40).astype(float)


def scored(values: np.ndarray = VALUES, config: ProbesConfig = CONFIG, seed: int = 0) -> ScoredWords:
    return ScoredWords.of(values, COUNTS[: len(values)], config, seed=seed)


def by_key(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["metric"], row["words"]): row for row in rows}


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


@pytest.mark.parametrize("values", [np.arange(9.0), np.full(20, 1.5), np.full(20, np.nan), np.zeros(0)])
def test_too_few_words_or_values_are_refused(values: np.ndarray) -> None:
    with pytest.raises(DataError, match="at least ten words and two values"):
        scored(values)


def test_tau_is_told_over_all_and_each_sign_with_its_ceiling() -> None:
    words = scored()
    predicted = words.true + np.random.default_rng(1).normal(size=30)
    rows = by_key(tau_rows(words, predicted, None, "kendall_tau", model="tuned", target="delta"))
    assert set(rows) == {
        ("tau", "all"), ("tau_within_sign", "all"), ("sign_ceiling", "all"), ("tau", "positive"), ("tau", "negative"),
    }  # fmt: skip
    positive = words.true > 0
    assert rows["tau", "all"]["value"] == tau(words.true, predicted)
    assert rows["tau_within_sign", "all"]["value"] == tau_within_sign(words.true, predicted)
    assert rows["sign_ceiling", "all"]["value"] == sign_ceiling(words.true, predicted)
    assert rows["tau", "positive"]["value"] == tau(words.true[positive], predicted[positive])
    assert rows["tau", "positive"]["n"] == positive.sum()
    assert rows["tau", "negative"]["n"] == (words.true < 0).sum()
    for row in rows.values():
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert (row["report_row"], row["model"], row["target"]) == ("kendall_tau", "tuned", "delta")


def test_without_refits_the_same_predictions_meet_the_shuffled_values() -> None:
    words = scored()
    predicted = np.random.default_rng(2).normal(size=30)
    rows = by_key(tau_rows(words, predicted, None, "kendall_tau"))
    assert rows["tau", "all"]["null_mean"] == np.mean([tau(values, predicted) for values in words.shuffled])
    positive = [tau(values[values > 0], predicted[values > 0]) for values in words.shuffled]
    assert rows["tau", "positive"]["null_mean"] == np.mean(positive)


def test_refitted_predictions_meet_the_values_they_were_fitted_on() -> None:
    words = scored()
    rows = by_key(tau_rows(words, words.true, words.shuffled, "kendall_tau"))
    assert rows["tau", "all"]["value"] == pytest.approx(1.0)
    assert rows["tau", "all"]["null_mean"] == pytest.approx(1.0)
    assert rows["tau", "all"]["null_p"] == 1.0
    signs = by_key(sign_rows(words, words.true, words.shuffled))
    assert signs["accuracy", "negative"]["null_mean"] == 1.0


def test_a_perfect_prediction_beats_every_shuffle() -> None:
    words = scored()
    rows = by_key(tau_rows(words, words.true, None, "kendall_tau"))
    assert rows["tau", "all"]["null_p"] == 1 / 31
    assert rows["tau", "all"]["null_high"] < 0.7


def test_sign_accuracy_is_told_by_the_words_sign() -> None:
    words = scored()
    rows = by_key(sign_rows(words, np.ones(30), None, model="base"))
    assert rows["accuracy", "positive"]["value"] == 1.0
    assert rows["accuracy", "negative"]["value"] == 0.0
    assert rows["accuracy", "all"]["value"] == sign_accuracy(words.true, np.ones(30))
    assert rows["accuracy", "positive"]["null_p"] == 1.0, "always saying positive is no evidence"


def test_a_side_of_one_word_has_no_interval() -> None:
    words = scored(np.concatenate([np.arange(1.0, 12.0), [-1.0]]))
    row = by_key(tau_rows(words, words.true, None, "kendall_tau"))["tau", "negative"]
    assert (row["n"], row["ci_low"], row["null_p"]) == (1, None, None)


def test_the_difference_is_tuned_minus_base_on_the_same_words() -> None:
    words = scored()
    noise = np.random.default_rng(3).normal(size=30)
    row = difference_row(words, words.true, noise, target="delta")
    assert row["value"] == pytest.approx(1.0 - tau(words.true, noise))
    assert row["ci_low"] < row["value"] < row["ci_high"]
    assert (row["report_row"], row["metric"], row["model"], row["n"]) == ("kendall_tau", "tau", "difference", 30)
    same = difference_row(words, noise, noise)
    assert (same["value"], same["ci_low"], same["ci_high"]) == (0.0, 0.0, 0.0)
