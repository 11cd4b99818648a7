"""Autoencoders on disk and on the hub, in SAELens 6.54's folder format: cfg.json and sae_weights.safetensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lfp.errors import ModelError
from lfp.ml.sae import SAES, Sae, SaeInfo
from lfp.ml.sae_config import CONFIG_FILE, VARIANTS, FolderConfig, check_hook, config_text, read_config

_WEIGHTS = "sae_weights.safetensors"


def write_sae(sae: Sae, folder: Path) -> None:
    """Writes cfg.json and sae_weights.safetensors; `load_sae` gives every field and every bit back.

    SAELens reads the folder too: a tied autoencoder as `standard` with W_dec = W_enc^T, a BatchTopK one as `jumprelu`
    with its one threshold at every feature. What it really is stands under `metadata.lfp`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(config_text(sae.info), encoding="utf-8")
    tensors = {"W_enc": sae.encoder.T, "W_dec": sae.decoder, "b_enc": sae.b_enc, "b_dec": sae.b_dec}
    threshold = sae.state_dict().get("threshold")
    if threshold is not None:
        tensors["threshold"] = threshold.expand(sae.info.width)
    save_file({name: _apart(tensor) for name, tensor in tensors.items()}, folder / _WEIGHTS)


def load_sae(folder: Path) -> Sae:
    """The autoencoder that `write_sae` saved in `folder`. Raises ModelError naming the file or tensor that is wrong."""
    config = read_config(folder)
    if config.own is None:
        raise ModelError(f"{config.path}: no metadata.lfp, so not an autoencoder saved here; read it with read_sae")
    return _build(folder, config, config.own)


def read_sae(folder: Path, *, layer: int, model: str, scale: float, d_in: int, source: str | None = None) -> Sae:
    """The autoencoder of a folder made by SAELens, or here, as one of `layer` of `model`, tuned or base.

    `scale` gives the layer's MLP outputs unit mean square norm, `d_in` is their width, `source` the name to remember it
    by (the folder's by default). The weights become float32; a bias taken from the input and a rescaling by decoder
    norms are folded into them. Raises ModelError for what cannot be read, and for an autoencoder that, as far as the
    folder tells, is not of that layer's MLP output.
    """
    config = read_config(folder)
    if config.d_in != d_in:
        raise ModelError(
            f"{config.path}: made for outputs of width {config.d_in}, but this model's MLP outputs have width {d_in};"
            " pass an autoencoder of this model"
        )
    check_hook(config, layer)
    noted = config.own or _foreign_info(config)
    info = replace(noted, layer=layer, model=model, scale=scale, source=source or str(folder))
    return _build(folder, config, info)


