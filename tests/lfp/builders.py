"""Small things that several tests build: real data where there is any, sparse features, sentences, autoencoders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.sparse as sp

if TYPE_CHECKING:
    from lfp.ml.sae import Sae, Variant

ROOT = Path(__file__).parents[2]


def data_file(name: str) -> Path:
    """A file of the real data; skips the test where it is absent."""
    path = Path(os.environ.get("LFP_DATA", ROOT / ".." / "shared" / "data")) / name
    if not path.is_file():
        pytest.skip(f"no real data at {path}")
    return path


def sparse_features(rows: int, features: int, *, seed: int = 0, density: float = 0.4) -> sp.csr_array:
    """Non-negative features, most of them zero."""
    rng = np.random.default_rng(seed)
    return sp.csr_array(rng.exponential(size=(rows, features)) * (rng.random((rows, features)) < density))


def tiny_sae(
    *,
    variant: Variant = "tied_relu",
    width: int = 12,
    d_in: int = 6,
    layer: int = 0,
    scale: float = 0.37,
    seed: int = 0,
) -> Sae:
    """An autoencoder with random weights, biases too; topk keeps 3 features, tied rows are of unit length."""
    import torch

    from lfp.ml.sae import SAES, SaeInfo

    k = 3 if variant in ("topk", "batchtopk") else None
    sae = SAES[variant](SaeInfo(layer, width, d_in, scale, 0.06, seed, "tuned", variant, k)).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in sae.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(noise.abs() if name == "threshold" else noise)
    if sae.tied:
        sae.decoder.div_(sae.decoder.norm(dim=1, keepdim=True))
    return sae
