"""Contributions add up to the prediction: over features and tokens, under every pooling, in both ledgers."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.probes.attribution import ActiveText, LinearProbe, display_scale, raw_ledger, text_ledger, token_predictions
from lfp.probes.pooling import POOLINGS, pool, pool_dense
from tests.lfp.builders import ROOT

N_FEATURES = 9
DEMO = ROOT / "data" / "demo"


def dense(n_tokens: int, seed: int) -> np.ndarray:
    """Features of tokens, most of them zero, in steps so that equal ones occur."""
    rng = np.random.default_rng(seed)
    values = np.ceil(4 * rng.exponential(size=(n_tokens, N_FEATURES))) / 4
    return values * (rng.random((n_tokens, N_FEATURES)) < 0.3)


def active(values: np.ndarray, response_start: int = 0) -> ActiveText:
    positions, features = values.nonzero()
    return ActiveText(positions, features, values[positions, features], len(values), response_start)


def probe(seed: int, pooling: str, intercept: float = 0.3) -> LinearProbe:
    return LinearProbe(np.random.default_rng(seed + 1).normal(size=N_FEATURES), intercept, pooling)


def pooled(values: np.ndarray, pooling: str, response_start: int) -> np.ndarray:
    response = np.arange(len(values)) >= response_start
    texts = np.zeros(len(values), np.int64)
    return pool(sp.csr_array(values), texts, how=pooling, response=response).toarray()[0]


@pytest.mark.parametrize("pooling", POOLINGS)
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(0, 13), st.integers(0, 10_000))
def test_every_split_adds_up_to_the_prediction(pooling: str, n_tokens: int, start: int, seed: int) -> None:
    values, linear = dense(n_tokens, seed), probe(seed, pooling)
    text = active(values, start)
    inputs = pooled(values, pooling, start)
    expected = inputs @ linear.weights + linear.intercept
    ledger = text_ledger(text, linear)
    assert ledger.predicted == pytest.approx(expected, abs=1e-9)
    assert ledger.features.tolist() == np.flatnonzero(values.any(axis=0)).tolist()
    np.testing.assert_allclose(ledger.contributions, (inputs * linear.weights)[ledger.features], atol=1e-9)
    credits = np.bincount(text.features, text.credits(pooling), N_FEATURES)
    np.testing.assert_allclose(credits, inputs, atol=1e-9)


@given(st.integers(1, 12), st.integers(0, 10_000))
def test_a_token_by_itself_is_predicted_from_its_own_features(n_tokens: int, seed: int) -> None:
    values = dense(n_tokens, seed)
    alone = {how: token_predictions(active(values, 2), probe(seed, how)) for how in POOLINGS}
    for found in alone.values():
        np.testing.assert_allclose(found, values @ probe(seed, "mean").weights + 0.3, atol=1e-9)
    texts = {how: text_ledger(active(values, 2), probe(seed, how)).predicted for how in POOLINGS}
    assert texts["mean"] == pytest.approx(alone["mean"].mean()) and texts["last"] == pytest.approx(alone["last"][-1])
    assert texts["sum"] == pytest.approx((alone["sum"] - 0.3).sum() + 0.3)


def test_the_first_of_equal_largest_activations_has_the_credit() -> None:
    values = np.array([[0.0, 1.0], [2.0, 1.0], [2.0, 0.5]])
    text = active(values)
    credited = {(p, f): c for p, f, c in zip(text.positions, text.features, text.credits("max"), strict=True) if c}
    assert credited == {(1, 0): 2.0, (0, 1): 1.0}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_second_ledger_adds_up_to_the_raw_estimate(pooling: str) -> None:
    """x = f D + b + error: the raw probe of pooled x, split; under max the miss is what pooled features leave."""
    rng = np.random.default_rng(5)
    features, decoder, bias = dense(7, 5), rng.normal(size=(N_FEATURES, 4)), rng.normal(size=4)
    error, v, start = rng.normal(size=(7, 4)), rng.normal(size=4), 3
    x = features @ decoder + bias + error
    response, texts = np.arange(7) >= start, np.zeros(7, np.int64)
    raw = pool_dense(x, texts, how=pooling, response=response)[0] @ v + 0.7
    text, linear = active(features, start), LinearProbe(decoder @ v, 0.7, pooling)
    if pooling == "max":
        miss = raw - raw_ledger(text, linear, bias=bias @ v, miss=0.0).predicted
    else:
        miss = float(text.shares(pooling) @ (error @ v))
    assert raw_ledger(text, linear, bias=bias @ v, miss=miss).predicted == pytest.approx(raw)


def test_a_text_without_active_features_is_its_intercept() -> None:
    nothing = active(np.zeros((4, 3)))
    for pooling in POOLINGS:
        linear = LinearProbe(np.ones(3), 0.5, pooling)
        ledger = text_ledger(nothing, linear)
        assert ledger.predicted == 0.5 and not len(ledger.features)
        assert token_predictions(nothing, linear).tolist() == [0.5] * 4


def test_contributions_sum_to_the_prediction_on_every_text_of_the_demo() -> None:
    """Of the committed bundle, from its tables alone: by feature and by token."""
    probes = {row["probe_id"]: row for row in pq.read_table(DEMO / "probes.parquet").to_pylist()}
    headline = next(row for row in probes.values() if row["is_headline"])
    table = pq.read_table(DEMO / "weights.parquet")
    weights = table.filter(table["probe_id"].to_numpy() == headline["probe_id"]).sort_by("feature_id")
    linear = LinearProbe(weights["weight"].to_numpy().astype(float), headline["intercept"], headline["pooling"])
    texts = {row["text_id"]: row for row in pq.read_table(DEMO / "texts.parquet").to_pylist()}
    scores = {row["text_id"]: row for row in pq.read_table(DEMO / "token_scores.parquet").to_pylist()}
    kept = pq.read_table(DEMO / "activations.parquet").to_pylist()
    assert len(kept) > 100
    for row in kept:
        text = texts[row["text_id"]]
        names = ("positions", "feature_ids", "values")
        positions, features, values = (np.asarray(row[name]) for name in names)
        n_tokens = len(text["token_ids"])
        one = ActiveText(positions, features, values.astype(float), n_tokens, text["response_start"])
        assert text_ledger(one, linear).predicted == pytest.approx(text["predicted"], abs=1e-5)
        stated = scores[row["text_id"]]["predicted"]
        np.testing.assert_allclose(token_predictions(one, linear), stated, atol=1e-5)


def test_the_display_scale_lays_the_tenths_on_each_other() -> None:
    rng = np.random.default_rng(0)
    predicted, true = rng.normal(size=300), rng.uniform(-4, 4, size=500)
    slope, offset = display_scale(predicted, true)
    shown = slope * np.quantile(predicted, [0.1, 0.9]) + offset
    assert slope > 0
    np.testing.assert_allclose(shown, np.quantile(true, [0.1, 0.9]))


def test_predictions_that_are_all_alike_are_shown_as_they_are() -> None:
    assert display_scale(np.full(5, 2.0), np.arange(5.0)) == (1.0, 0.0)
