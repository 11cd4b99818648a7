"""Measure autoencoders on held-out texts, compare two, build a random one as control, and split a raw probe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.models.activations import model_batches
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.predictions import read_states
from lfp.ml.models.runtime import FastLinear
from lfp.ml.models.tokenization import Batch, TokenizedText
from lfp.ml.sae.autoencoders import Dictionary, Sae, TopKSae
from lfp.util.types import SITES, Floats, Place


@dataclass(frozen=True)
class SaeQuality:
    """Held-out quality: fraction of variance unexplained, mean active features per token, share never active."""

    fvu: float
    l0: float
    dead_fraction: float


@torch.no_grad()
def quality(sae: Sae, outputs: Tensor, *, batch_tokens: int = 8192) -> SaeQuality:
    """Measure an autoencoder on activations [n, d_in] it was not trained on.

    Raises DataError where all outputs are equal, because there is no variance to explain.
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
        raise DataError(f"{sae.info.place}: the {len(outputs)} held-out activations are all alike; use more texts")
    return SaeQuality(error / variance, counts.sum().item() / len(outputs), (counts == 0).double().mean().item())


def matched_cosines(small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
    """Match each unit row of `small` [n, d] to one of `large` [m, d], n <= m: cosines [n] and indices [n].

    Hungarian matching; the mean cosine is the paper's Mean Max Cosine Similarity between two dictionary sizes.
    """
    cosines = (small @ large.T).cpu()
    rows, columns = linear_sum_assignment(cosines.numpy(), maximize=True)
    return cosines[torch.as_tensor(rows), torch.as_tensor(columns)], torch.as_tensor(columns)


class RecoveredLoss:
    """Measures how much of a place's effect on a model's cross-entropy a dictionary's reconstruction preserves.

    (c - b) / (c - a) of the model's cross-entropies on the texts' tokens: a unchanged, b with the activation there at
    every token reconstructed, c with it zero. 1 is perfect, 0 no better than zero. With the residual stream zero only
    what later layers write is left of a token, so c is much larger than at other sites, and values of two sites do not
    compare; SAELens and SAEBench use zero ablation at every site too. Activations at a beginning-of-sequence token are
    left unchanged; padding is ignored. "Loss recovered" of Bricken et al. 2023 and arXiv 2404.16014.
    """

    def __init__(
        self, model: LanguageModel, texts: Sequence[TokenizedText], *, batch_texts: int, prepend_bos: bool
    ) -> None:
        self._model = model
        self._batches = list(model_batches(model, texts, batch_texts=batch_texts, prepend_bos=prepend_bos))
        self._clean: float | None = None
        self._zeroed: dict[Place, float] = {}

    def measure(self, sae: Sae) -> float | None:
        """Return the share that a dictionary preserves; None where zero does no harm.

        What does not depend on the dictionary is computed for the first of a place. Raises DataError where a
        cross-entropy is not finite.
        """
        place = sae.info.place

        def reconstruct(outputs: Tensor) -> Tensor:  # the autoencoder's device may differ from the model's
            return sae.reconstruct(outputs.to(sae.b_dec.device)).to(outputs.device)

        if self._clean is None:
            self._clean = self._sum(place)
        if place not in self._zeroed:
            self._zeroed[place] = self._sum(place, torch.zeros_like)
        clean, zeroed, rebuilt = self._clean, self._zeroed[place], self._sum(place, reconstruct)
        if not math.isfinite(clean + rebuilt + zeroed):
            raise DataError(f"{place}: the cross-entropy is not finite; check the model and the autoencoder")
        return (zeroed - rebuilt) / (zeroed - clean) if zeroed > clean else None

    def _sum(self, place: Place, edit: Callable[[Tensor], Tensor] | None = None) -> float:
        return sum(_cross_entropy(self._model, batch, place, edit) for batch in self._batches)


@torch.no_grad()
def _cross_entropy(
    model: LanguageModel, batch: Batch, place: Place, edit: Callable[[Tensor], Tensor] | None = None
) -> float:
    """Sum the cross-entropy, in nats, over a batch's tokens that have a context.

    `edit` maps the activations there [n, d_in] to what replaces them.
    """
    ids, is_token = batch.input_ids.to(model.device), batch.text_tokens().to(model.device)

    def replace_output(output: Tensor) -> Tensor:
        assert edit is not None
        output = output.clone()
        output[is_token] = edit(output[is_token].float()).to(output.dtype)
        return output

    with FastLinear(), model.hooks({place: replace_output} if edit else {}):
        states = read_states(model, ids, batch.attention_mask)
    predicted = is_token[:, 1:]
    before, targets = states.take(F.pad(predicted, (0, 1))), ids[:, 1:][predicted]
    losses = (F.cross_entropy(before.logits(rows), targets[rows], reduction="none") for rows in before.chunks())
    return sum(loss.double().sum().item() for loss in losses)


def random_dictionary(
    like: Dictionary, *, l0: Sequence[float], centres: Mapping[Place, Tensor], seed: int
) -> Dictionary:
    """Build a topk dictionary of random unit rows with the widths and scales of `like`.

    Each place keeps as many features per token as its `l0`, rounded, at least 1. `centres` [d_in] by place are the mean
    activations: they are subtracted before the encoder, or the few rows nearest to the mean would be active everywhere.
    Nothing else of `like` is used.
    """
    saes = []
    for trained, mean_active in zip(like.saes, l0, strict=True):
        width = trained.info.width
        info = replace(
            trained.info,
            variant="topk",
            k=min(width, max(1, round(mean_active))),
            l1=None,
            l0_weight=None,
            normalize="none",
            seed=seed,
            source="random",
        )
        rows = np.random.default_rng([seed, info.layer, SITES.index(info.site)]).normal(size=(width, info.d_in))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        sae = TopKSae(info).requires_grad_(False)
        sae.encoder.copy_(torch.from_numpy(rows))
        sae.W_dec.copy_(torch.from_numpy(rows))
        sae.b_dec.copy_(centres[info.place])
        sae.b_enc.copy_(-(sae.encoder @ sae.b_dec))
        saes.append(sae)
    return Dictionary(saes).to(like.saes[0].encoder.device)


@dataclass(frozen=True)
class RawSplit:
    """A raw probe v in terms of a dictionary: v . x_hat = sum of `weights` times features + `bias`.

    `weights` [features] is v . d_i per unit of the feature in `Dictionary.encode`, `bias` is v . b_dec summed
    over places. Both are None where an autoencoder normalises its inputs: the effect of its features then differs from
    token to token.
    """

    weights: Floats | None
    bias: float | None


def split_raw(dictionary: Dictionary, coef: Floats) -> RawSplit:
    """Split `coef` [sum of d_in], the probe's coefficients of the activations, places in order.

    Raises DataError where its length is not the total width of the places.
    """
    parts = list(_split_by_place(dictionary, coef))
    if any(sae.info.normalize != "none" for sae, _ in parts):
        return RawSplit(None, None)
    weights = np.concatenate([_to_numpy(sae.W_dec) @ v / sae.info.scale for sae, v in parts])
    return RawSplit(weights, sum(float(_to_numpy(sae.b_dec) @ v) for sae, v in parts))


def raw_misses(dictionary: Dictionary, coef: Floats, outputs: Mapping[Place, Tensor], features: sp.csr_array) -> Floats:
    """Return the residual v . (x - x_hat) of each token [n]: what the autoencoders lose of the probe's estimate.

    `features` [n, features] are those that `Dictionary.encode` returns for the outputs.
    """
    parts, first = list(_split_by_place(dictionary, coef)), 0
    residuals = np.asarray(sum(_to_numpy(outputs[sae.info.place]) @ v for sae, v in parts), np.float64)
    for sae, v in parts:
        last = first + sae.info.width
        if sae.info.normalize == "none":
            weights, bias = _to_numpy(sae.W_dec) @ v / sae.info.scale, float(_to_numpy(sae.b_dec) @ v)
            residuals -= features[:, first:last] @ weights + bias
        else:
            with torch.no_grad():
                rebuilt = sae.reconstruct(outputs[sae.info.place].to(sae.encoder.device))
            residuals -= _to_numpy(rebuilt) @ v
        first = last
    return residuals


def _split_by_place(dictionary: Dictionary, coef: Floats) -> Iterator[tuple[Sae, Floats]]:
    """Pair each place's autoencoder with its part of the coefficients."""
    widths = [sae.info.d_in for sae in dictionary.saes]
    if coef.shape != (sum(widths),):
        raise DataError(f"the raw probe has {coef.size} coefficients for outputs {sum(widths)} wide; fit it again")
    return zip(dictionary.saes, np.split(coef, np.cumsum(widths)[:-1]), strict=True)


def _to_numpy(values: Tensor) -> Floats:
    return values.detach().cpu().double().numpy()
