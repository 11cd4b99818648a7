"""Load language models through TransformerLens, never running code of a model, and check that two are a pair."""

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
from lfp.util.dependencies import OUT_OF_REACH, hub_reachable

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""A model's folder needs at least one of these."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model with hook points, in float32, in evaluation mode and without gradients."""

    bridge: TransformerBridge = field(repr=False)
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
    """The weights under their Hugging Face names (the bridge renames them)."""
    lock: threading.RLock = field(repr=False)
    """Hold it around every call of `bridge`: its hooks leak into calls of other threads."""

    def bos_ids(self, prepend_bos: bool) -> tuple[int, ...]:
        """Return what precedes a text: the beginning-of-sequence token where it is wanted and exists, else nothing."""
        return (self.bos_id,) if prepend_bos and self.bos_id is not None else ()


def load_model(
    name: str, *, revision: str | None = None, device: str = "cpu", key: str = "model.base"
) -> LanguageModel:
    """Load a model from a local folder, or from the hub by name. A local folder never touches the network.

    `key` is the config key that names the model, for error messages. Raises ModelError when there is no such model,
    its tokenizer or weights are missing, it needs code of its own, or TransformerLens does not support it.
    """
    from transformer_lens.model_bridge import TransformerBridge
    from transformers.utils import cached_file

    source, local_only = locate(name, key=key)
    folder = Path(source) if Path(source).is_dir() else None
    revision = None if folder else revision  # a folder has no revision, whatever the config pins
    tokenizer, hf_model = _load_files(source, revision=revision, local_only=local_only, key=key)
    hf_model = place_on_device(hf_model, device)
    d_vocab = int(hf_model.get_input_embeddings().weight.shape[0])
    if not d_vocab / 2 <= len(tokenizer) <= d_vocab:  # without tokenizer files transformers makes one of two tokens
        raise ModelError(
            f"{name}: its tokenizer has {len(tokenizer)} tokens but the model embeds {d_vocab};"
            " put the tokenizer's files (tokenizer.json, tokenizer_config.json) beside the model's"
        )
    bos_id = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    parameters = {key: value.detach() for key, value in hf_model.named_parameters()}
    sha256 = _hash_weights(hf_model.state_dict())
    if folder is None:
        config = cached_file(source, "config.json", revision=revision, local_files_only=True)
        folder = None if config is None else Path(config).parent
    try:
        bridge = TransformerBridge.boot_transformers(
            str(folder or source), hf_model=hf_model, tokenizer=tokenizer, device=device
        )
    except ValueError as error:
        reason = failure_reason(error)
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
        pad_id=next(i for i in (tokenizer.pad_token_id, bos_id, 0) if i is not None and i < d_vocab),
        parameters=parameters,
        lock=threading.RLock(),
    )


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


def mlp_hook_point(layer: int) -> str:
    """Name TransformerLens's hook point for a layer's MLP output, the same for every architecture."""
    return f"blocks.{layer}.mlp.hook_out"


def locate(name: str, *, key: str) -> tuple[str, bool]:
    """Return what to load from, and whether only local files may be read. Raises ModelError naming the config key."""
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return str(folder), True
    if folder.exists():
        raise ModelError(f"{name}: no config.json in this folder; --set {key}=FOLDER, one that save_pretrained wrote")
    if folder.is_absolute() or name.startswith((".", "~")) or len(folder.parts) > 2:
        raise ModelError(f"{name}: no such folder; --set {key}=FOLDER, a model's folder or its name on the hub")
    return name, not hub_reachable()


def from_pretrained(auto_class: Any, source: str | Path, **options: Any) -> Any:
    """Call `auto_class.from_pretrained` without a progress bar and without running code that comes with the model.

    Left to its default, transformers asks on a terminal whether to run that code.
    """
    with quiet_files():
        return auto_class.from_pretrained(source, trust_remote_code=False, **options)


def place_on_device(model: Any, device: str) -> Any:
    """Move a transformers model to a device, in evaluation mode. Raises ModelError where the device is unusable."""
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        reason = failure_reason(error)
        raise ModelError(f"model.device {device}: cannot be used here ({reason}); --set model.device=cpu") from error


def failure_reason(error: Exception) -> str:
    """Shorten a library's error to a phrase that fits into a sentence."""
    if "trust_remote_code" in str(error):
        return "it needs code that comes with it, which is never run here"
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


@contextmanager
def quiet_files() -> Iterator[None]:
    """Hide the progress bars of transformers, which would break those of this project."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load_files(
    source: str, *, revision: str | None, local_only: bool, key: str
) -> tuple[PreTrainedTokenizerBase, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"revision": revision, "local_files_only": local_only}
    try:
        model, info = from_pretrained(
            AutoModelForCausalLM,
            source,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            **options,
        )
        tokenizer = from_pretrained(AutoTokenizer, source, **options)
    except Exception as error:  # including those of whatever HTTP library the hub's client uses
        raise ModelError(_explain_failure(source, error, local_only=local_only, key=key)) from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])[0]
        raise ModelError(f"{source}: its weights lack {missing}; save the whole model again with save_pretrained")
    return tokenizer, model


def _explain_failure(source: str, error: Exception, *, local_only: bool, key: str) -> str:
    if Path(source).is_dir():
        where = _broken_file(Path(source)) or source
        has_tokenizer = any((Path(source) / file).is_file() for file in _TOKENIZER_FILES)
        reason = failure_reason(error) if has_tokenizer else f"there is no {_TOKENIZER_FILES[0]}"
        return (
            f"{where}: cannot load a causal language model from this folder ({reason});"
            f" save it again, or --set {key}=FOLDER with another"
        )
    reason = OUT_OF_REACH if local_only else failure_reason(error)
    pretrain = ", or --set model.base=pretrain" if key == "model.base" else ""
    return (
        f"{key} {source}: no folder of that name here, and as a hub model it does not load ({reason});"
        f" --set {key}=FOLDER, a local folder{pretrain}, or check its name and {key}_revision"
    )


def _broken_file(folder: Path) -> Path | None:
    """Find the first .json or .safetensors file of a folder that cannot be read as what its name says."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.iterdir()):
        try:
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".safetensors":
                with safe_open(file, "pt"):
                    pass
        except (OSError, ValueError, RecursionError, SafetensorError):
            return file
    return None


def _hash_weights(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
