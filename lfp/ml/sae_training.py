"""Train autoencoders on activations held in memory, and measure them on held-out ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lfp.config import SaeConfig
from lfp.errors import DataError, TrainingError
from lfp.ml.sae import SaeInfo, TiedReluSae
from lfp.progress import Progress


@dataclass(frozen=True)
class SaeQuality:
    """Held-out quality: fraction of variance unexplained, mean active features a token, share never active."""

    fvu: float
    l0: float
    dead_fraction: float


def unit_scale(outputs: Tensor) -> float:
    """The factor that gives activations [n, d_in] unit mean square norm. Raises DataError where all are zero."""
    norm = outputs.double().pow(2).sum(1).mean().sqrt().item()
    if not math.isfinite(norm) or norm == 0.0:
        raise DataError(f"the activations have root mean square norm {norm}; check the layer and the model's weights")
    return 1.0 / norm


def train_sae(
    outputs: Tensor,
    config: SaeConfig,
    info: SaeInfo,
    *,
    progress: Progress | None = None,
) -> TiedReluSae:
    """An autoencoder trained on MLP outputs [n, d_in] (unscaled), by Adam with a linearly decaying rate.

    The loss is the mean over tokens of |z - z_hat|^2 + l1 * |f|_1, on inputs z of unit mean square norm. Deterministic
    given `info.seed` and a number of threads. Raises TrainingError when the loss is not finite.
    """
    generator = torch.Generator().manual_seed(info.seed * 1_000_003 + info.layer * 1009 + info.width)
    inputs = outputs * info.scale
    sae = _initial(info, inputs, generator)
    optimizer = torch.optim.Adam(sae.parameters(), lr=config.learning_rate, fused=True)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, 2.0 * (1.0 - step / config.steps))
        batch = inputs[torch.randint(len(inputs), (config.batch_tokens,), generator=generator)]
        loss = _loss(sae, batch, config.l1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == config.steps - 1:
            _check_loss(loss, step, info)
            if progress:
                progress(f"layer {info.layer}, {info.width} features", step + 1, config.steps, loss.item())
    return sae.requires_grad_(False)


@torch.no_grad()
def quality(sae: TiedReluSae, outputs: Tensor, *, batch_tokens: int = 8192) -> SaeQuality:
    """FVU, L0 and dead share of an autoencoder on MLP outputs [n, d_in] it was not trained on."""
    error, active, counts = 0.0, 0, torch.zeros(sae.info.width, dtype=torch.int64)
    for batch in outputs.split(batch_tokens):
        features = sae.encode(batch)
        error += (batch - sae.decode(features)).double().pow(2).sum().item()
        fired = (features > 0).sum(0)
        counts += fired
        active += int(fired.sum())
    variance = (outputs - outputs.mean(0)).double().pow(2).sum().item()
    return SaeQuality(error / variance, active / len(outputs), (counts == 0).double().mean().item())


def matched_cosines(small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
    """For each unit row of `small` [n, d] its Hungarian match among rows of `large` [m, d], n <= m: cosines, indices.

    Their mean is the paper's Mean Max Cosine Similarity between two dictionary sizes.
    """
    cosines = small @ large.T
    rows, columns = linear_sum_assignment(cosines.numpy(), maximize=True)
    return cosines[torch.as_tensor(rows), torch.as_tensor(columns)], torch.as_tensor(columns)


def _initial(info: SaeInfo, inputs: Tensor, generator: torch.Generator) -> TiedReluSae:
    """Random unit rows, the decoder bias at the mean, the encoder bias so that the mean gives no activation."""
    sae = TiedReluSae(info)
    with torch.no_grad():
        sae.rows.copy_(F.normalize(torch.randn(sae.rows.shape, generator=generator), dim=1))
        sae.b_dec.copy_(inputs.mean(0))
        sae.b_enc.copy_(-sae.rows @ sae.b_dec)
    return sae


def _loss(sae: TiedReluSae, inputs: Tensor, l1: float) -> Tensor:
    decoder = sae.decoder
    features = F.relu(F.linear(inputs, decoder, sae.b_enc))
    error = (features @ decoder + sae.b_dec - inputs).pow(2).sum(1).mean()
    return error + l1 * features.sum(1).mean()


def _check_loss(loss: Tensor, step: int, info: SaeInfo) -> None:
    if not math.isfinite(loss.item()):
        raise TrainingError(
            f"layer {info.layer}, {info.width} features: the loss is {loss.item()} at step {step}; "
            "lower sae.learning_rate"
        )
