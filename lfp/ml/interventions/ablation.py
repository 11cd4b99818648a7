"""Features scaled or taken out in a running model: what chosen ones decode to is changed, all else stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lfp.errors import ModelError
from lfp.ml.features.active import FeatureTotals, encode_active
from lfp.ml.models.activations import stream
from lfp.ml.models.generation import Completion
from lfp.ml.models.loading import LanguageModel, mlp_hook_point
from lfp.ml.models.tokenization import TokenizedText
from lfp.ml.sae.autoencoders import Dictionary, Sae, normalise
from lfp.util.types import Floats


@contextmanager
def scaling(
    model: LanguageModel, dictionary: Dictionary, scales: Mapping[int, float], *, prepend_bos: bool
) -> Iterator[None]:
    """While it lasts, each feature of `scales` acts in `model` as if it were active `scales[feature]` times as much.

    The MLP output x of a feature's layer becomes x + sum_i (scale_i - 1) f_i(x) d_i: 0 takes feature i out, 2 doubles
    it, 1 leaves it. What the autoencoder does not explain of x, and its decoder bias, stay. With `prepend_bos` the
    first position of a call of several tokens, the beginning-of-sequence token, is left as it is, for no autoencoder
    saw one; rows of such a call must not be padded on the left. The model's lock is held, and its hooks are gone in
    the end. Raises ModelError for a feature that the dictionary does not have.
    """
    by_layer: dict[int, dict[int, float]] = defaultdict(dict)
    for feature_id, scale in scales.items():
        if not 0 <= feature_id < dictionary.n_features:
            raise ModelError(
                f"feature {feature_id}: not one of the dictionary's 0 to {dictionary.n_features - 1}; name one of those"
            )
        by_layer[int(dictionary.layer_of[feature_id])][int(dictionary.index_of[feature_id])] = scale
    saes = {sae.info.layer: sae for sae in dictionary.saes}
    hooks = [
        (mlp_hook_point(layer), partial(_rescale, _Change.of(saes[layer], of_layer), _n_bos(model, prepend_bos)))
        for layer, of_layer in sorted(by_layer.items())
    ]
    with model.lock, model.bridge.hooks(fwd_hooks=hooks):
        yield


@dataclass(frozen=True)
class _Change:
    """What is added to a layer's MLP outputs: features `indices` [k] of `sae`, each times its row [k, d_in]."""

    sae: Sae
    indices: Tensor
    rows: Tensor

    @staticmethod
    def of(sae: Sae, scales: Mapping[int, float]) -> _Change:
        device = sae.W_dec.device
        indices = torch.tensor(list(scales), device=device)
        factors = torch.tensor([scale - 1.0 for scale in scales.values()], device=device)
        return _Change(sae, indices, sae.W_dec.detach()[indices] * factors[:, None])

    def __call__(self, outputs: Tensor) -> Tensor:
        """MLP outputs [n, d_in] to the change [n, d_in]: of normalised inputs in the size that x has, not about it."""
        change = self.sae.encode_some(outputs, self.indices) @ self.rows
        return replace(normalise(outputs, self.sae.info.normalize), centre=None).undo(change)


@torch.no_grad()
def _rescale(change: Callable[[Tensor], Tensor], n_bos: int, output: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 (the hook's form)
    """A hook on MLP outputs [batch, seq, d_in]; a call of one token goes on from a cache, and is no beginning."""
    first = n_bos if output.shape[1] > 1 else 0
    acted_on = output[:, first:]
    changed = acted_on + change(acted_on.reshape(-1, output.shape[-1])).view_as(acted_on)
    return torch.cat([output[:, :first], changed], dim=1) if first else changed


def firing(
    model: LanguageModel,
    dictionary: Dictionary,
    completions: Sequence[Completion],
    *,
    prepend_bos: bool,
    batch_texts: int = 64,
) -> FeatureTotals:
    """How features fire where an ablation acts: over all tokens of prefixes and completions but the first of each row.

    With `prepend_bos` the prefixes begin with that token, and it is left out. One pass; memory is bounded by the number
    of features, not of tokens. Activations are those of `Dictionary.encode`.
    """
    totals = FeatureTotals(dictionary.n_features)
    first = _n_bos(model, prepend_bos)
    texts = [TokenizedText("", (*one.prefix_ids[first:], *one.token_ids), (), truncated=False) for one in completions]
    with model.lock:
        for tokens in stream(model, texts, layers=dictionary.layers, batch_texts=batch_texts, prepend_bos=prepend_bos):
            totals.update(encode_active(dictionary, tokens.outputs))
    return totals


def decoder_norms(dictionary: Dictionary) -> Floats:
    """L2 norms of all decoder rows [features]."""
    return np.concatenate([rows.norm(dim=1).double().cpu().numpy() for rows in dictionary.decoders])


def _n_bos(model: LanguageModel, prepend_bos: bool) -> int:
    return int(prepend_bos and model.bos_id is not None)
