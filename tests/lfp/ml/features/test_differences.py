"""Mean and principal components of what tuning changed, against numpy on all tokens at once."""

from __future__ import annotations

import numpy as np
import torch

from lfp.ml.features.differences import Differences
from lfp.util.types import Place

PLACE = Place(2, "resid_post")


def test_directions_are_the_mean_and_the_components_of_the_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(900, 6, generator=generator)
    change = torch.randn(900, 6, generator=generator) * torch.tensor([3.0, 1.0, 0.5, 0.1, 0.1, 0.1]) + 0.2
    found = Differences({PLACE: 6})
    for rows in torch.arange(900).split(250):
        found.update({PLACE: (base + change)[rows]}, {PLACE: base[rows]})
    directions = found.directions(2)
    mean, centred = change.mean(0).double().numpy(), (change - change.mean(0)).double().numpy()
    _, sizes, vectors = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(directions[0].vector, mean, atol=1e-5)
    np.testing.assert_allclose(directions[0].share, mean @ mean / (change.double() ** 2).sum(1).mean(), rtol=1e-4)
    for rank, direction in enumerate(directions[1:]):
        assert direction.place == PLACE and direction.rank == rank + 1
        np.testing.assert_allclose(abs(direction.vector.double().numpy() @ vectors[rank]), 1.0, atol=1e-4)
        np.testing.assert_allclose(direction.share, sizes[rank] ** 2 / (sizes**2).sum(), rtol=1e-3)
        np.testing.assert_allclose(direction.size, sizes[rank] / 30, rtol=1e-3)
        assert direction.vector.double().numpy() @ mean >= 0


def test_parts_that_are_merged_have_the_directions_of_the_whole() -> None:
    base, tuned = torch.randn(2, 60, 4, generator=torch.Generator().manual_seed(1)).unbind()
    whole, first, second = (Differences({PLACE: 4}) for _ in range(3))
    for found, rows in ((whole, slice(0, 30)), (whole, slice(30, 60)), (first, slice(0, 30)), (second, slice(30, 60))):
        found.update({PLACE: tuned[rows]}, {PLACE: base[rows]})
    first.merge(second)
    assert first.n_tokens == 60
    for merged, direction in zip(first.directions(2), whole.directions(2), strict=True):
        assert torch.equal(merged.vector, direction.vector) and merged.size == direction.size


def test_equal_models_have_no_direction() -> None:
    found, outputs = Differences({PLACE: 3}), {PLACE: torch.ones(5, 3)}
    found.update(outputs, outputs)
    assert [(direction.share, direction.size) for direction in found.directions(1)] == [(0.0, 0.0)] * 2
