"""An adapter on its base: one network in memory, its adapter on for the tuned model and off for the base."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lfp.errors import ModelError
from lfp.ml.models.sources import ADAPTER_CONFIG, Source, failure_reason, require

_NAME = "default"
"""What PEFT calls the adapter inside the network."""
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
"""Ends of the names of embeddings."""
_PREFIX = "base_model.model."
"""Precedes every name in an adapter's file."""


class AdapterSwitch:
    """The adapter inside a network, on or off. Turn it under the lock of the models that share the network."""

    def __init__(self, network: Any) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
        self._layers: list[Any] = [module for module in network.modules() if isinstance(module, kinds)]
        self._is_on: bool | None = None

    def turn(self, on: bool) -> None:
        """Turn the adapter on or off."""
        if self._is_on == on:
            return
        for layer in self._layers:
            layer.enable_adapters(on)
            layer.requires_grad_(False)  # PEFT would train what it turns on
        self._is_on = on


class AdaptedWeights(Mapping[str, Tensor]):
    """The tuned model's weights by the names that the base has for them, each merged in float32 when it is read."""

    def __init__(self, network: Any, of_base: Mapping[str, Tensor]) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import ModulesToSaveWrapper

        self._of_base = of_base
        self._adapted: dict[str, tuple[Any, nn.Parameter]] = {}
        self._replaced: dict[str, Tensor] = {}
        names = {value.data_ptr(): name for name, value in of_base.items()}
        for module in network.modules():
            if isinstance(module, BaseTunerLayer):
                for value in module.get_base_layer().parameters():
                    self._adapted[names[value.data_ptr()]] = module, value
            elif isinstance(module, ModulesToSaveWrapper):
                saved = module.modules_to_save[_NAME]
                for name, value in module.original_module.named_parameters():
                    self._replaced[names[value.data_ptr()]] = saved.get_parameter(name).detach()

    def __getitem__(self, name: str) -> Tensor:
        """Return a weight; no other weight of the network changes meanwhile, and this one is put back."""
        if name in self._replaced:
            return self._replaced[name]
        if name not in self._adapted:
            return self._of_base[name]
        layer, _ = self._adapted[name]
        before = [(value, value.data) for value in layer.get_base_layer().parameters()]
        try:
            for value, data in before:
                value.data = data.to(torch.float32, copy=True)
            layer.merge(adapter_names=[_NAME])
            return self._adapted[name][1].data
        finally:
            for value, data in before:
                value.data = data
            layer.merged_adapters.clear()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the base's names."""
        return iter(self._of_base)

    def __len__(self) -> int:
        """Count the base's names."""
        return len(self._of_base)


def read_adapter_config(source: Source) -> dict[str, Any]:
    """Read the settings of an adapter. Raises ModelError where they cannot be read, or it is one of prompts."""
    require("peft", source)
    assert source.folder is not None
    try:
        settings = dict(json.loads((source.folder / ADAPTER_CONFIG).read_text(encoding="utf-8")))
        if settings.get("megatron_config"):
            raise ValueError("it names a module to import")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{source.folder / ADAPTER_CONFIG}: cannot be read as an adapter's settings ({failure_reason(error)});"
            " save the adapter again"
        ) from error
    kind = settings.get("peft_type")
    if kind not in _weight_kinds():
        raise ModelError(f"{source.name}: an adapter of kind {kind} changes the prompt, not the weights; train a LoRA")
    return settings


def attach_adapter(network: Any, source: Source, *, base_name: str) -> Any:
    """Load an adapter into a network and return PEFT's model around it; the network itself then holds the adapter.

    Raises ModelError where the adapter belongs to another base.
    """
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict

    stored = adapter_keys(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PEFT notices is checked below
            adapted = PeftModel.from_pretrained(network, source.place, adapter_name=_NAME, local_files_only=True)
    except (RuntimeError, ValueError, KeyError) as error:
        sizes = (line.strip().rstrip(".") for line in str(error).splitlines() if "size mismatch" in line)
        raise ModelError(describe_mismatch(source, base_name, next(sizes, failure_reason(error)))) from error
    if get_peft_model_state_dict(adapted, adapter_name=_NAME, save_embedding_layers=False).keys() - stored:
        raise ModelError(describe_mismatch(source, base_name, "weights of it are missing"))
    loaded = set(adapted.state_dict())
    lost = [name for name in sorted(stored) if not _is_loaded(name, loaded)]
    if lost:
        reason = f"it has no place for {lost[0].removeprefix(_PREFIX)}"
        raise ModelError(describe_mismatch(source, base_name, reason))
    return adapted


def adapter_keys(source: Source) -> set[str]:
    """Return the names of the weights that an adapter's file holds. Raises ModelError where there is no such file."""
    from safetensors import SafetensorError, safe_open

    assert source.folder is not None
    file = source.folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelError(f"{source.name}: no adapter_model.safetensors in this folder; save the adapter again")
    try:
        with safe_open(file, "pt") as weights:
            return set(weights.keys())
    except SafetensorError as error:
        raise ModelError(f"{file}: cannot be read ({failure_reason(error)}); save the adapter again") from error


def embedded_tokens(source: Source) -> int | None:
    """Return how many tokens an adapter's own copy of the embedding has; None where it has no copy."""
    from safetensors import safe_open

    assert source.folder is not None
    with safe_open(source.folder / "adapter_model.safetensors", "pt") as weights:
        shapes = (weights.get_slice(key).get_shape() for key in adapter_keys(source) if key.endswith(_EMBEDDINGS))
        return next((shape[0] for shape in shapes), None)


def leaves_base_unchanged(source: Source, names: Mapping[str, Tensor]) -> bool:
    """Return whether the base, whose weights have these names, is itself again once the adapter is off.

    It is not where the adapter's file holds weights of the base, such as a resized embedding, or biases were trained.
    """
    settings = read_adapter_config(source)
    saved = tuple(settings.get("modules_to_save") or ())
    own = {key.removeprefix(_PREFIX) for key in adapter_keys(source)} & set(names)
    return settings.get("bias", "none") == "none" and all(
        any(name.rpartition(".")[0].endswith(module) for module in saved) for name in own
    )


def describe_mismatch(source: Source, base_name: str, reason: str) -> str:
    """Say in a sentence that an adapter does not belong to a base."""
    named = read_adapter_config(source).get("base_model_name_or_path") or "another model"
    return f"{source.name}: an adapter of {named}, not of {base_name} ({reason}); set model.base to {named}"


def hash_adapter(source: Source, base_sha256: str) -> str:
    """Hash an adapter's settings and weights together with the hash of its base."""
    assert source.folder is not None
    digest = hashlib.sha256(base_sha256.encode())
    settings = read_adapter_config(source)
    kept = {key: value for key, value in settings.items() if key != "base_model_name_or_path"}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    digest.update(Path(source.folder / "adapter_model.safetensors").read_bytes())
    return digest.hexdigest()


def _weight_kinds() -> set[str]:
    """Return PEFT's names of the kinds of adapter that change weights."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PromptLearningConfig

    kinds = PEFT_TYPE_TO_CONFIG_MAPPING.items()
    return {kind.value for kind, config in kinds if not issubclass(config, PromptLearningConfig)}


def _is_loaded(name: str, names: set[str]) -> bool:
    """Return whether a weight of an adapter's file has a place in the network, where PEFT inserts its own name."""
    module, _, last = name.rpartition(".")
    places = (f"{module}.{_NAME}.{last}", f"{name}.{_NAME}", f"{name}.{_NAME}.weight")
    return not names.isdisjoint((name, *places, f"{module}.modules_to_save.{_NAME}.{last}"))
