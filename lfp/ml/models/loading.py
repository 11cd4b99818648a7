"""Load language models with transformers, never running code of a model, and check that two are a pair."""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lfp.errors import ModelError
from lfp.ml.models.sites import Hook, decoder_layers, hook_sites
from lfp.ml.models.sources import Source, find_source, load_network, load_tokenizer
from lfp.util.types import Place

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""Names in configs of the number of positions."""
_NO_LIMIT = 1 << 20
"""Positions of a model that has no limit, such as those with ALiBi."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model with sites to hook, in float32, in evaluation mode and without gradients."""

    network: Any = field(repr=False)
    """The model as transformers loads it."""
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    name: str
    revision: str | None
    folder: Path | None
    """Where its files are: the folder given, or the hub's local copy."""
    n_layers: int
    d_model: int
    d_vocab: int
    n_ctx: int
    n_parameters: int
    sha256: str
    """Hash of the names, shapes and bytes of its weights as loaded."""
    bos_id: int | None
    """Prepended to every text: the tokenizer's beginning-of-sequence token, else its end-of-sequence token."""
    pad_id: int
    """Pads rows; always masked, so any valid id will do."""
    parameters: Mapping[str, torch.Tensor] = field(repr=False)
    """The weights by name."""
    lock: threading.RLock = field(repr=False)
    """Held around every call of `network`, whose hooks would act on calls of other threads."""

    @property
    def device(self) -> torch.device:
        """Where its weights are, and its inputs must be."""
        return torch.device(self.network.device)

    @contextmanager
    def hooks(self, hooks: Mapping[Place, Hook]) -> Iterator[None]:
        """Call functions on the activations at places within the context, during which the lock is held."""
        with self.lock, hook_sites(self.network, hooks):
            yield

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> Any:
        """Run the network on tokens, both int64 [batch, seq] on any device; positions count from a row's first token.

        `options` and the output are those of transformers. The lock is held.
        """
        device = self.device
        input_ids, attention_mask = input_ids.to(device), attention_mask.to(device)
        if "position_ids" in inspect.signature(self.network.forward).parameters:
            positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
            options["position_ids"] = positions[:, -input_ids.shape[1] :]
        with self.lock:
            return self.network(input_ids, attention_mask=attention_mask, **options)

    def bos_ids(self, prepend_bos: bool) -> tuple[int, ...]:
        """Return what precedes a text: the beginning-of-sequence token where it is wanted and exists, else nothing."""
        return (self.bos_id,) if prepend_bos and self.bos_id is not None else ()


def load_model(
    name: str,
    *,
    revision: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    attn_implementation: str = "eager",
    key: str = "model.base",
) -> LanguageModel:
    """Load a model by any name that `find_source` knows. Local files never touch the network.

    `key` is the config key that names the model, for error messages. Raises ModelError when there is no such model,
    its tokenizer or weights are missing, it needs code of its own, or its layers are not found.
    """
    source = find_source(name, revision=revision, key=key)
    options = {"key": key, "dtype": dtype, "attn_implementation": attn_implementation, "device": device}
    return describe_model(load_network(source, **options), load_tokenizer(source, key=key), source)


def describe_model(network: Any, tokenizer: PreTrainedTokenizerBase, source: Source) -> LanguageModel:
    """Return a network with its tokenizer as a LanguageModel. Raises ModelError where the two do not fit."""
    d_vocab = int(network.get_input_embeddings().weight.shape[0])
    if not d_vocab / 2 <= len(tokenizer) or tokenizer.vocab_size > d_vocab:  # without files it has two tokens
        raise ModelError(
            f"{source.name}: its tokenizer has {len(tokenizer)} tokens but the model embeds {d_vocab};"
            " put the tokenizer's files (tokenizer.json, tokenizer_config.json) beside the model's"
        )
    bos_id = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    parameters = {key: value.detach() for key, value in network.named_parameters()}
    sizes = network.config.get_text_config()
    n_ctx = next((getattr(sizes, name) for name in _POSITIONS if getattr(sizes, name, None)), _NO_LIMIT)
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
        pad_id=next(i for i in (tokenizer.pad_token_id, bos_id, 0) if i is not None and i < d_vocab),
        parameters=parameters,
        lock=threading.RLock(),
    )


def _find_folder(source: Source) -> Path | None:
    """Return the folder of a model's files: the folder given, or the hub's local copy; None for a GGUF file."""
    from transformers.utils import cached_file

    if source.gguf_file is not None or source.folder is not None:
        return None if source.gguf_file is not None else source.folder
    config = cached_file(source.place, "config.json", revision=source.revision, local_files_only=True)
    return None if config is None else Path(config).parent


def check_same_shape(base: LanguageModel, tuned: LanguageModel) -> None:
    """Raise ModelError, naming the first difference, unless the tuned model can have come from the base model."""
    sizes = {
        "layers": (base.n_layers, tuned.n_layers),
        "residual width": (base.d_model, tuned.d_model),
        "vocabulary size": (base.d_vocab, tuned.d_vocab),
        "tokenizer vocabulary size": (len(base.tokenizer), len(tuned.tokenizer)),
    }
    differences = [f"{what} {after} against {before}" for what, (before, after) in sizes.items() if before != after]
    if base.tokenizer.get_vocab() != tuned.tokenizer.get_vocab():
        differences.append("other tokens in its tokenizer")
    shapes = {key: value.shape for key, value in base.parameters.items()}
    differences += [
        f"{key} is of another shape" for key, value in tuned.parameters.items() if shapes.get(key) != value.shape
    ]
    if differences:
        raise ModelError(
            f"{tuned.name} is not tuned from {base.name} ({differences[0]}); pass the base it was tuned from"
        )


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
                f"{model.name}: text {row} has token id {bad}, outside its {model.d_vocab} embeddings;"
                " tokenize with the model's own tokenizer"
            )


def _hash_weights(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
