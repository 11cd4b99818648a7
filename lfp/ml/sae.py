"""The sparse autoencoders: activations to features and back, saved as cfg.json and safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lfp.errors import ModelError

_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"


@dataclass(frozen=True)
class SaeInfo:
    """What an autoencoder was trained on and how; all of it is kept on disk."""

    layer: int
    width: int
    d_in: int
    scale: float
    """Factor on the MLP output that gives it unit mean square norm."""
    l1: float
    seed: int
    model: str
    """tuned or base."""
    variant: str = "tied_relu"


class TiedReluSae(torch.nn.Module):
    """The paper's autoencoder, on scaled inputs z = scale * x:

        f = relu(W z + b_enc)        z_hat = f W + b_dec        with every row of W [width, d_in] of unit length.

    The rows are normalised in the forward pass, so that training cannot shrink features by growing the decoder.
    Source: Marks et al. 2024 (arXiv 2310.08164), tied weights after Cunningham et al. 2023 (arXiv 2309.08600).
    """

    def __init__(self, info: SaeInfo) -> None:
        super().__init__()
        self.info = info
        self.rows = torch.nn.Parameter(torch.zeros(info.width, info.d_in))
        self.b_enc = torch.nn.Parameter(torch.zeros(info.width))
        self.b_dec = torch.nn.Parameter(torch.zeros(info.d_in))

    @property
    def decoder(self) -> Tensor:
        """Unit rows [width, d_in]: each feature's direction in the scaled space."""
        return F.normalize(self.rows, dim=1)

    def encode(self, outputs: Tensor) -> Tensor:
        """MLP outputs [n, d_in] to features [n, width]."""
        return F.relu(F.linear(outputs * self.info.scale, self.decoder, self.b_enc))

    def decode(self, features: Tensor) -> Tensor:
        """Features [n, width] to MLP outputs [n, d_in], the scale undone."""
        return (features @ self.decoder + self.b_dec) / self.info.scale

    def save(self, folder: Path) -> None:
        """Writes cfg.json and sae_weights.safetensors; `load_sae` gives every field back."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _CONFIG).write_text(json.dumps(asdict(self.info), indent=1) + "\n", encoding="utf-8")
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / _WEIGHTS)


def load_sae(folder: Path) -> TiedReluSae:
    """The autoencoder saved in `folder`. Raises ModelError naming the file or tensor that is wrong."""
    try:
        sae = TiedReluSae(SaeInfo(**json.loads((folder / _CONFIG).read_text(encoding="utf-8"))))
        tensors = load_file(folder / _WEIGHTS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"{folder}: not an autoencoder's folder ({error}); pass one that this project saved"
        ) from error
    expected = {name: tensor.shape for name, tensor in sae.state_dict().items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise ModelError(f"{folder / _WEIGHTS}: the tensors are not {dict(expected)}; train the autoencoder again")
    sae.load_state_dict(tensors)
    return sae.requires_grad_(False)


class Dictionary:
    """The autoencoders of one model's chosen layers side by side: one dense row of features over all layers.

    Feature ids count through the layers in order; `layer_of` and `index_of` [features] say where each came from.
    """

    def __init__(self, saes: Sequence[TiedReluSae]) -> None:
        self.saes = sorted(saes, key=lambda sae: sae.info.layer)
        self.layers = tuple(sae.info.layer for sae in self.saes)
        widths = [sae.info.width for sae in self.saes]
        self.n_features = sum(widths)
        self.layer_of = np.repeat(np.array(self.layers, np.int64), widths)
        self.index_of = np.concatenate([np.arange(width) for width in widths])

    @torch.no_grad()
    def encode(self, outputs: Mapping[int, Tensor]) -> Tensor:
        """MLP outputs [n, d_in] by layer to features [n, features]."""
        return torch.cat([sae.encode(outputs[sae.info.layer]) for sae in self.saes], dim=1)

    @property
    def decoders(self) -> list[Tensor]:
        """Each layer's decoder rows [width, d_in], in the scaled space."""
        return [sae.decoder.detach() for sae in self.saes]
