"""Scale or remove features in a running model: only what the chosen features decode to is changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from lfp.errors import ModelError
from lfp.ml.features.active import FeatureTotals, encode_active
from lfp.ml.models.activations import stream
from lfp.ml.models.generation import Completion
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.tokenization import TokenizedText
from lfp.ml.sae.autoencoders import Dictionary, Sae, normalise


@contextmanager
def scaling(
    model: LanguageModel, dictionary: Dictionary, scales: Mapping[int, float], *, prepend_bos: bool
) -> Iterator[None]:
    """Scale features in `model` within the context: each of `scales` acts `scales[feature]` times as strongly.

    The activation x at a feature's place becomes x + sum_i (scale_i - 1) f_i(x) d_i: 0 removes feature i, 2 doubles it,
    1 leaves it unchanged. What the autoencoder does not explain of x, and its decoder bias, stay. With `prepend_bos`
    the first position of a call with several tokens, the beginning-of-sequence token, is left unchanged, because no
    autoencoder was trained on one; rows of such a call must not be padded on the left. The model's lock is held, and
    its hooks are removed at the end. Raises ModelError for a feature that the dictionary does not have.
    """
    by_place: dict[int, dict[int, float]] = defaultdict(dict)
    for feature_id, scale in scales.items():
        if not 0 <= feature_id < dictionary.n_features:
            raise ModelError(
                f"feature {feature_id}: not one of the dictionary's 0 to {dictionary.n_features - 1}; name one of those"
            )
        by_place[int(dictionary.place_of[feature_id])][int(dictionary.index_of[feature_id])] = scale
    n_bos = len(model.bos_ids(prepend_bos))
    hooks = {
        dictionary.places[number]: partial(_rescale, dictionary.saes[number], of_place, n_bos)
        for number, of_place in by_place.items()
    }
    with model.hooks(hooks):
        yield


@torch.no_grad()
def _rescale(sae: Sae, scales: Mapping[int, float], n_bos: int, output: Tensor) -> Tensor:
    """Scale features of `sae` in activations [batch, seq, d_in].

    A call with one token continues from a cache, so it contains no beginning-of-sequence token. Inputs that the
    autoencoder normalises by a scale get a change in the scale of x; the centre is not part of a change.
    """
    first = n_bos if output.shape[1] > 1 else 0
    inputs = output[:, first:].reshape(-1, output.shape[-1]).float()
    indices = torch.tensor(list(scales), device=sae.W_dec.device)
    factors = torch.tensor([scale - 1.0 for scale in scales.values()], device=sae.W_dec.device)
    change = sae.encode_some(inputs, indices) @ (sae.W_dec.detach()[indices] * factors[:, None])
    change = replace(normalise(inputs, sae.info.normalize), centre=None).undo(change)
    changed = output[:, first:] + change.view_as(output[:, first:])
    return torch.cat([output[:, :first], changed], dim=1) if first else changed


def firing(
    model: LanguageModel,
    dictionary: Dictionary,
    completions: Sequence[Completion],
    *,
    prepend_bos: bool,
    batch_texts: int = 64,
) -> FeatureTotals:
    """Total the activations of features where an ablation acts: on all tokens of prefixes and completions.

    With `prepend_bos` the prefixes begin with a beginning-of-sequence token, which is left out. One pass; memory grows
    with features, not with tokens. Activations are those of `Dictionary.encode`.
    """
    totals = FeatureTotals(dictionary.n_features)
    n_bos = len(model.bos_ids(prepend_bos))
    texts = [TokenizedText("", (*row.prefix_ids[n_bos:], *row.token_ids), (), truncated=False) for row in completions]
    with model.lock:
        for tokens in stream(model, texts, places=dictionary.places, batch_texts=batch_texts, prepend_bos=prepend_bos):
            totals.update(encode_active(dictionary, tokens.outputs))
    return totals
