"""How good autoencoders are on texts they were not trained on, and how alike two of them are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.models.loading import LanguageModel, check_token_ids, mlp_hook_point
from lfp.ml.models.tokenization import Batch, TokenizedText, batches
from lfp.ml.sae.autoencoders import Dictionary, Sae, TopKSae


@dataclass(frozen=True)
class SaeQuality:
    """Held-out quality: fraction of variance unexplained, mean active features a token, share never active."""

    fvu: float
    l0: float
    dead_fraction: float


@torch.no_grad()
def quality(sae: Sae, outputs: Tensor, *, batch_tokens: int = 8192) -> SaeQuality:
    """FVU, L0 and dead share of an autoencoder on MLP outputs [n, d_in] it was not trained on.

    Raises DataError where the outputs are all alike, for then there is no variance to explain.
    """
    error, variance = 0.0, 0.0
    counts = torch.zeros(sae.info.width, dtype=torch.int64, device=outputs.device)
    mean = outputs.mean(0, dtype=torch.float64)
    for batch in outputs.split(batch_tokens):
        features, rebuilt = sae(batch)
        error += (batch - rebuilt).double().pow(2).sum().item()
        variance += (batch - mean).pow(2).sum().item()
        counts += (features > 0).sum(0)
    if variance == 0.0:
        raise DataError(
            f"layer {sae.info.layer}: the {len(outputs)} held-out MLP outputs are all alike; use more texts"
        )
    return SaeQuality(error / variance, counts.sum().item() / len(outputs), (counts == 0).double().mean().item())


def matched_cosines(small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
    """For each unit row of `small` [n, d] its Hungarian match among rows of `large` [m, d], n <= m: cosines, indices.

    Their mean is the paper's Mean Max Cosine Similarity between two dictionary sizes.
    """
    cosines = (small @ large.T).cpu()
    rows, columns = linear_sum_assignment(cosines.numpy(), maximize=True)
    return cosines[torch.as_tensor(rows), torch.as_tensor(columns)], torch.as_tensor(columns)


def ce_recovered(
    model: LanguageModel, sae: Sae, texts: Sequence[TokenizedText], *, batch_texts: int, prepend_bos: bool
) -> float | None:
    """The share of what a layer's MLP is worth to the model that the autoencoder's reconstruction keeps.

    (c - b) / (c - a) of the model's cross-entropies on the texts' tokens: a as it is, b with the layer's MLP output at
    every token reconstructed, c with it zero. 1 is perfect, 0 no better than zero; None where c is no more than a. The
    output at a beginning-of-sequence token stays; padding counts nowhere. "Loss recovered" of Bricken et al. 2023 and
    arXiv 2404.16014. Raises DataError where a cross-entropy is not finite.
    """
    check_token_ids(model, [text.token_ids for text in texts])
    bos_id = model.bos_id if prepend_bos else None
    clean = rebuilt = zeroed = 0.0
    for batch in batches(texts, bos_id=bos_id, pad_id=model.pad_id, batch_texts=batch_texts):
        clean += _cross_entropy(model, batch, sae.info.layer)
        rebuilt += _cross_entropy(model, batch, sae.info.layer, _reconstruction(sae))
        zeroed += _cross_entropy(model, batch, sae.info.layer, torch.zeros_like)
    if not math.isfinite(clean + rebuilt + zeroed):
        raise DataError(f"layer {sae.info.layer}: the cross-entropy is not finite; check the model and the autoencoder")
    return (zeroed - rebuilt) / (zeroed - clean) if zeroed > clean else None


_Edit = Callable[[Tensor], Tensor]
"""MLP outputs [n, d_in] to what takes their place."""


def _reconstruction(sae: Sae) -> _Edit:
    """On the autoencoder's device, which need not be the model's."""
    return lambda outputs: sae.reconstruct(outputs.to(sae.b_dec.device)).to(outputs.device)


@torch.no_grad()
def _cross_entropy(model: LanguageModel, batch: Batch, layer: int, edit: _Edit | None = None) -> float:
    """The sum, in nats, over the batch's tokens that something precedes; `edit` acts on the layer at every token."""
    device = model.bridge.cfg.device
    ids, mask = batch.input_ids.to(device), batch.attention_mask.to(device)
    real = mask.bool()
    real[:, : batch.n_bos] = False
    hooks = [(mlp_hook_point(layer), partial(_edited, real, edit))] if edit else []
    with model.lock, model.bridge.hooks(fwd_hooks=hooks):
        logits = model.bridge(ids, attention_mask=mask)
    predicted = real[:, 1:]
    return F.cross_entropy(logits[:, :-1][predicted], ids[:, 1:][predicted], reduction="none").double().sum().item()


def _edited(real: Tensor, edit: _Edit, output: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 (the hook's form)
    output = output.clone()
    output[real] = edit(output[real])
    return output


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
