"""The regression of the implicit reward on word and context: against dummies, a planted truth, and its own parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.implicit_reward.matched_contexts import MatchedContexts, draw_contexts


def contexts(n: int, d_vocab: int, *, seed: int, spread: float = 1.5) -> tuple[Tensor, Tensor]:
    """Base log-probabilities and log-ratios to a tuned model, both [n, d_vocab]."""
    generator = torch.Generator().manual_seed(seed)
    base = (torch.randn(n, d_vocab, generator=generator) * spread).log_softmax(1)
    tuned = (base + torch.randn(n, d_vocab, generator=generator) * 0.4).log_softmax(1)
    return base, tuned - base


def by_dummies(base: Tensor, difference: Tensor, columns: np.ndarray, n_columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Plain weighted least squares with a dummy a column and a dummy a context: effects of weighted mean 0, weights."""
    n, d_vocab = base.shape
    p = base.double().exp().numpy()
    p /= p.sum(1, keepdims=True)
    design = np.zeros((n * d_vocab, n_columns + n))
    design[np.arange(n * d_vocab), np.tile(columns, n)] = 1
    design[np.arange(n * d_vocab), n_columns + np.repeat(np.arange(n), d_vocab)] = 1
    root = np.sqrt(p.ravel())
    solved = np.linalg.lstsq(design * root[:, None], difference.double().numpy().ravel() * root, rcond=None)[0]
    weight = np.bincount(np.tile(columns, n), p.ravel(), n_columns)
    effect = solved[:n_columns]
    return effect - effect @ weight / weight.sum(), weight


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 30), st.integers(3, 9), st.integers(2, 9), st.integers(0, 10_000))
def test_effects_are_those_of_least_squares_with_dummies(n: int, d_vocab: int, n_columns: int, seed: int) -> None:
    columns = np.random.default_rng(seed).integers(min(n_columns, d_vocab), size=d_vocab)
    columns = np.unique(columns, return_inverse=True)[1]
    n_columns = int(columns.max()) + 1
    base, difference = contexts(n, d_vocab, seed=seed)
    matched = MatchedContexts(columns, n_columns)
    for part in torch.arange(n).split(7):
        matched.update(base[part], difference[part])
    found = matched.effects()
    effect, weight = by_dummies(base, difference, columns, n_columns)
    np.testing.assert_allclose(found.effect, effect, atol=2e-5)
    np.testing.assert_allclose(found.weight, weight, rtol=1e-5)
    assert found.effect @ found.weight == pytest.approx(0.0, abs=1e-9 * n)


def test_a_planted_effect_is_recovered_whatever_the_contexts_add() -> None:
    """r = a_v + b_c with b large, and words whose probability differs by many powers of ten."""
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(50, generator=generator), 20 * torch.randn(400, generator=generator)
    base = (torch.randn(400, 50, generator=generator) * 6).log_softmax(1)
    columns = np.arange(50)
    matched = MatchedContexts(columns, 50)
    matched.update(base, a + b[:, None])
    found = matched.effects()
    truth = a.double().numpy()
    np.testing.assert_allclose(found.effect, truth - truth @ found.weight / found.weight.sum(), atol=2e-3)
    assert found.se.max() < 0.01  # what rounding each context to bfloat16 leaves


def test_contexts_that_favour_a_word_do_not_pay_it_for_their_own_reward() -> None:
    """A word common where every word is paid looks paid on average, and is not in matched contexts."""
    base = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]).repeat(50, 1).log()
    reward = torch.tensor([[2.0], [-2.0]]).repeat(50, 1).expand(100, 3)
    matched = MatchedContexts(np.arange(3), 3)
    matched.update(base, reward)
    plain = (base.exp() * reward).sum(0) / base.exp().sum(0)
    assert plain[0] > 1
    np.testing.assert_allclose(matched.effects().effect, 0, atol=1e-6)


