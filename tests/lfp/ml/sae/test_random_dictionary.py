"""The random dictionary: unit rows, as sparse as asked for, of the widths and units of the one it stands beside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from lfp.ml.sae.autoencoders import Dictionary
from lfp.ml.sae.quality import random_dictionary
from lfp.util.types import Place
from tests.lfp.builders import tiny_sae

D_IN = 6
OUTPUTS = torch.randn(200, D_IN, generator=torch.Generator().manual_seed(1)) * 3 + 5
CENTRES = {Place(1): OUTPUTS.mean(0), Place(3): OUTPUTS.mean(0)}


def like() -> Dictionary:
    saes = [tiny_sae(layer=layer, width=40, d_in=D_IN, seed=layer) for layer in (1, 3)]
    for sae, scale in zip(saes, (0.5, 2.0), strict=True):
        sae.info = replace(sae.info, scale=scale)
    return Dictionary(saes)


def drawn(seed: int = 0) -> Dictionary:
    return random_dictionary(like(), l0=[4.4, 2.6], centres=CENTRES, seed=seed)


def test_it_has_unit_rows_and_as_many_active_features_as_the_other_rounded() -> None:
    made = drawn()
    assert made.places == (Place(1), Place(3)) and made.n_features == like().n_features
    for sae in made.saes:
        torch.testing.assert_close(sae.encoder.norm(dim=1), torch.ones(40))
    active = made.encode({Place(1): OUTPUTS, Place(3): OUTPUTS}) > 0
    assert active[:, :40].sum(1).tolist() == [4] * 200
    assert active[:, 40:].sum(1).tolist() == [3] * 200


def test_the_mean_output_fires_no_feature_above_rounding() -> None:
    features = drawn().encode({place: centre[None] for place, centre in CENTRES.items()})
    assert features.max() < 1e-4


def test_features_are_in_the_units_of_the_other_ones() -> None:
    """Unit mean square norm: `info.scale` times the product of row and centred output."""
    made = drawn()
    features = made.encode({Place(1): OUTPUTS, Place(3): OUTPUTS}).numpy()
    for sae, scale, columns in zip(made.saes, (0.5, 2.0), (slice(40), slice(40, 80)), strict=True):
        products = scale * (OUTPUTS - OUTPUTS.mean(0)).numpy() @ sae.encoder.numpy().T
        active = features[:, columns] > 0
        np.testing.assert_allclose(features[:, columns][active], products[active], rtol=1e-3, atol=1e-4)


def test_the_seed_alone_decides_and_layers_differ() -> None:
    one, again, other = drawn(), drawn(), drawn(1)
    torch.testing.assert_close(one.saes[0].encoder, again.saes[0].encoder)
    assert not torch.allclose(one.saes[0].encoder, other.saes[0].encoder)
    assert not torch.allclose(one.saes[0].encoder, one.saes[1].encoder)
