"""The verb `bench_sae`: speed of autoencoder training against a matrix product, and the quality it reaches."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lfp.config import SaeConfig, SaeVariant, parse_section
from lfp.errors import DataError
from precompute.run.resources import gemm_ceiling, peak_rss_mb

if TYPE_CHECKING:
    from torch import Tensor

    from lfp.ml.sae.autoencoders import Sae

_TRAIN_BATCHES, _TEST_TOKENS = 100, 8192


@dataclass(frozen=True)
class Data:
    """Activations to train and to evaluate on [n, d_in], and the planted directions where they are known."""

    train: Tensor
    test: Tensor
    planted: Any = None


def bench_sae(
    *,
    variant: SaeVariant = "topk",
    d_in: int = 256,
    d_sae: int = 2048,
    batch: int = 1024,
    steps: int = 300,
    k: int = 16,
    l1: float = 0.12,
    l0_weight: float = 0.004,
    learning_rate: float = 6e-3,
    seed: int = 0,
    threads: int = 2,
    device: str = "cpu",
    activations: str | Path | None = None,
    test: str | Path | None = None,
    save_decoder: str | Path | None = None,
) -> dict[str, Any]:
    """Train one autoencoder on activations in memory and return its speed and quality.

    Activations are planted, or read from .npy files of floats [n, d_in]. `dense_gemm_share` counts six dense products
    per step, against `gemm_gflops`. Raises ConfigError for settings that cannot be, DataError for a file that cannot
    be used.
    """
    settings = {
        "variant": variant,
        "batch_tokens": batch,
        "steps": steps,
        "k": k,
        "l1": l1,
        "l0_weight": l0_weight,
        "learning_rate": learning_rate,
    }
    config = parse_section(SaeConfig, settings, where="bench sae")
    from lfp.ml.models.runtime import set_threads
    from lfp.ml.sae.quality import quality

    set_threads(threads)
    data = _data(activations, test, d_in=d_in, d_sae=d_sae, batch=batch, seed=seed)
    ceiling = gemm_ceiling(device)
    started = time.perf_counter()
    sae = _train(config, data.train.to(device), d_sae=d_sae, seed=seed)
    seconds = time.perf_counter() - started
    measured = quality(sae, data.test.to(device))
    n, flops = steps * batch, 12 * data.train.shape[1] * d_sae * steps * batch
    figures = {
        "variant": variant,
        "steps": steps,
        "seconds": round(seconds, 3),
        "activations_per_s": round(n / seconds),
        "dense_gemm_share": round(flops / seconds / 1e9 / ceiling.matmul, 3),
        "gemm_gflops": round(ceiling.matmul, 1),
        "best_gemm_gflops": round(ceiling.best, 1),
        "fvu": round(measured.fvu, 4),
        "l0": round(measured.l0, 2),
        "dead_fraction": round(measured.dead_fraction, 4),
        "peak_rss_mb": round(peak_rss_mb()),
    }
    if save_decoder is not None:
        np.save(save_decoder, sae.W_dec.detach().cpu().numpy())
    if data.planted is not None:
        cosines = data.planted.cosines(sae.W_dec.detach().cpu())
        figures |= {
            "recovery": round(float(cosines.mean()), 4),
            "found": round(float((cosines > 0.9).float().mean()), 4),
        }
    return figures


def _train(config: SaeConfig, train: Tensor, *, d_sae: int, seed: int) -> Sae:
    from lfp.ml.sae.autoencoders import SaeInfo
    from lfp.ml.sae.batches import HeldActivations
    from lfp.ml.sae.training import SaeTrainer, train_saes, unit_scale

    source = HeldActivations({0: train}, config.batch_tokens, seed)
    info = SaeInfo(
        layer=0,
        width=d_sae,
        d_in=train.shape[1],
        scale=unit_scale(train),
        seed=seed,
        model="tuned",
        **config.of_variant(),
    )
    return train_saes([SaeTrainer(info, config, train)], source)[0]


def _data(
    activations: str | Path | None, test: str | Path | None, *, d_in: int, d_sae: int, batch: int, seed: int
) -> Data:
    if activations is None:
        if test is not None:
            raise DataError(f"{test}: only activations from a file are evaluated on a file; pass --activations too")
        from lfp.testing.planted_activations import PlantedDictionary

        planted = PlantedDictionary(d_in, max(1, d_sae // 2), seed=seed)  # half as many directions as features
        return Data(planted.outputs(_TRAIN_BATCHES * batch), planted.outputs(_TEST_TOKENS, part=2), planted)
    train = _read(activations)
    return Data(train, train if test is None else _read(test, d_in=train.shape[1]))


def _read(path: str | Path, *, d_in: int | None = None) -> Tensor:
    """Read finite activations [n, d_in] from a .npy file. Raises DataError."""
    import torch

    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as activations ({error}); pass a .npy of numbers [n, d_in]") from error
    if values.ndim != 2 or values.dtype.kind != "f" or not len(values):
        raise DataError(f"{path}: holds {values.dtype} of shape {values.shape}, not floats [n, d_in]")
    if d_in not in (None, values.shape[1]):
        raise DataError(
            f"{path}: has width {values.shape[1]}, the training activations {d_in}; pass activations of one layer"
        )
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: row {bad[0]} is not finite; remove it, or check the model that it came from")
    return torch.from_numpy(values.astype(np.float32))
