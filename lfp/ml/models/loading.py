"""Load language models with transformers, never running code of a model, and check that two are a pair."""

from __future__ import annotations

import hashlib
import inspect
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lfp.errors import ModelError
from lfp.ml.models.sites import Hook, decoder_layers, hook_sites
from lfp.util.dependencies import OUT_OF_REACH, hub_reachable
from lfp.util.types import Place

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""Names in configs of the number of positions."""
_NO_LIMIT = 1 << 20
"""Positions of a model that has no limit, such as those with ALiBi."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""A model's folder needs at least one of these."""


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
    name: str, *, revision: str | None = None, device: str = "cpu", key: str = "model.base"
) -> LanguageModel:
    """Load a model from a local folder, or from the hub by name. A local folder never touches the network.

    `key` is the config key that names the model, for error messages. Raises ModelError when there is no such model,
    its tokenizer or weights are missing, it needs code of its own, or its layers are not found.
    """
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
    sizes = hf_model.config.get_text_config()
    n_ctx = next((getattr(sizes, name) for name in _POSITIONS if getattr(sizes, name, None)), _NO_LIMIT)
    return LanguageModel(
        network=hf_model.requires_grad_(False),
        tokenizer=tokenizer,
        name=name,
        revision=revision,
        folder=folder,
        n_layers=len(decoder_layers(hf_model)),
        d_model=sizes.hidden_size,
        d_vocab=d_vocab,
        n_ctx=n_ctx,
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
