"""The ledger sums to the implicit reward, and each part is what gradients of the parameters give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from lfp.errors import DataError, ModelError
from lfp.ml.implicit_reward.ledger import ModuleCredits, module_credits
from lfp.ml.implicit_reward.watched_modules import Module
from lfp.ml.implicit_reward.weight_path import WeightPath
from lfp.ml.models.divergence import place_parameter
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.tokenization import Batch, TokenizedText, tokenize
from tests.lfp.ml.conftest import ARCHITECTURES, ModelBuilder, load_adapted_and_merged

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
    found = module_credits(*near_pair, texts, batch_texts=2, n_by_token=3, tolerance=1e-4)
    assert len(found.tokens) == 3
    np.testing.assert_allclose(found.credits, ledger.credits, rtol=5e-3, atol=5e-3)
    for text, tokens, reward, credits in zip(texts, found.tokens, found.reward, found.credits, strict=False):
        assert tokens.same_position.shape == tokens.full.shape == (len(text.token_ids), len(found.modules))
        assert tokens.reward.sum() == pytest.approx(reward, abs=1e-4)
        np.testing.assert_allclose(tokens.full.sum(0), credits, atol=1e-9)  # nothing is written after the last token
    totals = found.same_position
    assert np.abs(totals - found.credits[:3]).max() > 1e-3
    last = near_pair[0].n_layers - 1  # no attention is left after its own
    local = [
        module.kind in ("unembedding", "final_norm") or (module.layer == last and module.kind in ("attention", "mlp"))
        for module in found.modules
    ]
    np.testing.assert_allclose(totals[:, local], found.credits[:3, local], rtol=5e-3, atol=2e-3)
    if near_pair[0].network.config.model_type != "gpt_neox":  # whose keys and queries come from one layer
        expected = integrate_gradients(near_pair, texts[0], same_position=True)
        assert by_parameters(found.modules, totals[0]) == pytest.approx(expected, rel=0.01, abs=2e-3)


def move(base: LanguageModel, scale: float, *, seed: int = 5, **changes: Any) -> LanguageModel:
    """A model of its own: the base after a random step in every parameter."""
    network, generator = deepcopy(base.network), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            value += scale * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    parameters = {name: value.detach() for name, value in network.named_parameters()}
    return replace(base, network=network, parameters=parameters, **changes)


def test_every_architecture_sums(every_pair: Pair, texts: list[TokenizedText]) -> None:
    base = move(every_pair[0], 0.02, seed=4)  # no row of its embedding is zero, where norms have a jump
    found = module_credits(base, move(base, 0.001), texts[:2], n_by_token=1, batch_texts=2)
    has_kinks = any("relu" in type(module).__name__.lower() for module in base.network.modules())
    limit = 0.01 if has_kinks else 1e-3  # at kinks the integrand jumps, and more nodes gain little
    np.testing.assert_array_less(np.abs(found.credits.sum(1) - found.reward), limit * np.abs(found.credits).sum(1))
    assert found.unknown == () and np.isfinite(found.tokens[0].full).all()
    assert {"attention", "mlp", "embedding"} <= {module.kind for module in found.modules}
    if found.switches:
        assert all(name.endswith("gate") for name in found.switches) and Module(None, "other") in found.modules
    else:
        assert (found.error <= limit).all()


def test_every_module_is_what_finite_differences_give(model_builder: ModelBuilder, tmp_path: Path) -> None:
    folder = model_builder(tmp_path, architecture="gpt2", initializer_range=0.1, tie_word_embeddings=False)
    base = load_model(str(folder))  # which computes in float64 throughout
    base = move(replace(base, network=base.network.double()), 0.02, seed=4)
    text = tokenize(base.tokenizer, ["The movie was good"], context=8)
    tuned = move(base, 0.02)
    found = module_credits(base, tuned, text, tolerance=1e-9, batch_texts=1)
    assert found.error.max() <= 1e-9
    path = WeightPath.between(base, tuned)
    for module, credit in zip(found.modules, found.credits[0], strict=True):
        names = {name for name in path.change if path.columns[name.rpartition(".")[0]] == path.modules.index(module)}
        assert credit == pytest.approx(difference_along(path, names, text[0], base), abs=1e-7), module


def difference_along(path: WeightPath, moved: set[str], text: TokenizedText, base: LanguageModel) -> float:
    """Integrate central differences of the log-likelihood with some parameters moved along the path."""
    ids, step, total = torch.tensor([[base.bos_id, *text.token_ids]]), 1e-5, 0.0
    nodes, weights = np.polynomial.legendre.leggauss(12)
    for node, weight in zip((1 + nodes) / 2, weights / 2, strict=True):
        log_p = []
        for side in (-step, step):
            values = {
                name: value + (node + (side if name in moved else 0.0)) * path.change[name]
                for name, value in path.start.items()
            }
            with torch.no_grad():
                logits = functional_call(base.network, values, (ids,)).logits.log_softmax(-1)
            log_p.append(float(logits[0, :-1].gather(-1, ids[0, 1:, None]).sum()))
        total += weight * (log_p[1] - log_p[0]) / (2 * step)
    return total


def test_only_the_tokens_that_count_are_split(neox: LanguageModel, texts: list[TokenizedText]) -> None:
    tuned, text = move(neox, 0.01), texts[0]
    counted = np.arange(len(text.token_ids)) >= 3
    found = module_credits(neox, tuned, [text], counted=[counted], n_by_token=1)
    whole = module_credits(neox, tuned, [text], n_by_token=1)
    np.testing.assert_allclose(found.tokens[0].reward, np.where(counted, whole.tokens[0].reward, 0.0), atol=1e-5)
    assert found.error.max() <= 1e-3 and not found.tokens[0].same_position[:3].any()


def test_rows_of_tokens_that_only_one_model_has_stay(neox: LanguageModel, texts: list[TokenizedText]) -> None:
    larger = move(neox, 0.01)
    larger.network.resize_token_embeddings(neox.d_vocab + 8, mean_resizing=False)
    larger = move(larger, 0.0)
    found = module_credits(neox, larger, texts[:2])
    np.testing.assert_allclose(found.reward, module_credits(neox, move(neox, 0.01), texts[:2]).reward, atol=1e-5)
    assert found.error.max() <= 1e-3
    back = module_credits(larger, neox, texts[:2])
    np.testing.assert_allclose(back.reward, -found.reward, atol=1e-5)


def test_a_module_without_a_known_name_is_named_and_sums_hold(neox: LanguageModel, texts: list[TokenizedText]) -> None:
    class Gain(torch.nn.Module):
        """Not affine in its parameter, and with two outputs, the second of which is made of the first."""

        def __init__(self) -> None:
            super().__init__()
            self.power = torch.nn.Parameter(torch.tensor(0.1))

        def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            first = values * self.power.exp()
            return first, first + self.power**2 * values

    def pass_through(layer: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return sum(layer.gain(output))  # type: ignore[no-any-return]

    network = deepcopy(neox.network)
    network.gpt_neox.layers[1].gain = Gain()
    network.gpt_neox.layers[1].register_forward_hook(pass_through)
    base = move(replace(neox, network=network), 0.0)
    found = module_credits(base, move(base, 0.02), texts[:2])
    assert found.unknown == ("gpt_neox.layers.1.gain",)
    assert np.abs(found.credits[:, found.modules.index(Module(1, "other"))]).min() > 1e-4
    assert found.error.max() <= 1e-3


def test_a_gradient_that_is_not_finite_names_text_and_module(neox: LanguageModel, texts: list[TokenizedText]) -> None:
    tuned = move(neox, 0.01)
    tuned.parameters["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"][0, 0] = float("nan")
    with pytest.raises(DataError, match=r"text 0: the gradient in .* is not finite"):
        module_credits(neox, tuned, texts[:1])


def test_a_pair_of_other_shapes_is_refused(pair: Pair, neox: LanguageModel, texts: list[TokenizedText]) -> None:
    if pair[0].network.config.model_type == "gpt_neox":
        return
    with pytest.raises(ModelError, match="is missing or of another shape"):
        module_credits(neox, pair[0], texts[:1])


def test_batches_are_halved_once_where_memory_is_full(
    neox: LanguageModel, texts: list[TokenizedText], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, limit, differentiate = move(neox, 0.01), 2, WeightPath.differentiate

    def full(self: WeightPath, batch: Batch, *args: Any, **options: Any) -> torch.Tensor:
        if len(batch.rows) > limit:
            raise MemoryError("can't allocate memory")
        return differentiate(self, batch, *args, **options)

    expected = module_credits(neox, tuned, texts[:4], batch_texts=2)
    monkeypatch.setattr(WeightPath, "differentiate", full)
    found = module_credits(neox, tuned, texts[:4], batch_texts=4)
    np.testing.assert_allclose(found.credits, expected.credits, rtol=5e-3, atol=5e-3)
    limit = 1
    with pytest.raises(ModelError, match=r"lower credits\.batch_texts \(now 4\)"):
        module_credits(neox, tuned, texts[:4], batch_texts=4)
    with pytest.raises(ModelError, match=r"lower stats\.batch_texts \(now 4\)"):
        module_credits(neox, tuned, texts[:4], batch_texts=4, batch_key="stats.batch_texts")


def test_cost_is_counted_in_forward_passes(neox: LanguageModel, texts: list[TokenizedText]) -> None:
    found = module_credits(neox, move(neox, 1e-4), texts, n_by_token=0)
    assert (found.nodes == 1).all()
    assert 4.0 < found.forward_passes < 6.0  # both ends, and a node: forward, backward, and how outputs move
    again = module_credits(neox, move(neox, 1e-4), texts, n_by_token=0, base_likelihood=found.base)
    assert again.forward_passes == pytest.approx(found.forward_passes - 1.0)
    np.testing.assert_allclose(again.credits, found.credits, rtol=1e-6)
    by_token = module_credits(neox, move(neox, 1e-4), texts, n_by_token=len(texts))
    assert (by_token.nodes == 1).all() and by_token.forward_passes < found.forward_passes + 1.6


def test_an_adapter_is_split_like_the_merged_model(
    tmp_path: Path, folders: dict[str, tuple[Path, Path]], texts: list[TokenizedText]
) -> None:
    pair, merged = load_adapted_and_merged(folders["llama"][1], tmp_path)
    found, expected = (module_credits(*models, texts, tolerance=1e-4) for models in (pair, merged))
    assert found.modules == expected.modules and {module.kind for module in found.modules} == {"attention", "mlp"}
    np.testing.assert_allclose(found.credits, expected.credits, rtol=1e-3, atol=1e-3)


def test_equal_models_have_nothing_to_split(neox: LanguageModel, texts: list[TokenizedText]) -> None:
    ledger = module_credits(neox, neox, texts)
    assert ledger.modules == () and not ledger.reward.any() and not ledger.error.any()
