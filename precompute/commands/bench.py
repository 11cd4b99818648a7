"""The verbs `bench_sae` and `bench_features`: speed of the jobs' code, compared with this machine's matrix product.

The signatures are also the options of the commands `bench sae` and `bench features`.
"""

from __future__ import annotations

import functools
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from typer import Option

from lfp.config import SaeConfig, SaeVariant, StatsConfig, parse_section
from lfp.errors import ConfigError, DataError
from lfp.ml.models.sources import check_device
from lfp.util.types import Place
from precompute.run.resources import gemm_ceiling, peak_rss_mb

if TYPE_CHECKING:
    from torch import Tensor

    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary

_TRAIN_BATCHES, _TEST_TOKENS = 100, 8192
_DENSITY = 0.023
"""Share of features active on a token: a few per cent, as in a trained dictionary."""
_D_HEAD = 64
_TOP_TOKENS = 10


def bench_sae(
    *,
    variant: Annotated[SaeVariant, Option(help="Kind of autoencoder.")] = "topk",
    d_in: Annotated[int, Option(help="Width of the activations; --activations have their own.")] = 256,
    d_sae: Annotated[int, Option(help="Features of the dictionary.")] = 2048,
    batch: Annotated[int, Option(help="Activations per step.")] = 1024,
    steps: Annotated[int, Option(help="Steps of training.")] = 300,
    k: Annotated[int, Option(help="topk, batchtopk: active features per token.")] = 16,
    l1: Annotated[float, Option(help="tied_relu, relu: weight of the L1 norm.")] = 0.12,
    l0_weight: Annotated[float, Option(help="jumprelu: weight of the number of active features.")] = 0.004,
    learning_rate: Annotated[float, Option(help="Highest learning rate of Adam.")] = 6e-3,
    seed: Annotated[int, Option(help="Seed of weights, batches and planted activations.")] = 0,
    threads: Annotated[int, Option(help="CPU threads.")] = 2,
    device: Annotated[str, Option(help="cpu or cuda.")] = "cpu",
    products: Annotated[str, Option(help="Type of matrix products: float32 or bfloat16.")] = "float32",
    activations: Annotated[Path | None, Option(help="Train on this .npy of shape (n, d_in).")] = None,
    test: Annotated[Path | None, Option(help="Evaluate on this .npy of shape (n, d_in).")] = None,
    save_decoder: Annotated[Path | None, Option(help="Write the decoder (d_sae, d_in) to this .npy.")] = None,
) -> dict[str, Any]:
    """Train one autoencoder on activations in memory, and return its speed and quality.

    `dense_gemm_share` counts six dense products per step, against `gemm_gflops`. Raises ConfigError for settings that
    cannot be, DataError for a file that cannot be used.

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
        "products": products,
    }
    config = parse_section(SaeConfig, settings, where="bench sae")
    check_device(device, key="--device")
    import torch

    from lfp.ml.sae.activation_sources import HeldActivations
    from lfp.ml.sae.autoencoders import SaeInfo
    from lfp.ml.sae.quality import quality
    from lfp.ml.sae.training import SaeTrainer, train_saes, unit_scale
    from lfp.testing.planted_activations import PlantedDictionary

    torch.set_num_threads(threads)  # sums are split by thread, so results repeat only so
    planted = None
    if activations is not None:
        train = _read_activations(activations)
        held_out = train if test is None else _read_activations(test, d_in=train.shape[1])
    elif test is not None:
        raise DataError(f"{test}: only activations from a file are evaluated on a file; pass --activations too")
    else:
        planted = PlantedDictionary(d_in, max(1, d_sae // 2), seed=seed)  # half as many directions as features
        train, held_out = planted.outputs(_TRAIN_BATCHES * batch), planted.outputs(_TEST_TOKENS, part=2)
    train, d_in = train.to(device), train.shape[1]
    ceiling = gemm_ceiling(device)
    started = time.perf_counter()
    scale, of_variant = unit_scale(train), config.of_variant()
    info = SaeInfo(layer=0, width=d_sae, d_in=d_in, scale=scale, seed=seed, model="tuned", **of_variant)
    (sae,) = train_saes([SaeTrainer(info, config, train)], HeldActivations({Place(0): train}, batch, seed))
    seconds = time.perf_counter() - started
    measured, decoder = quality(sae, held_out.to(device)), sae.W_dec.detach().cpu()
    figures = {
        "variant": variant,
        "steps": steps,
        "seconds": round(seconds, 3),
        "activations_per_s": round(steps * batch / seconds),
        "dense_gemm_share": round(12 * d_in * d_sae * steps * batch / seconds / 1e9 / ceiling.matmul, 3),
        "gemm_gflops": round(ceiling.matmul, 1),
        "best_gemm_gflops": round(ceiling.best, 1),
        "fvu": round(measured.fvu, 4),
        "l0": round(measured.l0, 2),
        "dead_fraction": round(measured.dead_fraction, 4),
        "peak_rss_mb": round(peak_rss_mb()),
    }
    if save_decoder is not None:
        np.save(save_decoder, decoder.numpy())
    if planted is not None:
        cosines = planted.cosines(decoder)
        figures["recovery"] = round(float(cosines.mean()), 4)
        figures["found"] = round(float((cosines > 0.9).float().mean()), 4)
    return figures


def _read_activations(path: str | Path, *, d_in: int | None = None) -> Tensor:
    """Read finite activations [n, d_in] from a .npy file. Raises DataError."""
    import torch

    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as activations ({error}); pass a .npy of numbers [n, d_in]") from error
    if values.ndim != 2 or values.dtype.kind != "f" or not len(values):
        raise DataError(f"{path}: holds {values.dtype} of shape {values.shape}, not floats [n, d_in]")
    if d_in not in (None, values.shape[1]):
        raise DataError(f"{path}: has width {values.shape[1]}, but training has {d_in}; pass activations of one layer")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: row {bad[0]} is not finite; remove it, or check the model that it came from")
    return torch.from_numpy(values.astype(np.float32))


def bench_features(
    *,
    layers: Annotated[int, Option(min=1, help="Layers of the model.")] = 4,
    d_model: Annotated[int, Option(min=64, help="Width of the model, a multiple of 64.")] = 256,
    d_sae: Annotated[int, Option(min=1, help="Features of the dictionary.")] = 4096,
    sequences: Annotated[int, Option(min=1, help="Number of texts.")] = 512,
    seq_len: Annotated[int, Option(min=1, help="Tokens per text.")] = 64,
    vocab: Annotated[int, Option(min=2, help="Tokens of the vocabulary.")] = 5000,
    features: Annotated[int | None, Option(min=1, help="Keep only the first features.")] = None,
    threads: Annotated[int, Option(min=1, help="CPU threads.")] = 2,
) -> dict[str, Any]:
    """Time everything that a feature is shown with, on a pair of random models and on the tuned one alone.

    `seconds` and what follows from it are the pair's. `gemm_share` is the share of a matrix product's speed
    (`gemm_gflops`, 2048^3 in float32, in this run) that the encoder's products reach over the time of encoding and
    statistics, which grows with the tokens; `best_gemm_share` is the same against the faster library's product. Tables
    made once at the end (examples, neighbours, logits) are in `seconds` and `parts`.
    Raises ConfigError where the sizes make no model.

    Example: python -m precompute bench features --d-sae 4096 --features 256
    """
    import torch

    from lfp.ml.models.loading import load_model
    from lfp.ml.models.tokenization import TokenizedText

    n_features = features or d_sae
    if d_model % _D_HEAD:
        raise ConfigError(f"--d-model {d_model}: not a multiple of {_D_HEAD}, the width of a head; change it")
    if n_features > d_sae:
        raise ConfigError(f"--features {features}: more than --d-sae {d_sae}; lower it")
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        _save_pair(Path(folder), layers=layers, d_model=d_model, seq_len=seq_len, vocab=vocab)
        tuned, base = load_model(f"{folder}/tuned"), load_model(f"{folder}/base")
        ids = np.random.default_rng(0).integers(vocab, size=(sequences, seq_len))
        texts = [TokenizedText("", tuple(row), (0,) * seq_len, truncated=False) for row in ids.tolist()]
        dictionary = _random_dictionary(tuned, texts, n_features)
        before = gemm_ceiling()
        _time_statistics([tuned], dictionary, texts[:64])  # warms up what is slow once per process
        alone, _ = _time_statistics([tuned], dictionary, texts)
        pair, density = _time_statistics([tuned, base], dictionary, texts)
        after = gemm_ceiling()
    peak, best = max(before.matmul, after.matmul), max(before.best, after.best)
    token_features, seconds, alone_seconds = ids.size * n_features, sum(pair.values()), sum(alone.values())

    def gemm_share(parts: dict[str, float], gflops: float, n_models: int) -> float:
        flops = 2.0 * token_features * d_model * n_models
        return round(flops / (parts["encode"] + parts["statistics"]) / (gflops * 1e9), 6)

    return {
        "tool": "lfp",
        "tokens": ids.size,
        "features": n_features,
        "d_sae": d_sae,
        "seconds": round(seconds, 3),
        "token_features_per_s": round(token_features / seconds),
        "gemm_share": gemm_share(pair, peak, 2),
        "seconds_tuned_only": round(alone_seconds, 3),
        "token_features_per_s_tuned_only": round(token_features / alone_seconds),
        "gemm_share_tuned_only": gemm_share(alone, peak, 1),
        "peak_rss_mb": round(peak_rss_mb()),
        "density": round(density, 4),
        "gemm_gflops": round(peak, 1),
        "best_gemm_gflops": round(best, 1),
        "best_gemm_share": gemm_share(pair, best, 2),
        "threads": threads,
        "parts": {name: round(part, 4) for name, part in pair.items()},
        "parts_tuned_only": {name: round(part, 4) for name, part in alone.items()},
    }


def _time_statistics(
    models: Sequence[LanguageModel], dictionary: Dictionary, texts: list[TokenizedText]
) -> tuple[dict[str, float], float]:
    """Return the seconds by part, and the share of features active per token; `models` are tuned, or the pair."""
    import torch

    from lfp.ml.features.active import active, encode_active
    from lfp.ml.features.display import logit_tokens, quantile_buckets, sampled_tokens
    from lfp.ml.features.grouping import Places
    from lfp.ml.features.neighbours import decoder_neighbours
    from lfp.ml.features.statistics import FeatureStats
    from lfp.ml.models.activations import stream

    seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seconds[name] += time.perf_counter() - started

    config, n_features = StatsConfig(), dictionary.n_features
    stats, inactive = FeatureStats(n_features, config), active(torch.zeros(0, n_features))
    reading = {"places": dictionary.places, "batch_texts": config.batch_texts, "prepend_bos": False}
    batches = zip(*(stream(model, texts, **reading) for model in models), strict=True)  # type: ignore[arg-type]
    while True:
        with part("models"):
            batch = next(batches, None)
        if batch is None:
            break
        tokens = batch[0]
        with part("encode"):
            values = encode_active(dictionary, tokens.outputs)
            base_values = encode_active(dictionary, batch[1].outputs) if len(batch) == 2 else inactive
        with part("statistics"):
            places = Places(tokens.rows.numpy(), tokens.positions.numpy(), tokens.ids.numpy())
            stats.update(places, values, base_values)
    with part("statistics"):
        stats.flush()
        stats.top.examples()
    with part("examples"):
        sample = stats.sample.examples()
        quantile_buckets(sample, intervals=config.quantile_intervals, per_interval=config.examples_per_interval)
        stats.silent.examples()
    with part("coactivation"):
        stats.sketches.neighbours(config.neighbours)
    with part("cosines"):
        decoder_neighbours(dictionary.decoders, config.neighbours)
    with part("tokens"):
        sampled_tokens(sample, n_features, models[0].tokenizer, n=_TOP_TOKENS)
    with part("logits"):
        logit_tokens(models[0], torch.cat(dictionary.decoders), n=_TOP_TOKENS)
    return dict(seconds), float(stats.tuned.density.mean())


def _save_pair(folder: Path, *, layers: int, d_model: int, seq_len: int, vocab: int) -> None:
    """Write a random GPT-NeoX to `tuned`, one that differs a little to `base`, each with a trivial tokenizer."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    from lfp.ml.models.sources import quiet_files

    sizes = GPTNeoXConfig(
        vocab_size=vocab,
        hidden_size=d_model,
        num_hidden_layers=layers,
        num_attention_heads=d_model // _D_HEAD,
        intermediate_size=4 * d_model,
        max_position_embeddings=seq_len,
        bos_token_id=0,
        eos_token_id=0,
    )
    words = Tokenizer(models.WordLevel({f"t{token}": token for token in range(vocab)}, unk_token="t0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="t0", eos_token="t0", unk_token="t0")
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(sizes)
    with quiet_files(), torch.no_grad():
        for name in ("tuned", "base"):
            model.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
            for weight in model.parameters():
                weight += 0.1 * weight.std(correction=0) * torch.randn_like(weight)


def _random_dictionary(tuned: LanguageModel, texts: list[TokenizedText], n_features: int) -> Dictionary:
    """Return random unit rows with one bias, at which `_DENSITY` of the features are active on the first texts."""
    import torch
    import torch.nn.functional as F

    from lfp.ml.models.activations import stream
    from lfp.ml.sae.autoencoders import SAES, Dictionary, SaeInfo

    place = Place(tuned.n_layers - 1)
    first = next(stream(tuned, texts[:32], places=[place], batch_texts=32, prepend_bos=False)).outputs[place]
    d_in, scale = first.shape[1], float(first.square().sum(1).mean() ** -0.5)
    info = SaeInfo(place.layer, n_features, d_in, scale, l1=0.0, seed=0, model="tuned", variant="relu")
    sae = SAES["relu"](info).requires_grad_(False)
    rows = F.normalize(torch.randn(n_features, d_in, generator=torch.Generator().manual_seed(0)))
    sae.encoder.copy_(rows)
    sae.W_dec.copy_(rows)
    reached = np.quantile((first[:512] @ rows[:1024].T).numpy(), 1.0 - _DENSITY)
    sae.b_enc.fill_(-float(reached))
    return Dictionary([sae])


def _print_json(verb: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """Return a command with the options of a verb, whose result it prints as a line of JSON."""

    @functools.wraps(verb)
    def command(**options: Any) -> None:
        typer.echo(json.dumps(verb(**options)))

    return command


app = typer.Typer(
    help="Measure the jobs against this machine's matrix product; each prints a JSON line.", no_args_is_help=True
)
app.command("sae")(_print_json(bench_sae))
app.command("features")(_print_json(bench_features))
