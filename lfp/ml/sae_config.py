"""cfg.json of an autoencoder's folder: SAELens's words for what an autoencoder is, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lfp.errors import ModelError
from lfp.ml.models import mlp_hook_point
from lfp.ml.sae import Normalize, SaeInfo, Variant

CONFIG_FILE = "cfg.json"
_FORMAT = "6.54.12"
"""The SAELens whose format is written: it takes a folder without a version for one of before 6.0."""
VARIANTS: dict[str, Variant] = {"standard": "relu", "topk": "topk", "batchtopk": "batchtopk", "jumprelu": "jumprelu"}
"""The variant of each architecture that is read."""
_WRITTEN: dict[Variant, str] = {
    "tied_relu": "standard",
    "relu": "standard",
    "topk": "topk",
    "batchtopk": "jumprelu",  # SAELens has batchtopk for training only
    "jumprelu": "jumprelu",
}
_NORMALIZE: dict[str, Normalize] = {
    "none": "none",
    "expected_average_only_in": "none",  # of training alone: SAELens does nothing of the kind when it encodes
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm_rescale",
}
_MLP_OUTPUT = re.compile(r"\.(\d+)\.(?:hook_mlp_out|mlp(?:\.(?:hook_out|dense_4h_to_h|c_proj|down_proj))?)$")


@dataclass(frozen=True)
class FolderConfig:
    """What the cfg.json at `path` says."""

    path: Path
    architecture: str
    width: int
    d_in: int
    k: int | None
    """None where there is none, or where it is not a whole number (batchtopk's is a mean)."""
    normalize: Normalize
    subtracts_b_dec: bool
    """Whether b_dec is taken from the input before it is encoded."""
    rescales: bool
    """Whether the k largest are chosen, and told, after multiplying by the norms of the decoder rows."""
    hook_name: str | None
    own: SaeInfo | None
    """What was noted in a folder written here; None in others."""


def config_text(info: SaeInfo) -> str:
    """The cfg.json of an autoencoder written here."""
    return json.dumps(_as_saelens(info), indent=1) + "\n"


def read_config(folder: Path) -> FolderConfig:
    """The cfg.json of a folder, of SAELens 6 or before. Raises ModelError naming the key that is not read here."""
    path = folder / CONFIG_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: not an autoencoder's folder ({error}); pass one with {CONFIG_FILE}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object; save the autoencoder again")
    config = _modern(content)
    architecture = _choice(path, config, "architecture", VARIANTS)
    normalize = _choice(path, {"normalize_activations": "none"} | config, "normalize_activations", _NORMALIZE)
    _choice(path, {"reshape_activations": "none"} | config, "reshape_activations", ["none"])
    width = _size(path, config, "d_sae")
    by_k = architecture in ("topk", "batchtopk")
    return FolderConfig(
        path=path,
        architecture=architecture,
        width=width,
        d_in=_size(path, config, "d_in"),
        k=_k(path, config, architecture, width) if by_k else None,
        normalize=_NORMALIZE[normalize],
        subtracts_b_dec=bool(config.get("apply_b_dec_to_input", True)),
        rescales=by_k and bool(config.get("rescale_acts_by_decoder_norm", architecture == "batchtopk")),
        hook_name=config["metadata"].get("hook_name"),
        own=_own_info(path, config),
    )


def check_hook(config: FolderConfig, layer: int) -> None:
    """Raises ModelError where the folder says that it is of another place than the MLP output of `layer`.

    The residual stream has the same width: such an autoencoder would load, and only encode nonsense.
    """
    match = _MLP_OUTPUT.search(config.hook_name or "")
    if config.hook_name is not None and (match is None or int(match[1]) != layer):
        raise ModelError(
            f"{config.path}: made for {config.hook_name}, which is not the MLP output of layer {layer}"
            f" ({mlp_hook_point(layer)}); pass an autoencoder of that"
        )


def _as_saelens(info: SaeInfo) -> dict[str, Any]:
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
            "hook_name": mlp_hook_point(info.layer),
            "lfp": asdict(info),
        },
    }


def _modern(config: dict[str, Any]) -> dict[str, Any]:
    """A config of SAELens before 6.0 in the words of 6.54; a newer one as it is."""
    if isinstance(config.get("metadata"), dict):
        return config
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    normalize = config.get("normalize_activations") or "none"
    return config | {
        "architecture": config.get("architecture", "standard") if activation == "relu" else activation,
        "k": (config.get("activation_fn_kwargs") or {}).get("k"),
        "normalize_activations": "expected_average_only_in" if normalize is True else normalize,
        "metadata": {"hook_name": config.get("hook_name", config.get("hook_point"))},
    }


def _choice(path: Path, config: dict[str, Any], key: str, known: Collection[str]) -> str:
    value = config.get(key)
    if not isinstance(value, str) or value not in known:
        raise ModelError(f"{path}: {key} {value} is not read here; pass one with {' or '.join(sorted(known))}")
    return value


def _size(path: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise ModelError(f"{path}: {key} is {value}, not a whole number from 1; save the autoencoder again")
    return value


def _k(path: Path, config: dict[str, Any], architecture: str, width: int) -> int | None:
    k = config.get("k")
    numbers = (int,) if architecture == "topk" else (int, float)
    if not isinstance(k, numbers) or not 0 < k <= width:
        raise ModelError(f"{path}: k is {k}, but it must be from 1 to the {width} features; pass another autoencoder")
    return int(k) if float(k).is_integer() else None


def _own_info(path: Path, config: dict[str, Any]) -> SaeInfo | None:
    facts = config["metadata"].get("lfp")
    if facts is None:
        return None
    try:
        info = SaeInfo(**facts)
        told = _as_saelens(info)
    except (TypeError, KeyError) as error:
        raise ModelError(f"{path}: metadata.lfp cannot be read ({error}); train the autoencoder again") from error
    of_no_account = ("metadata", "dtype", "device")  # a reader may have saved it again, say from a GPU
    wrong = next((key for key, value in told.items() if key not in of_no_account and config.get(key) != value), None)
    if wrong is not None:
        raise ModelError(
            f"{path}: {wrong} is {config.get(wrong)}, but {told[wrong]} by metadata.lfp; train the autoencoder again"
        )
    return info