def locate_sae(name: str, revision: str | None = None) -> Path:
    """A local folder as it is; else the folder `org/repo/sub/folder` of the hub, fetched into its cache.

    Raises ModelError when there is no such folder, or it cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith((".", "~")) or len(folder.parts) < 2:
        raise ModelError(f"{name}: no such folder; pass an autoencoder's folder, or org/repo/folder of the hub")
    found = _fetch(folder.parts, revision)
    if not (found / CONFIG_FILE).is_file() or not (found / _WEIGHTS).is_file():
        raise ModelError(f"{name}: no {CONFIG_FILE} and {_WEIGHTS} there on the hub; name the folder that has them")
    return found


def _fetch(parts: tuple[str, ...], revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    repository, inside = "/".join(parts[:2]), parts[2:]
    files = ["/".join((*inside, file)) for file in (CONFIG_FILE, _WEIGHTS)]
    try:
        found = snapshot_download(repository, revision=revision, allow_patterns=files)
    except Exception as error:  # among them those of whatever HTTP library the hub's client uses
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ModelError(
            f"{'/'.join(parts)}: no such folder here, and the hub does not give it ({reason}); pass a local folder"
        ) from error
    return Path(found, *inside)


def _foreign_info(config: FolderConfig) -> SaeInfo:
    """What a folder made elsewhere tells; the rest is for the caller to replace."""
    return SaeInfo(
        layer=0,
        width=config.width,
        d_in=config.d_in,
        scale=1.0,
        l1=None,
        seed=0,
        model="tuned",
        variant=VARIANTS[config.architecture],
        k=config.k,
        normalize=config.normalize,
    )


def _build(folder: Path, config: FolderConfig, info: SaeInfo) -> Sae:
    """The autoencoder of `info` with the weights of `folder`."""
    path = folder / _WEIGHTS
    tensors = _fold(_weights(path, config), config)
    state = {"encoder": tensors["W_enc"].T, "decoder": tensors["W_dec"]}
    state |= {name: tensors[name] for name in ("b_enc", "b_dec")}
    threshold = tensors.get("threshold", tensors.get("topk_threshold"))
    sae = SAES[info.variant](info)
    if sae.tied and not torch.equal(state["encoder"], state["decoder"]):
        raise ModelError(f"{path}: W_dec is not W_enc's transpose, but the autoencoder is tied; train it again")
    if threshold is not None:
        state["threshold"] = _one(path, threshold) if info.variant == "batchtopk" else threshold
    sae.load_state_dict(state)
    return sae.requires_grad_(False)


def _weights(path: Path, config: FolderConfig) -> dict[str, Tensor]:
    """The tensors of a folder in float32, their names, shapes and values checked."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); copy or save the autoencoder again") from error
    if "scaling_factor" in tensors and bool((tensors["scaling_factor"] == 1).all()):
        del tensors["scaling_factor"]  # SAELens before 6.0 wrote it, mostly of ones
    expected = _shapes(config)
    _check_names(path, set(tensors), set(expected))
    for name, shape in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f"{path}: {name} is {list(tensor.shape)}, but {list(shape)} by {CONFIG_FILE};"
                " save the autoencoder again"
            )
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: {name} has values that are no finite numbers; train the autoencoder again")
    return {name: tensor.float() for name, tensor in tensors.items()}


def _shapes(config: FolderConfig) -> dict[str, tuple[int, ...]]:
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
    return shapes


def _check_names(path: Path, found: set[str], expected: set[str]) -> None:
    faults = {"lacks": expected - found, "has no place for": found - expected}
    told = " and ".join(f"{what} {', '.join(sorted(names))}" for what, names in faults.items() if names)
    if told:
        raise ModelError(f"{path}: {told}; its tensors must be {', '.join(sorted(expected))}")


def _fold(tensors: dict[str, Tensor], config: FolderConfig) -> dict[str, Tensor]:
    """The weights of the same autoencoder without a bias taken from the input and without rescaling.

    (x - b_dec) W + b_enc = x W + (b_enc - b_dec W); each decoder row's norm goes to its feature's encoder.
    """
    w_enc, w_dec, b_enc = tensors["W_enc"], tensors["W_dec"], tensors["b_enc"]
    if config.subtracts_b_dec:
        b_enc = (b_enc.double() - tensors["b_dec"].double() @ w_enc.double()).float()
    if config.rescales:
        norms = w_dec.norm(dim=1).clamp(min=1e-12)
        w_enc, w_dec, b_enc = w_enc * norms, w_dec / norms[:, None], b_enc * norms
    return {**tensors, "W_enc": w_enc, "W_dec": w_dec, "b_enc": b_enc}


def _one(path: Path, threshold: Tensor) -> Tensor:
    """The one threshold of a BatchTopK autoencoder, which may stand at every feature."""
    if bool((threshold != threshold.flatten()[0]).any()):
        raise ModelError(f"{path}: a BatchTopK autoencoder has one threshold, not several; train it again")
    return threshold.flatten()[0]


def _apart(tensor: Tensor) -> Tensor:
    """A copy on the CPU, for a file cannot hold two tensors that share memory."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
