"""Benchmark of autoencoder training: activations a second, beside a matrix product, and what was learned."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from lfp.config import SaeConfig, parse_section
from lfp.errors import DataError
from precompute.run.resources import gemm_ceiling, peak_rss_mb

if TYPE_CHECKING:
    from torch import Tensor

    from lfp.ml.sae.autoencoders import Sae

_TRAIN_BATCHES, _TEST_TOKENS = 100, 8192
_HALF_OF_WIDTH = 2
"""Features a planted direction: a dictionary twice as wide as what there is to find."""


@dataclass(frozen=True)
class Data:
    """Activations to train on and to test on, [n, d_in] each, and the planted directions where they are known."""

    train: Tensor
    test: Tensor
    planted: Any = None


def sae_command(
    variant: Annotated[str, typer.Option(help="tied_relu, relu, topk, batchtopk or jumprelu.")] = "topk",
    d_in: Annotated[int, typer.Option(help="Width of the activations; of --activations their own.")] = 256,
    d_sae: Annotated[int, typer.Option(help="Features of the dictionary.")] = 2048,
    batch: Annotated[int, typer.Option(help="Activations a step.")] = 1024,
    steps: Annotated[int, typer.Option(help="Steps of training.")] = 300,
    k: Annotated[int, typer.Option(help="topk, batchtopk: active features a token.")] = 16,
    l1: Annotated[float, typer.Option(help="tied_relu, relu: weight of the L1 norm.")] = 0.12,
    l0_weight: Annotated[float, typer.Option(help="jumprelu: weight of the number of active features.")] = 0.004,
    learning_rate: Annotated[float, typer.Option(help="Highest rate of Adam.")] = 6e-3,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and planted activations.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    activations: Annotated[
        Path | None, typer.Option(help="Train on these, a .npy [n, d_in], not planted ones.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Judge on these, a .npy [n, d_in].")] = None,
    save_decoder: Annotated[Path | None, typer.Option(help="Write the decoder [d_sae, d_in] to this .npy.")] = None,
) -> None:
    """Train one autoencoder on activations in memory and print a JSON line.

    Example: python -m precompute bench sae --variant topk --steps 300
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

    set_threads(threads)
    data = _data(activations, test, d_in=d_in, d_sae=d_sae, batch=batch, seed=seed)
    typer.echo(json.dumps(bench_sae(config, data, d_sae=d_sae, seed=seed, device=device, save_decoder=save_decoder)))


def bench_sae(
    config: SaeConfig, data: Data, *, d_sae: int, seed: int, device: str, save_decoder: Path | None
) -> dict[str, Any]:
    """Figures of one training; `dense_gemm_share` counts six dense products a step, against `gemm_gflops`."""
    from lfp.ml.sae.quality import quality

    ceiling = gemm_ceiling(device)
    started = time.perf_counter()
    sae = _train(config, data.train.to(device), d_sae=d_sae, seed=seed)
    seconds = time.perf_counter() - started
    measured = quality(sae, data.test.to(device))
    d_in, n = data.train.shape[1], config.steps * config.batch_tokens
    figures = {
        "variant": config.variant,
        "steps": config.steps,
        "seconds": round(seconds, 3),
        "activations_per_s": round(n / seconds),
        "dense_gemm_share": round(12 * d_in * d_sae * n / seconds / 1e9 / ceiling.matmul, 3),
        "gemm_gflops": round(ceiling.matmul, 1),
        "best_gemm_gflops": round(ceiling.best, 1),
        "fvu": round(measured.fvu, 4),
        "l0": round(measured.l0, 2),
        "dead_fraction": round(measured.dead_fraction, 4),
        "peak_rss_mb": round(peak_rss_mb()),
    }
    if save_decoder is not None:
        np.save(save_decoder, sae.decoder.detach().cpu().numpy())
    return figures | _recovery(data, sae)


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


def _recovery(data: Data, sae: Sae) -> dict[str, float]:
    """Mean best cosine of the planted directions, and the share found with a cosine above 0.9."""
    if data.planted is None:
        return {}
    cosines = data.planted.cosines(sae.decoder.detach().cpu())
    return {
        "recovery": round(float(cosines.mean()), 4),
        "found": round(float((cosines > 0.9).float().mean()), 4),
    }


def _data(activations: Path | None, test: Path | None, *, d_in: int, d_sae: int, batch: int, seed: int) -> Data:
    if activations is None:
        if test is not None:
            raise DataError(f"{test}: planted activations are tested on planted ones; pass --activations too")
        from lfp.testing.planted_activations import PlantedDictionary

        planted = PlantedDictionary(d_in, max(1, d_sae // _HALF_OF_WIDTH), seed=seed)
        return Data(planted.outputs(_TRAIN_BATCHES * batch), planted.outputs(_TEST_TOKENS, part=2), planted)
    train = _read(activations)
    return Data(train, train if test is None else _read(test, d_in=train.shape[1]))


def _read(path: Path, *, d_in: int | None = None) -> Tensor:
    """Finite activations [n, d_in] of a .npy file. Raises DataError naming what is wrong with it."""
    import torch

    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as activations ({error}); pass a .npy of numbers [n, d_in]") from error
    if values.ndim != 2 or values.dtype.kind != "f" or not len(values):
        raise DataError(f"{path}: holds {values.dtype} of shape {values.shape}, not floats [n, d_in]")
    if d_in not in (None, values.shape[1]):
        raise DataError(f"{path}: is {values.shape[1]} wide, the activations trained on {d_in}; pass ones of one layer")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: row {bad[0]} is not finite; drop it, or check the model it came from")
    return torch.from_numpy(values.astype(np.float32))
