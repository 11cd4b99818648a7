"""Scaling features in a running model: against the formula written out, with and without a cache, and nothing left."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lfp.errors import ModelError
from lfp.ml.interventions.ablation import firing, scaling
from lfp.ml.models.generation import sample_completions
from lfp.ml.models.loading import LanguageModel
from lfp.ml.sae.autoencoders import Dictionary, Normalize, Sae, Variant
from lfp.util.types import Place
from tests.lfp.builders import tiny_sae

Pair = tuple[LanguageModel, LanguageModel]
IDS = torch.randint(0, 300, (3, 9), generator=torch.Generator().manual_seed(5))
SCALES = {2: 0.0, 5: 0.0, 7: 3.0, 12 + 4: 0.5}


def dictionary(variant: Variant = "tied_relu", normalize: Normalize = "none", d_in: int = 32) -> Dictionary:
    """Two layers of twelve features each."""
    saes = [tiny_sae(variant=variant, layer=layer, d_in=d_in, seed=layer) for layer in (0, 1)]
    for sae in saes:
        sae.info = replace(sae.info, normalize=normalize)
    return Dictionary(saes)


def explicit(sae: Sae, outputs: Tensor, scales: dict[int, float], first: int) -> Tensor:
    """x + sum_i (scale_i - 1) f_i(x) d_i, token by token, in the units of x."""
    changed = outputs.clone()
    for row in changed:
        for position in range(first, len(row)):
            x = row[position].clone()
            size = {
                "none": 1.0,
                "layer_norm": x.std(),
                "constant_norm_rescale": x.norm() / len(x) ** 0.5,
            }[sae.info.normalize]
            for index, scale in scales.items():
                row[position] += (scale - 1) * size * sae.encode(x[None])[0, index] * sae.W_dec[index]
    return changed


def logits_of(model: LanguageModel, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        return model.network(ids).logits


def outputs_under(model: LanguageModel, features: Dictionary, scales: dict[int, float], layer: int) -> Tensor:
    """The MLP outputs of a layer, read after the scaling."""
    kept: list[Tensor] = []
    read = {Place(layer): lambda output: kept.append(output.clone())}
    with scaling(model, features, scales, prepend_bos=True), model.hooks(read):
        logits_of(model)
    return kept[0]


@pytest.mark.parametrize("variant", get_args(Variant))
@pytest.mark.parametrize("normalize", get_args(Normalize))
def test_logits_are_those_of_a_forward_hook_written_by_hand(
    variant: Variant, normalize: Normalize, neox: LanguageModel
) -> None:
    features = dictionary(variant, normalize)
    hf_model = AutoModelForCausalLM.from_pretrained(neox.name, attn_implementation="eager").eval()
    for layer, sae in enumerate(features.saes):
        own = {i - 12 * layer: scale for i, scale in SCALES.items() if i // 12 == layer}
        hf_model.gpt_neox.layers[layer].mlp.register_forward_hook(
            lambda module, inputs, output, sae=sae, own=own: explicit(sae, output, own, 1)
        )
    with torch.no_grad():
        expected = hf_model(IDS).logits
    with scaling(neox, features, SCALES, prepend_bos=True):
        found = logits_of(neox)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert (found - logits_of(neox)).abs().max() > 0.01


def test_every_architecture_is_changed_by_the_formula(pair: Pair) -> None:
    model, features = pair[0], dictionary()
    sae = features.saes[0]
    before = outputs_under(model, features, {}, 0)
    found = outputs_under(model, features, {1: 0.0, 3: 2.0}, 0)
    torch.testing.assert_close(found, explicit(sae, before, {1: 0.0, 3: 2.0}, 1), rtol=1e-4, atol=1e-5)
    assert torch.equal(found[:, 0], before[:, 0]) and not torch.equal(found, before)


@pytest.mark.parametrize("scales", [{}, dict.fromkeys(range(24), 1.0)])
def test_nothing_to_change_changes_nothing(scales: dict[int, float], neox: LanguageModel) -> None:
    with scaling(neox, dictionary(), scales, prepend_bos=True):
        assert torch.equal(logits_of(neox), logits_of(neox))
        found = logits_of(neox)
    assert torch.equal(found, logits_of(neox))


@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0, 5.0])
def test_the_change_is_linear_in_the_scale_and_adds_up_over_features(scale: float, neox: LanguageModel) -> None:
    features, chosen = dictionary(), (2, 5, 7)
    before = outputs_under(neox, features, {}, 0)
    doubled = [outputs_under(neox, features, {feature: 2.0}, 0) - before for feature in chosen]
    found = outputs_under(neox, features, dict.fromkeys(chosen, scale), 0)
    torch.testing.assert_close(found - before, (scale - 1) * sum(doubled), rtol=1e-4, atol=1e-5)


def test_what_the_autoencoder_misses_stays(neox: LanguageModel) -> None:
    """With every feature taken out, the bias and the error are left."""
    features = dictionary()
    sae, before = features.saes[0], outputs_under(neox, features, {}, 0)
    found = outputs_under(neox, features, dict.fromkeys(range(12), 0.0), 0)[:, 1:].reshape(-1, 32)
    plain = before[:, 1:].reshape(-1, 32)
    torch.testing.assert_close(found, plain - sae.reconstruct(plain) + sae.b_dec, rtol=1e-4, atol=1e-4)


def test_without_a_beginning_of_sequence_token_every_position_is_changed(neox: LanguageModel) -> None:
    with scaling(neox, dictionary(), {0: 4.0}, prepend_bos=False):
        found = logits_of(neox)
    assert bool(((found - logits_of(neox))[:, 0].abs() > 1e-6).any())


@pytest.mark.parametrize("prepend_bos", [True, False])
def test_writing_with_a_cache_is_as_writing_without_one(prepend_bos: bool, neox: LanguageModel) -> None:
    features = dictionary()
    prefixes = [tuple(row) for row in IDS.tolist()]
    uniform = torch.rand(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    with scaling(neox, features, SCALES, prepend_bos=prepend_bos):
        found = sample_completions(neox, prefixes, n_tokens=7, temperature=1.0, seed=6)
        for completion, quantiles in zip(found, uniform, strict=True):
            ids = list(completion.prefix_ids)
            for quantile in quantiles[: len(completion.token_ids)]:
                cumulative = logits_of(neox, torch.tensor([ids]))[0, -1].double().softmax(-1).cumsum(-1)
                ids.append(int((cumulative <= quantile).sum()))
            assert completion.token_ids == tuple(ids[len(completion.prefix_ids) :])
    plain = sample_completions(neox, prefixes, n_tokens=7, temperature=1.0, seed=6)
    assert plain != found


def test_no_hook_is_left_whatever_happens(neox: LanguageModel) -> None:
    before = logits_of(neox)
    with pytest.raises(RuntimeError, match="inside"), scaling(neox, dictionary(), {0: 0.0}, prepend_bos=True):
        raise RuntimeError("inside")
    assert torch.equal(logits_of(neox), before)


def test_a_feature_that_is_not_there_is_named(neox: LanguageModel) -> None:
    with pytest.raises(ModelError, match="feature 24: not one of the dictionary's 0 to 23"):
        scaling(neox, dictionary(), {24: 0.0}, prepend_bos=True).__enter__()


def test_firing_is_over_prefixes_and_completions_without_their_first_token(neox: LanguageModel) -> None:
    features = dictionary()
    prefixes = [(neox.bos_id or 0, *row) for row in IDS.tolist()]
    written = sample_completions(neox, prefixes, n_tokens=4, temperature=1.0, seed=0)
    found = firing(neox, features, written, prepend_bos=True, batch_texts=2)
    kept: list[Tensor] = []
    for completion in written:
        seen = {}
        hooks = {
            place: lambda output, place=place, seen=seen: seen.update({place: output[0]}) for place in features.places
        }
        with neox.hooks(hooks):
            logits_of(neox, torch.tensor([[*completion.prefix_ids, *completion.token_ids]]))
        kept.append(features.encode(seen)[1:])
    values = torch.cat(kept).double()
    assert found.n_tokens == len(values)
    assert torch.equal(torch.tensor(found.density), (values > 0).double().mean(0))
    torch.testing.assert_close(torch.tensor(found.mean), values.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.tensor(found.mean_square), (values**2).mean(0), rtol=1e-4, atol=1e-5)
