"""Scores of many draws at once against the same scores of each draw alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.evaluation.statistics.resampling import MOST_WORDS, vectorised
from lfp.evaluation.statistics.scores import auroc, r2, sign_ceiling, spearman, tau, tau_within_sign

SCORES = [tau, tau_within_sign, sign_ceiling, spearman, auroc]
VALUES = st.integers(-3, 3).map(float)
"""Few distinct values, so that ties are common."""


def one_by_one(score: Callable[..., float], true: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> list[float]:
    rows = [np.repeat(np.arange(len(true)), count) for count in counts]
    return [score(true[drawn], predicted[drawn]) for drawn in rows]


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.__name__)
@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=14), st.integers(0, 99))
def test_draws_at_once_score_as_one_by_one(
    score: Callable[..., float], pairs: list[tuple[float, float]], seed: int
) -> None:
    true, predicted = np.array(pairs).T
    counts = np.random.default_rng(seed).multinomial(len(true), np.full(len(true), 1 / len(true)), size=5)
    at_once = vectorised(score, len(true))(true, predicted, counts)
    assert at_once == pytest.approx(one_by_one(score, true, predicted, counts), abs=1e-12)


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.__name__)
def test_more_words_than_a_block_are_scored_exactly(score: Callable[..., float]) -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(size=1100).round(1)
    predicted = true + rng.normal(size=1100)
    counts = rng.multinomial(1100, np.full(1100, 1 / 1100), size=4)
    expected = one_by_one(score, true, predicted, counts)
    assert vectorised(score, 1100)(true, predicted, counts) == pytest.approx(expected, abs=1e-12)
    assert min(expected) > 0.1


def test_scores_without_a_fast_way_and_too_many_words_are_left_to_the_loop() -> None:
    assert vectorised(r2, 10) is None
    assert vectorised(tau, MOST_WORDS) is not None
    assert vectorised(tau, MOST_WORDS + 1) is None
    assert vectorised(spearman, MOST_WORDS + 1) is not None
