"""The network that is tuned: loaded from a folder, its embeddings frozen, its adapter, and how it is saved."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lfp.config import AdapterConfig, TuneConfig
from lfp.errors import ConfigError, ModelError
from lfp.ml.models.sources import ADAPTER_CONFIG, failure_reason, from_pretrained, quiet_files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lfp.ml.models.loading import LanguageModel

_POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""Keys of a model's config that state its limit on positions; a model with ALiBi may have none."""


def load_network(folder: Path, *, dtype: torch.dtype = torch.float32) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load model and tokenizer; TRL loads its reference model from the same folder.

    A tokenizer without a padding token gets a valid token to pad with: padding is always masked.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json in this folder; pass one that save_pretrained wrote")
    try:
        network = from_pretrained(AutoModelForCausalLM, folder, dtype=dtype)
        tokenizer = from_pretrained(AutoTokenizer, folder, padding_side="left")
    except (OSError, ValueError) as error:
        reason = failure_reason(error)
        raise ModelError(f"{folder}: cannot load a model to tune from this folder ({reason}); save it again") from error
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        tokenizer.pad_token_id = 0
    return network, tokenizer


def find_plain_folder(model: LanguageModel, scratch: Path) -> Path:
    """Return a folder that transformers loads the model from by itself, saved in `scratch` where it has none.

    TRL loads its reference model from there too.
    """
    folder = model.folder
    if folder is not None and (folder / "config.json").is_file() and not (folder / ADAPTER_CONFIG).is_file():
        return folder
    with quiet_files():
        model.network.save_pretrained(scratch)
    model.tokenizer.save_pretrained(scratch)
    return scratch


def count_positions(network: Any) -> int | None:
    """Return how many tokens the network can read at most; None where its config states no limit (ALiBi)."""
    config = network.config.get_text_config()
    return next((getattr(config, key) for key in _POSITION_KEYS if getattr(config, key, None)), None)


def prepare_network(network: Any, config: TuneConfig) -> Any:
    """Freeze what is not tuned; return the adapter's settings for TRL, None where there is no adapter.

    With an adapter TRL freezes all other weights itself, and uses the network without it as the reference.
    """
    _disable_dropout(network)
    embeddings = [network.get_input_embeddings(), network.get_output_embeddings()]
    if config.freeze_embeddings:
        for module in filter(None, embeddings):
            module.requires_grad_(False)
    return None if config.adapter is None else _adapter_settings(network, config.adapter, config=config)


def _disable_dropout(network: Any) -> None:
    """Set every rate of dropout to zero, since the reference model has none either.

    TRL does it for modules of dropout only, not for rates that a layer keeps as a number (OPT, XGLM, GPT-BigCode), and
    for an adapter's dropout too.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def _adapter_settings(network: Any, adapter: AdapterConfig, *, config: TuneConfig) -> Any:
    """Return PEFT's settings of the adapter. Raises ConfigError for modules that the network lacks or may not adapt."""
    from peft import LoraConfig

    targets = adapter.target_modules
    wanted = [targets] if isinstance(targets, str) else list(targets)
    modules = dict(network.named_modules())
    for name in wanted:
        found = [module for path, module in modules.items() if path == name or path.endswith(f".{name}")]
        if not found and name != "all-linear":
            linear = sorted({path.rpartition(".")[2] for path, module in modules.items() if _is_linear(module)})
            raise ConfigError(
                f"tune.adapter.target_modules: the model has no module {name}; its linear layers are"
                f" {', '.join(linear)}"
            )
        if network.get_output_embeddings() in found:
            raise ConfigError(
                f"tune.adapter.target_modules: {name} is the unembedding, which TRL cannot adapt; leave it out"
            )
        if config.freeze_embeddings and network.get_input_embeddings() in found:
            raise ConfigError(
                f"tune.adapter.target_modules: {name} is the embedding, which tune.freeze_embeddings leaves as it is;"
                " leave one of the two out"
            )
    return LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules="all-linear" if targets == "all-linear" else wanted,
        task_type="CAUSAL_LM",
    )


def _is_linear(module: Any) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, torch.nn.Linear | Conv1D)


def save_network(network: Any, folder: Path, *, base_name: str | None = None) -> None:
    """Save a network, or its adapter alone, which names `base_name` as the model it belongs to."""
    from peft import PeftModel

    with quiet_files():
        if not isinstance(network, PeftModel):
            network.save_pretrained(folder)
            return
        if base_name is not None:
            network.peft_config["default"].base_model_name_or_path = base_name
        network.save_pretrained(folder, save_embedding_layers=False)  # otherwise PEFT asks the hub about the base
    (folder / "README.md").unlink(missing_ok=True)  # an empty model card


def bos_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what to write before a prompt so that exactly one beginning-of-sequence token precedes it."""
    bos_id = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if bos_id is None or tokenizer("a")["input_ids"][0] == bos_id:
        return ""
    return str(tokenizer.convert_ids_to_tokens(bos_id))


def number_positions_from_first_token(network: Any) -> None:
    """Number positions from each row's first token, as generation does; TRL's own passes count the padding too.

    Rotary embeddings depend on differences only, but learned positions (GPT-Neo) would come out wrong. A network that
    takes no position ids (ALiBi) reads the mask itself.
    """
    if "position_ids" in inspect.signature(network.base_model.forward).parameters:
        hook: Callable[..., Any] = _number_positions
        network.base_model.register_forward_pre_hook(hook, with_kwargs=True)


def _number_positions(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    mask, ids = kwargs.get("attention_mask"), args[0] if args else kwargs.get("input_ids")
    if kwargs.get("position_ids") is None and mask is not None and ids is not None and mask.shape == ids.shape:
        kwargs["position_ids"] = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    return args, kwargs
