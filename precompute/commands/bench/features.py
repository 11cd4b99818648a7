"""How fast features get their statistics: the production code on random models, against the machine's peak."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from lfp.config import StatsConfig
from lfp.errors import ConfigError
from precompute.run.resources import gemm_ceiling, peak_rss_mb

if TYPE_CHECKING:
    from torch import Tensor

    from lfp.ml.features.statistics import FeatureStats
    from lfp.ml.models.activations import Tokens
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary

_DENSITY = 0.023
"""Share of features active on a token: a few per cent, as in a trained dictionary."""
_D_HEAD = 64
_TOP_TOKENS = 10
_TIDY = 3


@dataclass(frozen=True)
class Workload:
    """A random model of `layers` layers, `d_sae` features of its last MLP's output, random texts of equal length."""

    layers: int = 4
    d_model: int = 256
    d_sae: int = 4096
    sequences: int = 512
    seq_len: int = 64
    vocab: int = 5000
    features: int | None = None
    """The dictionary is cut to so many features; all by default."""
    threads: int = 2

    @property
    def n_features(self) -> int:
        """Features that statistics are made of."""
        return self.features or self.d_sae

    @property
    def n_tokens(self) -> int:
        """Tokens of all texts."""
        return self.sequences * self.seq_len


@dataclass(frozen=True)
class _Setting:
    tuned: LanguageModel
    base: LanguageModel
    dictionary: Dictionary
    texts: list[TokenizedText]


class _Clock:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time of its body to a part."""
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started

    def of(self, *names: str) -> float:
        """Seconds of some parts together; of all where none is named."""
        return sum(self.seconds[name] for name in names or list(self.seconds))


def features_command(
    layers: Annotated[int, typer.Option(min=1, help="Layers of the model.")] = 4,
    d_model: Annotated[int, typer.Option(min=64, help="Width of the model, a multiple of 64.")] = 256,
    d_sae: Annotated[int, typer.Option(min=1, help="Features of the dictionary.")] = 4096,
    sequences: Annotated[int, typer.Option(min=1, help="Texts.")] = 512,
    seq_len: Annotated[int, typer.Option(min=1, help="Tokens of a text.")] = 64,
    vocab: Annotated[int, typer.Option(min=2, help="Tokens of the vocabulary.")] = 5000,
    features: Annotated[int | None, typer.Option(min=1, help="Cut the dictionary to so many features.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Time the statistics of features on a random model and dictionary: one JSON line.

    Example: python -m precompute bench features --d-sae 4096 --features 256
    """
    workload = Workload(layers, d_model, d_sae, sequences, seq_len, vocab, features, threads)
    typer.echo(json.dumps(bench_features(workload)))


def bench_features(workload: Workload) -> dict[str, object]:
    """Times everything a feature is shown with, its logits too, on both models of a pair and on the tuned one alone.

    `seconds` and what follows from them are the pair's. `gemm_share` is the share of a matrix product's speed
    (`gemm_gflops`, 2048^3 in float32, in this run) that the encoder's products reach over the time of encoding and of
    statistics, which tokens cost; `best_gemm_share` is the same against the faster library's product. Tables made once
    at the end (examples, neighbours, logits) are in `seconds` and `parts`.
    Raises ConfigError where the sizes make no model.
    """
    import torch

    _check(workload)
    torch.set_num_threads(workload.threads)
    with tempfile.TemporaryDirectory() as folder:
        setting = _setting(workload, Path(folder))
        before = gemm_ceiling()
        _timed(replace(setting, texts=setting.texts[:64]), with_base=False)  # pays for what is paid once a process
        alone, _ = _timed(setting, with_base=False)
        pair, density = _timed(setting, with_base=True)
        after = gemm_ceiling()
    peak, best = max(before.matmul, after.matmul), max(before.best, after.best)
    token_features = workload.n_tokens * workload.n_features
    return {
        "tool": "lfp",
        "tokens": workload.n_tokens,
        "features": workload.n_features,
        "d_sae": workload.d_sae,
        "seconds": round(pair.of(), _TIDY),
        "token_features_per_s": round(token_features / pair.of()),
        "gemm_share": _gemm_share(workload, pair, peak, n_models=2),
        "seconds_tuned_only": round(alone.of(), _TIDY),
        "token_features_per_s_tuned_only": round(token_features / alone.of()),
        "gemm_share_tuned_only": _gemm_share(workload, alone, peak, n_models=1),
        "peak_rss_mb": round(peak_rss_mb()),
        "density": round(density, 4),
        "gemm_gflops": round(peak, 1),
        "best_gemm_gflops": round(best, 1),
        "best_gemm_share": _gemm_share(workload, pair, best, n_models=2),
        "threads": workload.threads,
        "parts": {name: round(seconds, 4) for name, seconds in pair.seconds.items()},
        "parts_tuned_only": {name: round(seconds, 4) for name, seconds in alone.seconds.items()},
    }


def _check(workload: Workload) -> None:
    if workload.d_model % _D_HEAD:
        raise ConfigError(f"--d-model {workload.d_model}: not a multiple of {_D_HEAD}, the width of a head; change it")
    if workload.n_features > workload.d_sae:
        raise ConfigError(f"--features {workload.features}: more than --d-sae {workload.d_sae}; lower it")


def _gemm_share(workload: Workload, clock: _Clock, peak: float, *, n_models: int) -> float:
    work = 2.0 * workload.n_tokens * workload.d_model * workload.n_features * n_models
    return round(work / clock.of("encode", "statistics") / (peak * 1e9), 6)


