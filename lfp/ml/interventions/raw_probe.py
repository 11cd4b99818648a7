"""A probe of raw MLP outputs through the autoencoders: what it gives features and biases, and what they miss."""

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

    `weights` [features] is v . d_i a unit of the feature as `Dictionary.encode` gives it, `bias` v . b_dec, both summed
    over layers as they stand side by side. Both are None where an autoencoder normalises its inputs: what its features
    stand for then differs from token to token.
    """

    weights: Floats | None
    bias: float | None


def split_raw(dictionary: Dictionary, coef: Floats) -> RawSplit:
    """Splits `coef` [sum of d_in], the probe's coefficients of the layers' MLP outputs as they are, layers in order.

    Raises DataError where it is not as long as the layers are wide.
    """
    layers = list(_by_layer(dictionary, coef))
    if any(sae.info.normalize != "none" for sae, _ in layers):
        return RawSplit(None, None)
    weights = np.concatenate([_feature_weights(sae, v) for sae, v in layers])
    return RawSplit(weights, sum(_bias(sae, v) for sae, v in layers))


def raw_estimates(dictionary: Dictionary, coef: Floats, outputs: Mapping[int, Tensor]) -> Floats:
    """The estimate v . x of each token [n], from MLP outputs [n, d_in] by layer."""
    parts = [_numpy(outputs[sae.info.layer]) @ v for sae, v in _by_layer(dictionary, coef)]
    return np.asarray(sum(parts), np.float64)


def raw_misses(dictionary: Dictionary, coef: Floats, outputs: Mapping[int, Tensor], features: sp.csr_array) -> Floats:
    """The miss v . (x - x_hat) of each token [n]: what the autoencoders lose of the probe's estimate.

    `features` [n, features] are what `Dictionary.encode` makes of the outputs.
    """
    missed, first = raw_estimates(dictionary, coef, outputs), 0
    for sae, v in _by_layer(dictionary, coef):
        last = first + sae.info.width
        missed -= _rebuilt(sae, v, outputs[sae.info.layer], features[:, first:last])
        first = last
    return missed


def _rebuilt(sae: Sae, v: Floats, outputs: Tensor, features: sp.csr_array) -> Floats:
    """The part v . x_hat of each token [n] that they keep."""
    if sae.info.normalize == "none":
        return np.asarray(features @ _feature_weights(sae, v) + _bias(sae, v))
    with torch.no_grad():
        return np.asarray(_numpy(sae.reconstruct(outputs.to(sae.encoder.device))) @ v)


def _by_layer(dictionary: Dictionary, coef: Floats) -> Iterator[tuple[Sae, Floats]]:
    """Each layer's autoencoder with its part of the coefficients."""
    widths = [sae.info.d_in for sae in dictionary.saes]
    if coef.shape != (sum(widths),):
        raise DataError(f"the raw probe has {coef.size} coefficients for outputs {sum(widths)} wide; fit it again")
    return zip(dictionary.saes, np.split(coef, np.cumsum(widths)[:-1]), strict=True)


def _feature_weights(sae: Sae, v: Floats) -> Floats:
    return np.asarray(_numpy(sae.W_dec) @ v / sae.info.scale)


def _bias(sae: Sae, v: Floats) -> float:
    return float(_numpy(sae.b_dec) @ v)


def _numpy(values: Tensor) -> Floats:
    return values.detach().cpu().double().numpy()
