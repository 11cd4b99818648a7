"""Tiny random-weight models of several architectures in local folders, each with a tokenizer of a few sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
)

from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.pairs import Pair, load_pair
from lfp.ml.models.sources import find_model

SENTENCES = [
    "The movie was good and the acting was great.",
    "A terrible, boring film; the plot was bad and the ending was worse.",
    "I love this naïve little story 😀 and its happy music.",
    "What a waste of time.",
    "Good food, bad service, and a great view of the sea.",
]
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt_neox": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 3,
        "num_heads": 4,
        "attention_types": [[["global", "local", "global"], 1]],
        "window_size": 16,
    },
    "gemma": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "intermediate_size": 64,
    },
    "gemma2": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
    },
    "llama": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
}
"""Those that most tests of models run on."""
_LLAMA, _GROUPED = ARCHITECTURES["llama"], ARCHITECTURES["llama"] | {"num_key_value_heads": 2}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4}
EVERY_ARCHITECTURE: dict[str, dict[str, Any]] = ARCHITECTURES | {
    "qwen2": _GROUPED,
    "qwen3": _GROUPED | {"head_dim": 8},
    "mistral": _GROUPED,
    "mixtral": _GROUPED | {"num_local_experts": 4},
    "phi": _LLAMA,
    "phi3": _LLAMA,
    "stablelm": _LLAMA | {"num_key_value_heads": 4},
    "olmo": _LLAMA,
    "olmo2": _LLAMA,
    "granite": _LLAMA | {"logits_scaling": 3.0, "residual_multiplier": 0.5},
    "cohere": _LLAMA,
    "gemma3_text": _GROUPED | {"head_dim": 8},
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gptj": _GPT2 | {"rotary_dim": 8},
    "codegen": _GPT2 | {"rotary_dim": 8},
    "opt": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64,
            "word_embed_proj_dim": 32},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "max_position_embeddings": None},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "max_position_embeddings": None},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
}  # fmt: skip
"""All whose loading, sites and divergence are proved; a key whose value is None is left out of the config."""


ModelBuilder = Callable[..., Path]


def build_tokenizer(folder: Path, *, vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer saved in `folder`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)
    return fast


def build_model(folder: Path, *, architecture: str = "gpt_neox", seed: int = 0, **changes: Any) -> Path:
    """A random-weight model with its tokenizer, saved in `folder` as `save_pretrained` does. Returns the folder."""
    tokenizer = build_tokenizer(folder)
    token_id = tokenizer.eos_token_id
    sizes = {
        "max_position_embeddings": 64,
        "vocab_size": len(tokenizer),
        "bos_token_id": token_id,
        "eos_token_id": token_id,
        "pad_token_id": token_id,
        "initializer_range": 0.2,
    }
    sizes |= EVERY_ARCHITECTURE[architecture] | changes
    config = AutoConfig.for_model(architecture, **{key: value for key, value in sizes.items() if value is not None})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return folder


def build_without_special_tokens(folder: Path) -> Path:
    """A GPT-NeoX whose tokenizer has no token to begin, end or pad with, saved in `folder`. Returns the folder."""
    build_model(folder, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


def load_adapted_and_merged(base: Path, folder: Path) -> tuple[Pair, Pair]:
    """A model with a random adapter, as (base, tuned): switched in one network, and merged into weights of its own."""
    from peft import PeftModel

    adapter, merged = save_adapter(base, folder / "adapter"), folder / "merged"
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    adapted.merge_and_unload().save_pretrained(merged)
    of_base = load_model(str(base))
    of_base.tokenizer.save_pretrained(merged)
    return load_pair(find_model(str(base)), find_model(str(adapter))), (of_base, load_model(str(merged)))


def save_adapter(base: Path, folder: Path, *, seed: int = 0, **settings: Any) -> Path:
    """A LoRA with random weights, as PEFT saves it. Returns the folder."""
    from peft import LoraConfig, get_peft_model

    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(
            network, LoraConfig(**({"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | settings))
        )
        for name, value in adapted.named_parameters():
            if value.requires_grad and "lora_A" not in name:
                value.data.add_(torch.randn(value.shape) * 0.1)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from threads, and threads of several test processes get in each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """What the tiny tokenizers were trained on."""
    return SENTENCES


@pytest.fixture(scope="session")
def model_builder() -> ModelBuilder:
    """`model_builder(folder, architecture=..., seed=..., **config)` saves a tiny model and returns its folder."""
    return build_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Architecture: the folders of two models that differ in their random weights, standing for base and tuned."""
    root = tmp_path_factory.mktemp("models")
    return {
        name: (
            build_model(root / name / "base", architecture=name),
            build_model(root / name / "tuned", architecture=name, seed=1),
        )
        for name in ARCHITECTURES
    }


@pytest.fixture(scope="session", params=EVERY_ARCHITECTURE)
def every_pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LanguageModel, LanguageModel]:
    """Base and tuned of every architecture in turn."""
    root = tmp_path_factory.mktemp(request.param)
    folders = [build_model(root / role, architecture=request.param, seed=i) for i, role in enumerate(("base", "tuned"))]
    return load_model(str(folders[0])), load_model(str(folders[1]))


@pytest.fixture(scope="session", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, folders: dict[str, tuple[Path, Path]]) -> tuple[LanguageModel, LanguageModel]:
    """Base and tuned of each architecture in turn."""
    base, tuned = folders[request.param]
    return load_model(str(base)), load_model(str(tuned))


@pytest.fixture(scope="session")
def neox(folders: dict[str, tuple[Path, Path]]) -> LanguageModel:
    return load_model(str(folders["gpt_neox"][0]))
