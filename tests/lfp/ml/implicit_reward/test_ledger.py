"""The ledger sums to the implicit reward, and each part is what gradients of the parameters give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from lfp.ml.implicit_reward.ledger import Module, ModuleCredits, module_credits, position_credits
from lfp.ml.models.divergence import place_parameter
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.pairs import load_pair
from lfp.ml.models.sources import find_model
from lfp.ml.models.tokenization import TokenizedText, tokenize
from tests.lfp.ml.conftest import ARCHITECTURES
from tests.lfp.ml.models.test_model_sources import save_adapter

Pair = tuple[LanguageModel, LanguageModel]
# PEFT reads a property of transformers by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def near_pair(
    request: pytest.FixtureRequest, folders: dict[str, tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    """A model, and the same after a small step in every parameter; no row of the base's embedding is zero."""
    source, root = folders[request.param][0], tmp_path_factory.mktemp("near")
    network, generator = AutoModelForCausalLM.from_pretrained(source), torch.Generator().manual_seed(3)
    tokenizer, models = load_model(str(source)).tokenizer, []
    for name in ("base", "tuned"):
        with torch.no_grad():
            for value in network.parameters():
                value += 0.02 * torch.randn(value.shape, generator=generator)
        network.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
        models.append(load_model(str(root / name)))
    return models[0], models[1]


@pytest.fixture(scope="module")
def texts(neox: LanguageModel, sentences: list[str]) -> list[TokenizedText]:
    return tokenize(neox.tokenizer, sentences, context=14)[:5]


@pytest.fixture(scope="module")
def ledger(near_pair: Pair, texts: list[TokenizedText]) -> ModuleCredits:
    return module_credits(*near_pair, texts, batch_texts=2)


def text_reward(pair: Pair, text: TokenizedText) -> float:
    """The text alone, unpadded, through transformers."""
    base, tuned = pair
    ids = torch.tensor([[base.bos_id, *text.token_ids]])
    with torch.no_grad():
        log_p = [model.network(ids).logits.double().log_softmax(-1) for model in (base, tuned)]
    return float((log_p[1] - log_p[0])[0, :-1].gather(-1, ids[0, 1:, None]).sum())


def test_credits_sum_to_the_implicit_reward(near_pair: Pair, texts: list[TokenizedText], ledger: ModuleCredits) -> None:
    expected = np.array([text_reward(near_pair, text) for text in texts])
    np.testing.assert_allclose(ledger.reward, expected, atol=1e-4)
    assert np.abs(ledger.reward).max() > 0.05
    assert (np.abs(ledger.credits.sum(1) - expected) <= 1e-3 * np.abs(ledger.credits).sum(1)).all()
    assert (ledger.error <= 1e-3).all()


def integrate_gradients(pair: Pair, text: TokenizedText, *, same_position: bool) -> dict[tuple[int, str], float]:
    """By autograd on parameters; on the same position the inputs of keys and values are constants."""
    base, tuned = pair
    network = AutoModelForCausalLM.from_pretrained(base.name).eval()
    network.get_input_embeddings().padding_idx = None  # for which torch gives no gradient
    if same_position:
        for name, module in network.named_modules():
            if name.endswith(("k_proj", "v_proj")):
                module.register_forward_pre_hook(lambda _, inputs: (inputs[0].detach(),))
    start = [value.detach().clone() for value in network.parameters()]
    change = [after.detach() - before for before, after in zip(start, tuned.network.parameters(), strict=True)]
    ids = torch.tensor([[base.bos_id, *text.token_ids]])
    found: dict[tuple[int, str], float] = defaultdict(float)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    for node, weight in zip((1 + nodes) / 2, weights / 2, strict=True):
        with torch.no_grad():
            for value, before, step in zip(network.parameters(), start, change, strict=True):
                value.copy_(before + float(node) * step)
        log_p = network(ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None]).sum()
        gradients = torch.autograd.grad(log_p, list(network.parameters()))
        for (name, _), gradient, step in zip(network.named_parameters(), gradients, change, strict=True):
            found[place_parameter(name) or (-1, "")] += float(weight) * float((gradient * step).sum())
    return found


def by_parameters(modules: Sequence[Module], credits: np.ndarray) -> dict[tuple[int, str], float]:
    """Credits as gradients of parameters tell them apart: what is tied outside the layers cannot be."""
    found: dict[tuple[int, str], float] = defaultdict(float)
    for module, value in zip(modules, credits, strict=True):
        found[(-1, "") if module.layer is None else (module.layer, module.kind)] += float(value)
    return found


def test_every_part_is_the_integral_of_its_parameters_gradient(
    near_pair: Pair, texts: list[TokenizedText], ledger: ModuleCredits
) -> None:
    expected = integrate_gradients(near_pair, texts[0], same_position=False)
    assert by_parameters(ledger.modules, ledger.credits[0]) == pytest.approx(expected, rel=0.01, abs=2e-3)


def test_on_the_same_position_keys_and_values_are_constants(
    near_pair: Pair, texts: list[TokenizedText], ledger: ModuleCredits
) -> None:
    found = position_credits(*near_pair, texts, nodes=16, batch_texts=2)
    for text, credits, reward in zip(texts, found.credits, found.reward, strict=True):
        assert credits.shape == (len(text.token_ids), len(found.modules)) and reward.shape == (len(text.token_ids),)
    np.testing.assert_allclose([reward.sum() for reward in found.reward], ledger.reward, atol=1e-4)
    totals = np.stack([credits.sum(0) for credits in found.credits])
    assert found.modules == ledger.modules and np.abs(totals - ledger.credits).max() > 1e-3
    last = near_pair[0].n_layers - 1  # no attention is left after its own
    local = [
        module.kind in ("unembedding", "final_norm") or (module.layer == last and module.kind in ("attention", "mlp"))
        for module in found.modules
    ]
    np.testing.assert_allclose(totals[:, local], ledger.credits[:, local], rtol=5e-3, atol=2e-3)
    if near_pair[0].network.config.model_type != "gpt_neox":  # whose keys and queries come from one layer
        expected = integrate_gradients(near_pair, texts[0], same_position=True)
        assert by_parameters(found.modules, totals[0]) == pytest.approx(expected, rel=0.01, abs=2e-3)


def test_an_adapter_is_split_like_the_merged_model(
    tmp_path: Path, folders: dict[str, tuple[Path, Path]], texts: list[TokenizedText]
) -> None:
    folder = folders["llama"][1]
    adapter = save_adapter(folder, tmp_path / "adapter")
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    load_model(str(folder)).tokenizer.save_pretrained(tmp_path / "merged")
    pair = load_pair(find_model(str(folder)), find_model(str(adapter)))
    found = module_credits(*pair, texts, tolerance=1e-4)
    expected = module_credits(load_model(str(folder)), load_model(str(tmp_path / "merged")), texts, tolerance=1e-4)
    assert found.modules == expected.modules and {module.kind for module in found.modules} == {"attention", "mlp"}
    np.testing.assert_allclose(found.credits, expected.credits, rtol=1e-3, atol=1e-3)


def test_equal_models_have_nothing_to_split(neox: LanguageModel, texts: list[TokenizedText]) -> None:
    ledger = module_credits(neox, neox, texts)
    assert ledger.modules == () and not ledger.reward.any() and not ledger.error.any()
