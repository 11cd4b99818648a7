"""Measure autoencoders on held-out texts, compare two, build a random one as control, and split a raw probe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.models.activations import model_batches, stream_batches
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.predictions import read_states
from lfp.ml.models.runtime import FastLinear
from lfp.ml.models.tokenization import Batch, TokenizedText
from lfp.ml.sae.autoencoders import Dictionary, Sae, TopKSae
from lfp.ml.sae.views import TokenPair, view_pair
from lfp.util.types import ROLES, SITES, Floats, Place


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
    error, variance = torch.zeros(2, dtype=torch.float64, device=outputs.device)
    counts = torch.zeros(sae.info.width, dtype=torch.int64, device=outputs.device)
    mean = outputs.mean(0, dtype=torch.float64)
    for batch in outputs.split(batch_tokens):
        features, rebuilt = sae(batch)
        error += (batch - rebuilt).double().pow(2).sum()
        variance += (batch - mean).pow(2).sum()
        counts += (features > 0).sum(0)
    if variance == 0.0:
        raise DataError(f"{sae.info.place}: the {len(outputs)} held-out activations are all alike; use more texts")
    return SaeQuality(
        (error / variance).item(), counts.sum().item() / len(outputs), (counts == 0).double().mean().item()
    )


@dataclass(frozen=True)
class PairQuality(SaeQuality):
    """Quality on what a dictionary was trained on, and its unexplained share on each model by itself."""

    fvu_tuned: float
    fvu_base: float


def pair_quality(sae: Sae, pair: TokenPair) -> PairQuality:
    """Measure an autoencoder on both models' activations at tokens that it was not trained on.

    Of changes, `fvu_tuned` is on those at the tuned model's inputs, `fvu_base` on those at the base model's.
    """
    device = sae.encoder.device
    tuned, base = (view_pair(sae, pair, role).to(device) for role in ROLES)
    if sae.info.reads == "pair":
        return PairQuality(**vars(quality(sae, tuned)), **_halves_unexplained(sae, tuned))
    of_tuned, of_base = quality(sae, tuned), quality(sae, base)
    own = of_base if sae.info.model == "base" else of_tuned
    if sae.info.trained_on == "shared":
        own = quality(sae, torch.cat([tuned, base]))
    return PairQuality(**vars(own), fvu_tuned=of_tuned.fvu, fvu_base=of_base.fvu)


@torch.no_grad()
def _halves_unexplained(sae: Sae, outputs: Tensor, *, batch_tokens: int = 8192) -> dict[str, float]:
    """Return the unexplained share of each model's half of a crosscoder's inputs [n, 2 d_model]."""
    mean, d = outputs.mean(0, dtype=torch.float64), sae.info.d_model
    error, variance = torch.zeros(2, 2, dtype=torch.float64, device=outputs.device)
    for batch in outputs.split(batch_tokens):
        error += (batch - sae.reconstruct(batch)).double().pow(2).sum(0).view(2, d).sum(1)
        variance += (batch - mean).pow(2).sum(0).view(2, d).sum(1)
    shares = (error / variance.clamp(min=1e-30)).tolist()
    return {"fvu_tuned": shares[0], "fvu_base": shares[1]}


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
    left unchanged; padding is ignored. "Loss recovered" of Bricken et al. 2023 and arXiv 2404.16014. For a crosscoder,
    `other` is the base model, whose activations it reads beside those of `model`.
    """

    def __init__(
        self,
        model: LanguageModel,
        texts: Sequence[TokenizedText],
        *,
        batch_texts: int,
        prepend_bos: bool,
        other: LanguageModel | None = None,
    ) -> None:
        self._model, self._other = model, other
        self._batches = list(model_batches(model, texts, batch_texts=batch_texts, prepend_bos=prepend_bos))
        self._clean: float | None = None
        self._zeroed: dict[Place, float] = {}

    def measure(self, sae: Sae) -> float | None:
        """Return the share that a dictionary preserves; None where zero does no harm.

        What does not depend on the dictionary is computed for the first of a place. Raises DataError where a
        cross-entropy is not finite.
        """
        place = sae.info.place

        if self._clean is None:
            self._clean = self._sum(place, lambda _: None)
        if place not in self._zeroed:
            self._zeroed[place] = self._sum(place, lambda _: torch.zeros_like)
        clean, zeroed = self._clean, self._zeroed[place]
        rebuilt = self._sum(place, partial(self._reconstruct, sae))
        if not math.isfinite(clean + rebuilt + zeroed):
            raise DataError(f"{place}: the cross-entropy is not finite; check the model and the autoencoder")
        return (zeroed - rebuilt) / (zeroed - clean) if zeroed > clean else None

    def _reconstruct(self, sae: Sae, batch: Batch) -> Callable[[Tensor], Tensor]:
        """Return a function that reconstructs a batch's activations; its device may differ from the autoencoder's."""
        device, place = sae.b_dec.device, sae.info.place
        if sae.info.reads != "pair":
            return lambda outputs: sae.reconstruct(outputs.to(device)).to(outputs.device)
        assert self._other is not None
        (others,) = stream_batches(self._other, [batch], places=[place])
        of_base = others.outputs[place].to(device)

        def of_tuned(outputs: Tensor) -> Tensor:
            rebuilt = sae.reconstruct(torch.cat([outputs.to(device), of_base], dim=1))
            return rebuilt[:, : sae.info.d_model].to(outputs.device)

        return of_tuned

    def _sum(self, place: Place, edit_of: Callable[[Batch], Callable[[Tensor], Tensor] | None]) -> float:
        return sum(_cross_entropy(self._model, batch, place, edit_of(batch)) for batch in self._batches)


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
    """Build a topk dictionary of random unit rows with the widths and scales of `like`, which reads activations.

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
            d_in=trained.info.d_model,
            trained_on="tuned",
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
    """Split `coef` [sum of d_model], the probe's coefficients of the tuned activations, places in order.

    Raises DataError where its length is not the total width of the places.
    """
    parts = list(_split_by_place(dictionary, coef))
    if any(sae.info.normalize != "none" for sae, _ in parts):
        return RawSplit(None, None)
    weights = np.concatenate([_to_numpy(sae.tuned_decoder) @ v / sae.info.scale for sae, v in parts])
    return RawSplit(weights, sum(float(_to_numpy(sae.tuned_bias) @ v) for sae, v in parts))


def raw_misses(dictionary: Dictionary, coef: Floats, outputs: Mapping[Place, Tensor], features: sp.csr_array) -> Floats:
    """Return the residual v . (x - x_hat) of each token [n]: what the autoencoders lose of the probe's estimate.

    `features` [n, features] are those that `Dictionary.encode` returns for the tokens. What a dictionary of changes
    loses includes all that the base model's module would have written.
    """
    parts, first = list(_split_by_place(dictionary, coef)), 0
    residuals = np.asarray(sum(_to_numpy(outputs[sae.info.place]) @ v for sae, v in parts), np.float64)
    for sae, v in parts:
        last = first + sae.info.width
        if sae.info.normalize == "none":
            weights = _to_numpy(sae.tuned_decoder) @ v / sae.info.scale
            bias = float(_to_numpy(sae.tuned_bias) @ v)
            residuals -= features[:, first:last] @ weights + bias
        else:
            with torch.no_grad():
                rebuilt = sae.reconstruct(outputs[sae.info.place].to(sae.encoder.device))
            residuals -= _to_numpy(rebuilt) @ v
        first = last
    return residuals


def _split_by_place(dictionary: Dictionary, coef: Floats) -> Iterator[tuple[Sae, Floats]]:
    """Pair each place's autoencoder with its part of the coefficients."""
    widths = [sae.info.d_model for sae in dictionary.saes]
    if coef.shape != (sum(widths),):
        raise DataError(f"the raw probe has {coef.size} coefficients for outputs {sum(widths)} wide; fit it again")
    return zip(dictionary.saes, np.split(coef, np.cumsum(widths)[:-1]), strict=True)


def _to_numpy(values: Tensor) -> Floats:
    return values.detach().cpu().double().numpy()
