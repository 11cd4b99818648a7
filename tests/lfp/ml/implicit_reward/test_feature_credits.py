"""Features' credits are what gradients of the log-likelihood give them, and sum to their module's."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lfp.errors import ModelError
from lfp.evaluation.feature_credits import TextCredits
from lfp.ml.implicit_reward.feature_credits import Reference, feature_credits
from lfp.ml.implicit_reward.ledger import ModuleCredits, module_credits
from lfp.ml.implicit_reward.observed_writes import observe_writes
from lfp.ml.implicit_reward.weight_path import WeightPath
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.tokenization import Batch, TokenizedText, tokenize
from lfp.ml.sae.autoencoders import Dictionary, Sae, SaeInfo, Variant, build_sae
from lfp.util.types import Place
from tests.lfp.ml.conftest import build_model, load_adapted_and_merged

Pair = tuple[LanguageModel, LanguageModel]
NODES, WIDTH = 4, 24
PLACES = (Place(0, "attn_out"), Place(1, "attn_out"), Place(1))
KINDS: tuple[tuple[Variant, str], ...] = (
    ("topk", "change"),
    ("tied_relu", "tuned"),
    ("jumprelu", "change"),
    ("batchtopk", "tuned"),
    ("batchtopk", "crosscoder"),
)
"""Variants, and what they are trained on."""
# PEFT reads a property of transformers by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def move_weights(root: Path, architecture: str) -> Pair:
    """A model without zeros among its weights, and the same after a small step in every parameter."""
    generator, models = torch.Generator().manual_seed(3), []
    source = build_model(root / "source", architecture=architecture)
    network = AutoModelForCausalLM.from_pretrained(source)
    for name, size in (("base", 0.1), ("tuned", 0.005)):
        with torch.no_grad():
            for value in network.parameters():
                value += size * torch.randn(value.shape, generator=generator)
        network.save_pretrained(root / name)
        load_model(str(source)).tokenizer.save_pretrained(root / name)
        models.append(load_model(str(root / name)))
    return models[0], models[1]


def random_sae(place: Place, variant: Variant, trained_on: str) -> Sae:
    d_in = 64 if trained_on == "crosscoder" else 32
    info = SaeInfo(
        layer=place.layer,
        site=place.site,
        width=WIDTH,
        d_in=d_in,
        scale=2.0,
        l1=None,
        seed=0,
        model="tuned",
        variant=variant,
        k=3,
        trained_on=trained_on,
    )
    sae = build_sae(info).requires_grad_(False)
    generator = torch.Generator().manual_seed(place.layer)
    for name, value in sae.state_dict().items():
        value.copy_(0.02 * torch.randn(value.shape, generator=generator) if name[:2] == "b_" else value + 0.01)
    rows = torch.randn(WIDTH, d_in, generator=generator)
    sae.encoder.copy_(rows)
    sae.W_dec.copy_(rows / rows.norm(dim=1, keepdim=True))
    return sae


def build_dictionary(variant: Variant, trained_on: str) -> Dictionary:
    return Dictionary([random_sae(place, variant, trained_on) for place in PLACES])


def tokens_of(model: LanguageModel, sentences: list[str]) -> list[TokenizedText]:
    return tokenize(model.tokenizer, sentences, context=12)[:3]


def split(pair: Pair, dictionary: Dictionary, texts: list[TokenizedText]) -> list[TextCredits]:
    return list(feature_credits(*pair, dictionary, texts, nodes=NODES, batch_texts=2))


def check_sums(found: TextCredits, dictionary: Dictionary) -> None:
    """Features, bias and residual are their module on every path, at every place and position."""
    n_paths, n_places, n_tokens = found.modules.shape
    features = np.zeros((n_paths, n_places, n_tokens))
    for path in range(n_paths):
        np.add.at(features[path], (dictionary.place_of[found.features], found.positions + 1), found.credits[path])
    parts = features, found.bias, found.residual
    size = np.abs(parts).sum(axis=(0, 3))
    assert (np.abs(sum(parts).sum(2) - found.modules.sum(2)) <= 1e-9 * size).all() and (size > 0).all()
    np.testing.assert_allclose(sum(parts), found.modules, atol=1e-9 * size.max())


@pytest.mark.parametrize(
    ("architecture", "variant", "trained_on"),
    [
        *(("llama", *kind) for kind in KINDS),
        *((name, *kind) for name in ("gpt_neox", "gemma2", "opt", "bloom") for kind in KINDS[:2]),
        ("gemma2", *KINDS[-1]),
    ],
)
def test_features_bias_and_residual_sum_to_their_module(
    tmp_path: Path, architecture: str, variant: Variant, trained_on: str, sentences: list[str]
) -> None:
    pair = move_weights(tmp_path, architecture)
    texts, dictionary = tokens_of(pair[0], sentences), build_dictionary(variant, trained_on)
    found = split(pair, dictionary, texts)
    ledger = module_credits(*pair, texts, tolerance=1e-5)
    kinds = {"mlp_out": "mlp", "attn_out": "attention"}
    columns = [ledger.modules.index((place.layer, kinds[place.site])) for place in PLACES]
    for row, text in enumerate(found):
        check_sums(text, dictionary)
        expected = ledger.credits[row, columns]
        np.testing.assert_allclose(text.modules[0].sum(1), expected, atol=5e-3 * np.abs(ledger.credits[row]).sum())
        assert text.modules.shape[2] == len(texts[row].token_ids) + 1 and (np.diff(text.positions) >= 0).all()


def differentiate(pair: Pair, text: TokenizedText, sae: Sae, *, same_position: bool) -> np.ndarray:
    """Credits [tokens, features] of the MLP of layer 1 by autograd on a plain network."""
    network: Any = AutoModelForCausalLM.from_pretrained(pair[0].name).double().eval()
    if same_position:
        for name, module in network.named_modules():
            if name.endswith(("k_proj", "v_proj")):
                module.register_forward_pre_hook(lambda _, inputs: (inputs[0].detach(),))
    mlp, held = network.model.layers[1].mlp, {}

    def keep(_: Any, inputs: Any, output: Tensor) -> None:
        held["input"], held["output"] = inputs[0].detach(), output

    weights_of = [dict(AutoModelForCausalLM.from_pretrained(model.name).double().named_parameters()) for model in pair]
    ids = torch.tensor([[pair[0].bos_id, *text.token_ids]])
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    total = np.zeros((ids.shape[1], WIDTH))
    encoder, decoder = sae.encoder.double(), sae.W_dec.double()
    if sae.info.reads == "pair":
        decoder = decoder[:, :32] - decoder[:, 32:]

    def set_weights(at: float) -> None:
        with torch.no_grad():
            for name, value in network.named_parameters():
                value.copy_(weights_of[0][name] + at * (weights_of[1][name] - weights_of[0][name]))

    for node, weight in zip((1 + nodes) / 2, weights / 2, strict=True):
        set_weights(float(node))
        handle = mlp.register_forward_hook(keep)
        log_p = network(ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None]).sum()
        gradient = torch.autograd.grad(log_p, held["output"])[0][0]
        handle.remove()
        written, ahead = held["output"].detach()[0], []
        for step in (1e-4, -1e-4):
            set_weights(float(node) + step)
            ahead.append(mlp(held["input"]).detach()[0])
        moved = (ahead[0] - ahead[1]) / 2e-4
        ends = []
        for end in (1.0, 0.0):
            set_weights(end)
            ends.append(mlp(held["input"]).detach()[0].float())
        if sae.info.reads == "change":
            codes = sae.encode(moved.float()).double()
        elif sae.info.reads == "pair":
            codes = sae.encode(torch.cat(ends, dim=1)).double()
        else:
            codes = (moved @ encoder.T) * (sae.encode(written.float()) > 0)
        total += float(weight) * (codes * (gradient @ decoder.T)).numpy()
    return total[1:]


@pytest.mark.parametrize(("variant", "trained_on"), KINDS)
def test_every_credit_is_what_autograd_gives(
    tmp_path: Path, variant: Variant, trained_on: str, sentences: list[str]
) -> None:
    pair = move_weights(tmp_path, "llama")
    texts, dictionary = tokens_of(pair[0], sentences), build_dictionary(variant, trained_on)
    number = dictionary.places.index(Place(1))
    found = split(pair, dictionary, texts)[1]
    first = number * WIDTH
    own = (found.features >= first) & (found.features < first + WIDTH)
    for path in (0, 1):
        dense = np.zeros((len(texts[1].token_ids), WIDTH))
        dense[found.positions[own], found.features[own] - first] = found.credits[path, own]
        expected = differentiate(pair, texts[1], dictionary.saes[number], same_position=path == 1)
        np.testing.assert_allclose(dense, expected, atol=1e-4 * np.abs(expected).max(), rtol=1e-3)
        assert np.abs(expected).max() > 1e-3


def refer(ledger: ModuleCredits, *, tolerance: float = 1e-3) -> Reference:
    kinds = {"mlp_out": "mlp", "attn_out": "attention"}
    columns = [ledger.modules.index((place.layer, kinds[place.site])) for place in PLACES]
    return Reference(ledger.credits[:, columns], np.abs(ledger.credits).sum(1), tolerance)


def test_nodes_are_as_many_as_bring_credits_to_the_ledgers(tmp_path: Path, sentences: list[str]) -> None:
    pair, dictionary = move_weights(tmp_path, "llama"), build_dictionary("topk", "change")
    texts = tokens_of(pair[0], sentences)
    ledger, found = module_credits(*pair, texts, tolerance=1e-6), {}
    for tolerance in (1e-2, 1e-5):
        reference = refer(ledger, tolerance=tolerance)
        reference.credits[2] = np.nan  # a text that the ledger did not split
        found[tolerance] = list(feature_credits(*pair, dictionary, texts, nodes=2, batch_texts=2, reference=reference))
        for row, text in enumerate(found[tolerance]):
            check_sums(text, dictionary)
            if row == 2:
                assert text.nodes >= 2 and np.isnan(text.error)
                continue
            missed = np.abs(text.modules[0].sum(1) - reference.credits[row]).max() / reference.size[row]
            assert missed == pytest.approx(text.error) and text.error <= tolerance
    assert found[1e-5][0].nodes > found[1e-2][0].nodes
    assert found[1e-5][0].forward_passes > found[1e-2][0].forward_passes > 2.0


@pytest.mark.parametrize(("variant", "trained_on"), KINDS)
def test_controls_carry_what_their_features_would_as_the_dictionary(
    tmp_path: Path, variant: Variant, trained_on: str, sentences: list[str]
) -> None:
    pair, dictionary = move_weights(tmp_path, "llama"), build_dictionary(variant, trained_on)
    texts, number = tokens_of(pair[0], sentences), dictionary.places.index(Place(1))
    other = build_dictionary(variant, trained_on).saes[number]
    with torch.no_grad():
        other.b_enc.copy_(torch.randn(WIDTH))  # so that it is another dictionary, which carries less or more
    exchanged = Dictionary([other if i == number else sae for i, sae in enumerate(dictionary.saes)])
    options = {"nodes": NODES, "batch_texts": 2}
    found = list(feature_credits(*pair, dictionary, texts, controls={Place(1): other}, **options))
    for text, plain, expected in zip(found, split(pair, dictionary, texts), split(pair, exchanged, texts), strict=True):
        np.testing.assert_array_equal(text.credits, plain.credits)  # a control changes nothing else
        assert text.control is not None and plain.control is not None and np.isnan(plain.control).all()
        sums = expected.place_sums(exchanged.place_of)[1]
        np.testing.assert_allclose(text.control[:, number], sums[:, number], rtol=1e-6, atol=1e-12)
        assert np.isnan(np.delete(text.control, number, axis=1)).all()
        assert not np.allclose(sums[:, number], plain.place_sums(dictionary.place_of)[1, :, number], rtol=1e-3)


def test_credits_too_small_for_single_precision_sum_exactly(tmp_path: Path, sentences: list[str]) -> None:
    base, dictionary = move_weights(tmp_path, "gpt_neox")[0], build_dictionary("topk", "change")
    network, generator = deepcopy(base.network), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in network.parameters():
            value += 1e-6 * torch.randn(value.shape, generator=generator)
    parameters = {name: value.detach() for name, value in network.named_parameters()}
    tuned, texts = replace(base, network=network, parameters=parameters), tokens_of(base, sentences)
    reference = refer(module_credits(base, tuned, texts, tolerance=0.05))
    found = list(feature_credits(base, tuned, dictionary, texts, nodes=1, batch_texts=3, reference=reference))
    for text in found:
        check_sums(text, dictionary)
        assert np.abs(text.modules).max() < 1e-3
        assert text.nodes == 1 and text.error < 1e-4 and text.forward_passes < 8.0


def test_an_adapter_is_split_like_the_merged_model(
    tmp_path: Path, folders: dict[str, tuple[Path, Path]], sentences: list[str]
) -> None:
    pair, merged = load_adapted_and_merged(folders["llama"][1], tmp_path)
    texts, dictionary = tokens_of(pair[0], sentences), build_dictionary("tied_relu", "change")
    expected = split(merged, dictionary, texts)
    for split_text, text in zip(split(pair, dictionary, texts), expected, strict=True):
        check_sums(split_text, dictionary)
        np.testing.assert_allclose(split_text.modules, text.modules, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("trained_on", ["change", "tuned", "crosscoder"])
def test_a_module_that_tuning_left_as_it_was_has_no_credit(
    trained_on: str, tmp_path: Path, folders: dict[str, tuple[Path, Path]], sentences: list[str]
) -> None:
    base, network = (load_model(str(folders["llama"][0])) for _ in range(2))
    with torch.no_grad():
        for layer in network.network.model.layers[:1]:  # before MLPs and attention that are as they were
            layer.self_attn.v_proj.weight += 0.05
    dictionary = build_dictionary("batchtopk", trained_on)
    for text in split((base, network), dictionary, tokens_of(base, sentences)):
        sizes = np.abs(text.modules).sum(axis=(0, 2))
        assert sizes[0] > 0 and not sizes[1:].any() and not text.residual[:, 1:].any()
        carried = text.credits.any(axis=0)
        assert {*dictionary.place_of[text.features[carried]]} == {0}


def test_batches_of_features_are_halved_once_where_memory_is_full(
    neox: LanguageModel, folders: dict[str, tuple[Path, Path]], sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tuned = (load_model(str(folder)) for folder in folders["gpt_neox"])
    texts, dictionary = tokens_of(neox, sentences)[:2], build_dictionary("topk", "change")
    expected = list(feature_credits(base, tuned, dictionary, texts, nodes=1, batch_texts=1))
    limit, sizes = 1, set[int]()

    def observe(path: WeightPath, batch: Batch, *args: Any) -> Any:
        sizes.add(len(batch.rows))
        if len(batch.rows) > limit:
            raise MemoryError("can't allocate memory")
        return observe_writes(path, batch, *args)

    monkeypatch.setattr("lfp.ml.implicit_reward.feature_credits.observe_writes", observe)
    found = list(feature_credits(base, tuned, dictionary, texts, nodes=1, batch_texts=2))
    for text, alone in zip(found, expected, strict=True):
        np.testing.assert_allclose(text.modules, alone.modules, atol=1e-6)
    assert sizes == {1, 2}
    limit = 0
    with pytest.raises(ModelError, match=r"^credits of features: .* lower feature_credits\.batch_texts \(now 2\)"):
        list(feature_credits(base, tuned, dictionary, texts, nodes=1, batch_texts=2))


def test_equal_models_have_no_features_that_carry_anything(neox: LanguageModel, sentences: list[str]) -> None:
    for text in split((neox, neox), build_dictionary("topk", "change"), tokens_of(neox, sentences)):
        assert not len(text.features) and not text.modules.any() and not text.bias.any() and not text.residual.any()
