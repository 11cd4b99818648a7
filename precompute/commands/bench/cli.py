"""The commands `bench sae` and `bench features`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lfp.config import SaeVariant

bench = typer.Typer(
    help="Measure the jobs against this machine's matrix product; each prints a JSON line.", no_args_is_help=True
)


@bench.command("sae")
def bench_sae(
    variant: Annotated[SaeVariant, typer.Option(help="Kind of autoencoder.")] = "topk",
    d_in: Annotated[int, typer.Option(help="Width of the activations; --activations have their own.")] = 256,
    d_sae: Annotated[int, typer.Option(help="Features of the dictionary.")] = 2048,
    batch: Annotated[int, typer.Option(help="Activations per step.")] = 1024,
    steps: Annotated[int, typer.Option(help="Steps of training.")] = 300,
    k: Annotated[int, typer.Option(help="topk, batchtopk: active features per token.")] = 16,
    l1: Annotated[float, typer.Option(help="tied_relu, relu: weight of the L1 norm.")] = 0.12,
    l0_weight: Annotated[float, typer.Option(help="jumprelu: weight of the number of active features.")] = 0.004,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate of Adam.")] = 6e-3,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and planted activations.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    activations: Annotated[Path | None, typer.Option(help="Train on this .npy [n, d_in], not planted ones.")] = None,
    test: Annotated[Path | None, typer.Option(help="Evaluate on this .npy [n, d_in].")] = None,
    save_decoder: Annotated[Path | None, typer.Option(help="Write the decoder [d_sae, d_in] to this .npy.")] = None,
) -> None:
    """Train one autoencoder on activations in memory and print a JSON line.

    Example: python -m precompute bench sae --variant topk --steps 300
    """
    from precompute.commands.bench.sae import bench_sae as verb

    figures = verb(
        variant=variant,
        d_in=d_in,
        d_sae=d_sae,
        batch=batch,
        steps=steps,
        k=k,
        l1=l1,
        l0_weight=l0_weight,
        learning_rate=learning_rate,
        seed=seed,
        threads=threads,
        device=device,
        activations=activations,
        test=test,
        save_decoder=save_decoder,
    )
    typer.echo(json.dumps(figures))


@bench.command("features")
def bench_features(
    layers: Annotated[int, typer.Option(min=1, help="Layers of the model.")] = 4,
    d_model: Annotated[int, typer.Option(min=64, help="Width of the model, a multiple of 64.")] = 256,
    d_sae: Annotated[int, typer.Option(min=1, help="Features of the dictionary.")] = 4096,
    sequences: Annotated[int, typer.Option(min=1, help="Number of texts.")] = 512,
    seq_len: Annotated[int, typer.Option(min=1, help="Tokens per text.")] = 64,
    vocab: Annotated[int, typer.Option(min=2, help="Tokens of the vocabulary.")] = 5000,
    features: Annotated[int | None, typer.Option(min=1, help="Keep only the first features.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Time the statistics of features on a random model and dictionary, and print a JSON line.

    Example: python -m precompute bench features --d-sae 4096 --features 256
    """
    from precompute.commands.bench.features import bench_features as verb

    figures = verb(
        layers=layers,
        d_model=d_model,
        d_sae=d_sae,
        sequences=sequences,
        seq_len=seq_len,
        vocab=vocab,
        features=features,
        threads=threads,
    )
    typer.echo(json.dumps(figures))
