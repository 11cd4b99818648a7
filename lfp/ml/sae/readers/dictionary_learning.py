"""Read folders of dictionary_learning 0.1 (config.json, ae.pt), and no code of a pickle.

AutoEncoder               relu((x - bias) W + b)
AutoEncoderNew            relu(x W + b)
AutoEncoderTopK           the k largest of relu((x - b_dec) W + b)
BatchTopKSAE, Matryoshka  relu(pre) 1[pre > t] with pre = (x - b_dec) W + b
JumpReluAutoEncoder       relu(pre) 1[pre > t] with pre = x W + b
GatedAutoEncoder          1[u + g > 0] relu(exp(r) u + m) with u = (x - b) W
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lfp.errors import ModelError
from lfp.ml.sae.autoencoders import Variant
from lfp.ml.sae.readers.stored import (
    StoredSae,
    Weights,
    fold_gate,
    load_tensors,
    read_choice,
    read_json,
    read_k,
    read_size,
    subtract_b_dec,
    take_tensors,
    unit_decoder,
)

_LINEAR = {"encoder": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight"}
_NAMES: dict[str, dict[str, str]] = {
    "AutoEncoder": _LINEAR | {"b_dec": "bias"},
    "AutoEncoderNew": _LINEAR | {"b_dec": "decoder.bias"},
    "AutoEncoderTopK": _LINEAR | {"b_dec": "b_dec"},
    "BatchTopKSAE": _LINEAR | {"b_dec": "b_dec", "threshold": "threshold"},
    "MatryoshkaBatchTopKSAE": {name: name for name in ("W_dec", "b_enc", "b_dec", "threshold")} | {"encoder": "W_enc"},
    "JumpReluAutoEncoder": {name: name for name in ("W_dec", "b_enc", "b_dec", "threshold")} | {"encoder": "W_enc"},
    "GatedAutoEncoder": {
        "encoder": "encoder.weight",
        "b_enc": "mag_bias",
        "W_dec": "decoder.weight",
        "b_dec": "decoder_bias",
        "r_mag": "r_mag",
        "b_gate": "gate_bias",
    },
}
"""Names of the tensors of every class."""
_VARIANTS: dict[str, Variant] = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "batchtopk",
    "JumpReluAutoEncoder": "jumprelu",
    "GatedAutoEncoder": "jumprelu",
}
_UNREAD = ("k", "threshold", "group_sizes")
"""Tensors that some versions save as well, and that the encoding of a class does not read."""
_SITES = {
    "resid_post": "blocks.{}.hook_resid_post",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "attn_out": "blocks.{}.hook_attn_out",
    "attention_out": "blocks.{}.hook_attn_out",
}


def read_dictionary_learning(folder: Path) -> StoredSae:
    """Read a trainer's folder. Raises ModelError for a class that is not supported, and for a pickle with code."""
    path = folder / "config.json"
    content = read_json(path)
    trainer = content.get("trainer")
    if not isinstance(trainer, dict):
        raise ModelError(f"{path}: has no object trainer; pass the folder that dictionary_learning wrote")
    kind = read_choice(path, trainer, "dict_class", _NAMES)
    buffer = content.get("buffer") or {}
    if buffer.get("io", "out") != "out":
        raise ModelError(f"{path}: reads a module's input (buffer.io {buffer['io']}), which no run reads")
    width, d_in = read_size(path, trainer, "dict_size"), read_size(path, trainer, "activation_dim")
    stored = load_tensors(folder / "ae.pt")
    k = trainer.get("k", int(stored["k"]) if "k" in stored else None)
    taken = _take(folder / "ae.pt", stored, kind, width=width, d_in=d_in)
    weights = Weights(
        taken["encoder"], taken["W_dec"], taken["b_enc"], taken["b_dec"], threshold=taken.get("threshold")
    )
    if kind == "GatedAutoEncoder":
        weights = fold_gate(weights, r_mag=taken["r_mag"], b_gate=taken["b_gate"])
    if kind not in ("AutoEncoderNew", "JumpReluAutoEncoder"):
        weights = subtract_b_dec(weights)
    if kind == "AutoEncoder":
        weights = unit_decoder(weights)  # as its from_pretrained does
    variant = _VARIANTS[kind]
    return StoredSae(
        path=path,
        variant=variant,
        weights=weights,
        k=read_k(path, k, width) if variant in ("topk", "batchtopk") else None,
        reads=_name_place(trainer),
        layer=trainer["layer"] if type(trainer.get("layer")) is int else None,
        model=trainer.get("lm_name"),
    )


def _take(path: Path, stored: Mapping[str, Tensor], kind: str, *, width: int, d_in: int) -> dict[str, Tensor]:
    """Check a class's tensors and return them by the names of `Weights`, matrices as [width, d_in]."""
    names = _NAMES[kind]
    flipped = [name for name in ("encoder", "W_dec") if names[name] in ("W_enc", "decoder.weight")]
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(names, (width,))
    shapes |= {"encoder": (width, d_in), "W_dec": (width, d_in), "b_dec": (d_in,)}
    shapes |= dict.fromkeys(flipped, (d_in, width))
    if _VARIANTS[kind] == "batchtopk":
        shapes["threshold"] = ()
    kept = {name: tensor for name, tensor in stored.items() if name in names.values() or name not in _UNREAD}
    taken = take_tensors(path, kept, {names[name]: shape for name, shape in shapes.items()})
    return {name: taken[names[name]].T if name in flipped else taken[names[name]] for name in names}


def _name_place(trainer: Mapping[str, Any]) -> str | None:
    """Name the place by `submodule_name`, such as resid_post_layer_8, and `layer`; None where they do not say it."""
    module, layer = str(trainer.get("submodule_name") or ""), trainer.get("layer")
    site = next((hook for name, hook in _SITES.items() if module.startswith(name)), None)
    return None if site is None or type(layer) is not int else site.format(layer)
