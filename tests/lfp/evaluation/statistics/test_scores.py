"""Scores against scipy, scikit-learn and naive counts, ties and edges included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score

from lfp.evaluation.statistics.scores import (
    accuracy,
    auroc,
    folded,
    length_controlled_accuracy,
    mirrored,
    pair_accuracy,
    r2,
    r2_linear,
    sign_accuracy,
    sign_ceiling,
    slope,
    spearman,
    tau,
    tau_within_sign,
)

Floats = np.ndarray
VALUES = st.integers(-3, 3).map(float)
"""Few distinct values, so that ties are common."""


def naive_tau(true: Floats, predicted: Floats) -> float:
    """Tau-b by its definition: concordant minus discordant pairs over the geometric mean of untied ones."""
    score, untied_true, untied_predicted = 0.0, 0, 0
    for i in range(len(true)):
        for j in range(i):
            a, b = np.sign(true[i] - true[j]), np.sign(predicted[i] - predicted[j])
            score += a * b
            untied_true += a != 0
            untied_predicted += b != 0
    return score / np.sqrt(untied_true * untied_predicted) if untied_true and untied_predicted else 0.0


def shuffled_within_sign(predicted: Floats, rng: np.random.Generator) -> Floats:
    shuffled = predicted.copy()
    for sign in (-1, 0, 1):
        side = np.sign(predicted) == sign
        shuffled[side] = rng.permutation(predicted[side])
    return shuffled


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), max_size=15))
def test_tau_is_tau_b(pairs: list[tuple[float, float]]) -> None:
    true, predicted = np.array(pairs, float).reshape(-1, 2).T
    assert tau(true, predicted) == pytest.approx(naive_tau(true, predicted), abs=1e-12)


def test_tau_is_scipys() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=(2, 50)).round(1)
    assert tau(true, predicted) == kendalltau(true, predicted).statistic != 0


@pytest.mark.parametrize("true", [[], [1.0], [1.0, 1.0, 1.0]])
def test_tau_of_nothing_to_rank_is_zero(true: list[float]) -> None:
    assert tau(np.array(true), np.arange(float(len(true)))) == 0.0


def test_tau_within_sign_counts_pairs_of_one_sign_only() -> None:
    true = np.array([1.0, 2.0, 3.0, -1.0, -2.0])
    assert tau_within_sign(true, np.array([1.0, 2.0, 3.0, -1.0, -2.0])) == 1.0
    assert tau_within_sign(true, np.array([-11.0, -10.0, -9.0, 5.0, 4.0])) == 1.0
    assert tau_within_sign(true, np.array([1.0, 2.0, 3.0, -2.0, -1.0])) == pytest.approx((3 - 1) / 4)
    assert tau_within_sign(np.array([1.0, -1.0, 0.0]), np.arange(3.0)) == 0.0


@pytest.mark.parametrize("n", [10, 1000])
def test_perfect_signs_on_balanced_words_have_a_ceiling_of_a_half(n: int) -> None:
    """PAPER.md: a sign accuracy of 1.0 already gives tau 0.5."""
    true = np.concatenate([np.linspace(1, 4, n // 2), np.linspace(-4, -1, n // 2)])
    ceiling = sign_ceiling(true, np.sign(true) * np.random.default_rng(0).random(n))
    assert ceiling == pytest.approx(0.5 * n / (n - 1))


@pytest.mark.parametrize(("accuracy", "ceiling"), [(0.8, 0.30), (0.9, 0.40)])
def test_partly_right_signs_have_the_ceiling_the_paper_notes(accuracy: float, ceiling: float) -> None:
    """Both signs right minus both wrong, over the half of pairs that are predicted apart."""
    rng = np.random.default_rng(1)
    true = np.concatenate([rng.uniform(1, 4, 1000), rng.uniform(-4, -1, 1000)])
    right = np.where(np.arange(2000) % 10 < 10 * accuracy, 1.0, -1.0)
    assert sign_ceiling(true, np.sign(true) * right * rng.random(2000)) == pytest.approx(ceiling, abs=0.01)


@pytest.mark.parametrize("decimals", [0, 1, 8], ids=["many ties", "some ties", "no ties"])
def test_the_ceiling_is_the_mean_tau_of_sizes_shuffled_within_predicted_sign(decimals: int) -> None:
    """Lexicon values are tied often, so the ceiling must be tau-b's, the one it is compared with."""
    rng = np.random.default_rng(2)
    true = rng.normal(size=60).round(decimals)
    predicted = (true + rng.normal(size=60) * 1.5).round(decimals)
    taus = [tau(true, shuffled_within_sign(predicted, rng)) for _ in range(1500)]
    error = np.std(taus) / np.sqrt(len(taus))
    assert sign_ceiling(true, predicted) == pytest.approx(np.mean(taus), abs=3.5 * error)
    assert error < 0.005 < 0.1 < np.mean(taus)


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), max_size=12))
def test_the_ceiling_knows_signs_alone(pairs: list[tuple[float, float]]) -> None:
    true, predicted = np.array(pairs, float).reshape(-1, 2).T
    ceiling = sign_ceiling(true, predicted)
    assert -1.0 <= ceiling <= 1.0
    assert sign_ceiling(true, shuffled_within_sign(predicted, np.random.default_rng(0))) == ceiling
    assert sign_ceiling(true, -predicted) == pytest.approx(-ceiling)


