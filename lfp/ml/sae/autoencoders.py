"""Sparse autoencoders in five variants, a crosscoder of two models, and several side by side as a dictionary."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.config import SaeVariant
from lfp.errors import ModelError
from lfp.ml.models.runtime import affine, to_device
from lfp.util.types import Place, Reads, Site

Variant = SaeVariant
Normalize = Literal["none", "layer_norm", "constant_norm_rescale"]

_IN_UNITS_OF_OUTPUTS = ("b_enc", "b_dec", "threshold", "least")
"""Weights that scale with the activations; encoder and decoder rows are directions."""

_READS: Mapping[str, Reads] = {"change": "change", "crosscoder": "pair"}


@dataclass(frozen=True)
class SaeInfo:
    """What an autoencoder was trained on and how; all of it is saved with the weights."""

    layer: int
    width: int
    d_in: int
    """Width of what it reads: of a pair, of both models' activations side by side."""
    scale: float
    """Factor that gives the activations there unit mean square norm. The weights act on unscaled outputs all the
    same, see `fold_scale`."""
    l1: float | None
    seed: int
    model: str
    """The model whose features these are: tuned or base."""
    variant: Variant = "tied_relu"
    k: int | None = None
    """Active features per token: exactly (topk) or on average (batchtopk)."""
    l0_weight: float | None = None
    """Weight of the mean number of active features (jumprelu)."""
    normalize: Normalize = "none"
    """How each input is normalised before the encoder, undone after the decoder; `none` for all trained here."""
    source: str = "trained"
    """`trained`, or the folder or hub name it was read from."""
    site: Site = "mlp_out"
    """Where in the layer it reads and writes."""
    trained_on: str = "tuned"
    """A value of `sae.trained_on`, or `base`: the base model's activations."""

    @property
    def reads(self) -> Reads:
        """What it reads of a pair of models at a token."""
        return _READS.get(self.trained_on, "activations")

    @property
    def d_model(self) -> int:
        """Width of the activations that it writes: half of what it reads of a pair."""
        return self.d_in // 2 if self.reads == "pair" else self.d_in

    @property
    def place(self) -> Place:
        """The layer and the site."""
        return Place(self.layer, self.site)


