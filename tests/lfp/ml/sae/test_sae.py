"""The autoencoders: each variant's formula against naive numpy, folding, sparse features, dictionaries of several."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from lfp.errors import ModelError
from lfp.ml.sae.autoencoders import SAES, Dictionary, Normalize, Sae, SaeInfo, Variant, fold_scale, normalise
from lfp.util.types import Place
from tests.lfp.builders import tiny_sae

VARIANTS = get_args(Variant)
OUTPUTS = torch.randn(40, 6, generator=torch.Generator().manual_seed(9)) * 3
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def naive_features(sae: Sae, inputs: Tensor) -> np.ndarray:
    """The variant's formula, token by token, in float64."""
    pre = inputs.numpy().astype(float) @ sae.encoder.numpy().T + sae.b_enc.numpy()
    features = np.maximum(0, pre)
    if sae.info.variant == "topk":
        for row in features:
            row[np.argsort(-row)[3:]] = 0
    if sae.info.variant in ("batchtopk", "jumprelu"):
        features[pre <= sae.state_dict()["threshold"].numpy()] = 0
    return features


def with_normalised_inputs(sae: Sae, how: Normalize) -> Sae:
    twin = copy.deepcopy(sae)
    twin.info = replace(sae.info, normalize=how)
    return twin


def test_each_variant_has_its_class() -> None:
    assert set(SAES) == set(VARIANTS)


@every_variant
def test_encoding_is_its_formula(variant: Variant) -> None:
    sae = tiny_sae(variant=variant)
    expected = naive_features(sae, OUTPUTS)
    assert 0.1 < (expected > 0).mean() < 0.9
    np.testing.assert_allclose(sae.encode(OUTPUTS).numpy(), expected, atol=1e-5)