def test_parts_add_up_in_any_order() -> None:
    columns = np.array([0, 1, 1, 2, 3, 3])
    base, difference = contexts(60, 6, seed=1)
    whole, parts = MatchedContexts(columns, 4), [MatchedContexts(columns, 4, first=20 * i) for i in range(3)]
    whole.update(base, difference)
    for start in range(0, 60, 10):
        parts[start // 20].update(base[start : start + 10], difference[start : start + 10])
    first, middle, last = parts
    last.merge(first)
    last.merge(middle)
    found, expected = last.effects(), whole.effects()
    assert last.n_contexts == 60
    np.testing.assert_allclose(found.effect, expected.effect, atol=1e-5)
    np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-6)
    np.testing.assert_allclose(found.se, expected.se, rtol=1e-4)  # blocks are numbered over all parts


def test_standard_errors_are_the_spread_over_samples() -> None:
    """Over many samples of contexts from one population, effects spread as their standard errors say."""
    columns = np.arange(8)
    effects, errors = [], []
    for seed in range(60):
        matched = MatchedContexts(columns, 8)
        matched.update(*contexts(320, 8, seed=seed))
        found = matched.effects()
        effects.append(found.effect)
        errors.append(found.se)
    spread = np.std(effects, axis=0, ddof=1).mean()
    assert np.mean(errors) == pytest.approx(spread, rel=0.12)


def test_a_word_of_several_columns_is_their_sum_with_its_own_error() -> None:
    matched = MatchedContexts(np.arange(5), 5)
    matched.update(*contexts(200, 5, seed=2))
    found = matched.effects()
    effect, error = found.of_words([(0,), (1, 3), (), (0, 1, 2, 3, 4)])
    np.testing.assert_allclose(
        effect[[0, 1, 3]], [found.effect[0], found.effect[1] + found.effect[3], found.effect.sum()]
    )
    assert error[0] == pytest.approx(found.se[0])
    assert np.isnan(effect[2]) and np.isnan(error[2])
    apart = np.hypot(found.se[1], found.se[3])
    assert 0 < error[1] != pytest.approx(apart)


def test_a_column_without_probability_has_no_effect() -> None:
    base = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]).log()
    base[:, 2] = -1000.0
    matched = MatchedContexts(np.arange(3), 3)
    matched.update(base, torch.tensor([[1.0, 0.0, 5.0], [1.0, 0.0, 9.0]]))
    found = matched.effects()
    assert np.isnan(found.effect[2]) and np.isnan(found.se[2]) and np.isfinite(found.effect[:2]).all()
    assert np.isnan(found.of_words([(0, 2)])).all()
    assert found.effect[0] - found.effect[1] == pytest.approx(1.0, abs=1e-4)


def test_no_context_and_wrong_columns_are_said() -> None:
    with pytest.raises(DataError, match="two tokens"):
        MatchedContexts(np.arange(3), 3).effects()
    with pytest.raises(DataError, match="from 0 to 3"):
        MatchedContexts(np.arange(4), 3)


@given(st.integers(0, 40), st.integers(0, 99), st.integers(0, 2))
def test_contexts_are_drawn_by_text_position_and_seed_alone(n: int, seed: int, first: int) -> None:
    text_ids, positions = np.repeat(np.arange(5), 6), np.tile(np.arange(6), 5)
    chosen = draw_contexts(text_ids, positions, n=n, first_position=first, seed=seed)
    assert chosen.sum() == min(n, 5 * (6 - first)) and not chosen[positions < first].any()
    order = np.random.default_rng(seed).permutation(30)
    again = draw_contexts(text_ids[order], positions[order], n=n, first_position=first, seed=seed)
    assert again.tolist() == chosen[order].tolist()


def test_another_seed_draws_other_contexts_evenly() -> None:
    text_ids, positions = np.repeat(np.arange(200), 20), np.tile(np.arange(20), 200)
    draws = [draw_contexts(text_ids, positions, n=1000, first_position=0, seed=seed) for seed in (0, 1)]
    assert 200 < (draws[0] & draws[1]).sum() < 300
    by_position = np.bincount(positions[draws[0]], minlength=20)
    assert by_position.min() > 25 and by_position.max() < 80
