"""Every site of several architectures: read, ablated together and split for a raw probe, against plain torch hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lfp.ml.features.active import encode_active
from lfp.ml.interventions.ablation import firing, scaling
from lfp.ml.models.activations import stream, stream_pair
from lfp.ml.models.generation import sample_completions
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.tokenization import TokenizedText
from lfp.ml.sae.autoencoders import Dictionary, Sae
from lfp.ml.sae.quality import RecoveredLoss, split_raw
from lfp.util.types import SITES, Place, Site
from tests.lfp.builders import tiny_sae

MODULES: dict[str, dict[Site, str]] = {
    "llama": {"resid_post": "model.layers.{}", "mlp_out": ".mlp", "attn_out": ".self_attn"},
    "gpt_neox": {"resid_post": "gpt_neox.layers.{}", "mlp_out": ".mlp", "attn_out": ".attention"},
    "opt": {"resid_post": "model.decoder.layers.{}", "mlp_out": ".fc2", "attn_out": ".self_attn"},
    "gemma2": {
        "resid_post": "model.layers.{}",
        "mlp_out": ".post_feedforward_layernorm",
        "attn_out": ".post_attention_layernorm",
    },
}
"""Modules whose output is a site's, named by hand; the first is the layer itself, the others are inside it."""
PLACES = tuple(sorted(Place(layer, site) for layer in (0, 1) for site in SITES))
IDS = torch.randint(0, 300, (3, 9), generator=torch.Generator().manual_seed(5))
WIDTH = 12


