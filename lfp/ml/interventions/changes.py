"""Take features out of what tuning changed: the tuned model's write becomes m_1 - c_i d_i, and all else stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.errors import ModelError
from lfp.ml.implicit_reward.changes import ChangeOfWrites
from lfp.ml.implicit_reward.feature_credits import KINDS, change_decoder
from lfp.ml.models.activations import batch_of_rows
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.predictions import read_states
from lfp.ml.models.runtime import Batches
from lfp.ml.models.tokenization import TokenizedText
from lfp.ml.sae.autoencoders import Dictionary, Sae, normalise
from lfp.util.types import Flags, Floats


@contextmanager
def scaling_changes(
    pair: ChangeOfWrites,
    dictionary: Dictionary,
    scales: Mapping[int, float],
    *,
    prepend_bos: bool,
) -> Iterator[None]:
    """Scale features' parts of the change in the tuned model within the context: each acts `scales[feature]` times.

    The write m_1 becomes m_1 + sum_i (scale_i - 1) c_i d_i, with m_0 what the base's weights write for the same input:
    c encodes m_1 - m_0 in a dictionary of changes, and m_1 and m_0 side by side in a crosscoder, whose d_i is the
    difference of its decoders; else c_i is the feature's activation in m_1 less that in m_0. With `prepend_bos` the
    first position of a call with several tokens is left unchanged. Raises ModelError for a feature that the dictionary
    does not have.
    """
    by_place: dict[int, dict[int, float]] = defaultdict(dict)
    for feature_id, scale in scales.items():
        if not 0 <= feature_id < dictionary.n_features:
            raise ModelError(
                f"feature {feature_id}: not one of the dictionary's 0 to {dictionary.n_features - 1}; name one of those"
            )
        by_place[int(dictionary.place_of[feature_id])][int(dictionary.index_of[feature_id])] = scale
    n_bos = len(pair.tuned.bos_ids(prepend_bos))
    hooks = {
        dictionary.places[number]: partial(_rescale, dictionary.saes[number], of_place, n_bos)
        for number, of_place in by_place.items()
    }
    with pair.compare(pair.tuned, hooks):
        yield


@torch.no_grad()
def _rescale(sae: Sae, scales: Mapping[int, float], n_bos: int, change: Tensor, written: Tensor) -> Tensor:
    """Return the change [batch, seq, d_model] with features scaled."""
    first = n_bos if change.shape[1] > 1 else 0
    rows, _ = change_decoder(sae)
    indices = torch.tensor(list(scales), device=rows.device)
    factors = torch.tensor([scale - 1.0 for scale in scales.values()], device=rows.device)
    inside = change[:, first:].reshape(-1, change.shape[-1])
    codes = _encode(sae, indices, inside, written[:, first:].reshape(inside.shape))
    changed = change.clone()
    changed[:, first:] += (codes @ (rows[indices] * factors[:, None])).view_as(change[:, first:])
    return changed


def _encode(sae: Sae, indices: Tensor, change: Tensor, written: Tensor) -> Tensor:
    """Return codes [n, chosen] of changes [n, d] of writes [n, d]: what decoder rows are multiplied by."""
    before = written - change
    if sae.info.reads == "activations":
        return _encode_sized(sae, indices, written) - _encode_sized(sae, indices, before)
    return _encode_sized(sae, indices, change if sae.info.reads == "change" else torch.cat([written, before], dim=1))


def _encode_sized(sae: Sae, indices: Tensor, read: Tensor) -> Tensor:
    return sae.encode_some(read, indices) * _size(sae, read)


def _size(sae: Sae, read: Tensor) -> Tensor | float:
    size = normalise(read, sae.info.normalize).size
    return 1.0 if size is None else size


@torch.no_grad()
def text_log_probs(
    model: LanguageModel,
    texts: Sequence[TokenizedText],
    *,
    batches: Batches,
    prepend_bos: bool,
    counted: Sequence[Flags] | None = None,
) -> Floats:
    """Return the log-likelihood of each text in nats, its first token only after a beginning-of-sequence token.

    `counted` marks the tokens that count, all by default. Hooks on the model take effect. Where memory is full, batches
    are halved, once.
    """

    def score(rows: range) -> list[float]:
        batch = batch_of_rows(model, texts, rows, prepend_bos=prepend_bos)
        follows = batch.mark(counted)[:, 1:]
        states = read_states(model, batch.input_ids, batch.attention_mask).take(F.pad(follows, (0, 1)))
        of_tokens = states.log_probs(batch.input_ids[:, 1:][follows])
        return [part.sum().item() for part in of_tokens.split(follows.sum(1).tolist())]

    return np.array([value for part in batches.split(range(len(texts)), score) for value in part], np.float64)


@torch.no_grad()
def measure_codes(
    pair: ChangeOfWrites,
    dictionary: Dictionary,
    texts: Sequence[TokenizedText],
    *,
    batches: Batches,
    prepend_bos: bool,
) -> tuple[Floats, Floats]:
    """Return the share of tokens on which each feature is in the change, and its mean (c_i |d_i|)^2 [features].

    Where memory is full, batches are halved, once.
    """

    def total(rows: range) -> tuple[Floats, Floats, int]:
        batch = batch_of_rows(pair.tuned, texts, rows, prepend_bos=prepend_bos)
        mask = batch.text_tokens().to(pair.tuned.device)
        active, energy = np.zeros(dictionary.n_features), np.zeros(dictionary.n_features)

        def add(number: int, change: Tensor, written: Tensor) -> None:
            sae, own = dictionary.saes[number], np.flatnonzero(dictionary.place_of == number)
            codes = _encode(sae, torch.arange(sae.info.width, device=change.device), change[mask], written[mask])
            norms = change_decoder(sae)[0].norm(dim=1)
            active[own] += (codes != 0).sum(0).cpu().numpy()
            energy[own] += (codes * norms).double().pow(2).sum(0).cpu().numpy()

        places = enumerate(dictionary.places)
        with pair.compare(pair.tuned, {place: partial(add, number) for number, place in places if place.site in KINDS}):
            pair.tuned.forward(batch.input_ids, batch.attention_mask, use_cache=False)
        return active, energy, int(mask.sum())

    active, energy, n = np.zeros(dictionary.n_features), np.zeros(dictionary.n_features), 0
    for part in batches.split(range(len(texts)), total):
        active, energy, n = active + part[0], energy + part[1], n + part[2]
    return active / max(n, 1), energy / max(n, 1)
