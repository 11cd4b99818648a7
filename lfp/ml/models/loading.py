"""A pair of models through TransformerLens, and how far tuning moved each of their layers."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lfp.errors import ModelError
from lfp.util.hub import OUT_OF_REACH, hub_reachable

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""Of which a model's folder has one at least."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model with hook points, in float32, in evaluation mode and without gradients."""

    bridge: TransformerBridge = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    name: str
    revision: str | None
    folder: Path | None
    """Where its files lie on disk: the folder given, or the hub's local copy."""
    n_layers: int
    d_model: int
    d_vocab: int
    n_ctx: int
    n_parameters: int
    sha256: str
    """Over names, shapes and bytes of its weights as loaded."""
    bos_id: int | None
    """Leads every text: the tokenizer's beginning-of-sequence token, else its end-of-sequence token."""
    pad_id: int
    """Fills rows; always masked, so any valid id does."""
    parameters: Mapping[str, torch.Tensor] = field(repr=False)
    """The weights under the names Hugging Face gives them (the bridge has names of its own)."""
    lock: threading.RLock = field(repr=False)
    """Hold it around every call of `bridge`: its hooks leak into calls of other threads."""


def load_model(
    name: str, *, revision: str | None = None, device: str = "cpu", key: str = "model.base"
) -> LanguageModel:
    """The model in a local folder, or of that name on the hub. A local folder never touches the network.

    `key` is the config's that names it. Raises ModelError, which names that too, when there is no such model, its
    tokenizer or weights are missing, or TransformerLens has no adapter for its architecture.
    """
    from transformer_lens.model_bridge import TransformerBridge

    source, local_only = locate(name, key=key)
    revision = None if Path(source).is_dir() else revision  # a folder has none, whatever the config pins
    tokenizer, hf_model = _load_files(source, revision=revision, local_only=local_only, key=key)
    hf_model = _place(hf_model, device)
    d_vocab = int(hf_model.get_input_embeddings().weight.shape[0])
    _check_vocabulary(name, len(tokenizer), d_vocab)
    bos_id = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    pad_id = next(i for i in (tokenizer.pad_token_id, bos_id, 0) if i is not None and i < d_vocab)
    parameters = {key: value.detach() for key, value in hf_model.named_parameters()}
    sha256 = _hash_weights(hf_model.state_dict())
    folder = _folder_of(source, revision)
    try:
        bridge = TransformerBridge.boot_transformers(
            str(folder or source), hf_model=hf_model, tokenizer=tokenizer, device=device
        )
    except ValueError as error:
        reason = _first_line(error)
        raise ModelError(f"{name}: TransformerLens cannot hook it ({reason}); pick a supported architecture") from error
    bridge.original_model.requires_grad_(False)
    return LanguageModel(
        bridge=bridge,
        tokenizer=tokenizer,
        name=name,
        revision=revision,
        folder=folder,
        n_layers=bridge.cfg.n_layers,
        d_model=bridge.cfg.d_model,
        d_vocab=d_vocab,
        n_ctx=bridge.cfg.n_ctx,
        n_parameters=sum(value.numel() for value in parameters.values()),
        sha256=sha256,
        bos_id=bos_id,
        pad_id=pad_id,
        parameters=parameters,
        lock=threading.RLock(),
    )


def check_same_shape(base: LanguageModel, tuned: LanguageModel) -> None:
    """Raises ModelError naming the first difference that makes the two models no pair."""
    for what, ours, theirs in (
        ("layers", base.n_layers, tuned.n_layers),
        ("residual width", base.d_model, tuned.d_model),
        ("vocabulary size", base.d_vocab, tuned.d_vocab),
        ("tokenizer vocabulary size", len(base.tokenizer), len(tuned.tokenizer)),
    ):
        if ours != theirs:
            raise _no_pair(base, tuned, f"{what} {theirs} against {ours}")
    if base.tokenizer.get_vocab() != tuned.tokenizer.get_vocab():
        raise _no_pair(base, tuned, "other tokens in its tokenizer")
    shapes = {key: value.shape for key, value in base.parameters.items()}
    for key, value in tuned.parameters.items():
        if shapes.get(key) != value.shape:
            raise _no_pair(base, tuned, f"{key} is of another shape")


def check_context(model: LanguageModel, context: int, *, prepend_bos: bool = True) -> None:
    """Raises ModelError when texts of `context` tokens, and one more to begin with, do not fit the model."""
    n_bos = int(prepend_bos and model.bos_id is not None)
    if context + n_bos > model.n_ctx:
        raise ModelError(
            f"{model.name}: model.context {context} is more than its {model.n_ctx} positions hold;"
            f" set model.context to {model.n_ctx - n_bos} or less"
        )


