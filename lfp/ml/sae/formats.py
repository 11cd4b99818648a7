"""Read and write autoencoders in SAELens 6.54's format, on disk and from the hub: cfg.json, sae_weights.safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lfp.errors import ModelError
from lfp.ml.models.sources import failure_reason
from lfp.ml.sae.autoencoders import SAES, Normalize, Sae, SaeInfo, Variant
from lfp.util.types import Place, Site

CONFIG_FILE = "cfg.json"
_WEIGHTS = "sae_weights.safetensors"
_FORMAT = "6.54.12"
"""The SAELens version whose format is written; it reads a folder without a version as one from before 6.0."""
VARIANTS: dict[str, Variant] = {"standard": "relu", "topk": "topk", "batchtopk": "batchtopk", "jumprelu": "jumprelu"}
"""The variant that reads each architecture of SAELens."""
_WRITTEN: dict[Variant, str] = {
    "tied_relu": "standard",
    "relu": "standard",
    "topk": "topk",
    "batchtopk": "jumprelu",  # SAELens has batchtopk for training only
    "jumprelu": "jumprelu",
}
_NORMALIZE: dict[str, Normalize] = {
    "none": "none",
    "expected_average_only_in": "none",  # a matter of training: SAELens does not scale inputs when it encodes
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm_rescale",
}
_HOOK_NAMES: dict[Site, str] = {
    "mlp_out": "blocks.{}.mlp.hook_out",
    "resid_post": "blocks.{}.hook_resid_post",
    "attn_out": "blocks.{}.hook_attn_out",
}
"""TransformerLens's name of each site, as it is written."""
_NAMES_OF_SITES: dict[Site, re.Pattern[str]] = {
    "mlp_out": re.compile(r"\.(\d+)\.(?:hook_mlp_out|mlp(?:\.(?:hook_out|dense_4h_to_h|c_proj|down_proj))?)$"),
    "resid_post": re.compile(r"(?:layers|h|blocks)\.(\d+)(?:\.(?:hook_resid_post|hook_out))?$"),
    "attn_out": re.compile(
        r"\.(\d+)\.(?:hook_attn_out|attn\.hook_out|(?:self_attn|self_attention|attention|attn)(?:\.(?:o_proj|c_proj|dense|out_proj))?)$"
    ),
}
"""Names of each site in TransformerLens and in transformers; the group is the layer."""
_BEFORE_LAYER = re.compile(r"\.(\d+)\.(?:hook_resid_pre|hook_in)$")
"""The residual stream before a layer, which is the one after the layer before."""


def write_sae(sae: Sae, folder: Path) -> None:
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
    save_file(copies, folder / _WEIGHTS)


def load_sae(folder: Path) -> Sae:
    """Load what `write_sae` saved in `folder`. Raises ModelError naming the file or tensor that is wrong."""
    config = read_config(folder)
    if config.own is None:
        raise ModelError(f"{config.path}: no metadata.lfp, so not an autoencoder saved here; read it with read_sae")
    return _build(folder, config, config.own)


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
    """Read a folder made by SAELens, or here, as an autoencoder of a site of `layer` of `model` (tuned or base).

    `scale` gives the activations there unit mean square norm, `d_in` is their width, `source` a name to record (the
    folder's by default). Weights become float32; a bias subtracted from the input and a rescaling by decoder norms are
    folded into them. Raises ModelError for what cannot be read, and for an autoencoder that the folder says is of
    another layer or site: all sites have the same width, so it would load and encode nonsense.
    """
    config = read_config(folder)
    if config.d_in != d_in:
        raise ModelError(
            f"{config.path}: made for activations of width {config.d_in}, but this model's have width {d_in};"
            " pass an autoencoder of this model"
        )
    place = Place(layer, site)
    if config.hook_name is not None and find_place(config.hook_name) != place:
        raise ModelError(
            f"{config.path}: made for {config.hook_name}, which is not {site} of layer {layer} ({hook_name(place)});"
            " pass an autoencoder of that, or set the entry's layer and site"
        )
    recorded = config.own or SaeInfo(
        layer=layer,
        width=config.width,
        d_in=config.d_in,
        scale=scale,
        l1=None,
        seed=0,
        model=model,
        variant=VARIANTS[config.architecture],
        k=config.k,
        normalize=config.normalize,
    )
    info = replace(recorded, layer=layer, site=site, model=model, scale=scale, source=source or str(folder))
    return _build(folder, config, info)


