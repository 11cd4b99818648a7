"""Read folders of EleutherAI's sparsify (cfg.json, sae.safetensors): the k largest of relu((x - b_dec) W^T + b_enc)."""

from __future__ import annotations

from pathlib import Path

from lfp.errors import ModelError
from lfp.ml.sae.readers.places import find_place
from lfp.ml.sae.readers.stored import (
    StoredSae,
    Weights,
    load_tensors,
    read_choice,
    read_json,
    read_k,
    read_size,
    subtract_b_dec,
    take_tensors,
)


def read_sparsify(folder: Path) -> StoredSae:
    """Read a hookpoint's folder, whose name says the place. Raises ModelError for transcoders and signed features."""
    path = folder / "cfg.json"
    config = read_json(path)
    for key, what in (
        ("transcode", "a transcoder, which rebuilds another site than it reads,"),
        ("skip_connection", "an autoencoder with a linear path beside its features"),
        ("signed", "an autoencoder with negative features"),
    ):
        if config.get(key):
            raise ModelError(f"{path}: {key} is true: {what} is not supported; pass another autoencoder")
    read_choice(path, {"activation": "topk"} | config, "activation", ["topk"])
    d_in = read_size(path, config, "d_in")
    width = config.get("num_latents") or d_in * read_size(path, config, "expansion_factor")
    tensors = take_tensors(
        folder / "sae.safetensors",
        load_tensors(folder / "sae.safetensors"),
        {"encoder.weight": (width, d_in), "encoder.bias": (width,), "W_dec": (width, d_in), "b_dec": (d_in,)},
    )
    weights = Weights(tensors["encoder.weight"], tensors["W_dec"], tensors["encoder.bias"], tensors["b_dec"])
    run = folder.parent / "config.json"
    model = read_json(run).get("model") if run.is_file() else None
    hookpoint = f"model.{folder.absolute().name}"
    return StoredSae(
        path=path,
        variant="topk",
        weights=subtract_b_dec(weights),
        k=read_k(path, config.get("k"), width),
        reads=hookpoint if find_place(hookpoint) or "layers." in hookpoint else None,
        model=model if isinstance(model, str) else None,
    )
