"""Read and write folders of crosscoders, crosscoder.json and crosscoder.safetensors: SAELens has no format for them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from lfp.errors import ModelError
from lfp.ml.sae.autoencoders import Crosscoder, SaeInfo
from lfp.ml.sae.readers.places import hook_name
from lfp.ml.sae.readers.stored import StoredSae, Weights, load_tensors, read_json, take_tensors

CONFIG_FILE = "crosscoder.json"
WEIGHTS_FILE = "crosscoder.safetensors"
_NOTE = (
    "A crosscoder of two models: encoder and decoder rows hold the tuned model's half, then the base model's; a feature"
    " is active where its pre-activation times the sum of the norms of its decoder's halves is above least. No other"
    " tool's format holds one."
)


def write_crosscoder(sae: Crosscoder, folder: Path) -> None:
    """Write a crosscoder's folder; `read_crosscoder` restores every field and every bit."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"note": _NOTE, "hook_name": hook_name(sae.info.place), "lfp": asdict(sae.info)}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sae.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE)


def read_crosscoder(folder: Path) -> StoredSae:
    """Read a crosscoder's folder. Raises ModelError naming what is wrong."""
    path = folder / CONFIG_FILE
    config = read_json(path)
    try:
        info = SaeInfo(**config["lfp"])
    except (TypeError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); train the crosscoder again") from error
    if info.reads != "pair":
        raise ModelError(f"{path}: trained_on is {info.trained_on}, not crosscoder; train the crosscoder again")
    sizes: dict[str, tuple[int, ...]] = {
        "encoder": (info.width, info.d_in),
        "W_dec": (info.width, info.d_in),
        "b_enc": (info.width,),
        "b_dec": (info.d_in,),
        "least": (),
    }
    tensors = take_tensors(folder / WEIGHTS_FILE, load_tensors(folder / WEIGHTS_FILE), sizes)
    least: torch.Tensor = tensors.pop("least")
    return StoredSae(path, info.variant, Weights(**tensors, threshold=least), k=info.k, own=info)
