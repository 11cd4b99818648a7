"""Read and write folders of SAELens 6.54 and before: cfg.json, sae_weights.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lfp.errors import ModelError
from lfp.ml.sae.autoencoders import Normalize, Sae, SaeInfo, Variant
from lfp.ml.sae.readers.places import hook_name
from lfp.ml.sae.readers.stored import (
    StoredSae,
    Weights,
    centre_inputs,
    fold_gate,
    load_tensors,
    read_choice,
    read_json,
    read_k,
    read_size,
    scale_inputs,
    subtract_b_dec,
    take_tensors,
    unit_decoder,
)
from lfp.util.types import Place

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
_FORMAT = "6.54.12"
"""The SAELens version whose format is written; it reads a folder without a version as one from before 6.0."""
_VARIANTS: dict[str, Variant] = {
    "standard": "relu",
    "topk": "topk",
    "batchtopk": "batchtopk",
    "matryoshka_batchtopk": "batchtopk",
    "jumprelu": "jumprelu",
    "gated": "jumprelu",
}
"""The variant that reads each architecture of SAELens."""
_BY_BATCH = ("batchtopk", "matryoshka_batchtopk")
_WRITTEN: dict[Variant, str] = {
    "tied_relu": "standard",
    "relu": "standard",
    "topk": "topk",
    "batchtopk": "jumprelu",  # SAELens has batchtopk for training only
    "jumprelu": "jumprelu",
}
_NORMALIZE: dict[str, Normalize] = {
    "none": "none",
    "expected_average_only_in": "none",  # a constant factor, folded where it is known
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm_rescale",
}


def write_saelens(sae: Sae, folder: Path) -> None:
    """Write cfg.json and sae_weights.safetensors; `load_sae` restores every field and every bit.

    SAELens reads the folder too: a tied autoencoder as `standard` with W_dec = W_enc^T, a BatchTopK one as `jumprelu`
    with its one threshold at every feature. The actual variant is under `metadata.lfp`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(_to_saelens_config(sae.info), indent=1) + "\n"
    (folder / CONFIG_FILE).write_text(config, encoding="utf-8")
    tensors = {"W_enc": sae.encoder.T, "W_dec": sae.W_dec, "b_enc": sae.b_enc, "b_dec": sae.b_dec}
    threshold = sae.state_dict().get("threshold")
    if threshold is not None:
        tensors["threshold"] = threshold.expand(sae.info.width)
    # copied, because a file cannot hold two tensors that share memory
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    save_file(copies, folder / WEIGHTS_FILE)


def read_saelens(folder: Path, overrides: Mapping[str, Any] | None = None) -> StoredSae:
    """Read a folder. `overrides` are what SAELens's table of releases adds to its config.

    Biases subtracted from the input, rescaling by decoder norms, a constant factor of the inputs (`norm_scaling_factor`
    of the table), the centring of TransformerLens's `center_writing_weights` and a gate are folded into the weights.
    Raises ModelError naming what is not supported.
    """
    path = folder / CONFIG_FILE
    config = _modernise(read_json(path) | dict(overrides or {}))
    architecture = read_choice(path, config, "architecture", _VARIANTS)
    normalize = _NORMALIZE[
        read_choice(path, {"normalize_activations": "none"} | config, "normalize_activations", _NORMALIZE)
    ]
    read_choice(path, {"reshape_activations": "none"} | config, "reshape_activations", ["none"])
    width, d_in = read_size(path, config, "d_sae"), read_size(path, config, "d_in")
    k = _read_k(path, config, architecture, width)
    own, metadata = _read_own_info(path, config), config["metadata"]
    tensors = _load_weights(folder / WEIGHTS_FILE, architecture, width=width, d_in=d_in)
    gated = architecture == "gated"
    weights = Weights(
        encoder=tensors["W_enc"].T,
        W_dec=tensors["W_dec"],
        b_enc=tensors["b_mag" if gated else "b_enc"],
        b_dec=tensors["b_dec"],
        threshold=tensors.get("threshold", tensors.get("topk_threshold")),
    )
    if gated:
        weights = fold_gate(weights, r_mag=tensors["r_mag"], b_gate=tensors["b_gate"])
    if config.get("apply_b_dec_to_input", True):
        weights = subtract_b_dec(weights)
    if config.get("rescale_acts_by_decoder_norm", architecture in _BY_BATCH) and architecture in ("topk", *_BY_BATCH):
        weights = unit_decoder(weights)
    loaded_with = metadata.get("model_from_pretrained_kwargs") or config.get("model_from_pretrained_kwargs") or {}
    if loaded_with.get("center_writing_weights"):
        weights = centre_inputs(weights)
    if config.get("normalize_activations") == "expected_average_only_in":
        weights = scale_inputs(weights, float(config.get("norm_scaling_factor", 1.0)))
    return StoredSae(
        path=path,
        variant=own.variant if own else _VARIANTS[architecture],
        weights=weights,
        k=k,
        normalize=normalize,
        reads=metadata.get("hook_name"),
        model=metadata.get("model_name"),
        own=own,
    )


