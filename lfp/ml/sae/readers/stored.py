"""What every reader returns, how files of tensors are loaded and checked, and what is folded into weights."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lfp.errors import ModelError
from lfp.ml.sae.autoencoders import Normalize, SaeInfo, Variant


class Weights(NamedTuple):
    """Weights of an autoencoder in float32, as `Sae` holds them: f = activate(x encoder^T + b_enc), f W_dec + b_dec."""

    encoder: Tensor
    """[width, d_in]"""
    W_dec: Tensor
    """[width, d_in]"""
    b_enc: Tensor
    b_dec: Tensor
    threshold: Tensor | None = None
    """[width], or a scalar (batchtopk)."""


@dataclass(frozen=True)
class StoredSae:
    """An autoencoder as a folder has it: its weights, and what the folder says of it."""

    path: Path
    """The file that says it, for errors."""
    variant: Variant
    weights: Weights
    k: int | None = None
    normalize: Normalize = "none"
    reads: str | None = None
    """The place that it was made for, in the folder's words; None where it does not say."""
    layer: int | None = None
    """The layer that it was made for, where the folder says no more of the place."""
    model: str | None = None
    """The model that it was made for, in the folder's words."""
    own: SaeInfo | None = None
    """What `write_sae` recorded; None in folders made elsewhere."""

    @property
    def width(self) -> int:
        """Number of features."""
        return self.weights.encoder.shape[0]

    @property
    def d_in(self) -> int:
        """Width of the activations that it reads."""
        return self.weights.encoder.shape[1]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ModelError naming the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}); copy or save the autoencoder again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object; save the autoencoder again")
    return content


def read_size(path: Path, config: Mapping[str, Any], key: str) -> int:
    """Return a whole number from 1 that a config must have. Raises ModelError naming its key."""
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise ModelError(f"{path}: {key} is {value}, not a whole number from 1; save the autoencoder again")
    return value


def read_k(path: Path, k: Any, width: int) -> int:
    """Check a number of active features per token. Raises ModelError naming the file."""
    if type(k) is not int or not 0 < k <= width:
        raise ModelError(f"{path}: k is {k}, but it must be from 1 to the {width} features; pass another autoencoder")
    return k


def read_choice(path: Path, config: Mapping[str, Any], key: str, known: Collection[str]) -> str:
    """Return a value that must be among those known. Raises ModelError naming its key."""
    value = config.get(key)
    if not isinstance(value, str) or value not in known:
        raise ModelError(f"{path}: {key} {value} is not supported; pass one with {' or '.join(sorted(known))}")
    return value


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Load a file of tensors (.safetensors, .npz, .pt), never executing what a pickle holds. Raises ModelError."""
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}
        if path.suffix == ".pt":
            return _load_pickle(path)
        return load_file(path)
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        RuntimeError,
        SafetensorError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ModelError(f"{path}: cannot be read ({reason}); copy or save the autoencoder again") from error


def _load_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickle protocols other than its own
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: is cut short or holds more than tensors, and code in a file is never run here; save its"
            " state_dict() with torch.save again"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path}: is not a dictionary of tensors; save its state_dict() with torch.save again")
    return content


def take_tensors(path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Check names, shapes and values of a file's tensors and return them in float32. Raises ModelError.

    A matrix may be transposed unless it is square, and a vector may have dimensions of size one.
    """
    faults = {"lacks": shapes.keys() - tensors.keys(), "has no place for": tensors.keys() - shapes.keys()}
    named = " and ".join(f"{what} {', '.join(sorted(names))}" for what, names in faults.items() if names)
    if named:
        raise ModelError(f"{path}: {named}; its tensors must be {', '.join(sorted(shapes))}")
    taken = {}
    for name, shape in shapes.items():
        tensor = tensors[name]
        if len(shape) == 2 and tuple(tensor.shape) == shape[::-1] != shape:
            tensor = tensor.T
        if len(shape) < 2 and tuple(size for size in tensor.shape if size > 1) == tuple(s for s in shape if s > 1):
            tensor = tensor.reshape(shape)
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f"{path}: {name} is {list(tensor.shape)}, but {list(shape)} by its other sizes; save the autoencoder"
                " again"
            )
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: {name} has values that are no finite numbers; train the autoencoder again")
        taken[name] = tensor.float()
    return taken


def find_sizes(path: Path, tensors: Mapping[str, Tensor], *, b_enc: str, b_dec: str) -> tuple[int, int]:
    """Return width and d_in by the sizes of the two biases. Raises ModelError where one is missing."""
    for name in (b_enc, b_dec):
        if name not in tensors:
            raise ModelError(f"{path}: lacks {name}; pass the folder of a whole autoencoder")
    return tensors[b_enc].numel(), tensors[b_dec].numel()


def subtract_b_dec(weights: Weights) -> Weights:
    """Fold a decoder bias that is subtracted from the input: (x - b_dec) W + b_enc = x W + (b_enc - b_dec W)."""
    shift = weights.encoder.double() @ weights.b_dec.double()
    return weights._replace(b_enc=(weights.b_enc.double() - shift).float())


def unit_decoder(weights: Weights) -> Weights:
    """Move each decoder row's norm to its feature's encoder; a threshold then holds for the larger features."""
    norms = weights.W_dec.norm(dim=1).clamp(min=1e-12)
    return weights._replace(
        encoder=weights.encoder * norms[:, None], W_dec=weights.W_dec / norms[:, None], b_enc=weights.b_enc * norms
    )


def scale_inputs(weights: Weights, factor: float) -> Weights:
    """Fold a factor that inputs are multiplied by, and outputs divided by, into biases and threshold."""
    threshold = None if weights.threshold is None else weights.threshold / factor
    return weights._replace(b_enc=weights.b_enc / factor, b_dec=weights.b_dec / factor, threshold=threshold)


def centre_inputs(weights: Weights) -> Weights:
    """Fold the removal of each input's mean over its dimensions into the encoder."""
    return weights._replace(encoder=weights.encoder - weights.encoder.mean(dim=1, keepdim=True))


def fold_gate(weights: Weights, *, r_mag: Tensor, b_gate: Tensor) -> Weights:
    """Turn a gated encoder into a thresholded one; `weights` has the magnitudes' bias as b_enc.

    1[u + b_gate > 0] relu(exp(r) u + b_mag) is relu(pre) 1[pre > b_mag - exp(r) b_gate] with pre = exp(r) u + b_mag.
    Source: Rajamanoharan et al. 2024 (arXiv 2404.16014), appendix on the equivalence with JumpReLU.
    """
    growth = r_mag.exp()
    return weights._replace(encoder=weights.encoder * growth[:, None], threshold=weights.b_enc - growth * b_gate)
