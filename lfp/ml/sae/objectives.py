"""What each variant minimises: which features a batch makes active, the penalty, and the gradient through them.

Every formula is written once for sparse and for dense codes (`lfp.ml.sae.sparse_codes`). A new variant needs its class
in `lfp.ml.sae.autoencoders` and an `Objective` here whose `penalty` is one line; autograd finds the gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lfp.config import SaeConfig
from lfp.ml.sae.autoencoders import BatchTopKSae, Crosscoder, JumpReluSae, Sae
from lfp.ml.sae.sparse_codes import Code, DenseCode, SparseCode


class PreGradient(NamedTuple):
    """Gradient of the loss with respect to pre-activations and threshold."""

    pre: Tensor
    """Shaped as the code's values."""
    threshold: Tensor | None = None
    """[width] where the variant learns thresholds, else None."""


class Objective:
    """Mean over tokens of |z - z_hat|^2, plus `penalty`, with f = `sae.activate(pre)`; autograd differentiates it."""

    def __init__(self, sae: Sae, config: SaeConfig) -> None:
        self.sae, self.config = sae, config

    def penalty(self, features: Tensor, n_tokens: int) -> Tensor:  # noqa: ARG002 (used by subclasses)
        """Return what the loss adds to the squared error, from all active features in any shape."""
        return features.new_zeros(())


class WrittenObjective(Objective):
    """Mean over tokens of |z - z_hat|^2, with f = relu(pre) and the gradient written out: faster than autograd."""

    def code(self, pre: Tensor, *, sparse: bool) -> Code:
        """Return the pre-activations [n, width] that matter to the loss."""
        return SparseCode.from_mask(pre > 0, pre) if sparse else DenseCode(pre)

    def active(self, code: Code) -> Tensor:
        """Mark where the code's features are not zero, shaped as its values."""
        return code.values > 0

    def gradient(self, code: Code, slope: Tensor, n_tokens: int) -> PreGradient:  # noqa: ARG002 (used by subclasses)
        """Continue the gradient of the squared error at the features (`slope`) to pre-activations and threshold."""
        return PreGradient(slope * self.active(code))


class ReluObjective(WrittenObjective):
    """Mean over tokens of |z - z_hat|^2 + l1 |f|_1, with f = relu(pre)."""

    def gradient(self, code: Code, slope: Tensor, n_tokens: int) -> PreGradient:
        """Add the gradient of the penalty to that of the squared error."""
        return PreGradient((slope + self.config.l1 / n_tokens) * self.active(code))

    def penalty(self, features: Tensor, n_tokens: int) -> Tensor:
        """Return the mean L1 norm of the features times its weight."""
        return self.config.l1 * features.sum() / n_tokens


class TopKObjective(WrittenObjective):
    """Mean over tokens of |z - z_hat|^2, with f = relu(pre) at each token's k largest pre-activations."""

    def code(self, pre: Tensor, *, sparse: bool) -> Code:
        """Keep the k largest of each row, those above zero; in a sparse code, of equals at the k-th place the first."""
        k, width = self.config.k, pre.shape[1]
        if sparse:
            values, indices = pre.topk(min(k + 1, width), dim=1)
            for row in (values[:, k - 1] == values[:, -1]).nonzero().flatten() if k < width else ():
                indices[row] = pre[row].argsort(descending=True, stable=True)[: k + 1]
            return SparseCode.from_largest(values[:, :k], indices[:, :k], width)
        values, indices = pre.topk(k, dim=1, sorted=False)
        return DenseCode(torch.zeros_like(pre).scatter_(1, indices, values.relu()))