def _timed(setting: _Setting, *, with_base: bool) -> tuple[_Clock, float]:
    """Seconds by part, and the share of features active on a token."""
    clock = _Clock()
    stats = _one_pass(setting, clock, with_base=with_base)
    _finish(setting, clock, stats)
    return clock, float(stats.tuned.density.mean())


def _one_pass(setting: _Setting, clock: _Clock, *, with_base: bool) -> FeatureStats:
    """The statistics of all texts."""
    import torch

    from lfp.ml.features.active import active, encode_active
    from lfp.ml.features.statistics import FeatureStats, TokenFeatures

    dictionary, config = setting.dictionary, StatsConfig()
    stats = FeatureStats(dictionary.n_features, config)
    nothing = active(torch.zeros(0, dictionary.n_features))
    batches = _batches(setting, config.batch_texts, with_base=with_base)
    while True:
        with clock.part("models"):
            batch = next(batches, None)
        if batch is None:
            break
        tokens, base_outputs = batch
        with clock.part("encode"):
            values = encode_active(dictionary, tokens.outputs)
            base_values = encode_active(dictionary, base_outputs) if base_outputs else nothing
        with clock.part("statistics"):
            places = (tokens.rows.numpy(), tokens.positions.numpy(), tokens.ids.numpy())
            stats.update(TokenFeatures(values, base_values, *places))
    with clock.part("statistics"):
        stats.top()
    return stats


def _finish(setting: _Setting, clock: _Clock, stats: FeatureStats) -> None:
    """What is made of the statistics once, when all texts are in."""
    import torch

    from lfp.ml.features.display import logit_tokens, quantile_buckets, sampled_tokens
    from lfp.ml.features.neighbours import decoder_neighbours

    dictionary, config = setting.dictionary, stats.config
    with clock.part("examples"):
        quantile_buckets(stats.sample(), intervals=config.quantile_intervals, per_interval=config.examples_per_interval)
        stats.silent()
    with clock.part("coactivation"):
        stats.coactive()
    with clock.part("cosines"):
        decoder_neighbours(dictionary.decoders, config.neighbours)
    with clock.part("tokens"):
        sampled_tokens(stats.sample(), dictionary.n_features, setting.tuned.tokenizer, n=_TOP_TOKENS)
    with clock.part("logits"):
        logit_tokens(setting.tuned, torch.cat(dictionary.decoders), n=_TOP_TOKENS)


def _batches(
    setting: _Setting, batch_texts: int, *, with_base: bool
) -> Iterator[tuple[Tokens, Mapping[int, Tensor] | None]]:
    """The tuned model's tokens, and the base model's outputs on the same."""
    from lfp.ml.models.activations import stream

    tuned, base = (
        stream(model, setting.texts, layers=setting.dictionary.layers, batch_texts=batch_texts, prepend_bos=False)
        for model in (setting.tuned, setting.base)
    )
    for tokens in tuned:
        yield tokens, next(base).outputs if with_base else None


def _setting(workload: Workload, folder: Path) -> _Setting:
    from lfp.ml.models.loading import load_model
    from lfp.ml.models.tokenization import TokenizedText

    _save_pair(workload, folder)
    tuned, base = load_model(str(folder / "tuned")), load_model(str(folder / "base"))
    ids = np.random.default_rng(0).integers(workload.vocab, size=(workload.sequences, workload.seq_len))
    starts = (0,) * workload.seq_len
    texts = [TokenizedText("", tuple(row), starts, truncated=False) for row in ids.tolist()]
    return _Setting(tuned, base, _dictionary(workload, tuned, texts), texts)


def _save_pair(workload: Workload, folder: Path) -> None:
    """A GPT-NeoX with random weights, a base model that differs a little, and a tokenizer of numbered tokens."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    from lfp.ml.models.loading import quiet_files

    sizes = GPTNeoXConfig(
        vocab_size=workload.vocab,
        hidden_size=workload.d_model,
        num_hidden_layers=workload.layers,
        num_attention_heads=workload.d_model // _D_HEAD,
        intermediate_size=4 * workload.d_model,
        max_position_embeddings=workload.seq_len,
        bos_token_id=0,
        eos_token_id=0,
    )
    words = Tokenizer(models.WordLevel({f"t{token}": token for token in range(workload.vocab)}, unk_token="t0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="t0", eos_token="t0", unk_token="t0")
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(sizes)
    with quiet_files(), torch.no_grad():
        for name in ("tuned", "base"):
            model.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
            for weight in model.parameters():
                weight += 0.1 * weight.std(correction=0) * torch.randn_like(weight)


def _dictionary(workload: Workload, tuned: LanguageModel, texts: list[TokenizedText]) -> Dictionary:
    """Random unit rows; one bias for all, at which `_DENSITY` of the features are active on the first texts."""
    import torch
    import torch.nn.functional as F

    from lfp.ml.models.activations import stream
    from lfp.ml.sae.autoencoders import SAES, Dictionary, SaeInfo

    layer = tuned.n_layers - 1
    first = next(stream(tuned, texts[:32], layers=[layer], batch_texts=32, prepend_bos=False)).outputs[layer]
    scale = float(first.square().sum(1).mean() ** -0.5)
    sae = SAES["relu"](
        SaeInfo(layer, workload.n_features, workload.d_model, scale, l1=0.0, seed=0, model="tuned", variant="relu")
    ).requires_grad_(False)
    rows = F.normalize(torch.randn(workload.n_features, workload.d_model, generator=torch.Generator().manual_seed(0)))
    sae.encoder.copy_(rows)
    sae.decoder.copy_(rows)
    reached = np.quantile((first[:512] @ rows[:1024].T).numpy(), 1.0 - _DENSITY)
    sae.b_enc.fill_(-float(reached))
    return Dictionary([sae])