def _read_k(path: Path, config: dict[str, Any], architecture: str, width: int) -> int | None:
    """Return the active features per token; None where there is no such number, or where it is a mean."""
    k = config.get("k")
    if architecture in _BY_BATCH and isinstance(k, float) and 0 < k <= width:
        return int(k) if k.is_integer() else None
    return read_k(path, k, width) if architecture in ("topk", *_BY_BATCH) else None


def _load_weights(path: Path, architecture: str, *, width: int, d_in: int) -> dict[str, Tensor]:
    """Load the tensors of an architecture in float32, checking their names, shapes and values."""
    tensors = load_tensors(path)
    if "scaling_factor" in tensors and bool((tensors["scaling_factor"] == 1).all()):
        del tensors["scaling_factor"]  # SAELens before 6.0 wrote it, mostly of ones
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_in, width), "W_dec": (width, d_in), "b_dec": (d_in,)}
    biases = ("b_gate", "b_mag", "r_mag") if architecture == "gated" else ("b_enc",)
    shapes |= dict.fromkeys(biases, (width,))
    if architecture == "jumprelu":
        shapes["threshold"] = (width,)
    if architecture in _BY_BATCH:
        shapes["topk_threshold"] = ()
    return take_tensors(path, tensors, shapes)


def _to_saelens_config(info: SaeInfo) -> dict[str, Any]:
    architecture = _WRITTEN[info.variant]
    return {
        "architecture": architecture,
        "d_in": info.d_in,
        "d_sae": info.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": info.normalize,
        "reshape_activations": "none",
        **({"k": info.k, "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}),
        "metadata": {
            "sae_lens_version": _FORMAT,
            "sae_lens_training_version": None,
            "hook_name": hook_name(Place(info.layer, info.site)),
            "lfp": asdict(info),
        },
    }


def _modernise(config: dict[str, Any]) -> dict[str, Any]:
    """Rename the keys of a config of SAELens before 6.0 to those of 6.54; return a newer one as it is."""
    if isinstance(config.get("metadata"), dict):
        return config
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    normalize = config.get("normalize_activations") or "none"
    return config | {
        "architecture": config.get("architecture", "standard") if activation == "relu" else activation,
        "k": (config.get("activation_fn_kwargs") or {}).get("k"),
        "normalize_activations": "expected_average_only_in" if normalize is True else normalize,
        "metadata": {
            "hook_name": config.get("hook_name", config.get("hook_point")),
            "model_name": config.get("model_name"),
        },
    }


def _read_own_info(path: Path, config: dict[str, Any]) -> SaeInfo | None:
    """Read `metadata.lfp` and check that it agrees with the rest of the config."""
    facts = config["metadata"].get("lfp")
    if facts is None:
        return None
    try:
        info = SaeInfo(**facts)
        expected = _to_saelens_config(info)
    except (TypeError, KeyError) as error:
        raise ModelError(f"{path}: metadata.lfp cannot be read ({error}); train the autoencoder again") from error
    irrelevant = ("metadata", "dtype", "device")  # SAELens may have saved it again, for example from a GPU
    wrong = next((key for key, value in expected.items() if key not in irrelevant and config.get(key) != value), None)
    if wrong is not None:
        raise ModelError(
            f"{path}: {wrong} is {config.get(wrong)}, but {expected[wrong]} by metadata.lfp; train the autoencoder"
            " again"
        )
    return info
