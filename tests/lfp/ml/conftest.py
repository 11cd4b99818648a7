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
    sizes = ARCHITECTURES[architecture] | {
        "max_position_embeddings": 64,
        "vocab_size": len(tokenizer),
        "bos_token_id": token_id,
        "eos_token_id": token_id,
        "pad_token_id": token_id,
        "initializer_range": 0.2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **(sizes | changes)))
    model.save_pretrained(folder)
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


@pytest.fixture(scope="session", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, folders: dict[str, tuple[Path, Path]]) -> tuple[LanguageModel, LanguageModel]:
    """Base and tuned of each architecture in turn."""
    base, tuned = folders[request.param]
    return load_model(str(base)), load_model(str(tuned))


@pytest.fixture(scope="session")
def neox(folders: dict[str, tuple[Path, Path]]) -> LanguageModel:
    return load_model(str(folders["gpt_neox"][0]))
