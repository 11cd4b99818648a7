"""Read Gemma Scope (params.npz) and Gemma Scope 2 (config.json, params.safetensors): JumpReLU autoencoders.

Their encoding is relu(pre) 1[pre > threshold] with pre = x W_enc + b_enc, in Gemma Scope 2 with lower-case names.
Sources: Lieberum et al. 2024 (arXiv 2408.05147); the cards of the repositories google/gemma-scope-2-*.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lfp.errors import ModelError
from lfp.ml.sae.readers.stored import StoredSae, Weights, find_sizes, load_tensors, read_choice, read_json, take_tensors

_REPOSITORY = re.compile(r"gemma-scope-(\d+b-\w+)-(res|mlp|att|transcoders)\b")
_LAYER = re.compile(r"\blayer_(\d+)\b")
_HOOKS = {"res": "blocks.{}.hook_resid_post", "mlp": "blocks.{}.hook_mlp_out", "att": "blocks.{}.attn.hook_z"}


def read_gemma_scope(folder: Path) -> StoredSae:
    """Read layer_N/width_X/average_l0_Y of a repository google/gemma-scope-*, whose names in the path say the place."""
    path = folder / "params.npz"
    where = str(folder.absolute())
    repository, layer = _REPOSITORY.search(where), _LAYER.search(where)
    if repository is not None and repository[2] == "transcoders":
        raise ModelError(f"{path}: a transcoder, which rebuilds another site than it reads; pass an autoencoder")
    if re.search(r"\bembedding\b", where):
        raise ModelError(f"{path}: an autoencoder of the token embeddings, which no run reads; pass one of a layer")
    tensors = load_tensors(path)
    width, d_in = find_sizes(path, tensors, b_enc="b_enc", b_dec="b_dec")
    names = {"W_enc": (d_in, width), "W_dec": (width, d_in), "b_enc": (width,), "b_dec": (d_in,), "threshold": (width,)}
    taken = take_tensors(path, tensors, names)
    return StoredSae(
        path=path,
        variant="jumprelu",
        weights=Weights(taken["W_enc"].T, taken["W_dec"], taken["b_enc"], taken["b_dec"], taken["threshold"]),
        reads=_HOOKS[repository[2]].format(layer[1]) if repository is not None and layer is not None else None,
        layer=None if layer is None else int(layer[1]),
        model=f"gemma-2-{repository[1].removesuffix('-pt')}" if repository is not None else None,
    )


def read_gemma_scope_2(folder: Path) -> StoredSae:
    """Read SITE/layer_N_width_X_l0_Y of a repository google/gemma-scope-2-*, by its config.json where it has one."""
    path = folder / "params.safetensors"
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    _refuse_others(folder, config)
    tensors = load_tensors(path)
    width, d_in = find_sizes(path, tensors, b_enc="b_enc", b_dec="b_dec")
    names = {"w_enc": (d_in, width), "w_dec": (width, d_in), "b_enc": (width,), "b_dec": (d_in,), "threshold": (width,)}
    taken = take_tensors(path, tensors, names)
    model = config.get("model_name")
    return StoredSae(
        path=folder / "config.json" if config else path,
        variant="jumprelu",
        weights=Weights(taken["w_enc"].T, taken["w_dec"], taken["b_enc"], taken["b_dec"], taken["threshold"]),
        reads=str(config["hf_hook_point_in"]).removesuffix(".output") if "hf_hook_point_in" in config else None,
        model=None if model is None else str(model).replace("-v3", "-3"),
    )


def _refuse_others(folder: Path, config: dict[str, Any]) -> None:
    """Raise ModelError for transcoders and crosscoders, and for other architectures."""
    path, reads, writes = folder / "config.json", config.get("hf_hook_point_in"), config.get("hf_hook_point_out")
    kind = str(config.get("type", ""))
    named = re.search(r"(transcoder|crosscoder|\bclt\b)", f"{kind} {folder.absolute()}")
    if named is not None or (writes is not None and writes != reads) or config.get("affine_connection"):
        what = named[1] if named is not None else "transcoder"
        raise ModelError(f"{path}: a {what}, which rebuilds another site than it reads; pass an autoencoder")
    if config:
        read_choice(path, config, "architecture", ["jump_relu"])
