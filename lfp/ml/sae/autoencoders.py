"""The sparse autoencoders: MLP outputs to features and back, in five variants. On disk: `lfp.ml.sae.formats`."""

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
from lfp.ml.models.runtime import affine
from lfp.ml.sae.sparse_codes import SparseCode

Variant = SaeVariant
Normalize = Literal["none", "layer_norm", "constant_norm_rescale"]

_GROUP = 8
"""Entries of a row that `top_k` first looks at as one."""
_LONG_ROW = 4096
"""Rows from this width on gain from the two steps of `top_k`."""


@dataclass(frozen=True)
class SaeInfo:
    """What an autoencoder was trained on and how; all of it is kept on disk."""

    layer: int
    width: int
    d_in: int
    scale: float
    """Factor on the MLP output that gives it unit mean square norm. Told, not applied: the weights act on outputs as
    they are, see `folded`."""
    l1: float | None
    seed: int
    model: str
    """tuned or base."""
    variant: Variant = "tied_relu"
    k: int | None = None
    """Active features a token: exactly (topk) or on average (batchtopk)."""
    l0_weight: float | None = None
    """Weight of the mean number of active features (jumprelu)."""
    normalize: Normalize = "none"
    """What is done to each input before the encoder and undone after the decoder; `none` for all trained here."""
    source: str = "trained"
    """`trained`, or the folder or hub name it was read from."""


class Sae(torch.nn.Module, ABC):
    """What all variants share, on MLP outputs x [n, d_in]:

        pre = x encoder^T + b_enc      f = activate(pre)      x_hat = f decoder + b_dec

    `encoder` and `decoder` are [width, d_in], `b_enc` [width], `b_dec` [d_in]. Where `info.normalize` is not `none`, x
    is first normalised and x_hat brought back: `normalised`. A subclass says what `activate_` does.
    """

    tied: ClassVar[bool] = False
    """Whether the decoder is the encoder."""

    def __init__(self, info: SaeInfo) -> None:
        super().__init__()
        self.info = info
        self.encoder = torch.nn.Parameter(torch.zeros(info.width, info.d_in))
        self.decoder = self.encoder if self.tied else torch.nn.Parameter(torch.zeros(info.width, info.d_in))
        self.b_enc = torch.nn.Parameter(torch.zeros(info.width))
        self.b_dec = torch.nn.Parameter(torch.zeros(info.d_in))

    @abstractmethod
    def activate_(self, pre: Tensor) -> Tensor:
        """Pre-activations [n, width] to features, in place."""

    def activate(self, pre: Tensor) -> Tensor:
        """Pre-activations [n, width] to features [n, width]."""
        return self.activate_(pre.clone())

    def pre_activations(self, outputs: Tensor) -> Tensor:
        """MLP outputs [n, d_in] to pre-activations [n, width]."""
        return F.linear(normalised(outputs, self.info.normalize).inputs, self.encoder, self.b_enc)

    def encode(self, outputs: Tensor) -> Tensor:
        """MLP outputs [n, d_in] to features [n, width], in the outputs' own units."""
        return self.activate_(self.pre_activations(outputs))

    def encode_some(self, outputs: Tensor, indices: Tensor) -> Tensor:
        """The features `indices` [k] of `encode`, [n, k]; only their rows of the encoder are multiplied."""
        inputs = normalised(outputs, self.info.normalize).inputs
        return self._activate_some_(F.linear(inputs, self.encoder[indices], self.b_enc[indices]), indices)

    def _activate_some_(self, pre: Tensor, indices: Tensor) -> Tensor:  # noqa: ARG002 (of use where features differ)
        return self.activate_(pre)

    @torch.no_grad()
    def encode_sparse(self, outputs: Tensor) -> SparseCode:
        """MLP outputs [n, d_in] to the features that are not zero."""
        features = self.encode(outputs)
        active = features != 0
        return SparseCode(_offsets(active.sum(1)), active.nonzero()[:, 1], features[active], self.info.width)

    def decode(self, features: Tensor) -> Tensor:
        """Features [n, width] to MLP outputs [n, d_in].

        Raises ModelError where the inputs were normalised: features alone do not tell by how much.
        """
        if self.info.normalize != "none":
            raise ModelError(
                f"layer {self.info.layer}: an autoencoder with {self.info.normalize} inputs cannot decode features"
                " alone; call reconstruct with the outputs"
            )
        return self._decode(features)

    def forward(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """MLP outputs [n, d_in] to features [n, width] and what they reconstruct, [n, d_in]."""
        given = normalised(outputs, self.info.normalize)
        features = self.activate_(F.linear(given.inputs, self.encoder, self.b_enc))
        return features, given.undo(self._decode(features))

    def reconstruct(self, outputs: Tensor) -> Tensor:
        """MLP outputs [n, d_in] to what the autoencoder makes of them, [n, d_in]."""
        return self(outputs)[1]

    def _decode(self, features: Tensor) -> Tensor:
        return torch.addmm(self.b_dec, features, self.decoder)


class ReluSae(Sae):
    """f = relu(pre), trained with an L1 penalty on f, decoder rows of unit length.

    Source: Cunningham et al. 2023 (arXiv 2309.08600); Bricken et al. 2023, "Towards Monosemanticity".
    """

    def activate_(self, pre: Tensor) -> Tensor:
        """relu(pre), in place."""
        return pre.relu_()

    def activate(self, pre: Tensor) -> Tensor:
        """relu(pre), in one pass over it."""
        return pre.relu()


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
                f"layer {info.layer}: a topk autoencoder of {info.width} features cannot keep k {info.k} of them;"
                f" set k to 1 to {info.width}"
            )
        self.k = info.k

    def activate_(self, pre: Tensor) -> Tensor:
        """All but the k largest of each row set to zero, in place, and negative ones too."""
        values, indices = top_k(pre, self.k)
        return pre.zero_().scatter_(1, indices, values.relu())

    def encode_some(self, outputs: Tensor, indices: Tensor) -> Tensor:
        """The features `indices` [k] of `encode`, [n, k]; which of them are kept takes the whole row to tell."""
        return self.encode(outputs)[:, indices]

    @torch.no_grad()
    def encode_sparse(self, outputs: Tensor) -> SparseCode:
        """MLP outputs [n, d_in] to the features that are not zero, straight from the k largest."""
        values, indices = top_k(self.pre_activations(outputs), self.k)
        indices, order = indices.sort(dim=1)
        values = values.relu().gather(1, order)
        active = values != 0
        return SparseCode(_offsets(active.sum(1)), indices[active], values[active], self.info.width)