def test_sign_accuracy_is_a_share() -> None:
    assert sign_accuracy(np.array([1.0, 2.0, -1.0, -3.0]), np.array([0.1, -2.0, -9.0, 0.0])) == 0.5
    assert sign_accuracy(np.zeros(0), np.zeros(0)) == 0.0


def noisy(n: int = 80, decimals: int = 1) -> tuple[Floats, Floats]:
    """True values and predictions with ties."""
    rng = np.random.default_rng(8)
    true, noise = rng.normal(size=(2, n))
    return true.round(decimals), (0.7 * true + noise + 0.3).round(decimals)


def test_spearman_is_scipys_with_ties() -> None:
    assert spearman(*noisy()) == pytest.approx(spearmanr(*noisy()).statistic, abs=1e-12)
    assert spearman(np.array([1.0, 1.0]), np.array([1.0, 2.0])) == 0.0
    assert spearman(np.zeros(0), np.zeros(0)) == 0.0


def test_r2_is_scikit_learns_and_may_be_negative() -> None:
    true, predicted = noisy()
    assert r2(true, predicted) == pytest.approx(r2_score(true, predicted))
    assert r2(true, -predicted) == pytest.approx(r2_score(true, -predicted))
    assert r2(true, -predicted) < 0
    assert r2(true, np.full(len(true), true.mean())) == pytest.approx(0.0)
    assert r2(np.ones(3), np.zeros(3)) == r2(np.zeros(0), np.zeros(0)) == 0.0


def test_linear_r2_and_slope_are_those_of_the_best_line() -> None:
    true, predicted = noisy()
    line = LinearRegression().fit(predicted[:, None], true)
    assert r2_linear(true, predicted) == pytest.approx(line.score(predicted[:, None], true))
    assert slope(true, predicted) == pytest.approx(line.coef_[0])
    assert r2_linear(true, -100.0 * predicted + 7.0) == pytest.approx(r2_linear(true, predicted))
    assert slope(true, np.ones(len(true))) == r2_linear(true, np.ones(len(true))) == 0.0


def test_accuracy_and_the_area_under_the_curve_are_scikit_learns() -> None:
    true, log_odds = noisy()
    true, log_odds = (true > 0.2).astype(float), log_odds + 0.05
    assert accuracy(true, log_odds) == pytest.approx(accuracy_score(true, log_odds > 0))
    assert auroc(true, log_odds) == pytest.approx(roc_auc_score(true, log_odds))


def test_no_evidence_is_half() -> None:
    assert accuracy(np.array([1.0, 0.0, 1.0]), np.zeros(3)) == 0.5
    assert auroc(np.ones(3), np.arange(3.0)) == auroc(np.array([0.0, 1.0]), np.ones(2)) == 0.5
    assert pair_accuracy(np.array([2.0, -1.0, 0.0, 0.0])) == 0.5


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20))
def test_a_predictor_of_length_alone_has_half_once_length_is_controlled(pairs: list[tuple[float, float]]) -> None:
    lengths = np.array(pairs)[:, 0]
    assert length_controlled_accuracy(lengths, lengths) == pytest.approx(0.5)
    assert length_controlled_accuracy(-2.0 * lengths, lengths) == pytest.approx(0.5)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20))
def test_length_control_does_not_care_for_the_share_of_longer_choices(pairs: list[tuple[float, float]]) -> None:
    margins, lengths = np.array([pair for pair in pairs if pair[1]]).reshape(-1, 2).T
    again = np.concatenate([np.arange(len(lengths)), *[np.flatnonzero(lengths > 0)] * 2])
    controlled = length_controlled_accuracy(margins, lengths)
    assert length_controlled_accuracy(margins[again], lengths[again]) == pytest.approx(controlled)
    assert 0.0 <= controlled <= 1.0


def test_pairs_of_equal_length_count_by_their_share() -> None:
    margins, lengths = np.array([1.0, 1.0, -1.0, 1.0]), np.array([2.0, 3.0, -1.0, 0.0])
    assert length_controlled_accuracy(margins, lengths) == pytest.approx(0.25 * 1.0 + 0.75 * (1.0 + 0.0) / 2)
    assert length_controlled_accuracy(margins[:2], lengths[:2]) == 0.5, "nothing tells it from length"
    assert length_controlled_accuracy(margins[3:], lengths[3:]) == 1.0


@given(st.lists(VALUES, min_size=1, max_size=20))
def test_pairs_seen_from_both_sides_have_the_same_accuracy(margins: list[float]) -> None:
    values = np.array(margins)
    assert accuracy(*mirrored(values)) == pytest.approx(pair_accuracy(values))
    assert auroc(*mirrored(values)) == pytest.approx(1.0 - auroc(*mirrored(-values)))
    won, confidence = folded(values)
    assert won.mean() == pytest.approx(pair_accuracy(values))
    assert (confidence >= 0).all()
