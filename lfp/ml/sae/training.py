"""Train autoencoders: gradients written out, sparse where features are, dead features revived, seeded and resumable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.config import SaeConfig
from lfp.errors import ConfigError, DataError, TrainingError
from lfp.ml.models import runtime
from lfp.ml.models.runtime import affine, to_device
from lfp.ml.sae.activation_sources import ActivationSource
from lfp.ml.sae.autoencoders import JumpReluSae, Sae, SaeInfo, build_sae, fold_scale
from lfp.ml.sae.objectives import OBJECTIVES, Objective, TopKObjective, WrittenObjective, build_objective
from lfp.ml.sae.sparse_codes import Code, DenseCode
from lfp.util.types import SITES, Progress

CHECKPOINT_EVERY = 500
"""Most steps of training that a kill costs."""
_SPARSE_BELOW = 0.12
"""Density of features below which, on two cores, sparse products are faster than dense ones."""
_REVIVE_EVERY = 100
"""Steps between two searches for dead features."""
_AUXK_EVERY = 16
"""Steps between two auxiliary losses of the top-k family, each weighted as this many."""
_AUXK_WEIGHT = 1 / 32
_TOP_K_FAMILY = ("topk", "batchtopk")
_ENCODER_START = 0.2
"""Length of encoder rows at the start: with short ones the decoder settles first, and far fewer features die."""
_THRESHOLD_START = 0.05
_LAYERS_APART = 10_000
"""Keeps the seeds of the sites of all layers apart."""


def unit_scale(outputs: Tensor) -> float:
    """Return the factor that gives activations [n, d_in] unit mean square norm. Raises DataError where all are zero."""
    norm = outputs.double().pow(2).sum(1).mean().sqrt().item()
    if not math.isfinite(norm) or norm == 0.0:
        raise DataError(f"the activations have root mean square norm {norm}; check the layer and the model's weights")
    return 1.0 / norm


@dataclass(frozen=True)
class _Pass:
    """Features, residual x_hat - x [n, d_in], loss and gradients by weight of one batch."""

    features: Code
    residual: Tensor
    loss: Tensor
    gradients: dict[str, Tensor]


class SaeTrainer:
    """One autoencoder in training, on activations of its place scaled to unit mean square norm.

    Call `step` with each batch. The result, `sae` on scaled outputs, depends only on `info.seed`, the batches and the
    number of threads. `state_dict` and `load_state_dict` make training resumable.
    """

    def __init__(
        self,
        info: SaeInfo,
        config: SaeConfig,
        sample: Tensor,
        *,
        start: Sae | None = None,
        frozen_decoder: bool = False,
    ) -> None:
        """Start from `sample` [n, d_in], activations whose mean is the decoder's first bias, or from `start`.

        `start` is a trained autoencoder of the same variant and size. With `frozen_decoder` the decoder stays at its
        random rows, and everything else is trained. A dictionary of changes has no biases. Training runs where the
        sample is. Raises ConfigError where `sae.k` is more than the features.
        """
        if issubclass(OBJECTIVES[info.variant], TopKObjective) and config.k > info.width:
            raise ConfigError(f"sae.k {config.k} is more than the {info.width} features of {info.place}; lower sae.k")
        self.info, self.config, self.step_number = info, config, 0
        self.sae = _initialise(info, sample * info.scale) if start is None else _continue(start, info, sample.device)
        self.objective: Objective = build_objective(self.sae, config)
        self.last_active = torch.zeros(info.width, dtype=torch.int64, device=sample.device)
        self.density = 1.0
        held = _hold_biases(self.sae, info) | ({"W_dec"} if frozen_decoder else set())
        self._parameters = {name: weight for name, weight in self.sae.named_parameters() if name not in held}
        self._trains_decoder = not frozen_decoder
        self._dead = self.last_active[:0]
        self._optimizer = torch.optim.Adam(self._parameters.values(), lr=config.learning_rate, fused=True)

    @torch.no_grad()
    def step(self, outputs: Tensor) -> Tensor:
        """Take one step of Adam on activations [n, d_in]; return the loss, a scalar tensor."""
        inputs = to_device(outputs, self.last_active.device) * self.info.scale
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.config.products == "bfloat16"):
            if isinstance(self.objective, WrittenObjective):
                result = self._written_pass(self.objective, inputs)
            else:
                result = self._autograd_pass(inputs)
        n_active = result.features.count_active()
        self.last_active.masked_fill_(n_active > 0, self.step_number)
        if inputs.device.type == "cpu":
            self.density = int(n_active.sum()) / (len(inputs) * self.info.width)
        self._revive(inputs, result.residual, result.gradients)
        self._descend(result.gradients)
        return result.loss

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {
            "sae": self.sae.state_dict(),
            "adam": self._optimizer.state_dict(),
            "last_active": self.last_active,
            "dead": self._dead,
            "step_number": self.step_number,
            "density": self.density,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from what `state_dict` returned."""
        self.sae.load_state_dict(state["sae"])
        self._optimizer.load_state_dict(state["adam"])
        self.last_active, self._dead = state["last_active"], state["dead"]
        self.step_number, self.density = state["step_number"], state["density"]

    def _written_pass(self, objective: WrittenObjective, inputs: Tensor) -> _Pass:
        """Compute the gradients by their formulas, on a sparse code while few features are active.

        On a GPU codes stay dense, because finding the active entries would make the host wait.
        """
        sae, n = self.sae, len(inputs)
        pre = affine(inputs, sae.encoder, sae.b_enc)
        code = objective.code(pre, sparse=inputs.device.type == "cpu" and self.density < _SPARSE_BELOW)
        features = code.with_values(code.values * objective.active(code))
        residual = features.times(sae.W_dec).add_(sae.b_dec).sub_(inputs)
        slope = residual * (2.0 / n)
        gradient = objective.gradient(code, code.sampled_product(slope, sae.W_dec), n)
        at_pre = code.with_values(gradient.pre)
        gradients = {
            "encoder": at_pre.transposed_times(inputs),
            "W_dec": features.transposed_times(slope),
            "b_enc": at_pre.sums(),
            "b_dec": slope.sum(0),
        }
        if gradient.threshold is not None:
            gradients["threshold"] = gradient.threshold
        loss = residual.pow(2).sum() / n + objective.penalty(features.values, n)
        return _Pass(features, residual, loss, gradients)

    def _autograd_pass(self, inputs: Tensor) -> _Pass:
        """Let autograd differentiate an objective without written gradients; a tied encoder's cover both its uses."""
        sae, n = self.sae, len(inputs)
        with torch.enable_grad():
            sae.requires_grad_(True)
            features = sae.activate(F.linear(inputs, sae.encoder, sae.b_enc).float())
            residual = torch.addmm(sae.b_dec, features, sae.W_dec).float() - inputs
            loss = residual.pow(2).sum() / n + self.objective.penalty(features, n)
            weights = dict(sae.named_parameters())
            found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
        sae.requires_grad_(False)
        gradients = dict(zip(weights, found, strict=True))
        if sae.tied:
            gradients["W_dec"] = torch.zeros_like(sae.W_dec)
        return _Pass(DenseCode(features.detach()), residual.detach(), loss.detach(), gradients)

    def _revive(self, inputs: Tensor, residual: Tensor, gradients: dict[str, Tensor]) -> None:
        """Train dead features on the residual (top-k family), or restart them where it is large (the others)."""
        number = self.step_number
        if number and number % _REVIVE_EVERY == 0:
            dead_mask = number - self.last_active >= self.config.dead_steps
            self._dead = dead_mask.nonzero().squeeze(1)
            if len(self._dead) and self.info.variant not in _TOP_K_FAMILY and number < self.config.steps // 2:
                self._restart_dead(inputs, residual)
        if len(self._dead) and self.info.variant in _TOP_K_FAMILY and number % _AUXK_EVERY == 0:
            self._add_auxk_gradients(inputs, residual, gradients)

    def _add_auxk_gradients(self, inputs: Tensor, residual: Tensor, gradients: dict[str, Tensor]) -> None:
        """Add those of auxk_loss = |residual + its reconstruction by dead features|^2 (Gao et al. 2024, app. A.2)."""
        dead, sae, n = self._dead, self.sae, len(inputs)
        encoder, decoder = sae.encoder[dead], sae.W_dec[dead]
        values, indices = affine(inputs, encoder, sae.b_enc[dead]).topk(min(len(dead), self.info.d_in // 2), dim=1)
        features = torch.zeros(n, len(dead), device=inputs.device).scatter_(1, indices, values.relu())
        slope = (features @ decoder + residual) * (_AUXK_WEIGHT * _AUXK_EVERY * 2.0 / n)
        at_pre = (slope @ decoder.T) * (features > 0)
        gradients["encoder"].index_add_(0, dead, at_pre.T @ inputs)
        gradients["W_dec"].index_add_(0, dead, features.T @ slope)
        gradients["b_enc"].index_add_(0, dead, at_pre.sum(0))

    def _restart_dead(self, inputs: Tensor, residual: Tensor) -> None:
        """Point dead features at the residuals of tokens, drawn in proportion to their squared error.

        Those of a frozen decoder point where their decoder rows do.
        """
        errors = residual.pow(2).sum(1)
        if not 0.0 < errors.sum().item() < math.inf:  # nothing to point at, or a loss that ends the training
            return
        generator = _seeded_generator(self.info, self.step_number, inputs.device)
        sae, dead = self.sae, self._dead
        drawn = torch.multinomial(errors, len(dead), replacement=True, generator=generator)
        rows = F.normalize(-residual[drawn], dim=1) if self._trains_decoder else sae.W_dec[dead]
        sae.encoder[dead] = rows
        sae.W_dec[dead] = rows
        sae.b_enc[dead] = -(rows @ sae.b_dec)
        for name in ("encoder", "W_dec", "b_enc"):
            if name in self._parameters:
                for moment in ("exp_avg", "exp_avg_sq"):
                    self._optimizer.state[self._parameters[name]][moment][dead] = 0.0
        self.last_active[dead] = self.step_number

    def _descend(self, gradients: dict[str, Tensor]) -> None:
        """Take a step of Adam, keeping decoder rows on the unit sphere; a tied row gets the gradients of both uses."""
        sae, config = self.sae, self.config
        rows = gradients["W_dec"]
        if sae.tied:
            rows = gradients["encoder"].add_(rows)
        rows.addcmul_(sae.W_dec, torch.linalg.vecdot(rows, sae.W_dec)[:, None], value=-1.0)
        for name, parameter in self._parameters.items():
            parameter.grad = gradients[name]
        warm = (self.step_number + 1) / max(1.0, config.warmup_share * config.steps)
        left = (1.0 - self.step_number / config.steps) / config.decay_share
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, warm, left)
        self._optimizer.step()
        if self._trains_decoder:
            sae.W_dec.div_(torch.linalg.vector_norm(sae.W_dec, dim=1, keepdim=True))
        if isinstance(sae, JumpReluSae):
            sae.threshold.clamp_(min=0.0)
        self.step_number += 1


def train_saes(
    trainers: Sequence[SaeTrainer],
    source: ActivationSource,
    *,
    checkpoint: Path | None = None,
    checkpoint_every: int | None = None,
    progress: Progress | None = None,
) -> list[Sae]:
    """Run all trainers to the end of their steps on one stream of activations; return their autoencoders, in order.

    Where `checkpoint` is an existing file, training resumes from it, to the same bits as if never interrupted; it is
    replaced every `checkpoint_every` steps. Raises TrainingError when a loss is not finite.
    """
    saved = runtime.load(checkpoint)
    if saved is not None:
        for trainer, state in zip(trainers, saved, strict=True):
            trainer.load_state_dict(state)
    start = max(trainer.step_number for trainer in trainers)  # all are at the same step, but some may end sooner
    n_steps = max(trainer.config.steps for trainer in trainers)
    for number, batch in zip(range(start, n_steps), source.batches(start), strict=False):
        for trainer in trainers:
            if number < trainer.config.steps:
                loss, info = trainer.step(batch[trainer.info.place]), trainer.info
                if number % 50 == 0 or number == trainer.config.steps - 1:
                    name = f"{info.place}, {info.width} features"
                    if not math.isfinite(loss.item()):
                        raise TrainingError(
                            f"{name}: the loss is {loss.item()} at step {number}; lower sae.learning_rate"
                        )
                    if progress:
                        progress(name, number + 1, n_steps, loss.item())
        if checkpoint is not None and (number + 1) % (checkpoint_every or CHECKPOINT_EVERY) == 0:
            runtime.save([trainer.state_dict() for trainer in trainers], checkpoint)
    return [fold_scale(trainer.sae, trainer.info.scale) for trainer in trainers]


def _initialise(info: SaeInfo, inputs: Tensor) -> Sae:
    """Build an autoencoder with random unit rows in the decoder, the same but shorter in the encoder.

    The decoder bias is the mean of `inputs` [n, d_in], whose pre-activations are zero. A tied encoder is the decoder,
    so it cannot be shorter.
    """
    sae = build_sae(info).to(inputs.device).requires_grad_(False)
    rows = torch.randn(sae.encoder.shape, generator=_seeded_generator(info, -1, torch.device("cpu")))
    sae.W_dec.copy_(F.normalize(rows, dim=1))
    if not sae.tied:
        sae.encoder.copy_(sae.W_dec * _ENCODER_START)
    sae.b_dec.copy_(inputs.mean(0))
    sae.b_enc.copy_(-sae.encoder @ sae.b_dec)
    if isinstance(sae, JumpReluSae):
        sae.threshold.fill_(_THRESHOLD_START)
    return sae


def _hold_biases(sae: Sae, info: SaeInfo) -> set[str]:
    """Set the biases of a dictionary of changes to 0, and return their names, which are not trained.

    Where tuning changed nothing, nothing is to be reconstructed; a bias would carry credit that no feature explains.
    The encoder's stays in variants whose features it switches off.
    """
    if info.trained_on != "change":
        return set()
    held = {"b_dec", "b_enc"} if info.variant in _TOP_K_FAMILY else {"b_dec"}
    for name in held:
        getattr(sae, name).zero_()
    return held


def _continue(start: Sae, info: SaeInfo, device: torch.device) -> Sae:
    """Copy a trained autoencoder as one of `info` on scaled activations, with decoder rows of unit length.

    The same activations have the same reconstruction, but for the top-k family, whose features compete by size.
    """
    sae = fold_scale(start, 1.0 / info.scale)
    sae.info = info
    sizes = torch.linalg.vector_norm(sae.W_dec, dim=1).clamp(min=1e-12)
    if not sae.tied and bool(((sizes - 1.0).abs() > 1e-4).any()):
        for name, tensor in sae.state_dict().items():
            if name in ("encoder", "W_dec"):
                tensor.mul_(sizes[:, None] if name == "encoder" else 1.0 / sizes[:, None])
            elif name == "b_enc" or (name == "threshold" and tensor.ndim):
                tensor.mul_(sizes)
    return sae.to(device)


def _seeded_generator(info: SaeInfo, step: int, device: torch.device) -> torch.Generator:
    place = info.layer + _LAYERS_APART * SITES.index(info.site)
    seed = ((info.seed * 1_000_003 + place) * 1_000_003 + info.width) * 1_000_003 + step + 1
    return torch.Generator(device).manual_seed(seed % 2**63)
