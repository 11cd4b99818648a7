"""Split a probe of raw MLP outputs over the features and biases of autoencoders, and what these leave unexplained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.sae.autoencoders import Dictionary, Sae
from lfp.util.types import Floats


@dataclass(frozen=True)
class RawSplit:
    """A raw probe v in terms of a dictionary: v . x_hat = sum of `weights` times features + `bias`.

    `weights` [features] is v . d_i per unit of the feature in `Dictionary.encode`, `bias` is v . b_dec summed
    over layers. Both are None where an autoencoder normalises its inputs: the effect of its features then differs from
    token to token.
    """

    weights: Floats | None
    bias: float | None


def split_raw(dictionary: Dictionary, coef: Floats) -> RawSplit:
    """Split `coef` [sum of d_in], the probe's coefficients of the layers' MLP outputs, layers in order.

    Raises DataError where its length is not the total width of the layers.
    """
    layers = list(_split_by_layer(dictionary, coef))
    if any(sae.info.normalize != "none" for sae, _ in layers):
        return RawSplit(None, None)
    weights = np.concatenate([_to_numpy(sae.W_dec) @ v / sae.info.scale for sae, v in layers])
    return RawSplit(weights, sum(float(_to_numpy(sae.b_dec) @ v) for sae, v in layers))


def raw_estimates(dictionary: Dictionary, coef: Floats, outputs: Mapping[int, Tensor]) -> Floats:
    """Return the estimate v . x of each token [n], from MLP outputs [n, d_in] by layer."""
    parts = [_to_numpy(outputs[sae.info.layer]) @ v for sae, v in _split_by_layer(dictionary, coef)]
    return np.asarray(sum(parts), np.float64)


def raw_misses(dictionary: Dictionary, coef: Floats, outputs: Mapping[int, Tensor], features: sp.csr_array) -> Floats:
    """Return the residual v . (x - x_hat) of each token [n]: what the autoencoders lose of the probe's estimate.

    `features` [n, features] are those that `Dictionary.encode` returns for the outputs.
    """
    residuals, first = raw_estimates(dictionary, coef, outputs), 0
    for sae, v in _split_by_layer(dictionary, coef):
        last = first + sae.info.width
        if sae.info.normalize == "none":
            weights, bias = _to_numpy(sae.W_dec) @ v / sae.info.scale, float(_to_numpy(sae.b_dec) @ v)
            residuals -= features[:, first:last] @ weights + bias
        else:
            with torch.no_grad():
                rebuilt = sae.reconstruct(outputs[sae.info.layer].to(sae.encoder.device))
            residuals -= _to_numpy(rebuilt) @ v
        first = last
    return residuals


def _split_by_layer(dictionary: Dictionary, coef: Floats) -> Iterator[tuple[Sae, Floats]]:
    """Pair each layer's autoencoder with its part of the coefficients."""
    widths = [sae.info.d_in for sae in dictionary.saes]
    if coef.shape != (sum(widths),):
        raise DataError(f"the raw probe has {coef.size} coefficients for outputs {sum(widths)} wide; fit it again")
    return zip(dictionary.saes, np.split(coef, np.cumsum(widths)[:-1]), strict=True)


def _to_numpy(values: Tensor) -> Floats:
    return values.detach().cpu().double().numpy()