def check_token_ids(model: LanguageModel, token_ids: Sequence[Sequence[int]]) -> None:
    """Raises ModelError naming the first text and token id the model has no embedding for."""
    for row, ids in enumerate(token_ids):
        bad = next((token_id for token_id in ids if not 0 <= token_id < model.d_vocab), None)
        if bad is not None:
            raise ModelError(
                f"{model.name}: text {row} has token id {bad}, outside its {model.d_vocab} embeddings;"
                " tokenize with the model's own tokenizer"
            )


def mlp_hook_point(layer: int) -> str:
    """Where TransformerLens shows a layer's MLP output, on every architecture."""
    return f"blocks.{layer}.mlp.hook_out"


def _no_pair(base: LanguageModel, tuned: LanguageModel, difference: str) -> ModelError:
    return ModelError(f"{tuned.name} is not tuned from {base.name} ({difference}); pass the base it was tuned from")


def locate(name: str, *, key: str) -> tuple[str, bool]:
    """What to load from, and whether only files on this disk may be read. Raises ModelError naming the config's key."""
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return str(folder), True
    if folder.exists():
        raise ModelError(f"{name}: no config.json in this folder; --set {key}=FOLDER, one that save_pretrained wrote")
    if folder.is_absolute() or name.startswith((".", "~")) or len(folder.parts) > 2:
        raise ModelError(f"{name}: no such folder; --set {key}=FOLDER, a model's folder or its name on the hub")
    return name, not hub_reachable()


def _load_files(
    source: str, *, revision: str | None, local_only: bool, key: str
) -> tuple[PreTrainedTokenizerBase, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"revision": revision, "local_files_only": local_only}
    try:
        with quiet_files():
            model, info = AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, attn_implementation="eager", output_loading_info=True, **where
            )
            tokenizer = AutoTokenizer.from_pretrained(source, **where)
    except Exception as error:  # among them those of whatever HTTP library the hub's client uses
        raise ModelError(_loading_fault(source, error, local_only=local_only, key=key)) from error
    if info["missing_keys"]:
        lost = sorted(info["missing_keys"])[0]
        raise ModelError(f"{source}: its weights lack {lost}; save the whole model again with save_pretrained")
    return tokenizer, model


def _place(hf_model: Any, device: str) -> Any:
    try:
        return hf_model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        reason = _first_line(error)
        raise ModelError(f"model.device {device}: cannot be used here ({reason}); --set model.device=cpu") from error


def _loading_fault(source: str, error: Exception, *, local_only: bool, key: str) -> str:
    if Path(source).is_dir():
        where = _broken_file(Path(source)) or source
        has_tokenizer = any((Path(source) / file).is_file() for file in _TOKENIZER_FILES)
        reason = _first_line(error) if has_tokenizer else f"there is no {_TOKENIZER_FILES[0]}"
        return (
            f"{where}: cannot load a causal language model from this folder ({reason});"
            f" save it again, or --set {key}=FOLDER with another"
        )
    reason = OUT_OF_REACH if local_only else _first_line(error)
    made_here = ", or --set model.base=pretrain" if key == "model.base" else ""
    return (
        f"{key} {source}: no folder of that name here, and as a hub model it does not load ({reason});"
        f" --set {key}=FOLDER, a local folder{made_here}, or check its name and {key}_revision"
    )


def _broken_file(folder: Path) -> Path | None:
    """The first file of a model's folder that is no JSON, or no safetensors, though its name says so."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.iterdir()):
        try:
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".safetensors":
                with safe_open(file, "pt"):
                    pass
        except (OSError, ValueError, SafetensorError):
            return file
    return None


def _check_vocabulary(name: str, n_tokens: int, d_vocab: int) -> None:
    """A folder without tokenizer files loads as a tokenizer of two tokens, and says nothing."""
    if n_tokens > d_vocab or 2 * n_tokens < d_vocab:
        raise ModelError(
            f"{name}: its tokenizer has {n_tokens} tokens but the model embeds {d_vocab};"
            " put the tokenizer's files (tokenizer.json, tokenizer_config.json) beside the model's"
        )


def _folder_of(source: str, revision: str | None) -> Path | None:
    from transformers.utils import cached_file

    if Path(source).is_dir():
        return Path(source)
    config = cached_file(source, "config.json", revision=revision, local_files_only=True)
    return None if config is None else Path(config).parent


def _hash_weights(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def quiet_files() -> Iterator[None]:
    """No progress bar of transformers: it would cut into this project's own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
