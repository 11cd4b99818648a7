"""Nearest decoder rows against all cosines sorted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lfp.ml.features import neighbours
from lfp.ml.features.neighbours import decoder_neighbours, nearest


@pytest.mark.parametrize("entries", [40, 2**20])
def test_neighbours_are_the_largest_cosines_within_the_layer(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK_ENTRIES", entries)
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(n, 5, generator=generator) * 3 for n in (30, 1, 17)]
    found = decoder_neighbours(layers, 4)
    first = 0
    for rows in layers:
        unit = rows / rows.norm(dim=1, keepdim=True)
        cosines = (unit @ unit.T).numpy()
        for row in range(len(rows)):
            own = found.features == first + row
            order = [other for other in np.argsort(-cosines[row]) if other != row and cosines[row, other] > 0][:4]
            assert (found.others[own] - first).tolist() == order
            assert found.ranks[own].tolist() == list(range(len(order)))
            np.testing.assert_allclose(found.values[own], cosines[row, order], atol=1e-6)
        first += len(rows)


def test_of_equals_the_lower_id_comes_first() -> None:
    shares = np.array([[0.5, 0.5, 0.5, 0.0, 0.7]], np.float32)
    found = nearest(shares, np.array([7]), np.array([4, 2, 9, 1, 3]), 3)
    assert found.others.tolist() == [3, 2, 4] and found.ranks.tolist() == [0, 1, 2]
    assert found.features.tolist() == [7, 7, 7]