def hook_name(place: Place) -> str:
    """Name a place as TransformerLens does."""
    return _HOOK_NAMES[place.site].format(place.layer)


def find_place(name: str) -> Place | None:
    """Find the place that a name of TransformerLens or of transformers means; None for one that no run reads."""
    before = _BEFORE_LAYER.search(name)
    if before is not None and int(before[1]) > 0:
        return Place(int(before[1]) - 1, "resid_post")
    for site, pattern in _NAMES_OF_SITES.items():
        match = pattern.search(name)
        if match is not None:
            return Place(int(match[1]), site)
    return None


def locate_sae(name: str, revision: str | None = None) -> Path:
    """Return a local folder as it is, or fetch the folder `org/repo/sub/folder` of the hub into its cache.

    Raises ModelError when there is no such folder, or it cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith((".", "~")) or len(folder.parts) < 2:
        raise ModelError(f"{name}: no such folder; pass an autoencoder's folder, or org/repo/folder of the hub")
    from huggingface_hub import snapshot_download

    repository, inside = "/".join(folder.parts[:2]), folder.parts[2:]
    files = ["/".join((*inside, file)) for file in (CONFIG_FILE, _WEIGHTS)]
    try:
        found = Path(snapshot_download(repository, revision=revision, allow_patterns=files), *inside)
    except Exception as error:  # including those of whatever HTTP library the hub's client uses
        reason = failure_reason(error)
        raise ModelError(
            f"{folder}: no such folder here, and the hub does not give it ({reason}); pass a local folder"
        ) from error
    if not (found / CONFIG_FILE).is_file() or not (found / _WEIGHTS).is_file():
        raise ModelError(f"{name}: no {CONFIG_FILE} and {_WEIGHTS} there on the hub; name the folder that has them")
    return found


def _build(folder: Path, config: FolderConfig, info: SaeInfo) -> Sae:
    """Build the autoencoder of `info` with the weights of `folder`.

    A bias subtracted from the input is folded, (x - b_dec) W + b_enc = x W + (b_enc - b_dec W), and so is a rescaling:
    each decoder row's norm moves to its feature's encoder.
    """
    path = folder / _WEIGHTS
    tensors = _load_weights(path, config)
    w_enc, w_dec, b_enc, b_dec = (tensors[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec"))
    if config.subtracts_b_dec:
        b_enc = (b_enc.double() - b_dec.double() @ w_enc.double()).float()
    if config.rescales:
        norms = w_dec.norm(dim=1).clamp(min=1e-12)
        w_enc, w_dec, b_enc = w_enc * norms, w_dec / norms[:, None], b_enc * norms
    state = {"encoder": w_enc.T, "W_dec": w_dec, "b_enc": b_enc, "b_dec": b_dec}
    threshold = tensors.get("threshold", tensors.get("topk_threshold"))
    sae = SAES[info.variant](info)
    if sae.tied and not torch.equal(state["encoder"], state["W_dec"]):
        raise ModelError(f"{path}: W_dec is not W_enc's transpose, but the autoencoder is tied; train it again")
    if threshold is not None:
        if info.variant == "batchtopk":  # one threshold, which may be repeated for every feature
            if bool((threshold != threshold.flatten()[0]).any()):
                raise ModelError(f"{path}: a BatchTopK autoencoder has one threshold, not several; train it again")
            threshold = threshold.flatten()[0]
        state["threshold"] = threshold
    sae.load_state_dict(state)
    return sae.requires_grad_(False)


def _load_weights(path: Path, config: FolderConfig) -> dict[str, Tensor]:
    """Load the tensors of a folder in float32, checking their names, shapes and values."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); copy or save the autoencoder again") from error
    if "scaling_factor" in tensors and bool((tensors["scaling_factor"] == 1).all()):
        del tensors["scaling_factor"]  # SAELens before 6.0 wrote it, mostly of ones
    width, d_in = config.width, config.d_in
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (d_in, width),
        "W_dec": (width, d_in),
        "b_enc": (width,),
        "b_dec": (d_in,),
    }
    if config.architecture == "jumprelu":
        shapes["threshold"] = (width,)
    if config.architecture == "batchtopk":
        shapes["topk_threshold"] = ()
    faults = {"lacks": shapes.keys() - tensors.keys(), "has no place for": tensors.keys() - shapes.keys()}
    named = " and ".join(f"{what} {', '.join(sorted(names))}" for what, names in faults.items() if names)
    if named:
        raise ModelError(f"{path}: {named}; its tensors must be {', '.join(sorted(shapes))}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f"{path}: {name} is {list(tensor.shape)}, but {list(shape)} by {CONFIG_FILE};"
                " save the autoencoder again"
            )
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: {name} has values that are no finite numbers; train the autoencoder again")
    return {name: tensor.float() for name, tensor in tensors.items()}


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
    """Whether b_dec is subtracted from the input before it is encoded."""
    rescales: bool
    """Whether pre-activations are multiplied by the norms of the decoder rows before the k largest are chosen."""
    hook_name: str | None
    own: SaeInfo | None
    """What `write_sae` recorded; None in folders made elsewhere."""