class Sae(torch.nn.Module, ABC):
    """What all variants share, on activations x [n, d_in]:

        pre = x encoder^T + b_enc      f = activate(pre)      x_hat = f W_dec + b_dec

    `encoder` and `W_dec` are [width, d_in], `b_enc` [width], `b_dec` [d_in]. Where `info.normalize` is not `none`, x is
    normalised first and x_hat is scaled back, see `normalise`. A subclass defines `activate_`.
    """

    tied: ClassVar[bool] = False
    """Whether the decoder is the encoder."""

    def __init__(self, info: SaeInfo) -> None:
        super().__init__()
        self.info = info
        self.encoder = torch.nn.Parameter(torch.zeros(info.width, info.d_in))
        self.W_dec = self.encoder if self.tied else torch.nn.Parameter(torch.zeros(info.width, info.d_in))
        self.b_enc = torch.nn.Parameter(torch.zeros(info.width))
        self.b_dec = torch.nn.Parameter(torch.zeros(info.d_in))

    @property
    def tuned_decoder(self) -> Tensor:
        """What a unit of each feature adds in the tuned model, [width, d_model]."""
        return self.W_dec.detach()

    @property
    def base_decoder(self) -> Tensor:
        """What a unit of each feature adds in the base model, [width, d_model]."""
        return self.W_dec.detach()

    @property
    def tuned_bias(self) -> Tensor:
        """What reconstructions in the tuned model have without any feature, [d_model]."""
        return self.b_dec.detach()

    @abstractmethod
    def activate_(self, pre: Tensor, indices: Tensor | None = None) -> Tensor:
        """Turn pre-activations [n, width] into features, in place; with `indices` [k], `pre` [n, k] has only those."""

    def activate(self, pre: Tensor) -> Tensor:
        """Turn pre-activations [n, width] into features [n, width]."""
        return self.activate_(pre.clone())

    def encode(self, outputs: Tensor) -> Tensor:
        """Encode activations [n, d_in] as features [n, width], in the activations' own units."""
        inputs = normalise(outputs, self.info.normalize).inputs
        return self.activate_(F.linear(inputs, self.encoder, self.b_enc))

    def encode_some(self, outputs: Tensor, indices: Tensor) -> Tensor:
        """Return the features `indices` [k] of `encode` as [n, k], multiplying by their rows of the encoder only."""
        inputs = normalise(outputs, self.info.normalize).inputs
        return self.activate_(F.linear(inputs, self.encoder[indices], self.b_enc[indices]), indices)

    def decode(self, features: Tensor) -> Tensor:
        """Decode features [n, width] to activations [n, d_in].

        Raises ModelError where inputs are normalised, because features alone do not determine the scale.
        """
        if self.info.normalize != "none":
            raise ModelError(
                f"{self.info.place}: an autoencoder with {self.info.normalize} inputs cannot decode features"
                " alone; call reconstruct with the outputs"
            )
        return torch.addmm(self.b_dec, features, self.W_dec)

    def forward(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features [n, width] of activations [n, d_in] and their reconstruction [n, d_in]."""
        normalised = normalise(outputs, self.info.normalize)
        features = self.activate_(F.linear(normalised.inputs, self.encoder, self.b_enc))
        return features, normalised.undo(torch.addmm(self.b_dec, features, self.W_dec))

    def reconstruct(self, outputs: Tensor) -> Tensor:
        """Return the reconstruction [n, d_in] of activations [n, d_in]."""
        return self(outputs)[1]


class ReluSae(Sae):
    """f = relu(pre), trained with an L1 penalty on f, decoder rows of unit length.

    Source: Cunningham et al. 2023 (arXiv 2309.08600); Bricken et al. 2023, "Towards Monosemanticity".
    """

    def activate_(self, pre: Tensor, indices: Tensor | None = None) -> Tensor:  # noqa: ARG002 (all features alike)
        """Compute relu(pre) in place."""
        return pre.relu_()


class TiedReluSae(ReluSae):
    """The paper's: f = relu(x W^T + b_enc), x_hat = f W + b_dec, every row of W [width, d_in] of unit length.

    Training keeps the rows at unit length, so that it cannot shrink features by growing the decoder.
    Source: Marks et al. 2024 (arXiv 2310.08164), tied weights after Cunningham et al. 2023 (arXiv 2309.08600).
    """

    tied = True


class TopKSae(Sae):
    """f = relu(pre) at each token's k largest pre-activations, 0 elsewhere.

    Source: Gao et al. 2024, "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093).
    """

    def __init__(self, info: SaeInfo) -> None:
        super().__init__(info)
        if info.k is None or not 1 <= info.k <= info.width:
            raise ModelError(
                f"{info.place}: a topk autoencoder of {info.width} features cannot keep k {info.k} of them;"
                f" set k to 1 to {info.width}"
            )
        self.k = info.k

    def activate_(self, pre: Tensor, indices: Tensor | None = None) -> Tensor:  # noqa: ARG002 (takes whole rows)
        """Set all but the k largest of each row to zero, and negative ones too, in place."""
        values, largest = torch.topk(pre, self.k, dim=1)
        return pre.zero_().scatter_(1, largest, values.relu())

    def encode_some(self, outputs: Tensor, indices: Tensor) -> Tensor:
        """Return the features `indices` [k] of `encode`, [n, k]; the k largest are known from whole rows only."""
        return self.encode(outputs)[:, indices]


def _keep_above(pre: Tensor, threshold: Tensor) -> Tensor:
    """Compute relu(pre) * (pre > threshold) in place."""
    # a mask in pre's own type is several times as fast as one of booleans; adding 0 turns -0 into 0
    active = torch.gt(pre.detach(), threshold.detach().clamp(min=0.0), out=torch.empty_like(pre))
    return pre.mul_(active).add_(0.0)


class ThresholdSae(Sae):
    """f = relu(pre) where pre > threshold, a scalar or [width]."""

    threshold: Tensor

    def activate_(self, pre: Tensor, indices: Tensor | None = None) -> Tensor:
        """Compute relu(pre) * (pre > threshold) in place."""
        return _keep_above(
            pre, self.threshold if indices is None or not self.threshold.ndim else self.threshold[indices]
        )


class JumpReluSae(ThresholdSae):
    """f = relu(pre) where pre > threshold [width], a learned threshold per feature.

    Source: Rajamanoharan et al. 2024, "Jumping Ahead" (arXiv 2407.14435).
    """

    def __init__(self, info: SaeInfo) -> None:
        super().__init__(info)
        self.threshold = torch.nn.Parameter(torch.zeros(info.width))


class BatchTopKSae(ThresholdSae):
    """f = relu(pre) where pre > threshold, one threshold for all features.

    In training f keeps the n * k largest of a batch of n tokens; `threshold` is the running mean over batches of the
    least value kept. Source: Bussmann et al. 2024 (arXiv 2412.06410).
    """

    def __init__(self, info: SaeInfo) -> None:
        super().__init__(info)
        self.register_buffer("threshold", torch.zeros(()))


class Crosscoder(Sae):
    """One code of both models' activations at a token, x = [x_tuned, x_base], and a decoder for each model.

    f = relu(pre) where pre |d| > least, with |d| [width] the sum of the norms of a feature's two decoder rows: features
    compete by what they write, so that one of both models counts for both. In training the n * k largest of a batch
    of n tokens are kept, and `least` is the running mean of the least product kept. Rows of W_dec [width, 2 d_model]
    have unit length over both halves. Source: Lindsey et al. 2024, "Sparse Crosscoders"; the selection is that of
    Minder et al. 2025 (arXiv 2504.02922).
    """

    least: Tensor

    def __init__(self, info: SaeInfo) -> None:
        super().__init__(info)
        self.register_buffer("least", torch.zeros(()))

    @property
    def sizes(self) -> Tensor:
        """Sum of the norms of each feature's two decoder rows [width]: 1 where it is of one model, sqrt 2 of both."""
        halves = self.W_dec.detach().view(self.info.width, 2, self.info.d_model)
        return torch.linalg.vector_norm(halves, dim=2).sum(1)

    @property
    def tuned_decoder(self) -> Tensor:
        """The first halves of the decoder's rows."""
        return self.W_dec.detach()[:, : self.info.d_model]

    @property
    def base_decoder(self) -> Tensor:
        """The second halves of the decoder's rows."""
        return self.W_dec.detach()[:, self.info.d_model :]

    @property
    def tuned_bias(self) -> Tensor:
        """The first half of the decoder's bias."""
        return self.b_dec.detach()[: self.info.d_model]

    def activate_(self, pre: Tensor, indices: Tensor | None = None) -> Tensor:
        """Compute relu(pre) * (pre > least / |d|) in place."""
        threshold = self.least / self.sizes
        return _keep_above(pre, threshold if indices is None else threshold[indices])


SAES: dict[Variant, type[Sae]] = {
    "tied_relu": TiedReluSae,
    "relu": ReluSae,
    "topk": TopKSae,
    "batchtopk": BatchTopKSae,
    "jumprelu": JumpReluSae,
}


def build_sae(info: SaeInfo) -> Sae:
    """Build the autoencoder that `info` describes, all weights zero."""
    return Crosscoder(info) if info.reads == "pair" else SAES[info.variant](info)


def fold_scale(sae: Sae, scale: float) -> Sae:
    """Return an autoencoder trained on z = scale * x as one that acts on x itself, with `info.scale` set to `scale`.

    Every variant is positively homogeneous in (x, biases, threshold), so these are divided by `scale` and the
    directions stay; features are divided by it too. The copy requires no gradients. Raises ModelError for normalised
    inputs, which the scale does not reach.
    """
    if sae.info.normalize != "none":
        raise ModelError(f"{sae.info.place}: {sae.info.normalize} inputs have no scale; fold none into it")
    folded = copy.deepcopy(sae).requires_grad_(False)
    folded.info = replace(sae.info, scale=scale)
    for name, tensor in folded.state_dict().items():
        if name in _IN_UNITS_OF_OUTPUTS:
            tensor.div_(scale)
    return folded


class Dictionary:
    """The autoencoders of one model's chosen places side by side: one dense row of features over all places.

    Features are in units of outputs of unit mean square norm: `info.scale` times what each autoencoder's `encode`
    returns. Feature ids count through the places in order; `place_of` and `index_of` [features] give each feature's
    index in `places` and its index in that place's autoencoder.
    """

    def __init__(self, saes: Sequence[Sae]) -> None:
        self.saes = sorted(saes, key=lambda sae: sae.info.place)
        self.places = tuple(sae.info.place for sae in self.saes)
        widths = [sae.info.width for sae in self.saes]
        self.n_features = sum(widths)
        self.place_of = np.repeat(np.arange(len(self.saes)), widths)
        self.index_of = np.concatenate([np.arange(width) for width in widths])
        self._scaled = [_scale_biases(sae) for sae in self.saes]

    def to(self, device: str | torch.device) -> Dictionary:
        """Move the autoencoders to a device, as modules do, and return the dictionary."""
        self.saes = [sae.to(device) for sae in self.saes]
        self._scaled = [_scale_biases(sae) for sae in self.saes]
        return self

    @property
    def device(self) -> torch.device:
        """Where the autoencoders are."""
        return self.saes[0].encoder.device

    @torch.no_grad()
    def encode(self, outputs: Mapping[Place, Tensor]) -> Tensor:
        """Encode what each autoencoder reads [n, d_in], by place, as features [n, features] on the dictionary's device.

        Where one reads both models, `lfp.ml.sae.views` makes that of their activations.
        """
        parts = []
        for sae in self._scaled:
            inputs = normalise(to_device(outputs[sae.info.place], self.device), sae.info.normalize).inputs
            parts.append(sae.activate_(affine(inputs * sae.info.scale, sae.encoder, sae.b_enc)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    @property
    def decoders(self) -> list[Tensor]:
        """Each place's decoder rows in the tuned model [width, d_model]; scales leave directions as they are."""
        return [sae.tuned_decoder for sae in self.saes]

    @property
    def reads_pair(self) -> bool:
        """Whether any autoencoder reads more than the activations of the model whose features are wanted."""
        return any(sae.info.reads != "activations" for sae in self.saes)


def _scale_biases(sae: Sae) -> Sae:
    """Copy an autoencoder with its biases and threshold in units of scale * x, sharing the encoder and the decoder."""
    scaled = copy.deepcopy(sae, {id(weight): weight for weight in (sae.encoder, sae.W_dec)})
    for name, tensor in scaled.state_dict().items():
        if name in _IN_UNITS_OF_OUTPUTS:
            tensor.mul_(sae.info.scale)
    return scaled


@dataclass(frozen=True)
class Normalised:
    """Inputs [n, d_in] of an encoder, and what undoes the normalisation: x = inputs * size + centre."""

    inputs: Tensor
    size: Tensor | None = None
    centre: Tensor | None = None

    def undo(self, rebuilt: Tensor) -> Tensor:
        """Turn reconstructed inputs [n, d_in] into activations."""
        if self.size is not None:
            rebuilt = rebuilt * self.size
        return rebuilt if self.centre is None else rebuilt + self.centre


def normalise(outputs: Tensor, how: Normalize) -> Normalised:
    """Normalise activations [n, d_in] for the encoder.

    layer_norm: (x - mean) / (std + 1e-5), the unbiased std; constant_norm_rescale: x sqrt(d_in) / |x|. Both as in
    SAELens 6.54, so that its autoencoders give the same features here.
    """
    if how == "none":
        return Normalised(outputs)
    if how == "constant_norm_rescale":
        size = outputs.norm(dim=1, keepdim=True).clamp(min=1e-12) / outputs.shape[1] ** 0.5
        return Normalised(outputs / size, size)
    centre = outputs.mean(dim=1, keepdim=True)
    std = outputs.std(dim=1, keepdim=True)
    return Normalised((outputs - centre) / (std + 1e-5), std, centre)
