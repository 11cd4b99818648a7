"""Train autoencoders: gradients written out, sparse where features are, dead features revived, seeded and resumable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.config import SaeConfig
from lfp.errors import DataError, TrainingError
from lfp.ml.models import runtime
from lfp.ml.models.runtime import affine
from lfp.ml.sae.autoencoders import SAES, JumpReluSae, Sae, SaeInfo, folded
from lfp.ml.sae.batches import ActivationSource
from lfp.ml.sae.objectives import OBJECTIVES, check_k
from lfp.ml.sae.screening import bf16_is_fast, screened
from lfp.ml.sae.sparse_codes import Code
from lfp.util.types import Progress

CHECKPOINT_EVERY = 500
"""Steps of training that a kill may cost."""
_SPARSE_BELOW = 0.12
"""Density of features under which, on two cores, sparse products beat matrix products."""
_BF16_FROM = 512
"""Width of the inputs from which on screening in bfloat16 saves more than it costs."""
_REVIVE_EVERY = 100
"""Steps between two looks at which features are dead."""
_AUXILIARY_EVERY = 16
"""Steps between two auxiliary losses of the top-k family, each weighed as so many."""
_AUXILIARY_WEIGHT = 1 / 32
_TOP_K_FAMILY = ("topk", "batchtopk")
_ENCODER_START = 0.2
"""Length of encoder rows at the start: short ones let the decoder settle first, and far fewer features die."""
_THRESHOLD_START = 0.05


def unit_scale(outputs: Tensor) -> float:
    """The factor that gives activations [n, d_in] unit mean square norm. Raises DataError where all are zero."""
    norm = outputs.double().pow(2).sum(1).mean().sqrt().item()
    if not math.isfinite(norm) or norm == 0.0:
        raise DataError(f"the activations have root mean square norm {norm}; check the layer and the model's weights")
    return 1.0 / norm


class SaeTrainer:
    """One autoencoder in training, on MLP outputs of its layer scaled to unit mean square norm.

    `step` takes a batch and `finished` gives the autoencoder with the scale folded into its weights. Everything it does
    follows from `info.seed`, the batches and the number of threads. `state` and `restore` make it resumable.
    """

    def __init__(self, info: SaeInfo, config: SaeConfig, sample: Tensor) -> None:
        """`sample` [n, d_in] are MLP outputs of the layer: their mean is where the decoder's bias starts.

        The training is done on the sample's device. Raises ConfigError where `sae.k` is more than the features.
        """
        check_k(info, config)
        self.info, self.config, self.step_number = info, config, 0
        self.sae = _initial(info, sample * info.scale)
        self.objective = OBJECTIVES[info.variant](self.sae, config)
        self.last_active = torch.zeros(info.width, dtype=torch.int64, device=sample.device)
        self.density = 1.0
        self._trained = dict(self.sae.named_parameters())
        self._dead = self.last_active[:0]
        self._bf16 = info.d_in >= _BF16_FROM and bf16_is_fast()
        self._optimizer = torch.optim.Adam(self._trained.values(), lr=config.learning_rate, fused=True)

    @torch.no_grad()
    def step(self, outputs: Tensor) -> Tensor:
        """One step of Adam on MLP outputs [n, d_in]; returns the loss, a scalar tensor."""
        inputs, n = outputs.to(self.last_active.device, non_blocking=True) * self.info.scale, len(outputs)
        sae, objective = self.sae, self.objective
        code = self._code(inputs)
        features = code.with_values(code.values * objective.active(code))
        miss = features.times(sae.decoder).add_(sae.b_dec).sub_(inputs)
        error = miss * (2.0 / n)
        back = objective.back(code, code.dots(error, sae.decoder), n)
        pre = code.with_values(back.pre)
        gradients = {
            "encoder": pre.back_times(inputs),
            "decoder": features.back_times(error),
            "b_enc": pre.sums(),
            "b_dec": error.sum(0),
        }
        if back.threshold is not None:
            gradients["threshold"] = back.threshold
        self._note_active(features)
        self._revive(inputs, miss, gradients)
        self._descend(gradients)
        return miss.pow(2).sum() / n + objective.penalty(features, n)

    def finished(self) -> Sae:
        """The autoencoder as it acts on unscaled MLP outputs, wanting no gradients."""
        return folded(self.sae, self.info.scale)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "sae": self.sae.state_dict(),
            "adam": self._optimizer.state_dict(),
            "last_active": self.last_active,
            "dead": self._dead,
            "step_number": self.step_number,
            "density": self.density,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`."""
        self.sae.load_state_dict(state["sae"])
        self._optimizer.load_state_dict(state["adam"])
        self.last_active, self._dead = state["last_active"], state["dead"]
        self.step_number, self.density = state["step_number"], state["density"]

    def _code(self, inputs: Tensor) -> Code:
        """Sparse on a CPU while few features are active; dense on a GPU, where to look for them makes the host wait."""
        sae = self.sae
        if inputs.device.type == "cpu" and self.density < _SPARSE_BELOW:
            return self.objective.sparse(screened(inputs, sae.encoder, sae.b_enc, bf16=self._bf16))
        return self.objective.dense(affine(inputs, sae.encoder, sae.b_enc))

    def _note_active(self, features: Code) -> None:
        n_active = features.n_active()
        self.last_active.masked_fill_(n_active > 0, self.step_number)
        if self.last_active.device.type == "cpu":
            self.density = int(n_active.sum()) / (len(features) * self.info.width)

    def _revive(self, inputs: Tensor, miss: Tensor, gradients: dict[str, Tensor]) -> None:
        """The top-k family: dead features are taught the miss. The others: they start again where it is large."""
        number = self.step_number
        if number and number % _REVIVE_EVERY == 0:
            self._dead = (number - self.last_active >= self.config.dead_steps).nonzero().squeeze(1)
            if len(self._dead) and self.info.variant not in _TOP_K_FAMILY and number < self.config.steps // 2:
                self._restart(inputs, miss)
        if len(self._dead) and self.info.variant in _TOP_K_FAMILY and number % _AUXILIARY_EVERY == 0:
            self._teach_the_miss(inputs, miss, gradients)

    def _teach_the_miss(self, inputs: Tensor, miss: Tensor, gradients: dict[str, Tensor]) -> None:
        """Gradient of |miss - its reconstruction by the best dead features|^2 (Gao et al. 2024, appendix A.2)."""
        dead, sae, n = self._dead, self.sae, len(inputs)
        encoder, decoder = sae.encoder[dead], sae.decoder[dead]
        values, indices = affine(inputs, encoder, sae.b_enc[dead]).topk(min(len(dead), self.info.d_in // 2), dim=1)
        features = torch.zeros(n, len(dead), device=inputs.device).scatter_(1, indices, values.relu())
        rebuilt = features @ decoder
        weight = _AUXILIARY_WEIGHT * _AUXILIARY_EVERY * 2.0 / n
        error = (rebuilt + miss) * weight
        pre = (error @ decoder.T) * (features > 0)
        gradients["encoder"].index_add_(0, dead, pre.T @ inputs)
        gradients["decoder"].index_add_(0, dead, features.T @ error)
        gradients["b_enc"].index_add_(0, dead, pre.sum(0))

    def _restart(self, inputs: Tensor, miss: Tensor) -> None:
        """Dead features point at what a token of the batch misses, tokens drawn by their squared error."""
        errors = miss.pow(2).sum(1)
        if not 0.0 < errors.sum().item() < math.inf:  # nothing to point at, or a loss that ends the training
            return
        generator = _generator(self.info, self.step_number, inputs.device)
        sae, dead = self.sae, self._dead
        drawn = torch.multinomial(errors, len(dead), replacement=True, generator=generator)
        rows = F.normalize(-miss[drawn], dim=1)
        sae.encoder[dead] = rows
        sae.decoder[dead] = rows
        sae.b_enc[dead] = -(rows @ sae.b_dec)
        for name in ("encoder", "decoder", "b_enc"):
            if name in self._trained:
                for moment in ("exp_avg", "exp_avg_sq"):
                    self._optimizer.state[self._trained[name]][moment][dead] = 0.0
        self.last_active[dead] = self.step_number

    def _descend(self, gradients: dict[str, Tensor]) -> None:
        """Decoder rows move on the unit sphere; a tied row gets the gradients of both its uses."""
        sae, decoder = self.sae, gradients.pop("decoder")
        if sae.tied:
            gradients["encoder"] += decoder
            rows = gradients["encoder"]
        else:
            rows = gradients["decoder"] = decoder
        rows.addcmul_(sae.decoder, torch.linalg.vecdot(rows, sae.decoder)[:, None], value=-1.0)
        for name, parameter in self._trained.items():
            parameter.grad = gradients[name]
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._rate()
        self._optimizer.step()
        sae.decoder.div_(torch.linalg.vector_norm(sae.decoder, dim=1, keepdim=True))
        if isinstance(sae, JumpReluSae):
            sae.threshold.clamp_(min=0.0)
        self.step_number += 1

    def _rate(self) -> float:
        """The share of the learning rate at this step: up over the warm-up, down over the decay, both linear."""
        config, done = self.config, self.step_number / self.config.steps
        warm = (self.step_number + 1) / max(1.0, config.warmup_share * config.steps)
        return min(1.0, warm, (1.0 - done) / config.decay_share)


def train_saes(
    trainers: Sequence[SaeTrainer],
    source: ActivationSource,
    *,
    checkpoint: Path | None = None,
    checkpoint_every: int | None = None,
    progress: Progress | None = None,
) -> list[Sae]:
    """All trainers to the end of their steps, on one stream of activations; their autoencoders, in order.

    Where `checkpoint` is an existing file the training goes on from it, to the same bits as if never interrupted; it is
    written anew every `checkpoint_every` steps. Raises TrainingError when a loss is not finite.
    """
    kept = runtime.load(checkpoint)
    if kept is not None:
        for trainer, state in zip(trainers, kept, strict=True):
            trainer.restore(state)
    start = max(trainer.step_number for trainer in trainers)  # they go in step, and some may end sooner
    n_steps = max(trainer.config.steps for trainer in trainers)
    for number, batch in zip(range(start, n_steps), source.batches(start), strict=False):
        _step_all(trainers, batch, number, n_steps, progress)
        if checkpoint is not None and (number + 1) % (checkpoint_every or CHECKPOINT_EVERY) == 0:
            runtime.save([trainer.state() for trainer in trainers], checkpoint)
    return [trainer.finished() for trainer in trainers]


def _step_all(
    trainers: Iterable[SaeTrainer],
    batch: Mapping[int, Tensor],
    number: int,
    n_steps: int,
    progress: Progress | None,
) -> None:
    for trainer in trainers:
        if number >= trainer.config.steps:
            continue
        loss = trainer.step(batch[trainer.info.layer])
        if number % 50 == 0 or number == trainer.config.steps - 1:
            _check_loss(loss, number, trainer.info)
            if progress:
                info = trainer.info
                progress(f"layer {info.layer}, {info.width} features", number + 1, n_steps, loss.item())


def _initial(info: SaeInfo, inputs: Tensor) -> Sae:
    """Random unit rows in the decoder, the same but shorter in the encoder, the decoder bias at the mean.

    Pre-activations of the mean are zero. A tied encoder is the decoder, so it cannot be shorter.
    """
    sae = SAES[info.variant](info).to(inputs.device).requires_grad_(False)
    rows = torch.randn(sae.encoder.shape, generator=_generator(info, -1, torch.device("cpu")))
    sae.decoder.copy_(F.normalize(rows, dim=1))
    if not sae.tied:
        sae.encoder.copy_(sae.decoder * _ENCODER_START)
    sae.b_dec.copy_(inputs.mean(0))
    sae.b_enc.copy_(-sae.encoder @ sae.b_dec)
    if isinstance(sae, JumpReluSae):
        sae.threshold.fill_(_THRESHOLD_START)
    return sae


def _generator(info: SaeInfo, step: int, device: torch.device) -> torch.Generator:
    seed = ((info.seed * 1_000_003 + info.layer) * 1_000_003 + info.width) * 1_000_003 + step + 1
    return torch.Generator(device).manual_seed(seed % 2**63)


def _check_loss(loss: Tensor, step: int, info: SaeInfo) -> None:
    if not math.isfinite(loss.item()):
        raise TrainingError(
            f"layer {info.layer}, {info.width} features: the loss is {loss.item()} at step {step}; "
            "lower sae.learning_rate"
        )
