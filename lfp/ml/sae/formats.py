"""Autoencoders on disk: write and load those made here, and read the folders of other tools, recognised by their files.

SAELens, sparsify, Gemma Scope, Gemma Scope 2, Llama Scope and dictionary_learning; see docs/DICTIONARIES.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lfp.errors import ModelError
from lfp.ml.sae.autoencoders import Crosscoder, Sae, SaeInfo, build_sae
from lfp.ml.sae.readers import crosscoder
from lfp.ml.sae.readers.dictionary_learning import read_dictionary_learning
from lfp.ml.sae.readers.gemma_scope import read_gemma_scope, read_gemma_scope_2
from lfp.ml.sae.readers.hub import fetch_folder, find_release
from lfp.ml.sae.readers.llama_scope import read_llama_scope, read_llama_scope_learned
from lfp.ml.sae.readers.places import find_place, hook_name
from lfp.ml.sae.readers.saelens import WEIGHTS_FILE, read_saelens, write_saelens
from lfp.ml.sae.readers.sparsify import read_sparsify
from lfp.ml.sae.readers.stored import StoredSae, scale_inputs
from lfp.util.types import Place, Site

__all__ = [
    "Located",
    "StoredSae",
    "adopt_sae",
    "check_place",
    "check_width",
    "find_place",
    "hook_name",
    "load_sae",
    "locate_release",
    "locate_sae",
    "open_sae",
    "read_sae",
    "write_sae",
]


class _Format(NamedTuple):
    name: str
    files: tuple[str, ...]
    """A folder that has all of these is of the format."""
    read: Callable[[Path], StoredSae]
    optional: tuple[str, ...] = ()


_FORMATS = (
    _Format("SAELens", ("cfg.json", "sae_weights.safetensors"), read_saelens),
    _Format("crosscoder", (crosscoder.CONFIG_FILE, crosscoder.WEIGHTS_FILE), crosscoder.read_crosscoder),
    _Format("sparsify", ("cfg.json", "sae.safetensors"), read_sparsify),
    _Format("Gemma Scope", ("params.npz",), read_gemma_scope),
    _Format("Gemma Scope 2", ("params.safetensors",), read_gemma_scope_2, optional=("config.json",)),
    _Format("Llama Scope", ("hyperparams.json", "checkpoints/final.safetensors"), read_llama_scope),
    _Format("OpenMOSS", ("config.json", "sae_weights.safetensors"), read_llama_scope_learned),
    _Format("dictionary_learning", ("config.json", "ae.pt"), read_dictionary_learning),
)


@dataclass(frozen=True)
class Located:
    """A folder, and what SAELens's table of releases adds to its config."""

    folder: Path
    overrides: Mapping[str, Any]


def write_sae(sae: Sae, folder: Path) -> None:
    """Write an autoencoder in SAELens's format, a crosscoder in one of this project; `load_sae` restores every bit."""
    if isinstance(sae, Crosscoder):
        crosscoder.write_crosscoder(sae, folder)
    else:
        write_saelens(sae, folder)


def load_sae(folder: Path) -> Sae:
    """Load what `write_sae` saved in `folder`. Raises ModelError naming the file or tensor that is wrong."""
    stored = open_sae(folder)
    if stored.own is None:
        raise ModelError(f"{stored.path}: no metadata.lfp, so not an autoencoder saved here; read it with read_sae")
    return _build(stored, stored.own)


def read_sae(
    folder: Path,
    *,
    layer: int,
    model: str,
    scale: float,
    d_in: int,
    site: Site = "mlp_out",
    source: str | None = None,
) -> Sae:
    """Read a folder as an autoencoder of a site of `layer` of `model` (tuned or base); see `adopt_sae`."""
    stored = open_sae(folder)
    return adopt_sae(stored, layer=layer, model=model, scale=scale, d_in=d_in, site=site, source=source)


