"""A raw probe through the autoencoders: what features, biases and the miss make together is what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from lfp.errors import DataError
from lfp.ml.sae.autoencoders import Dictionary, Normalize
from lfp.ml.sae.quality import raw_misses, split_raw
from lfp.util.types import Place
from tests.lfp.builders import tiny_sae

VARIANTS = ("tied_relu", "relu", "topk", "batchtopk", "jumprelu")


def made(*, normalize: Normalize = "none", variant: str = "relu", n: int = 40) -> tuple:
    """A dictionary of layers 1 and 4, a probe, MLP outputs by layer, and their features."""
    saes = [tiny_sae(variant=variant, layer=layer, d_in=d, width=12, seed=layer) for layer, d in ((4, 6), (1, 5))]
    saes[0].info = replace(saes[0].info, normalize=normalize)
    dictionary = Dictionary(saes)
    generator = torch.Generator().manual_seed(9)
    outputs = {sae.info.place: torch.randn(n, sae.info.d_in, generator=generator) for sae in saes}
    coef = np.random.default_rng(2).normal(size=11)
    return dictionary, coef, outputs, sp.csr_array(dictionary.encode(outputs).numpy())


@pytest.mark.parametrize("variant", VARIANTS)
def test_features_biases_and_the_miss_make_the_estimate(variant: str) -> None:
    dictionary, coef, outputs, features = made(variant=variant)
    split = split_raw(dictionary, coef)
    x = np.hstack([outputs[Place(1)].double().numpy(), outputs[Place(4)].double().numpy()])
    misses = raw_misses(dictionary, coef, outputs, features)
    np.testing.assert_allclose(features @ split.weights + split.bias + misses, x @ coef, atol=1e-9)


@pytest.mark.parametrize("normalize", ["none", "layer_norm", "constant_norm_rescale"])
def test_the_miss_is_of_what_the_autoencoders_rebuild(normalize: Normalize) -> None:
    dictionary, coef, outputs, features = made(normalize=normalize)
    rebuilt = [sae.reconstruct(outputs[sae.info.place]).detach().double().numpy() for sae in dictionary.saes]
    x = [outputs[Place(layer)].double().numpy() for layer in (1, 4)]
    expected = np.hstack([a - b for a, b in zip(x, rebuilt, strict=True)]) @ coef
    np.testing.assert_allclose(raw_misses(dictionary, coef, outputs, features), expected, atol=2e-5)


def test_normalised_inputs_have_no_constant_weights() -> None:
    dictionary, coef, _, _ = made(normalize="layer_norm")
    split = split_raw(dictionary, coef)
    assert split.weights is None and split.bias is None


def test_a_probe_of_other_layers_is_refused() -> None:
    dictionary, _, _, _ = made()
    with pytest.raises(DataError, match="10 coefficients for outputs 11 wide"):
        split_raw(dictionary, np.ones(10))
