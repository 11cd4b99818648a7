"""Pooling tokens to texts: against a loop over texts, and what each token counts for."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.errors import DataError
from lfp.probes.pooling import POOLINGS, pool, pool_dense, response_tokens, token_shares

N_FEATURES = 6


def naive(values: np.ndarray, texts: np.ndarray, how: str, response: np.ndarray) -> np.ndarray:
    pooled = np.zeros((texts.max(initial=-1) + 1, values.shape[1]))
    for text in np.unique(texts):
        of_text, of_response = values[texts == text], response[texts == text]
        answered = of_text[of_response] if of_response.any() else of_text
        pooled[text] = {
            "last": of_text[-1],
            "mean": of_text.mean(axis=0),
            "sum": of_text.sum(axis=0),
            "response": answered.mean(axis=0),
            "max": of_text.max(axis=0),
        }[how]
    return pooled


def tokens(lengths: list[int], seed: int, *, signed: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values [tokens, features] with many zeros, the texts of tokens, and a response at the end of each text."""
    rng = np.random.default_rng(seed)
    texts = np.repeat(np.arange(len(lengths)), lengths)
    values = rng.normal(size=(len(texts), N_FEATURES)) * (rng.random((len(texts), N_FEATURES)) < 0.6)
    starts = [rng.integers(0, length + 1) for length in lengths]
    response = np.concatenate([np.arange(n) >= start for n, start in zip(lengths, starts, strict=True)] or [[]])
    return values if signed else np.abs(values), texts, response.astype(bool)


LENGTHS = st.lists(st.integers(0, 5), max_size=8).map(lambda lengths: [*lengths, 3] if lengths else [])


@pytest.mark.parametrize("how", POOLINGS)
@settings(deadline=None, max_examples=40)
@given(LENGTHS, st.integers(0, 10_000), st.booleans())
def test_pooling_is_that_of_a_loop_over_texts(how: str, lengths: list[int], seed: int, signed: bool) -> None:
    values, texts, response = tokens(lengths, seed, signed=signed)
    expected = naive(values, texts, how, response)
    found = pool(sp.csr_array(values), texts, how=how, response=response)
    assert isinstance(found, sp.csr_array) and found.shape == expected.shape
    np.testing.assert_allclose(found.toarray(), expected, atol=1e-12)
    np.testing.assert_allclose(pool_dense(values, texts, how=how, response=response), expected, atol=1e-12)


@pytest.mark.parametrize("how", ["last", "mean", "sum", "response"])
@given(LENGTHS, st.integers(0, 10_000))
def test_shares_say_what_a_token_counts_for(how: str, lengths: list[int], seed: int) -> None:
    values, texts, response = tokens(lengths, seed)
    shares = token_shares(texts, how, response)
    summed = np.zeros((texts.max(initial=-1) + 1, N_FEATURES))
    np.add.at(summed, texts, shares[:, None] * values)
    np.testing.assert_allclose(summed, naive(values, texts, how, response), atol=1e-12)
    if how != "sum":
        np.testing.assert_allclose(np.bincount(texts, shares)[np.unique(texts)], 1.0)


def test_without_a_prompt_every_token_is_of_the_response() -> None:
    values, texts, _ = tokens([3, 2], 1)
    assert np.array_equal(pool_dense(values, texts, how="response"), pool_dense(values, texts, how="mean"))


def test_single_precision_is_pooled_in_double() -> None:
    values, texts, _ = tokens([4, 2], 1)
    for how in POOLINGS:
        assert pool(sp.csr_array(values.astype(np.float32)), texts, how=how).dtype == np.float64


def test_the_largest_share_has_no_meaning() -> None:
    with pytest.raises(DataError, match="pooling max"):
        token_shares(np.zeros(3, np.int64), "max")


@pytest.mark.parametrize(("start", "first"), [(1, 1), (5, 1), (6, 2), (11, 3), (50, 3)])
def test_a_token_that_straddles_the_start_is_of_the_prompt(start: int, first: int) -> None:
    assert response_tokens([0, 5, 10], 15, [(start, 100)]).tolist() == [i >= first for i in range(3)]


def test_tokens_of_several_responses_are_marked_and_all_without_any() -> None:
    starts = [0, 2, 4, 4, 6, 8, 10]  # the fourth token is the rest of a character that the third begins
    assert response_tokens(starts, 12, [(2, 5), (8, 9)]).tolist() == [False, True, True, True, False, True, False]
    assert response_tokens(starts, 12, []).all() and not response_tokens(starts, 12, [(12, 20)]).any()