@every_variant
def test_decoding_is_its_formula(variant: Variant) -> None:
    sae = tiny_sae(variant=variant)
    features, rebuilt = sae(OUTPUTS)
    expected = features.numpy() @ sae.W_dec.numpy() + sae.b_dec.numpy()
    np.testing.assert_allclose(rebuilt.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(sae.decode(features), rebuilt)
    assert torch.equal(sae.reconstruct(OUTPUTS), rebuilt)
    assert torch.equal(features, sae.encode(OUTPUTS))


@every_variant
@pytest.mark.parametrize("how", get_args(Normalize))
@pytest.mark.parametrize("indices", [[7], [3, 0, 11], []])
def test_some_features_are_those_of_the_whole_row(variant: Variant, how: Normalize, indices: list[int]) -> None:
    sae, some = with_normalised_inputs(tiny_sae(variant=variant), how), torch.tensor(indices, dtype=torch.int64)
    whole = sae.encode(OUTPUTS)
    torch.testing.assert_close(sae.encode_some(OUTPUTS, some), whole[:, some], rtol=1e-5, atol=1e-5)
    assert torch.equal(sae.encode(OUTPUTS), whole)


@every_variant
def test_features_that_are_off_are_zero_to_the_bit(variant: Variant) -> None:
    """No negative zero, which readers of the bits would take for an activation."""
    features = tiny_sae(variant=variant).encode(OUTPUTS)
    assert bool((features.view(torch.int32)[features == 0] == 0).all())


def test_only_the_tied_decoder_is_the_encoder() -> None:
    for variant in VARIANTS:
        sae = tiny_sae(variant=variant)
        assert (sae.W_dec is sae.encoder) == (variant == "tied_relu") == sae.tied
        assert len(list(sae.parameters())) == (3 if sae.tied else 5 if variant == "jumprelu" else 4)


@every_variant
def test_activating_leaves_the_pre_activations_alone(variant: Variant) -> None:
    sae = tiny_sae(variant=variant)
    pre = torch.addmm(sae.b_enc, OUTPUTS, sae.encoder.T)
    before = pre.clone()
    features = sae.activate(pre)
    assert torch.equal(pre, before)
    assert torch.equal(features, sae.encode(OUTPUTS))
    assert sae.activate_(pre) is pre and torch.equal(pre, features)


@every_variant
def test_gradients_reach_the_encoder_of_active_features_only(variant: Variant) -> None:
    sae = tiny_sae(variant=variant).requires_grad_(True)
    features = sae.encode(OUTPUTS)
    (features * torch.arange(1.0, 13.0)).sum().backward()
    active = (features > 0).float() * torch.arange(1.0, 13.0)
    torch.testing.assert_close(sae.encoder.grad, active.T @ OUTPUTS)
    torch.testing.assert_close(sae.b_enc.grad, active.sum(0))


def test_a_feature_at_its_threshold_is_off() -> None:
    for variant in ("batchtopk", "jumprelu"):
        sae = tiny_sae(variant=variant, width=3)  # type: ignore[arg-type]
        sae.state_dict()["threshold"].fill_(0.5)
        pre = torch.tensor([[0.5, 0.50001, -1.0]])
        torch.testing.assert_close(sae.activate(pre), torch.tensor([[0.0, 0.50001, 0.0]]))
        sae.state_dict()["threshold"].fill_(-2.0)
        assert torch.equal(sae.activate(pre), pre.relu())


def test_topk_keeps_fewer_where_fewer_are_positive() -> None:
    sae = tiny_sae(variant="topk", width=5)
    pre = torch.tensor([[-1.0, 2.0, -3.0, -4.0, -0.5], [1.0, 2.0, 3.0, 4.0, 5.0]])
    assert torch.equal(sae.activate(pre), torch.tensor([[0.0, 2.0, 0, 0, 0], [0, 0, 3.0, 4.0, 5.0]]))


@pytest.mark.parametrize("k", [None, 0, 13])
def test_a_topk_autoencoder_needs_a_k_that_fits(k: int | None) -> None:
    with pytest.raises(ModelError, match=f"k {k}"):
        SAES["topk"](SaeInfo(0, 12, 6, 1.0, None, 0, "tuned", "topk", k))


@every_variant
def test_folding_a_scale_in_only_changes_the_units(variant: Variant) -> None:
    """Trained on scaled inputs, asked about raw ones: features and reconstruction over the scale."""
    trained = tiny_sae(variant=variant, scale=1.0)
    sae = fold_scale(trained, 0.25)  # a power of two rounds nothing
    assert sae.info == replace(trained.info, scale=0.25)
    assert torch.equal(sae.encode(OUTPUTS), trained.encode(OUTPUTS * 0.25) / 0.25)
    assert torch.equal(sae.reconstruct(OUTPUTS), trained.reconstruct(OUTPUTS * 0.25) / 0.25)
    assert torch.equal(sae.W_dec, trained.W_dec)
    assert sae.W_dec is not trained.W_dec and (sae.W_dec is sae.encoder) == sae.tied


def test_folding_leaves_the_trained_one_alone() -> None:
    trained = tiny_sae(variant="jumprelu").requires_grad_(True)
    before = copy.deepcopy(trained.state_dict())
    sae = fold_scale(trained, 3.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.state_dict().items())
    assert not any(parameter.requires_grad for parameter in sae.parameters())


@pytest.mark.parametrize("how", ["layer_norm", "constant_norm_rescale"])
def test_normalised_inputs_are_their_formula_and_come_back(how: Normalize) -> None:
    sae = with_normalised_inputs(tiny_sae(variant="relu"), how)
    x = OUTPUTS.numpy().astype(float)
    if how == "layer_norm":
        mean, std = x.mean(1, keepdims=True), x.std(1, ddof=1, keepdims=True)
        inputs, size, centre = (x - mean) / (std + 1e-5), std, mean
    else:
        size, centre = np.linalg.norm(x, axis=1, keepdims=True) / np.sqrt(6), 0.0
        inputs = x / size
    np.testing.assert_allclose(normalise(OUTPUTS, how).inputs.numpy(), inputs, atol=1e-5)
    features, rebuilt = sae(OUTPUTS)
    np.testing.assert_allclose(features.numpy(), naive_features(sae, torch.tensor(inputs)), atol=1e-4)
    expected = (features.numpy() @ sae.W_dec.numpy() + sae.b_dec.numpy()) * size + centre
    np.testing.assert_allclose(rebuilt.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(features, sae.encode(OUTPUTS))


def test_a_token_of_zeros_can_be_normalised() -> None:
    assert torch.equal(normalise(torch.zeros(2, 6), "constant_norm_rescale").inputs, torch.zeros(2, 6))
    assert torch.equal(normalise(torch.zeros(2, 6), "layer_norm").inputs, torch.zeros(2, 6))


def test_with_normalised_inputs_features_alone_cannot_be_decoded_nor_a_scale_folded() -> None:
    sae = with_normalised_inputs(tiny_sae(layer=4), "layer_norm")
    with pytest.raises(ModelError, match=r"layer 4: .* call reconstruct"):
        sae.decode(sae.encode(OUTPUTS))
    with pytest.raises(ModelError, match="layer 4: layer_norm inputs have no scale"):
        fold_scale(sae, 2.0)


@every_variant
def test_a_dictionary_scales_features_to_outputs_of_unit_mean_square_norm(variant: Variant) -> None:
    sae = tiny_sae(variant=variant, scale=0.37)
    features = Dictionary([sae]).encode({Place(0): OUTPUTS})
    torch.testing.assert_close(features, 0.37 * sae.encode(OUTPUTS), rtol=1e-5, atol=1e-6)
    trained = tiny_sae(variant=variant, scale=1.0)
    torch.testing.assert_close(
        Dictionary([fold_scale(trained, 0.37)]).encode({Place(0): OUTPUTS}),
        trained.encode(OUTPUTS * 0.37),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("how", ["layer_norm", "constant_norm_rescale"])
def test_a_dictionary_scales_features_of_normalised_inputs_too(how: Normalize) -> None:
    sae = with_normalised_inputs(tiny_sae(variant="jumprelu"), how)
    torch.testing.assert_close(Dictionary([sae]).encode({Place(0): OUTPUTS}), 0.37 * sae.encode(OUTPUTS))


def test_a_dictionary_lays_layers_side_by_side_in_order() -> None:
    late, early = tiny_sae(layer=5, width=3, variant="topk"), tiny_sae(layer=2, width=4, seed=1)
    dictionary = Dictionary([late, early])
    assert (dictionary.places, dictionary.n_features) == ((Place(2), Place(5)), 7)
    assert dictionary.place_of.tolist() == [0] * 4 + [1] * 3
    assert dictionary.index_of.tolist() == [0, 1, 2, 3, 0, 1, 2]
    features = dictionary.encode({Place(5): OUTPUTS, Place(2): OUTPUTS + 1})
    expected = torch.cat([early.encode(OUTPUTS + 1), late.encode(OUTPUTS)], dim=1) * 0.37
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(torch.cat(dictionary.decoders), torch.cat([early.W_dec, late.W_dec]))


def test_a_dictionary_changes_no_autoencoder_and_keeps_no_second_copy_of_its_weights() -> None:
    sae = tiny_sae(variant="jumprelu")
    before = copy.deepcopy(sae.state_dict())
    dictionary = Dictionary([sae])
    dictionary.encode({Place(0): OUTPUTS})
    assert all(torch.equal(before[name], tensor) for name, tensor in sae.state_dict().items())
    assert dictionary.saes[0] is sae and dictionary._scaled[0].encoder is sae.encoder


def test_a_moved_dictionary_makes_its_features_there() -> None:
    dictionary = Dictionary([tiny_sae(variant="topk", width=4096), tiny_sae(layer=1)])
    features = dictionary.to("meta").encode({Place(0): OUTPUTS, Place(1): OUTPUTS})
    assert (features.device.type, features.shape) == ("meta", (40, 4108))