class BatchTopKObjective(TopKObjective):
    """Mean over tokens of |z - z_hat|^2, with f = relu(pre) at the n * k largest pre-activations of n tokens.

    The threshold used at inference is the running mean over batches of the least value kept, 0 where none is.
    """

    _MEMORY = 0.99

    def code(self, pre: Tensor, *, sparse: bool) -> Code:
        """Keep the n * k largest of the batch, those above zero, and update the threshold.

        In a sparse code the first of equals at the last place are kept, in a dense one all.
        """
        assert isinstance(self.sae, BatchTopKSae)
        return self._select(pre, pre, self.sae.threshold, sparse=sparse)

    def _select(self, pre: Tensor, scores: Tensor, threshold: Tensor, *, sparse: bool) -> Code:
        """Keep the entries of `pre` [n, width] with the n * k largest `scores` above zero; update the threshold."""
        n_kept = self.config.k * len(scores)
        if scores.device.type == "cpu":
            place = scores.numel() - n_kept
            largest = torch.from_numpy(np.partition(scores.numpy().reshape(-1), place)[place:])
        else:
            largest = scores.flatten().topk(n_kept, sorted=False).values
        kept = (scores >= largest.min()) & (scores > 0)
        least = torch.where(largest > 0, largest, torch.inf).min().nan_to_num(posinf=0.0)
        threshold.copy_(torch.where(threshold == 0, least, self._MEMORY * threshold + (1 - self._MEMORY) * least))
        if not sparse:
            return DenseCode(pre * kept)
        surplus = int(kept.sum()) - n_kept
        if surplus > 0:
            kept.view(-1)[(scores == largest.min()).flatten().nonzero()[-surplus:]] = False
        return SparseCode.from_mask(kept, pre)


class CrosscoderObjective(BatchTopKObjective):
    """The same of two models' activations side by side; features compete by f |d|, see `Crosscoder`."""

    def code(self, pre: Tensor, *, sparse: bool) -> Code:
        """Keep the n * k entries of a batch that write most, and update the least of them."""
        assert isinstance(self.sae, Crosscoder)
        return self._select(pre, pre * self.sae.sizes, self.sae.least, sparse=sparse)


class JumpReluObjective(WrittenObjective):
    """Mean over tokens of |z - z_hat|^2 + l0_weight |f|_0, with f = pre where pre > threshold.

    The step has no gradient at the threshold. A rectangle of width b around it replaces the derivative of the step, so
    that df/dthreshold = -threshold/b and d|f|_0/dthreshold = -1/b within it (Rajamanoharan et al. 2024, eqs 11-12).
    """

    @property
    def threshold(self) -> Tensor:
        """The threshold of every feature [width]."""
        assert isinstance(self.sae, JumpReluSae)
        return self.sae.threshold.detach()

    def code(self, pre: Tensor, *, sparse: bool) -> Code:
        """Keep active entries, and those that the rectangle reaches below the threshold."""
        if sparse:
            return SparseCode.from_mask(pre > self.threshold - self.config.bandwidth / 2, pre)
        return DenseCode(pre)

    def active(self, code: Code) -> Tensor:
        """Mark where pre > threshold."""
        return code.values > code.columns(self.threshold)

    def gradient(self, code: Code, slope: Tensor, n_tokens: int) -> PreGradient:
        """Pass the gradient through active entries to the encoder, and through the rectangle to the threshold."""
        threshold, bandwidth = code.columns(self.threshold), self.config.bandwidth
        near = (code.values - threshold).abs() < bandwidth / 2
        at_threshold = -(threshold * slope + self.config.l0_weight / n_tokens) * near / bandwidth
        return PreGradient(slope * self.active(code), code.with_values(at_threshold).sums())

    def penalty(self, features: Tensor, n_tokens: int) -> Tensor:
        """Return the mean number of active features times its weight."""
        return self.config.l0_weight * (features > 0).sum() / n_tokens


OBJECTIVES: dict[str, type[Objective]] = {
    "tied_relu": ReluObjective,
    "relu": ReluObjective,
    "topk": TopKObjective,
    "batchtopk": BatchTopKObjective,
    "jumprelu": JumpReluObjective,
}


def build_objective(sae: Sae, config: SaeConfig) -> Objective:
    """Build what training an autoencoder minimises."""
    return (
        CrosscoderObjective(sae, config) if isinstance(sae, Crosscoder) else OBJECTIVES[sae.info.variant](sae, config)
    )
