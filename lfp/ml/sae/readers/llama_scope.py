"""Read Llama Scope (hyperparams.json, checkpoints/final.safetensors) and OpenMOSS's later folders (config.json).

Inputs and outputs are scaled by sqrt(d_model) over the data set's mean norm; decoder rows get unit length before a
threshold is applied. In Llama Scope the threshold is one number for features in units of the model's own activations;
in later folders it is learned, one per feature, on scaled activations. Sources: He et al. 2024 (arXiv 2410.20526);
OpenMOSS/Language-Model-SAEs at the release of October 2024.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lfp.errors import ModelError
from lfp.ml.sae.autoencoders import Normalize, Variant
from lfp.ml.sae.readers.stored import (
    StoredSae,
    Weights,
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

_NORMALIZE: dict[str, Normalize] = {
    "dataset-wise": "none",  # a constant factor, folded
    "token-wise": "constant_norm_rescale",
    "inference": "none",
    "none": "none",
}
_AVERAGE = "dataset_average_activation_norm."
_LOG_THRESHOLD = "log_jumprelu_threshold"


def read_llama_scope(folder: Path) -> StoredSae:
    """Read a folder of Llama Scope. Raises ModelError for transcoders and encoders that are not supported."""
    path = folder / "hyperparams.json"
    config = read_json(path)
    tensors = load_tensors(folder / "checkpoints" / "final.safetensors")
    averages: dict[str, float] = {}
    if config.get("norm_activation") == "dataset-wise":
        averages = config.get("dataset_average_activation_norm") or {}
    return _read(path, config, tensors, averages)


def read_llama_scope_learned(folder: Path) -> StoredSae:
    """Read a later folder of OpenMOSS, config.json and sae_weights.safetensors."""
    path = folder / "config.json"
    config = read_json(path)
    tensors = load_tensors(folder / "sae_weights.safetensors")
    averages = {name.removeprefix(_AVERAGE): float(tensors.pop(name)) for name in list(tensors) if _AVERAGE in name}
    hook = config.get("hook_point_in")
    averages = {"in": averages[hook], "out": averages[hook]} if hook in averages else {}
    return _read(path, config, tensors, averages)


def _read(
    path: Path, config: dict[str, Any], tensors: Mapping[str, Tensor], averages: Mapping[str, float]
) -> StoredSae:
    reads = config.get("hook_point_in")
    if config.get("hook_point_out") not in (None, reads):
        raise ModelError(f"{path}: a transcoder, which rebuilds another site than it reads; pass an autoencoder")
    if config.get("use_glu_encoder"):
        raise ModelError(f"{path}: use_glu_encoder is not supported; pass one with a linear encoder")
    normalize = _NORMALIZE[read_choice(path, {"norm_activation": "none"} | config, "norm_activation", _NORMALIZE)]
    d_in = read_size(path, config, "d_model")
    width = config["d_sae"] if "d_sae" in config else d_in * read_size(path, config, "expansion_factor")
    has_bias = bool(config.get("use_decoder_bias", True))
    learned = _LOG_THRESHOLD in tensors
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.weight": (width, d_in),
        "encoder.bias": (width,),
        "decoder.weight": (d_in, width),
        **({"decoder.bias": (d_in,)} if has_bias else {}),
        **({_LOG_THRESHOLD: (width,)} if learned else {}),
    }
    taken = take_tensors(path, tensors, shapes)
    weights = Weights(
        encoder=taken["encoder.weight"],
        W_dec=taken["decoder.weight"].T,
        b_enc=taken["encoder.bias"],
        b_dec=taken["decoder.bias"] if has_bias else torch.zeros(d_in),
    )
    if has_bias and config.get("apply_decoder_bias_to_pre_encoder", False):
        weights = subtract_b_dec(weights)
    if config.get("sparsity_include_decoder_norm", True):
        weights = unit_decoder(weights)
    variant, k, threshold = _read_activation(path, config, width)
    if learned:
        variant, k = "jumprelu", None
        weights = weights._replace(threshold=taken[_LOG_THRESHOLD].exp())
    if config.get("norm_activation") == "dataset-wise":
        weights = scale_inputs(weights, _read_factor(path, averages, d_in))
    if variant == "jumprelu" and not learned:
        weights = weights._replace(threshold=torch.full((width,), threshold))
    named = re.search(r"(Llama\d_\d-\d+B)", str(path.absolute()))
    return StoredSae(
        path=path,
        variant=variant,
        weights=weights,
        k=k,
        normalize=normalize,
        reads=reads,
        model=None if named is None else named[1].replace("_", ".").replace("Llama", "Llama-"),
    )


def _read_activation(path: Path, config: dict[str, Any], width: int) -> tuple[Variant, int | None, float]:
    """Return the variant, k and threshold; a topk autoencoder with a threshold has been turned into a JumpReLU one."""
    function = read_choice(path, {"act_fn": "relu"} | config, "act_fn", ["relu", "topk", "jumprelu"])
    threshold = config.get("jump_relu_threshold", 0.0)
    if type(threshold) not in (int, float) or not math.isfinite(threshold):
        raise ModelError(f"{path}: jump_relu_threshold is {threshold}, not a number; save the autoencoder again")
    if function == "jumprelu" or (function == "topk" and threshold > 0):
        return "jumprelu", None, float(threshold)
    if function == "topk":
        return "topk", read_k(path, config.get("top_k"), width), 0.0
    return "relu", None, 0.0


def _read_factor(path: Path, averages: Mapping[str, float], d_in: int) -> float:
    """Return the factor that gives activations a mean norm of sqrt(d_in)."""
    average = averages.get("in")
    if not isinstance(average, (int, float)) or not average > 0:
        raise ModelError(f"{path}: no dataset_average_activation_norm of the input; save the autoencoder with it")
    if averages.get("out", average) != average:
        raise ModelError(f"{path}: a transcoder, which rebuilds another site than it reads; pass an autoencoder")
    return math.sqrt(d_in) / average
