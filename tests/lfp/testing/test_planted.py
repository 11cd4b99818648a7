"""Planted activations: made as they say, and their directions found among others."""

from __future__ import annotations

import torch

from lfp.testing.planted_activations import PlantedDictionary

PLANTED = PlantedDictionary(d_in=12, n_directions=40, l0=4.0, noise=0.0)


def test_directions_have_unit_length_and_parts_differ() -> None:
    torch.testing.assert_close(PLANTED.directions.norm(dim=1), torch.ones(40))
    first, again, other = PLANTED.outputs(100), PLANTED.outputs(100), PLANTED.outputs(100, part=2)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(PlantedDictionary(12, 40, seed=1).directions, PLANTED.directions)


def test_activations_are_sparse_sums_of_the_directions() -> None:
    """With as many directions as dimensions the coefficients can be read back."""
    square = PlantedDictionary(d_in=12, n_directions=12, l0=3.0, noise=0.0)
    coefficients = square.outputs(20_000).double() @ torch.linalg.inv(square.directions.double())
    active = coefficients > 0.25
    assert abs(float(active.sum(1).double().mean()) - 3.0) < 0.1
    assert float(coefficients[active].min()) >= 0.5 - 1e-4
    assert abs(float(coefficients[active].mean()) - 1.5) < 0.05
    often = active.double().mean(0)
    assert float(often[0]) > float(often[-1]), "the first direction is commoner than the last"


def test_cosines_tell_what_a_decoder_found() -> None:
    found = torch.cat([PLANTED.directions[:10] * 3.0, -PLANTED.directions[10:20]])
    cosines = PLANTED.cosines(found)
    torch.testing.assert_close(cosines[:10], torch.ones(10))
    assert float(cosines[10:].max()) < 0.999