def read_config(folder: Path) -> FolderConfig:
    """Read the cfg.json of a folder, of SAELens 6 or before. Raises ModelError naming the key that is not supported."""
    path = folder / CONFIG_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: not an autoencoder's folder ({error}); pass one with {CONFIG_FILE}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object; save the autoencoder again")
    config = _modernise(content)
    architecture = _read_choice(path, config, "architecture", VARIANTS)
    normalize = _read_choice(path, {"normalize_activations": "none"} | config, "normalize_activations", _NORMALIZE)
    _read_choice(path, {"reshape_activations": "none"} | config, "reshape_activations", ["none"])
    for key in ("d_sae", "d_in"):
        if type(config.get(key)) is not int or config[key] < 1:
            raise ModelError(
                f"{path}: {key} is {config.get(key)}, not a whole number from 1; save the autoencoder again"
            )
    width, k = config["d_sae"], None
    by_k = architecture in ("topk", "batchtopk")
    if by_k:
        k = config.get("k")
        if not isinstance(k, int if architecture == "topk" else (int, float)) or not 0 < k <= width:
            raise ModelError(
                f"{path}: k is {k}, but it must be from 1 to the {width} features; pass another autoencoder"
            )
        k = int(k) if float(k).is_integer() else None
    return FolderConfig(
        path=path,
        architecture=architecture,
        width=width,
        d_in=config["d_in"],
        k=k,
        normalize=_NORMALIZE[normalize],
        subtracts_b_dec=bool(config.get("apply_b_dec_to_input", True)),
        rescales=by_k and bool(config.get("rescale_acts_by_decoder_norm", architecture == "batchtopk")),
        hook_name=config["metadata"].get("hook_name"),
        own=_read_own_info(path, config),
    )


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
        "metadata": {"hook_name": config.get("hook_name", config.get("hook_point"))},
    }


def _read_choice(path: Path, config: dict[str, Any], key: str, known: Collection[str]) -> str:
    value = config.get(key)
    if not isinstance(value, str) or value not in known:
        raise ModelError(f"{path}: {key} {value} is not supported; pass one with {' or '.join(sorted(known))}")
    return value


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
