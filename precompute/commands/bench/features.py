"""The verb `bench_features`: speed of the statistics of features on random models, against a matrix product."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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


@dataclass(frozen=True)
class Workload:
    """A random model of `layers` layers, a dictionary of its last MLP's output, and random texts of equal length."""

    layers: int
    d_model: int
    d_sae: int
    sequences: int
    seq_len: int
    vocab: int
    features: int
    """How many features of the dictionary are kept."""


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
        """Add the time of the block to a part."""
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(self.seconds.values())


def bench_features(
    *,
    layers: int = 4,
    d_model: int = 256,
    d_sae: int = 4096,
    sequences: int = 512,
    seq_len: int = 64,
    vocab: int = 5000,
    features: int | None = None,
    threads: int = 2,
) -> dict[str, Any]:
    """Time everything a feature is shown with, on a pair of random models and on the tuned one alone.

    `seconds` and what follows from it are the pair's. `gemm_share` is the share of a matrix product's speed
    (`gemm_gflops`, 2048^3 in float32, in this run) that the encoder's products reach over the time of encoding and
    statistics, which grows with the tokens; `best_gemm_share` is the same against the faster library's product. Tables
    made once at the end (examples, neighbours, logits) are in `seconds` and `parts`.
    Raises ConfigError where the sizes make no model.
    """
    import torch

    workload = Workload(layers, d_model, d_sae, sequences, seq_len, vocab, features or d_sae)
    if d_model % _D_HEAD:
        raise ConfigError(f"--d-model {d_model}: not a multiple of {_D_HEAD}, the width of a head; change it")
    if workload.features > d_sae:
        raise ConfigError(f"--features {features}: more than --d-sae {d_sae}; lower it")
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        setting = _setting(workload, Path(folder))
        before = gemm_ceiling()
        _timed(replace(setting, texts=setting.texts[:64]), with_base=False)  # pays for what is paid once per process
        alone, _ = _timed(setting, with_base=False)
        pair, density = _timed(setting, with_base=True)
        after = gemm_ceiling()
    peak, best = max(before.matmul, after.matmul), max(before.best, after.best)
    token_features = sequences * seq_len * workload.features

    def gemm_share(clock: _Clock, gflops: float, n_models: int) -> float:
        flops = 2.0 * token_features * d_model * n_models
        return round(flops / (clock.seconds["encode"] + clock.seconds["statistics"]) / (gflops * 1e9), 6)

    return {
        "tool": "lfp",
        "tokens": sequences * seq_len,
        "features": workload.features,
        "d_sae": d_sae,
        "seconds": round(pair.total, 3),
        "token_features_per_s": round(token_features / pair.total),
        "gemm_share": gemm_share(pair, peak, 2),
        "seconds_tuned_only": round(alone.total, 3),
        "token_features_per_s_tuned_only": round(token_features / alone.total),
        "gemm_share_tuned_only": gemm_share(alone, peak, 1),
        "peak_rss_mb": round(peak_rss_mb()),
        "density": round(density, 4),
        "gemm_gflops": round(peak, 1),
        "best_gemm_gflops": round(best, 1),
        "best_gemm_share": gemm_share(pair, best, 2),
        "threads": threads,
        "parts": {name: round(seconds, 4) for name, seconds in pair.seconds.items()},
        "parts_tuned_only": {name: round(seconds, 4) for name, seconds in alone.seconds.items()},
    }


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
        SaeInfo(layer, workload.features, workload.d_model, scale, l1=0.0, seed=0, model="tuned", variant="relu")
    ).requires_grad_(False)
    rows = F.normalize(torch.randn(workload.features, workload.d_model, generator=torch.Generator().manual_seed(0)))
    sae.encoder.copy_(rows)
    sae.W_dec.copy_(rows)
    reached = np.quantile((first[:512] @ rows[:1024].T).numpy(), 1.0 - _DENSITY)
    sae.b_enc.fill_(-float(reached))
    return Dictionary([sae])
