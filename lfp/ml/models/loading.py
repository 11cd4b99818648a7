"""Load language models with transformers, never running code of a model, and check that two are a pair."""

from __future__ import annotations

import hashlib
import inspect
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch

from lfp.errors import ModelError
from lfp.ml.models.adapters import AdapterSwitch, attach_adapter, embedded_tokens, read_adapter_config
from lfp.ml.models.sites import Hook, decoder_layers, hook_sites
from lfp.ml.models.sources import LoadOptions, Source, find_model, has_tokenizer, load_network, load_tokenizer
from lfp.util.types import Place

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""Names in configs of the number of positions."""
_NO_LIMIT = 1 << 20
"""Positions of a model that has no limit, such as those with ALiBi."""
_PLACES = ("_name_or_path", "transformers_version", "dtype", "_attn_implementation")
"""Keys of configs that say where a model comes from and how it was loaded, not what it is."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model with sites to hook, in evaluation mode and without gradients.

    Two models may share a network that holds an adapter: calls of each turn the adapter on or off first.
    """

    network: Any = field(repr=False)
    """The model as transformers loads it."""
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    name: str
    revision: str | None
    folder: Path | None
    """Where its files are: the folder given, or the hub's local copy; None for a GGUF file."""
    n_layers: int
    d_model: int
    d_vocab: int
    """Tokens that it reads and predicts: all that it embeds, or in a pair those that the other model has too."""
    n_ctx: int
    n_parameters: int
    sha256: str
    """Hash of the names, shapes and bytes of its weights as loaded; of an adapter with its base, of both."""
    bos_id: int | None
    """Prepended to every text: the tokenizer's beginning-of-sequence token, else its end-of-sequence token."""
    pad_id: int
    """Pads rows; always masked, so any valid id will do."""
    parameters: Mapping[str, torch.Tensor] = field(repr=False)
    """The weights by name."""
    lock: threading.RLock = field(repr=False)
    """Held around every call of `network`, whose hooks would act on calls of other threads."""
    adapter: AdapterSwitch | None = field(default=None, repr=False)
    """Of the network, where it holds an adapter."""
    adapter_kind: str | None = None
    """Kind of the adapter that makes this model of its base, such as LORA; None for a model of its own."""
    note: str = ""
    """What of the model is not used, for a bundle's notes."""

    @property
    def device(self) -> torch.device:
        """Where its first weights are, and its inputs must be."""
        return torch.device(self.network.device)

    @cached_property
    def devices(self) -> frozenset[torch.device]:
        """Where its weights are: several cards where `model.device_map` spreads them."""
        return frozenset(weight.device for weight in self.network.parameters())

    @contextmanager
    def selected(self) -> Iterator[None]:
        """Hold the lock, with the network's adapter as this model has it."""
        with self.lock:
            if self.adapter is not None:
                self.adapter.turn(self.adapter_kind is not None)
            yield

    @contextmanager
    def hooks(self, hooks: Mapping[Place, Hook]) -> Iterator[None]:
        """Call functions on the activations at places within the context, during which the lock is held."""
        with self.selected(), hook_sites(self.network, hooks):
            yield

    def inputs(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the network's arguments for tokens and mask, both int64 [batch, seq], on its device.

        Positions count from a row's first token, wherever its padding is.
        """
        device = self.device
        inputs = {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}
        if "position_ids" in inspect.signature(self.network.forward).parameters:
            positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            inputs["position_ids"] = positions[:, -input_ids.shape[1] :]
        return inputs

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> Any:
        """Run the network on tokens, as `inputs` takes them; `options` and the output are those of transformers.

        The lock is held.
        """
        with self.selected():
            return self.network(**self.inputs(input_ids, attention_mask), **options)

    def bos_ids(self, prepend_bos: bool) -> tuple[int, ...]:
        """Return what precedes a text: the beginning-of-sequence token where it is wanted and exists, else nothing."""
        return (self.bos_id,) if prepend_bos and self.bos_id is not None else ()


def load_model(
    name: str, *, revision: str | None = None, key: str = "model.base", **options: Unpack[LoadOptions]
) -> LanguageModel:
    """Load a model by any name that `find_model` knows. Local files never touch the network.

    An adapter is merged into the base that it names. `key` is the config key that names the model, for error messages.
    Raises ModelError when there is no such model, its tokenizer or weights are missing, it needs code of its own, or
    its layers are not found.
    """
    return load_source(find_model(name, revision=revision, key=key), key=key, **options)


def load_source(source: Source, *, key: str, **options: Unpack[LoadOptions]) -> LanguageModel:
    """Load a model from where it was found. Raises ModelError."""
    if not source.is_adapter:
        network = load_network(source, key=key, **options)
        return describe_model(network, load_tokenizer(source, key=key), source)
    named = read_adapter_config(source).get("base_model_name_or_path") or ""
    base = find_model(named, key=f"{key}: base_model_name_or_path of {source.name}")
    return merge_adapter(source, base, key=key, **options)


def merge_adapter(source: Source, base: Source, *, key: str, **options: Unpack[LoadOptions]) -> LanguageModel:
    """Load a base and an adapter merged into it: a model of its own. Raises ModelError."""
    network = load_network(base, key=key, **options)
    tokenizer = load_tokenizer(source if has_tokenizer(source) else base, key=key)
    n_embedded = embedded_tokens(source)
    if n_embedded is not None and n_embedded != network.get_input_embeddings().weight.shape[0]:
        network.resize_token_embeddings(n_embedded, mean_resizing=False)
    merged = attach_adapter(network, source, base_name=base.name).merge_and_unload()
    kind = read_adapter_config(source)["peft_type"]
    return replace(describe_model(merged, tokenizer, source), adapter_kind=kind)


def describe_model(network: Any, tokenizer: PreTrainedTokenizerBase, source: Source) -> LanguageModel:
    """Return a network with its tokenizer as a LanguageModel. Raises ModelError where the two do not fit."""
    d_vocab = int(network.get_input_embeddings().weight.shape[0])
    if not d_vocab / 2 <= len(tokenizer) or tokenizer.vocab_size > d_vocab:  # without files it has two tokens
        raise ModelError(
            f"{source.name}: its tokenizer has {len(tokenizer)} tokens but the model embeds {d_vocab};"
            " put the tokenizer's files (tokenizer.json, tokenizer_config.json) beside the model's"
        )
    parameters = {key: value.detach() for key, value in network.named_parameters()}
    sizes = network.config.get_text_config()
    n_ctx = next((getattr(sizes, name) for name in _POSITIONS if getattr(sizes, name, None)), _NO_LIMIT)
    bos_id, pad_id = special_ids(tokenizer, d_vocab)
    return LanguageModel(
        network=network.requires_grad_(False),
        tokenizer=tokenizer,
        name=source.name,
        revision=source.revision,
        folder=_find_folder(source),
        n_layers=len(decoder_layers(network)),
        d_model=sizes.hidden_size,
        d_vocab=d_vocab,
        n_ctx=n_ctx,
        n_parameters=sum(value.numel() for value in parameters.values()),
        sha256=_hash_weights(network.state_dict()),
        bos_id=bos_id,
        pad_id=pad_id,
        parameters=parameters,
        lock=threading.RLock(),
    )


def special_ids(tokenizer: PreTrainedTokenizerBase, d_vocab: int) -> tuple[int | None, int]:
    """Return the token that precedes texts, or None, and one to pad with, both among the first `d_vocab`."""
    known = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    bos_id = next((i for i in known if i is not None and i < d_vocab), None)
    return bos_id, next(i for i in (tokenizer.pad_token_id, bos_id, 0) if i is not None and i < d_vocab)


def _find_folder(source: Source) -> Path | None:
    """Return the folder of a model's files: the folder given, or the hub's local copy; None for a GGUF file."""
    from transformers.utils import cached_file

    if source.gguf_file is not None or source.folder is not None:
        return None if source.gguf_file is not None else source.folder
    config = cached_file(source.place, "config.json", revision=source.revision, local_files_only=True)
    return None if config is None else Path(config).parent


def check_context(model: LanguageModel, context: int, *, prepend_bos: bool = True) -> None:
    """Raise ModelError when `context` tokens and a beginning-of-sequence token do not fit the model."""
    n_bos = len(model.bos_ids(prepend_bos))
    if context + n_bos > model.n_ctx:
        raise ModelError(
            f"{model.name}: model.context {context} is more than its {model.n_ctx} positions hold;"
            f" set model.context to {model.n_ctx - n_bos} or less"
        )


def check_token_ids(model: LanguageModel, token_ids: Sequence[Sequence[int]]) -> None:
    """Raise ModelError, naming text and token id, where the model has no embedding for a token id."""
    for row, ids in enumerate(token_ids):
        bad = next((token_id for token_id in ids if not 0 <= token_id < model.d_vocab), None)
        if bad is not None:
            raise ModelError(
                f"{model.name}: text {row} has token id {bad}, outside the {model.d_vocab} tokens that it reads;"
                " tokenize with the model's own tokenizer, and leave out tokens that only one model of a pair has"
            )


def hash_model(model: LanguageModel) -> str:
    """Hash all that a model's texts depend on: weights, config, how it ends texts, tokenizer and chat template."""
    settings = [model.network.config.to_dict(), model.network.generation_config.to_dict()]
    facts = {
        "weights": model.sha256,
        "settings": [{key: value for key, value in each.items() if key not in _PLACES} for each in settings],
        **_describe_tokenizer(model.tokenizer),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def has_same_tokenizer(first: LanguageModel, second: LanguageModel) -> bool:
    """Whether two models read and write texts by the same tokens and chat template."""
    return _describe_tokenizer(first.tokenizer) == _describe_tokenizer(second.tokenizer)


def _describe_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {
        "vocabulary": tokenizer.get_vocab(),
        "tokenizer": tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else type(tokenizer).__name__,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "template": tokenizer.chat_template,
    }


def _hash_weights(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
