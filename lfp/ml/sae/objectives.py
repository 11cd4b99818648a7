"""What each variant optimises: which features a batch makes active, and the gradient that goes back through them.

Every formula is written once for sparse and for dense codes (`lfp.ml.sae.sparse_codes`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lfp.config import SaeConfig
from lfp.errors import ConfigError
from lfp.ml.sae.autoencoders import BatchTopKSae, JumpReluSae, Sae, SaeInfo
from lfp.ml.sae.screening import Screen
from lfp.ml.sae.sparse_codes import Code, DenseCode


@dataclass(frozen=True)
class Back:
    """Gradient of the loss at the code's pre-activations, and at the threshold [width] where the variant learns one."""

    pre: Tensor
    threshold: Tensor | None = None


class ReluObjective:
    """Mean over tokens of |z - z_hat|^2 + l1 |f|_1, with f = relu(pre)."""

    def __init__(self, sae: Sae, config: SaeConfig) -> None:
        self.sae, self.l1 = sae, config.l1

    def sparse(self, screen: Screen) -> Code:
        """The pre-activations that matter to a batch, as a sparse code."""
        return screen.above(torch.zeros(()))

    def dense(self, pre: Tensor) -> Code:
        """The same of pre-activations [n, width], as a dense code."""
        return DenseCode(pre)

    def active(self, code: Code) -> Tensor:
        """Where the code's features are not zero, bool, shaped as its values."""
        return code.values > 0

    def back(self, code: Code, slope: Tensor, n_tokens: int) -> Back:
        """Gradient at the pre-activations, given that of the squared error at the features (`slope`)."""
        return Back((slope + self.l1 / n_tokens) * self.active(code))

    def penalty(self, features: Code, n_tokens: int) -> Tensor:
        """What the loss adds to the squared error."""
        return self.l1 * features.values.sum() / n_tokens


class TopKObjective(ReluObjective):
    """Mean over tokens of |z - z_hat|^2, with f = relu(pre) at each token's k largest pre-activations."""

    def __init__(self, sae: Sae, config: SaeConfig) -> None:
        super().__init__(sae, config)
        self.l1, self.k = 0.0, config.k

    def sparse(self, screen: Screen) -> Code:
        """The k largest of each row, those above zero."""
        return screen.top_of_rows(self.k)

    def dense(self, pre: Tensor) -> Code:
        """The k largest of each row, zero elsewhere."""
        values, indices = pre.topk(self.k, dim=1, sorted=False)
        return DenseCode(torch.zeros_like(pre).scatter_(1, indices, values.relu()))


class BatchTopKObjective(TopKObjective):
    """Mean over tokens of |z - z_hat|^2, with f = relu(pre) at the n * k largest pre-activations of n tokens.

    The threshold used at inference is the running mean over batches of the least value kept, 0 where none is.
    """

    _MEMORY = 0.99

    def sparse(self, screen: Screen) -> Code:
        """The n * k largest of the batch, those above zero."""
        code = screen.top_of_all(self.k * len(screen.inputs))
        self._learn_threshold(code.values.min() if len(code.values) else torch.zeros(()))
        return code

    def dense(self, pre: Tensor) -> Code:
        """The n * k largest of the batch, zero elsewhere."""
        least = pre.flatten().topk(self.k * len(pre), sorted=False).values.min()
        kept = (pre >= least) & (pre > 0)
        self._learn_threshold(torch.where(kept, pre, torch.inf).min().nan_to_num(posinf=0.0))
        return DenseCode(pre * kept)

    def _learn_threshold(self, least: Tensor) -> None:
        assert isinstance(self.sae, BatchTopKSae)
        threshold = self.sae.threshold
        threshold.copy_(torch.where(threshold == 0, least, self._MEMORY * threshold + (1 - self._MEMORY) * least))


class JumpReluObjective(ReluObjective):
    """Mean over tokens of |z - z_hat|^2 + l0_weight |f|_0, with f = pre where pre > threshold.

    The step has no gradient at the threshold: a rectangle of width b around it stands for the derivative of the step,
    so that df/dthreshold = -threshold/b and d|f|_0/dthreshold = -1/b within it (Rajamanoharan et al. 2024, eqs 11-12).
    """

    def __init__(self, sae: Sae, config: SaeConfig) -> None:
        super().__init__(sae, config)
        self.l1, self.l0_weight, self.bandwidth = 0.0, config.l0_weight, config.bandwidth

    @property
    def threshold(self) -> Tensor:
        """The threshold of every feature [width]."""
        assert isinstance(self.sae, JumpReluSae)
        return self.sae.threshold.detach()

    def sparse(self, screen: Screen) -> Code:
        """Active entries, and those the rectangle reaches below the threshold."""
        return screen.above(self.threshold - self.bandwidth / 2)

    def active(self, code: Code) -> Tensor:
        """Where pre > threshold."""
        return code.values > code.columns(self.threshold)

    def back(self, code: Code, slope: Tensor, n_tokens: int) -> Back:
        """Through active entries to the encoder, through the rectangle to the threshold."""
        threshold = code.columns(self.threshold)
        near = (code.values - threshold).abs() < self.bandwidth / 2
        at_threshold = -(threshold * slope + self.l0_weight / n_tokens) * near / self.bandwidth
        return Back(slope * self.active(code), code.with_values(at_threshold).sums())

    def penalty(self, features: Code, n_tokens: int) -> Tensor:
        """What the loss adds to the squared error."""
        return self.l0_weight * (features.values > 0).sum() / n_tokens


OBJECTIVES: dict[str, type[ReluObjective]] = {
    "tied_relu": ReluObjective,
    "relu": ReluObjective,
    "topk": TopKObjective,
    "batchtopk": BatchTopKObjective,
    "jumprelu": JumpReluObjective,
}


def check_k(info: SaeInfo, config: SaeConfig) -> None:
    """Raises ConfigError where an autoencoder of the top-k family is to keep more features than it has."""
    if issubclass(OBJECTIVES[info.variant], TopKObjective) and config.k > info.width:
        raise ConfigError(f"sae.k {config.k} is more than the {info.width} features of layer {info.layer}; lower sae.k")
