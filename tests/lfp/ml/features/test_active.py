"""Active entries of dense features: all of them, in order, by token and by feature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lfp.ml.features import active as module
from lfp.ml.features.active import Active, active, encode_active
from lfp.ml.sae.autoencoders import Dictionary
from lfp.util.types import Place
from tests.lfp.builders import tiny_sae


def dense(entries: Active) -> np.ndarray:
    full = np.zeros((entries.n_tokens, entries.n_features), np.float32)
    full[np.repeat(np.arange(entries.n_tokens), np.diff(entries.offsets)), entries.features] = entries.values
    return full


@given(st.integers(0, 9), st.integers(1, 40), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.integers(0, 99))
def test_entries_are_those_above_zero(n: int, n_features: int, density: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(n, n_features)) * (rng.random((n, n_features)) < density)).astype(np.float32)
    entries = active(torch.from_numpy(values))
    assert np.array_equal(dense(entries), np.maximum(values, 0))
    assert len(entries.values) == np.count_nonzero(values > 0)
    turned = entries.by_feature
    for feature in range(n_features):
        own = slice(*turned.offsets[feature : feature + 2])
        assert turned.tokens[own].tolist() == np.flatnonzero(values[:, feature] > 0).tolist()
        assert turned.values[own].tolist() == values[values[:, feature] > 0, feature].tolist()


def test_blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(37, 11, generator=torch.Generator().manual_seed(0))
    whole = active(values)
    monkeypatch.setattr(module, "_BLOCK_ENTRIES", 55)
    parts = active(values)
    assert np.array_equal(dense(parts), dense(whole)) and np.array_equal(parts.offsets, whole.offsets)


def test_the_way_of_other_devices_finds_the_same() -> None:
    values = torch.randn(9, 13, generator=torch.Generator().manual_seed(1))
    there, here = module._start_on_device(values)(), active(values)
    assert np.array_equal(dense(there), dense(here)) and np.array_equal(there.features, here.features)


def test_tokens_are_taken_in_any_order_and_none_stands_for_silence() -> None:
    values = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))
    taken = active(values).take(np.array([4, -1, 0, 4]))
    expected = values.relu()[[4, 0, 0, 4]].numpy()
    expected[1] = 0
    assert np.array_equal(dense(taken), expected)


def test_encoding_by_blocks_is_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_ENTRIES", 1)
    dictionary = Dictionary([tiny_sae(layer=1), tiny_sae(layer=3, seed=1)])
    outputs = {Place(layer): torch.randn(150, 6, generator=torch.Generator().manual_seed(layer)) for layer in (1, 3)}
    np.testing.assert_allclose(dense(encode_active(dictionary, outputs)), dictionary.encode(outputs).numpy(), atol=1e-6)
    nothing = encode_active(dictionary, {place: rows[:0] for place, rows in outputs.items()})
    assert nothing.n_tokens == 0 and nothing.n_features == 24
