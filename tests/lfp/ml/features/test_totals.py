"""Totals of features against numpy's own sums, whatever the batches and their order."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lfp.ml.features.active import FeatureTotals, active


def features(seed: int, n: int = 30) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.exponential(size=(n, 5)) * (rng.random((n, 5)) < 0.4), dtype=torch.float32)


@given(st.integers(0, 1000))
def test_density_and_mean_are_those_of_all_tokens(seed: int) -> None:
    values = features(seed)
    totals = FeatureTotals(5)
    totals.update(active(values))
    np.testing.assert_array_equal(totals.density, (values > 0).double().mean(0))
    np.testing.assert_allclose(totals.mean, values.double().mean(0), atol=1e-6)
    np.testing.assert_allclose(totals.mean_square, (values.double() ** 2).mean(0), atol=1e-6)
    assert totals.n_tokens == 30


@given(st.integers(0, 1000), st.permutations(range(4)))
def test_parts_in_any_order_add_up_to_the_same_numbers(seed: int, order: list[int]) -> None:
    values = features(seed)
    parts = [values[i * 7 : i * 7 + 9] for i in range(4)]
    in_order, merged = FeatureTotals(5), FeatureTotals(5)
    for i, j in enumerate(order):
        in_order.update(active(parts[i]))
        part = FeatureTotals(5)
        part.update(active(parts[j]))
        merged.merge(part)
    np.testing.assert_array_equal(in_order.density, merged.density)
    np.testing.assert_array_equal(in_order.mean, merged.mean)
    np.testing.assert_array_equal(in_order.mean_square, merged.mean_square)


def test_no_token_gives_zeros() -> None:
    assert FeatureTotals(3).mean.tolist() == FeatureTotals(3).density.tolist() == [0.0, 0.0, 0.0]