class BatchTopKSae(Sae):
    """f = relu(pre) where pre > threshold, one number for all features.

    In training f keeps the n * k largest of a batch of n tokens; `threshold` is the mean over batches of the least
    value kept. Source: Bussmann et al. 2024 (arXiv 2412.06410).
    """

    threshold: Tensor

    def __init__(self, info: SaeInfo) -> None:
        super().__init__(info)
        self.register_buffer("threshold", torch.zeros(()))

    def activate_(self, pre: Tensor) -> Tensor:
        """relu(pre) * (pre > threshold), in place."""
        return _cut(pre, self.threshold)


class JumpReluSae(Sae):
    """f = relu(pre) where pre > threshold [width], a learned number a feature.

    Source: Rajamanoharan et al. 2024, "Jumping Ahead" (arXiv 2407.14435).
    """

    def __init__(self, info: SaeInfo) -> None:
        super().__init__(info)
        self.threshold = torch.nn.Parameter(torch.zeros(info.width))

    def activate_(self, pre: Tensor) -> Tensor:
        """relu(pre) * (pre > threshold), in place."""
        return _cut(pre, self.threshold)

    def _activate_some_(self, pre: Tensor, indices: Tensor) -> Tensor:
        return _cut(pre, self.threshold[indices])


SAES: dict[Variant, type[Sae]] = {
    "tied_relu": TiedReluSae,
    "relu": ReluSae,
    "topk": TopKSae,
    "batchtopk": BatchTopKSae,
    "jumprelu": JumpReluSae,
}


def folded(sae: Sae, scale: float) -> Sae:
    """An autoencoder trained on z = scale * x as one that acts on x itself; `info.scale` says by how much.

    Every variant is positively homogeneous in (x, biases, threshold), so these are divided by `scale` and the
    directions stay. Features come out divided by it too. The copy wants no gradients. Raises ModelError for normalised
    inputs, whose scale does not reach the encoder.
    """
    if sae.info.normalize != "none":
        raise ModelError(f"layer {sae.info.layer}: {sae.info.normalize} inputs have no scale; fold none into it")
    twin = copy.deepcopy(sae).requires_grad_(False)
    twin.info = replace(sae.info, scale=scale)
    for tensor in _in_units_of_outputs(twin):
        tensor.div_(scale)
    return twin


