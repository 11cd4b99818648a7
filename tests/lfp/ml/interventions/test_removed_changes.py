"""Taking features out of what tuning changed: a change of zero is the base's module, and parts of it are parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lfp.errors import ModelError
from lfp.ml.implicit_reward.changes import ChangeOfWrites
from lfp.ml.interventions.changes import measure_codes, scaling_changes, text_log_probs
from lfp.ml.models.generation import sample_completions
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.pairs import load_pair
from lfp.ml.models.runtime import Batches
from lfp.ml.models.sources import find_model
from lfp.ml.models.tokenization import tokenize
from lfp.ml.sae.autoencoders import Dictionary
from lfp.util.types import Place
from tests.lfp.ml.conftest import build_model, save_adapter
from tests.lfp.ml.implicit_reward.test_feature_credits import random_sae

Pair = tuple[LanguageModel, LanguageModel]
PLACES = (Place(0), Place(1, "attn_out"))
# PEFT reads a property of transformers by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def ids_of(model: LanguageModel, sentences: list[str]) -> Tensor:
    return torch.tensor([[model.bos_id, *tokenize(model.tokenizer, sentences, context=12)[0].token_ids]])


def logits(model: LanguageModel, ids: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.forward(ids, torch.ones_like(ids), use_cache=False).logits
    return found


def without_change(pair: Pair, ids: Tensor) -> Tensor:
    """Logits of the tuned model with the base's weights in the modules of PLACES."""
    network: Any = AutoModelForCausalLM.from_pretrained(pair[1].name).eval()
    parts = (
        "layers.0.mlp.",
        "layers.1.self_attn.",
        "layers.1.attention.",
        "layers.0.fc",
        "h.0.mlp.",
        "h.1.self_attention.",
    )
    with torch.no_grad():
        for name, value in network.named_parameters():
            if any(part in name for part in parts):
                value.copy_(pair[0].parameters[name])
        found: Tensor = network(ids).logits
    return found


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gemma2", "opt", "bloom"])
def test_a_change_of_zero_is_the_base_module(tmp_path: Path, architecture: str, sentences: list[str]) -> None:
    base, tuned = (
        load_model(str(build_model(tmp_path / role, architecture=architecture, seed=seed)))
        for seed, role in enumerate(("base", "tuned"))
    )
    ids, pair = ids_of(base, sentences), ChangeOfWrites(tuned, base)
    before = logits(tuned, ids)
    with pair.compare(tuned, {place: lambda change, _: torch.zeros_like(change) for place in PLACES}):
        found = logits(tuned, ids)
    torch.testing.assert_close(found, without_change((base, tuned), ids), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(found, before, atol=1e-2)
    torch.testing.assert_close(logits(tuned, ids), before)
    seen, mask = list[torch.Tensor](), torch.ones_like(ids)
    with pair.compare(tuned, {PLACES[1]: lambda change, _: seen.append(change.clone())}):
        tuned.forward(ids, mask, use_cache=False)
        for _ in range(2):  # each time with caches of its own
            started = tuned.forward(ids[:, :3], mask[:, :3], use_cache=True)
            tuned.forward(ids[:, 3:], mask, past_key_values=started.past_key_values, use_cache=True)
    for parts in (seen[1:3], seen[3:5]):
        torch.testing.assert_close(torch.cat(parts, dim=1), seen[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("trained_on", ["change", "tuned", "crosscoder"])
def test_what_is_taken_out_is_the_feature_of_the_change(
    tmp_path: Path, trained_on: str, folders: dict[str, tuple[Path, Path]], sentences: list[str]
) -> None:
    folder = folders["llama"][1]
    base, tuned = load_pair(find_model(str(folder)), find_model(str(save_adapter(folder, tmp_path / "adapter"))))
    sae, ids, pair = random_sae(Place(1), "batchtopk", trained_on), ids_of(base, sentences), ChangeOfWrites(tuned, base)
    dictionary, scales, kept = Dictionary([sae]), {3: 0.0, 7: 2.0}, []
    with pair.compare(tuned, {Place(1): lambda change, written: kept.append((change[0], written[0]))}):
        logits(tuned, ids)
    change, written = kept[0]
    rows, before = sae.W_dec, written - change
    if trained_on == "crosscoder":
        codes, rows = sae.encode(torch.cat([written, before], dim=1)), rows[:, :32] - rows[:, 32:]
    else:
        codes = sae.encode(change) if trained_on == "change" else sae.encode(written) - sae.encode(before)
    expected = written - codes[:, [3]] * rows[3] + codes[:, [7]] * rows[7]
    expected[0] = written[0]  # no dictionary is trained on what the first position writes
    outputs: list[Tensor] = []
    with scaling_changes(pair, dictionary, scales, prepend_bos=True):
        handle = tuned.network.get_submodule("model.layers.1.mlp").register_forward_hook(
            lambda _, __, y: outputs.append(y[0])
        )
        logits(tuned, ids)
        handle.remove()
    torch.testing.assert_close(outputs[0], expected, atol=1e-5, rtol=1e-4)
    assert codes[1:, [3, 7]].abs().sum() > 0
    unknown = scaling_changes(pair, dictionary, {99: 0.0}, prepend_bos=True)
    with pytest.raises(ModelError, match="feature 99: not one of the dictionary's 0 to 23"), unknown:
        pass


def batches(model: LanguageModel, size: int) -> Batches:
    return Batches(size, "interventions", "feature_credits.batch_texts", model.device)


def test_batches_are_halved_once_where_memory_is_full(
    folders: dict[str, tuple[Path, Path]], sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tuned = (load_model(str(folder)) for folder in folders["llama"])
    texts, pair = tokenize(base.tokenizer, sentences, context=12)[:4], ChangeOfWrites(tuned, base)
    dictionary = Dictionary([random_sae(Place(0), "topk", "change"), random_sae(Place(1), "topk", "change")])
    prefixes = [(base.bos_id, *text.token_ids[:3]) for text in texts]

    def measure(own: Batches) -> list[Any]:
        codes = measure_codes(pair, dictionary, texts, batches=own, prepend_bos=True)
        written = sample_completions(tuned, prefixes, n_tokens=4, temperature=1.0, seed=0, batches=own)
        return [text_log_probs(tuned, texts, batches=own, prepend_bos=True), *codes, written]

    whole, most = measure(batches(tuned, 4)), 2
    block = tuned.network.get_submodule("model.layers.1.mlp.up_proj")

    def fill_memory(_: Any, args: tuple[Tensor, ...]) -> None:
        if len(args[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = block.register_forward_pre_hook(fill_memory)
    own = batches(tuned, 4)
    halved = measure(own)
    assert own.size == 2 and halved.pop() == whole.pop()
    for value, expected in zip(halved, whole, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)  # nothing counts twice
    most = 1
    with pytest.raises(ModelError, match=r"with 2 texts per batch; lower feature_credits.batch_texts \(now 4\)"):
        measure(batches(tuned, 4))
    handle.remove()


def test_log_likelihoods_are_those_of_texts_alone(neox: LanguageModel, sentences: list[str]) -> None:
    texts = tokenize(neox.tokenizer, sentences, context=12)
    found = text_log_probs(neox, texts, batches=batches(neox, 2), prepend_bos=True)
    for text, value in zip(texts, found, strict=True):
        ids = torch.tensor([[neox.bos_id, *text.token_ids]])
        expected = logits(neox, ids).log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None]).sum()
        np.testing.assert_allclose(value, expected, rtol=1e-4)