@pytest.fixture(scope="module", params=MODULES)
def model(
    request: pytest.FixtureRequest, model_builder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    return load_model(str(model_builder(folder, architecture=request.param)))


def texts() -> list[TokenizedText]:
    return [TokenizedText("", tuple(row[: 9 - k]), (), truncated=False) for k, row in enumerate(IDS.tolist())]


def dictionary() -> Dictionary:
    """Twelve tied features at every site of the first two layers."""
    saes = []
    for number, place in enumerate(PLACES):
        sae = tiny_sae(d_in=32, seed=number, layer=place.layer)
        sae.info = replace(sae.info, site=place.site)
        saes.append(sae)
    return Dictionary(saes[::-1])


def plain(model: LanguageModel) -> Any:
    return AutoModelForCausalLM.from_pretrained(model.name, attn_implementation="eager").eval()


def hook(network: Any, place: Place, call: Callable[[Tensor], Tensor | None]) -> None:
    """A plain forward hook on the module of a place; what `call` returns takes the output's place."""
    names = MODULES[network.config.model_type]
    inside = "" if place.site == "resid_post" else names[place.site]
    module = network.get_submodule(names["resid_post"].format(place.layer) + inside)

    def on_output(_: Any, __: Any, output: Any) -> Any:
        is_tuple = isinstance(output, tuple)
        changed = call(output[0] if is_tuple else output)
        return output if changed is None else (changed, *output[1:]) if is_tuple else changed

    module.register_forward_hook(on_output)


def logits_of(network: Any) -> Tensor:
    with torch.no_grad():
        return network(IDS).logits


def test_every_place_is_what_a_plain_forward_hook_sees(model: LanguageModel) -> None:
    network, seen = plain(model), dict[Place, list[np.ndarray]]()
    for place in PLACES:
        hook(network, place, lambda output, place=place: seen.setdefault(place, []).append(output.clone().numpy()))
    for text in texts():
        with torch.no_grad():
            network(torch.tensor([[model.bos_id, *text.token_ids]]))
    (tokens,) = stream(model, texts(), places=PLACES, batch_texts=3, prepend_bos=True)
    assert sorted(tokens.outputs) == list(PLACES)
    (both,) = stream_pair(model, model, texts(), places=PLACES, batch_texts=3, prepend_bos=True)
    for place in PLACES:
        expected = np.concatenate([output.reshape(-1, 32)[1:] for output in seen[place]])
        for found in (tokens, both.tuned, both.base):
            np.testing.assert_allclose(found.outputs[place].numpy(), expected, atol=3e-5, rtol=1e-4)
    outputs = [tokens.outputs[place] for place in PLACES]
    assert all(not torch.allclose(one, other) for i, one in enumerate(outputs) for other in outputs[:i])


def without(sae: Sae, scales: dict[int, float], x: np.ndarray) -> np.ndarray:
    """x + sum_i (scale_i - 1) relu(x . d_i + b_i) d_i of a tied autoencoder, position 0 unchanged."""
    rows, bias = sae.W_dec.numpy().astype(np.float64), sae.b_enc.numpy().astype(np.float64)
    changed = x.astype(np.float64)
    for index, scale in scales.items():
        strength = np.maximum(x.astype(np.float64) @ rows[index] + bias[index], 0.0)
        changed += (scale - 1.0) * strength[..., None] * rows[index]
    changed[:, 0] = x[:, 0]
    return changed


@pytest.mark.parametrize("sites", [("resid_post",), ("attn_out",), SITES])
def test_an_ablation_at_several_places_is_the_formula_at_each_in_turn(
    model: LanguageModel, sites: tuple[Site, ...]
) -> None:
    """An edit of the residual stream reaches the later places, which encode what is left of it."""
    features, network = dictionary(), plain(model)
    scales: dict[int, float] = {}
    for number, (place, sae) in enumerate(zip(features.places, features.saes, strict=True)):
        if place.site not in sites:
            continue
        own = {1: 0.0, 4: 3.0, 7: 0.5, 10: 0.0}
        scales |= {WIDTH * number + index: scale for index, scale in own.items()}

        def edit(output: Tensor, sae: Sae = sae, own: dict[int, float] = own) -> Tensor:
            changed = without(sae, own, output.reshape(*IDS.shape, 32).numpy())
            return torch.from_numpy(changed).float().view_as(output)

        hook(network, place, edit)
    before = logits_of(model.network)
    with scaling(model, features, scales, prepend_bos=True):
        found = logits_of(model.network)
    torch.testing.assert_close(found, logits_of(network), rtol=1e-3, atol=1e-4)
    assert (found - before).abs().max() > 0.01
    assert torch.equal(logits_of(model.network), before), "nothing is left"


def test_writing_with_a_cache_is_as_writing_without_one_at_every_site(model: LanguageModel) -> None:
    features, prefixes = dictionary(), [tuple(row) for row in IDS.tolist()]
    scales = {WIDTH * number + index: 0.0 for number in range(len(PLACES)) for index in (1, 4)}
    uniform = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    with scaling(model, features, scales, prepend_bos=False):
        found = sample_completions(model, prefixes, n_tokens=4, temperature=1.0, seed=6)
        for completion, quantiles in zip(found, uniform, strict=True):
            ids = list(completion.prefix_ids)
            for quantile in quantiles[: len(completion.token_ids)]:
                with torch.no_grad():
                    logits = model.network(torch.tensor([ids])).logits[0, -1]
                ids.append(int((logits.double().softmax(-1).cumsum(-1) <= quantile).sum()))
            assert completion.token_ids == tuple(ids[len(completion.prefix_ids) :])
    assert found != sample_completions(model, prefixes, n_tokens=4, temperature=1.0, seed=6)


def test_features_fire_as_in_the_pass_and_split_what_a_raw_probe_reads(model: LanguageModel) -> None:
    features = dictionary()
    (tokens,) = stream(model, texts(), places=PLACES, batch_texts=3, prepend_bos=True)
    dense = features.encode(tokens.outputs).numpy()
    encoded = encode_active(features, tokens.outputs)
    assert encoded.n_features == WIDTH * len(PLACES)
    for number, (place, sae) in enumerate(zip(features.places, features.saes, strict=True)):
        own = sae.encode(tokens.outputs[place]).numpy() * sae.info.scale
        np.testing.assert_allclose(dense[:, WIDTH * number : WIDTH * (number + 1)], own, rtol=1e-4, atol=1e-5)
    coef = np.random.default_rng(0).normal(size=32 * len(PLACES))
    split = split_raw(features, coef)
    assert split.weights is not None and split.bias is not None
    rebuilt = np.hstack([
        sae.reconstruct(tokens.outputs[sae.info.place]).double().numpy() for sae in features.saes
    ])  # fmt: skip
    np.testing.assert_allclose(dense @ split.weights + split.bias, rebuilt @ coef, rtol=1e-3, atol=1e-3)
    prefixes = [(model.bos_id or 0, *row) for row in IDS.tolist()]
    written = sample_completions(model, prefixes, n_tokens=3, temperature=1.0, seed=0)
    fired = firing(model, features, written, prepend_bos=True)
    assert len(fired.density) == features.n_features and fired.n_tokens == sum(9 + len(w.token_ids) for w in written)


@pytest.mark.parametrize("site", SITES)
def test_cross_entropy_is_recovered_at_a_place(model: LanguageModel, site: Site) -> None:
    """1 where the activation is rebuilt exactly, 0 where it is rebuilt as zero."""
    sae = tiny_sae(variant="relu", d_in=32, width=64)
    sae.info = replace(sae.info, layer=1, site=site)
    for weight in (sae.encoder, sae.W_dec):
        weight.copy_(torch.cat([torch.eye(32), -torch.eye(32)]))
    sae.b_enc.zero_()
    sae.b_dec.zero_()
    exact = RecoveredLoss(model, texts(), batch_texts=2, prepend_bos=True).measure(sae)
    sae.W_dec.zero_()
    nothing = RecoveredLoss(model, texts(), batch_texts=2, prepend_bos=True).measure(sae)
    if exact is None:  # this random model predicts no worse without the place
        assert nothing is None
    else:
        assert (exact, nothing) == (pytest.approx(1.0, abs=1e-3), pytest.approx(0.0, abs=1e-6))
