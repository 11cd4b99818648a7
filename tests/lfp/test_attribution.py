"""Contributions add up: over features, over tokens, to the same prediction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.attribution import display_scale, text_ledger, token_predictions

N_FEATURES = 9


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 10_000), st.floats(-5, 5))
def test_every_split_adds_up_to_the_prediction(n_tokens: int, seed: int, intercept: float) -> None:
    rng = np.random.default_rng(seed)
    features = rng.exponential(size=(n_tokens, N_FEATURES)) * (rng.random((n_tokens, N_FEATURES)) < 0.3)
    weights = rng.normal(size=N_FEATURES)
    positions, ids = features.nonzero()
    values = features[positions, ids]
    expected = features.mean(axis=0) @ weights + intercept
    ledger = text_ledger(ids, values, weights, intercept=intercept, n_tokens=n_tokens)
    tokens = token_predictions(positions, ids, values, weights, intercept=intercept, n_tokens=n_tokens)
    assert ledger.predicted == pytest.approx(expected, abs=1e-9)
    assert tokens.mean() == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(tokens, features @ weights + intercept, atol=1e-9)
    assert ledger.features.tolist() == np.flatnonzero(features.any(axis=0)).tolist()
    np.testing.assert_allclose(ledger.contributions, (features.mean(axis=0) * weights)[ledger.features], atol=1e-9)


def test_a_text_without_active_features_is_its_intercept() -> None:
    none, no_values = np.zeros(0, np.int64), np.zeros(0)
    ledger = text_ledger(none, no_values, np.ones(3), intercept=0.5, n_tokens=4)
    assert ledger.predicted == 0.5 and not len(ledger.features)
    assert token_predictions(none, none, no_values, np.ones(3), intercept=0.5, n_tokens=4).tolist() == [0.5] * 4


def test_the_display_scale_lays_the_tenths_on_each_other() -> None:
    rng = np.random.default_rng(0)
    predicted, true = rng.normal(size=300), rng.uniform(-4, 4, size=500)
    slope, offset = display_scale(predicted, true)
    shown = slope * np.quantile(predicted, [0.1, 0.9]) + offset
    assert slope > 0
    np.testing.assert_allclose(shown, np.quantile(true, [0.1, 0.9]))


def test_predictions_that_are_all_alike_are_shown_as_they_are() -> None:
    assert display_scale(np.full(5, 2.0), np.arange(5.0)) == (1.0, 0.0)
