"""A dictionary of random directions, as sparse as another one: the control for what training one finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lfp.ml.sae import Dictionary, Sae, TopKSae


def random_dictionary(like: Dictionary, *, l0: Sequence[float], centres: Mapping[int, Tensor], seed: int) -> Dictionary:
    """A topk dictionary of random unit rows with the widths and scales of `like`.

    Each layer keeps as many features a token as its `l0` says, rounded, one at least. `centres` [d_in] by layer are the
    mean MLP outputs: they are taken off before the encoder, or the same few rows nearest to the mean would win
    everywhere. Of `like` nothing else is used.
    """
    saes = [
        _random(sae, k=round(active), centre=centres[sae.info.layer], seed=seed)
        for sae, active in zip(like.saes, l0, strict=True)
    ]
    return Dictionary(saes).to(like.saes[0].encoder.device)


def _random(like: Sae, *, k: int, centre: Tensor, seed: int) -> Sae:
    info = replace(
        like.info,
        variant="topk",
        k=min(like.info.width, max(1, k)),
        l1=None,
        l0_weight=None,
        normalize="none",
        seed=seed,
        source="random",
    )
    rows = np.random.default_rng([seed, info.layer]).normal(size=(info.width, info.d_in))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    sae = TopKSae(info).requires_grad_(False)
    sae.encoder.copy_(torch.from_numpy(rows))
    sae.decoder.copy_(torch.from_numpy(rows))
    sae.b_dec.copy_(centre)
    sae.b_enc.copy_(-(sae.encoder @ sae.b_dec))
    return sae