class Dictionary:
    """The autoencoders of one model's chosen layers side by side: one dense row of features over all layers.

    Features are in units of outputs of unit mean square norm, `info.scale` times what each autoencoder's `encode` says.
    Feature ids count through the layers in order; `layer_of` and `index_of` [features] say where each came from.
    """

    def __init__(self, saes: Sequence[Sae]) -> None:
        self.saes = sorted(saes, key=lambda sae: sae.info.layer)
        self.layers = tuple(sae.info.layer for sae in self.saes)
        self._widths = [sae.info.width for sae in self.saes]
        self.n_features = sum(self._widths)
        self.layer_of = np.repeat(np.array(self.layers, np.int64), self._widths)
        self.index_of = np.concatenate([np.arange(width) for width in self._widths])
        self._scaled = [_scaled(sae) for sae in self.saes]

    def to(self, device: str | torch.device) -> Dictionary:
        """Moves the autoencoders to a device, as modules do, and returns itself."""
        self.saes = [sae.to(device) for sae in self.saes]
        self._scaled = [_scaled(sae) for sae in self.saes]
        return self

    @torch.no_grad()
    def encode(self, outputs: Mapping[int, Tensor]) -> Tensor:
        """MLP outputs [n, d_in] by layer, on any device, to features [n, features] on the autoencoders' device."""
        device = self.saes[0].encoder.device
        parts = []
        for sae in self._scaled:
            given = normalised(outputs[sae.info.layer].to(device, non_blocking=True), sae.info.normalize)
            parts.append(sae.activate_(affine(given.inputs * sae.info.scale, sae.encoder, sae.b_enc)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    @property
    def decoders(self) -> list[Tensor]:
        """Each layer's decoder rows [width, d_in]; scales leave directions as they are."""
        return [sae.decoder.detach() for sae in self.saes]


@dataclass(frozen=True)
class Normalised:
    """Inputs [n, d_in] of an encoder, and the way back: x = inputs * size + centre."""

    inputs: Tensor
    size: Tensor | None = None
    centre: Tensor | None = None

    def undo(self, rebuilt: Tensor) -> Tensor:
        """Reconstructed inputs [n, d_in] as MLP outputs."""
        if self.size is not None:
            rebuilt = rebuilt * self.size
        return rebuilt if self.centre is None else rebuilt + self.centre


def normalised(outputs: Tensor, how: Normalize) -> Normalised:
    """MLP outputs [n, d_in] as the encoder wants them.

    layer_norm: (x - mean) / (std + 1e-5), the unbiased std; constant_norm_rescale: x sqrt(d_in) / |x|. Both are
    SAELens 6.54's, so that its autoencoders give here what they give there.
    """
    if how == "none":
        return Normalised(outputs)
    if how == "constant_norm_rescale":
        size = outputs.norm(dim=1, keepdim=True).clamp(min=1e-12) / outputs.shape[1] ** 0.5
        return Normalised(outputs / size, size)
    centre = outputs.mean(dim=1, keepdim=True)
    std = outputs.std(dim=1, keepdim=True)
    return Normalised((outputs - centre) / (std + 1e-5), std, centre)


def top_k(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of `pre` [n, width], largest first: values and indices, both [n, k].

    `torch.topk`'s values, sooner on long rows. Entries G apart form a group: each of the k largest lies in one of the k
    groups with the largest maxima, for otherwise k others would be as large. Of equal values at the k-th place, which
    one is kept depends on its own row only. Gradients pass to `pre` through the values.
    """
    n, width = pre.shape
    if width < _LONG_ROW or k * _GROUP * 2 > width:
        return torch.topk(pre, k, dim=1)
    n_groups = width // _GROUP
    with torch.no_grad():
        groups = pre[:, : n_groups * _GROUP].view(n, _GROUP, n_groups).amax(1).topk(k, dim=1, sorted=False).indices
        members = torch.arange(0, n_groups * _GROUP, n_groups, device=pre.device)
        rest = torch.arange(n_groups * _GROUP, width, device=pre.device).expand(n, -1)
        candidates = torch.cat([(groups[:, None] + members[:, None]).view(n, -1), rest], dim=1)
        indices = candidates.gather(1, pre.gather(1, candidates).topk(k, dim=1).indices)
    return pre.gather(1, indices), indices


def _cut(pre: Tensor, threshold: Tensor) -> Tensor:
    """relu(pre) * (pre > threshold), in place.

    One mask says both, in pre's own type: several times as fast as a mask of booleans. Adding 0 makes 0 of -0.
    """
    least = threshold.detach().clamp(min=0.0)
    active = torch.gt(pre.detach(), least, out=torch.empty_like(pre))
    return pre.mul_(active).add_(0.0)


def _offsets(counts: Tensor) -> Tensor:
    return F.pad(counts.cumsum(0), (1, 0))


def _in_units_of_outputs(sae: Sae) -> list[Tensor]:
    """The weights that scale with the outputs: the biases, and the threshold where there is one."""
    return [tensor for name, tensor in sae.state_dict().items() if name in ("b_enc", "b_dec", "threshold")]


def _scaled(sae: Sae) -> Sae:
    """The autoencoder with its biases and threshold in units of scale * x; it shares the encoder and the decoder."""
    shared = {id(weight): weight for weight in (sae.encoder, sae.decoder)}
    twin = copy.deepcopy(sae, shared)
    for tensor in _in_units_of_outputs(twin):
        tensor.mul_(sae.info.scale)
    return twin