def adopt_sae(
    stored: StoredSae,
    *,
    layer: int,
    model: str,
    scale: float,
    d_in: int,
    site: Site = "mlp_out",
    source: str | None = None,
    input_scale: float = 1.0,
) -> Sae:
    """Build the autoencoder of a folder for a site of `layer` of `model` (tuned or base).

    `scale` gives the activations there unit mean square norm, `d_in` is their width, `source` a name to record (the
    folder's by default), `input_scale` a factor that the autoencoder wants its inputs multiplied by. Raises ModelError
    for what cannot be read, and for an autoencoder that the folder says is of another layer or site: all sites have the
    same width, so it would load and encode nonsense.
    """
    if stored.own is not None and stored.own.reads != "activations":
        raise ModelError(
            f"{stored.path}: reads both models of a pair (trained_on {stored.own.trained_on}), so it cannot be taken"
            " for another run; pass a dictionary of activations, or train one with sae.trained_on"
        )
    check_width(stored, d_in)
    check_place(stored, Place(layer, site))
    recorded = stored.own or SaeInfo(
        layer=layer,
        width=stored.width,
        d_in=stored.d_in,
        scale=scale,
        l1=None,
        seed=0,
        model=model,
        variant=stored.variant,
        k=stored.k,
        normalize=stored.normalize,
        trained_on=model,
    )
    info = replace(recorded, layer=layer, site=site, model=model, scale=scale, source=source or str(stored.path.parent))
    if input_scale != 1.0:
        if info.normalize != "none":
            raise ModelError(f"{stored.path}: normalises its inputs ({info.normalize}), so input_scale has no effect")
        stored = replace(stored, weights=scale_inputs(stored.weights, input_scale))
    return _build(stored, info)


def check_width(stored: StoredSae, d_in: int) -> None:
    """Raise ModelError unless an autoencoder reads activations of that width."""
    if stored.d_in != d_in:
        raise ModelError(
            f"{stored.path}: made for activations of width {stored.d_in}, but this model's have width {d_in};"
            " pass an autoencoder of this model"
        )


def check_place(stored: StoredSae, place: Place) -> None:
    """Raise ModelError where a folder says that its autoencoder is of another layer or site."""
    if stored.reads is None and stored.layer not in (None, place.layer):
        raise ModelError(f"{stored.path}: made for layer {stored.layer}, not {place.layer}; set the entry's layer")
    if stored.reads is not None and find_place(stored.reads) != place:
        raise ModelError(
            f"{stored.path}: made for {stored.reads}, which is not {place.site} of layer {place.layer}"
            f" ({hook_name(place)}); pass an autoencoder of that, or set the entry's layer and site"
        )


def open_sae(folder: Path, overrides: Mapping[str, Any] | None = None) -> StoredSae:
    """Read what a folder has, by the format that its files belong to. Raises ModelError where they belong to none."""
    for form in _FORMATS:
        if all((folder / file).is_file() for file in form.files):
            return read_saelens(folder, overrides) if form.name == "SAELens" else form.read(folder)
    partly = next((form for form in _FORMATS if any((folder / file).is_file() for file in form.files)), None)
    if partly is not None:
        missing = next(file for file in partly.files if not (folder / file).is_file())
        raise ModelError(f"{folder}: has no {missing}, which {partly.name} writes; copy the whole folder")
    known = "; ".join(f"{' and '.join(form.files)} ({form.name})" for form in _FORMATS)
    raise ModelError(f"{folder}: not an autoencoder's folder; pass one with {known}")


def locate_sae(name: str, revision: str | None = None) -> Path:
    """Return a local folder as it is, or fetch the folder `org/repo/sub/folder` of the hub into its cache.

    Raises ModelError when there is no such folder, or it cannot be fetched.
    """
    files = dict.fromkeys(file for form in _FORMATS for file in (*form.files, *form.optional))
    return fetch_folder(name, list(files), revision)


def locate_release(release: str, sae_id: str, revision: str | None = None) -> Located:
    """Fetch an autoencoder by SAELens's names, or by a repository of the hub and a folder in it."""
    found = find_release(release, sae_id)
    return Located(locate_sae(f"{found.repository}/{found.folder}", revision), found.overrides)


def _build(stored: StoredSae, info: SaeInfo) -> Sae:
    """Build the autoencoder of `info` with the weights of a folder."""
    weights, path = stored.weights, stored.path.with_name(WEIGHTS_FILE)
    sae = build_sae(info)
    if sae.tied and not torch.equal(weights.encoder, weights.W_dec):
        raise ModelError(f"{path}: W_dec is not W_enc's transpose, but the autoencoder is tied; train it again")
    state = {name: getattr(weights, name) for name in ("encoder", "W_dec", "b_enc", "b_dec")}
    if isinstance(sae, Crosscoder):
        state["least"] = weights.threshold
    elif weights.threshold is not None:
        state["threshold"] = weights.threshold
        if info.variant == "batchtopk":  # one threshold, which may be repeated for every feature
            if bool((weights.threshold != weights.threshold.flatten()[0]).any()):
                raise ModelError(f"{path}: a BatchTopK autoencoder has one threshold, not several; train it again")
            state["threshold"] = weights.threshold.flatten()[0]
    sae.load_state_dict(state)
    return sae.requires_grad_(False)
