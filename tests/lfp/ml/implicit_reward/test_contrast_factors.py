"""Factors of a difference from twins: a group of words in a group of contexts is found, and by chance is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lfp.ml.implicit_reward.column_predictions import column_preferences, predict_columns
from lfp.ml.implicit_reward.contrast_factors import centre_ratios, fit_factors
from lfp.ml.models.tokenization import tokenize

N_CONTEXTS, N_COLUMNS = 1200, 40
WORDS = np.arange(5, 10)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float32)


@pytest.fixture(scope="module")
def world() -> dict[str, np.ndarray | list[np.ndarray]]:
    """A base, and models tuned from it that prefer words at random, the same in all contexts of a topic."""
    rng = np.random.default_rng(0)
    topic, texts = rng.integers(3, size=N_CONTEXTS), np.repeat(np.arange(N_CONTEXTS // 10), 10)
    base = rng.normal(size=(N_CONTEXTS, N_COLUMNS)) + 2.0 * np.eye(3)[topic] @ rng.normal(size=(3, N_COLUMNS))
    tuned = [base + (0.2 * rng.normal(size=(3, N_COLUMNS)))[topic] for _ in range(6)]
    planted = tuned[0].copy()
    planted[np.ix_(topic == 1, WORDS)] += 2.5
    return {
        "topic": topic, "texts": texts, "base": log_softmax(base), "planted": log_softmax(planted),
        "models": [log_softmax(model) for model in tuned],
    }  # fmt: skip


def test_a_planted_group_is_the_first_factor_and_none_of_a_twin(world):
    base, is_place = world["base"], world["topic"] == 1
    ratios = [centre_ratios(base, model) for model in world["models"]]
    planted, probs = centre_ratios(base, world["planted"]), np.exp(base)
    found = fit_factors(planted, ratios[1:], probs=probs, texts=world["texts"], n_factors=24)
    assert found.shares(is_place, WORDS, sign=1)[0] > 0.5
    assert found.shares(is_place, WORDS, sign=-1)[0] < 0.1
    assert found.shares(~is_place, WORDS, sign=1)[0] < 0.1
    assert (np.diff(found.t) <= 0).all()
    assert found.shares(is_place, WORDS, sign=1)[found.credit.argmax()] > 0.5
    twin = fit_factors(ratios[0], ratios[1:], probs=probs, texts=world["texts"], n_factors=24)
    assert twin.shares(is_place, WORDS, sign=1).max() < 0.5
    assert twin.t[0] < 0.8 * found.t[0]
    again = fit_factors(planted, ratios[1:], probs=probs, texts=world["texts"], n_factors=24)
    np.testing.assert_array_equal(again.t, found.t)


def test_factors_are_judged_in_texts_that_they_were_not_fitted_on(world):
    ratios = [centre_ratios(world["base"], model) for model in world["models"]]
    probs = np.exp(world["base"])
    found = fit_factors(ratios[0], ratios[1:], probs=probs, texts=world["texts"], n_factors=8)
    assert set(world["texts"][found.held_out] % 2) == {1}
    assert found.codes.shape == (len(found.held_out), len(found.t))
    assert ((found.codes > 0).sum(axis=1) <= 4).all()
    np.testing.assert_allclose((found.directions**2).sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("prepend_bos", [True, False])
def test_columns_are_predicted_after_what_precedes_the_marked_tokens(neox, sentences, prepend_bos):
    texts = tokenize(neox.tokenizer, sentences[:5], context=12)
    columns = np.arange(neox.d_vocab) % 7
    position = np.concatenate([np.arange(len(text.token_ids)) for text in texts])
    chosen = np.random.default_rng(0).random(len(position)) < 0.4
    chosen &= position > 0
    found = predict_columns(neox, texts, chosen, columns=columns, n_columns=7, batch_texts=2, prepend_bos=prepend_bos)
    expected, at = [], 0
    for text in texts:
        ids = torch.tensor([[*neox.bos_ids(prepend_bos), *text.token_ids]])
        probs = neox.forward(ids, torch.ones_like(ids)).logits[0].softmax(-1)
        lead = ids.shape[1] - len(text.token_ids)
        for i in range(len(text.token_ids)):
            if chosen[at + i]:
                expected.append(np.bincount(columns, probs[lead + i - 1].double().numpy(), minlength=7))
        at += len(text.token_ids)
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-4)


def test_a_preference_is_how_far_the_logit_moved(world):
    """To first order, whatever the base model's probability; a column that is certain has no information."""
    moved = world["base"].astype(np.float64).copy()
    moved[:, 7] += 1e-3
    preferences, information = column_preferences(world["base"], log_softmax(moved))
    probs = np.exp(world["base"].astype(np.float64))
    np.testing.assert_allclose(information, (probs * (1 - probs)).sum(axis=0), rtol=1e-4)
    assert preferences[7] == pytest.approx(1e-3, rel=0.02)
    certain = log_softmax(np.where(np.arange(N_COLUMNS) == 3, 60.0, 0.0) + np.zeros((N_CONTEXTS, 1)))
    assert column_preferences(certain, certain)[1][3] == pytest.approx(0.0, abs=1e-3)
