"""Prepare what is shown of a feature: logits it moves, tokens it fires on, its place on a map, example buckets."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lfp.ml.features.examples import Examples
from lfp.ml.features.grouping import descending_keys, grouped_order, rank_within
from lfp.ml.models.loading import LanguageModel
from lfp.util.types import Indices, Ints

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TokenValues = list[dict[str, Any]]
_CHUNK = 512


@torch.no_grad()
def logit_tokens(model: LanguageModel, decoders: Tensor, *, n: int) -> tuple[list[TokenValues], list[TokenValues]]:
    """Return for each decoder row [features, d_model] the `n` tokens whose centred logit it raises and lowers most.

    The direct path only: the row times the final norm's gain times the unembedding (the "logit lens" of nostalgebraist
    2020), ignoring later layers. A LayerNorm centres the row too.
    """
    unembed = _unembedding(model)
    unembed = (unembed - unembed.mean(0))[: min(len(model.tokenizer), model.d_vocab)]
    raised: list[TokenValues] = []
    lowered: list[TokenValues] = []
    name = lru_cache(maxsize=None)(lambda token: model.tokenizer.decode([token]))
    for rows in decoders.split(_CHUNK):
        logits = rows.to(unembed.device) @ unembed.T
        for largest, found in ((True, raised), (False, lowered)):
            values, ids = logits.topk(n, dim=1, largest=largest)
            found += [
                [{"token": name(token), "value": value} for token, value in zip(*row, strict=True)]
                for row in zip(ids.tolist(), values.tolist(), strict=True)
            ]
    return raised, lowered


def _unembedding(model: LanguageModel) -> Tensor:
    """Return how a change of the last residual stream, at unit size, moves each logit [d_vocab, d_model]."""
    body = model.network.get_decoder()
    unembed = model.network.get_output_embeddings().weight.float()
    if getattr(body, "project_out", None) is not None:  # in an OPT whose embedding is narrower
        unembed = unembed @ body.project_out.weight.float()
    norms = [module for name, module in body.named_children() if "norm" in f"{name} {type(module).__name__}".lower()]
    if not norms:
        return unembed
    gain, centres = probe_norm(norms[-1], unembed.shape[1])
    unembed = unembed * gain
    return unembed - unembed.mean(1, keepdim=True) if centres else unembed


def probe_norm(norm: torch.nn.Module, width: int) -> tuple[Tensor, bool]:
    """Return the gain of a norm [width] and whether it removes the mean, from its outputs: kinds of norm differ.

    Its response to a vector of zero mean is the gain times the vector over its root mean square.
    """
    like = next(norm.parameters(), torch.empty(0))
    probe = torch.ones(width, device=like.device)
    probe[1::2] = -1.0
    if width % 2:
        probe[-3:] = torch.tensor([1.0, -0.5, -0.5])
    probes = torch.stack([probe, torch.ones_like(probe)]).to(like.dtype)
    plus, minus = (norm(sign * probes).float() for sign in (1.0, -1.0))
    response = (plus - minus) / 2.0
    gain = response[0] * probe.pow(2).mean().sqrt() / probe
    return gain, bool(response[1].abs().max() < 1e-3 * gain.abs().max())


def sampled_tokens(
    sample: Examples, n_features: int, tokenizer: PreTrainedTokenizerBase, *, n: int
) -> list[TokenValues]:
    """Return for each feature the `n` tokens with the largest share of its sampled activation."""
    n_ids = int(sample.token_ids.max(initial=0)) + 1
    keys, inverse = np.unique(sample.features * n_ids + sample.token_ids, return_inverse=True)
    mass = np.bincount(inverse, sample.activations, minlength=len(keys))
    total = np.bincount(sample.features, sample.activations, minlength=n_features)
    features, tokens = np.divmod(keys, n_ids)
    order = grouped_order(features, ~mass.view(np.uint64), tokens)
    order = order[rank_within(features[order]) < n]
    name = lru_cache(maxsize=None)(lambda token: tokenizer.decode([token]))
    found: list[TokenValues] = [[] for _ in range(n_features)]
    shares = mass[order] / total[features[order]]
    for feature, token, share in zip(features[order].tolist(), tokens[order].tolist(), shares.tolist(), strict=True):
        found[feature].append({"token": name(token), "value": share})
    return found


def quantile_buckets(sample: Examples, *, intervals: int, per_interval: int) -> tuple[Ints, Indices]:
    """Draw up to `per_interval` examples per quantile interval of each feature's sampled activations.

    Returns the buckets, 1 (low) to `intervals`, and the rows of the sample. Quantiles are exact where the sample holds
    every context the feature is active in, otherwise off by about sqrt(q (1 - q) / sample size) at the quantile q.
    """
    order = grouped_order(sample.features, ~descending_keys(sample.activations))
    of = sample.features[order]
    bucket = np.empty(len(order), np.int64)
    bucket[order] = 1 + rank_within(of) * intervals // np.bincount(of)[of]
    cell = sample.features * (intervals + 1) + bucket
    drawn = grouped_order(cell, sample.keys)
    kept = drawn[rank_within(cell[drawn]) < per_interval]
    return bucket[kept], kept


def ranks(examples: Examples, buckets: Ints) -> Ints:
    """Rank each example within its feature and bucket [n], from 0, largest activation first."""
    cell = examples.features * (int(buckets.max(initial=0)) + 2) + buckets + 1
    order = grouped_order(cell, descending_keys(examples.activations), examples.text_ids, examples.positions)
    ranked = np.empty(len(order), np.int64)
    ranked[order] = rank_within(cell[order])
    return ranked
