"""Small things that several tests build: real data where there is any, sparse features, sentences, autoencoders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.sparse as sp

if TYPE_CHECKING:
    from lfp.ml.sae import TiedReluSae

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


def tiny_sae(*, width: int = 12, d_in: int = 6, layer: int = 0, scale: float = 0.37, seed: int = 0) -> TiedReluSae:
    """An autoencoder with random weights, biases too."""
    import torch

    from lfp.ml.sae import SaeInfo, TiedReluSae

    sae = TiedReluSae(SaeInfo(layer, width, d_in, scale, 0.06, seed, "tuned"))
    generator = torch.Generator().manual_seed(seed)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return sae.requires_grad_(False)
