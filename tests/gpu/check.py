"""Check a CUDA card against the CPU, then measure it: eight minutes at most, a JSON line per result.

    python -m tests.gpu.check                 # on the first CUDA card
    python -m tests.gpu.check --device cpu    # the same script, small, where there is none

Correctness first: the implicit reward of tokens, features, the statistics pass, a ledger and a training, each on the
device and on the CPU in float32, with the largest difference and the tolerance. Then speed, each as a share of what a
matrix product of the same type reaches on the device in this run. Exits with 1 where a check fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lfp.config import SaeConfig, StatsConfig
from lfp.errors import LfpError
from lfp.ml.features.active import encode_active
from lfp.ml.features.grouping import Places
from lfp.ml.features.statistics import FeatureStats
from lfp.ml.implicit_reward.ledger import module_credits
from lfp.ml.models.activations import PairTokens, stream_pair
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.sources import check_device
from lfp.ml.models.tokenization import TokenizedText
from lfp.ml.sae.activation_sources import HeldActivations
from lfp.ml.sae.autoencoders import Dictionary, SaeInfo
from lfp.ml.sae.quality import quality
from lfp.ml.sae.training import SaeTrainer, train_saes, unit_scale
from lfp.testing.planted_activations import PlantedDictionary
from lfp.util.types import Place
from precompute.commands.bench import _random_dictionary, _save_pair

LIMIT_S = 480.0
Row = dict[str, Any]
Pair = tuple[LanguageModel, LanguageModel]


@dataclass(frozen=True)
class Sizes:
    """Sizes of what is measured, within 8 GB of a card's memory; correctness is always checked on small models."""

    layers: int
    d_model: int
    vocab: int
    texts: int
    text_tokens: int
    features: int
    train_batch: int
    train_steps: int
    product: int
    """Rows and columns of the product that shares are of."""


SIZES = {
    "cuda": Sizes(6, 1536, 32_000, 256, 256, 32_768, 4096, 60, 8192),
    "cpu": Sizes(2, 64, 300, 16, 32, 512, 256, 3, 256),
}


def main() -> int:
    """Print the results; return 0 where all checks hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ..., or cpu for a small run")
    device = parser.parse_args().device
    try:
        check_device(device, key="--device")
    except LfpError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    holds = True
    for row in check(device):
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
        holds &= row.get("ok", True)
    return 0 if holds else 1


def check(device: str) -> Iterator[Row]:
    """Yield a row per check, then per measurement until `LIMIT_S` have passed."""
    started = time.perf_counter()
    torch.manual_seed(0)
    yield describe(device)
    with tempfile.TemporaryDirectory() as folder:
        _save_pair(Path(folder), layers=2, d_model=64, seq_len=32, vocab=300)
        yield from compare_with_cpu(Path(folder), device)
    with tempfile.TemporaryDirectory() as folder:
        for measurement in (measure_pass, measure_encoder, measure_training):
            if time.perf_counter() - started > LIMIT_S / 2:
                yield {"speed": measurement.__name__, "skipped": "half of the eight minutes are over"}
                continue
            yield from measurement(Path(folder), device)
    yield {"seconds": round(time.perf_counter() - started, 1)}


def describe(device: str) -> Row:
    """Say what runs here."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return {"device": device, "name": name, "torch": torch.__version__, "threads": torch.get_num_threads()}


def compare_with_cpu(folder: Path, device: str) -> Iterator[Row]:
    """Compare small computations on the device with the CPU."""
    texts, places = draw_texts(40, 32, 300), [Place(1)]
    there, here = (load_pair(folder, place) for place in (device, "cpu"))
    on_device, on_cpu = (join(run_pass(pair, texts, places)) for pair in (there, here))
    yield compared("implicit reward, nats", on_device[0], on_cpu[0], 1e-4)
    yield compared("activations", on_device[1], on_cpu[1], 1e-4)
    dictionary = _random_dictionary(here[0], texts, 512)
    outputs = dict.fromkeys(dictionary.places, on_cpu[1])
    dense = dictionary.encode(outputs)
    entries = encode_active(dictionary, outputs)
    moved = dictionary.to(device)
    yield compared("features, dense", moved.encode(outputs).cpu(), dense, 1e-4)
    found = encode_active(moved, outputs)
    index = np.arange(len(on_cpu[1]))
    where = Places(index // 32, index % 32, index % 300)
    stats = []
    for active in (found, entries):
        filled = FeatureStats(dictionary.n_features, StatsConfig())
        filled.update(where, active, active)
        filled.flush()
        stats.append(filled.tuned)
    counts = [torch.from_numpy(moments.n_active / max(1, stats[1].n_active.sum())) for moments in stats]
    yield compared("statistics: active tokens, share of all", counts[0], counts[1], 1e-3)
    sums = [torch.from_numpy(moments.sum / stats[1].sum.max()) for moments in stats]
    yield compared("statistics: sums, share of the largest", sums[0], sums[1], 1e-3)
    ledgers = [module_credits(pair[1], pair[0], texts[:4], prepend_bos=False) for pair in (there, here)]
    size = np.abs(ledgers[1].credits).sum()
    credits = [torch.from_numpy(ledger.credits / size) for ledger in ledgers]
    yield compared("ledger: credits, share of their absolute sum", credits[0], credits[1], 1e-3)
    errors = [train(place, 32, 256, batch=256, steps=60, products="float32")[1] for place in (device, "cpu")]
    yield compared("training: FVU after 60 steps", torch.tensor(errors[0]), torch.tensor(errors[1]), 0.01)


def compared(what: str, found: Tensor, expected: Tensor, tolerance: float) -> Row:
    """Return the largest difference, NaN in both counting as none."""
    both = found.isnan() & expected.isnan()
    difference = (found - expected).abs().masked_fill(both, 0.0).max().item() if found.numel() else 0.0
    same_shape = found.shape == expected.shape
    return {"check": what, "largest_difference": difference, "tolerance": tolerance,
            "ok": same_shape and difference <= tolerance}  # fmt: skip


def measure_pass(folder: Path, device: str) -> Iterator[Row]:
    """Time the pass of a pair over texts: both models, the implicit reward, activations of a place to the host."""
    sizes = SIZES[device.partition(":")[0]]
    _save_pair(folder, layers=sizes.layers, d_model=sizes.d_model, seq_len=sizes.text_tokens, vocab=sizes.vocab)
    for dtype in ("float32", "bfloat16") if device != "cpu" else ("float32",):
        pair = load_pair(folder, device, dtype=dtype, attn_implementation="sdpa")
        texts, places = draw_texts(sizes.texts, sizes.text_tokens, sizes.vocab), [Place(sizes.layers - 1)]
        read = partial(run_pass, pair, batch_texts=32, places=places)
        list(read(texts[:64]))
        seconds = timed(lambda read=read, texts=texts: sum(len(tokens.tuned.ids) for tokens in read(texts)), device)
        n_tokens, embedding = sizes.texts * sizes.text_tokens, sizes.vocab * sizes.d_model
        weights = sum(model.n_parameters - embedding for model in pair)  # the embedding is looked up, not multiplied
        yield {
            "speed": "pass of a pair", "dtype": dtype, "tokens_per_s": round(n_tokens / seconds),
            "parameters": pair[0].n_parameters,
            **share(2.0 * weights * n_tokens / seconds, device, getattr(torch, dtype)),
        }  # fmt: skip


def measure_encoder(folder: Path, device: str) -> Iterator[Row]:
    """Time encoding to active features, and to dense ones in bfloat16 and compiled, which the jobs do not use yet."""
    sizes = SIZES[device.partition(":")[0]]
    n, flops = sizes.train_batch, 2.0 * sizes.d_model * sizes.features
    generator = torch.Generator().manual_seed(0)
    info = SaeInfo(0, sizes.features, sizes.d_model, 1.0, 0.0, 0, "tuned", "relu")
    rows = torch.randn(sizes.features, sizes.d_model, generator=generator) / sizes.d_model**0.5
    dictionary = Dictionary([_with_rows(info, rows, bias=-2.5)]).to(device)
    outputs = {Place(0): torch.randn(n, sizes.d_model, generator=generator)}
    encode_active(dictionary, outputs)
    seconds = timed(lambda: encode_active(dictionary, outputs), device)
    yield {"speed": "encode to active features", "tokens_per_s": round(n / seconds),
           **share(flops * n / seconds, device, torch.float32)}  # fmt: skip
    moved = {Place(0): outputs[Place(0)][: n // 4].to(device)}
    plain = timed(lambda: dictionary.encode(moved), device)
    dense = dictionary.encode(moved)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        half = timed(lambda: dictionary.encode(moved), device)
        agree = ((dictionary.encode(moved) > 0) == (dense > 0)).float().mean().item()
    yield {"speed": "encode with bfloat16 products", "times_faster": round(plain / half, 2),
           "entries_active_alike": round(agree, 6)}  # fmt: skip
    if device == "cpu":
        yield {"speed": "encode compiled", "skipped": "measured on cards alone"}
        return
    compiled = torch.compile(dictionary.encode)
    try:
        compiled(moved)
    except Exception as error:  # noqa: BLE001 (whatever a compiler that is not there raises)
        yield {"speed": "encode compiled", "skipped": str(error).splitlines()[0][:120]}
        return
    yield {"speed": "encode compiled", "times_faster": round(plain / timed(lambda: compiled(moved), device), 2)}


def measure_training(folder: Path, device: str) -> Iterator[Row]:
    """Time a step of a top-k dictionary here and in the libraries that are installed, on the same activations."""
    sizes = SIZES[device.partition(":")[0]]
    d, width, batch, steps = sizes.d_model, sizes.features, sizes.train_batch, sizes.train_steps
    for products in ("float32", "bfloat16"):
        took, error = train(device, d, width, batch=batch, steps=steps, products=products)
        rate = 12.0 * d * width * batch / took
        yield {"speed": "training, topk", "products": products, "step_ms": round(1000.0 * took, 2),
               "fvu": round(error, 4), **share(rate, device, getattr(torch, products))}  # fmt: skip
    from tests.gpu import peers

    activations = PlantedDictionary(d, max(1, width // 4), seed=0).outputs(batch).to(device)
    for name, build in peers.STEPS.items():
        try:
            step = build(activations, width, k=32)
        except ImportError as missing:
            yield {"speed": f"training, {name}", "skipped": f"not installed here ({missing})"}
            continue
        for _ in range(3):
            step()
        seconds = timed(lambda step=step: [step() for _ in range(steps)], device) / steps
        yield {"speed": f"training, {name}", "step_ms": round(1000.0 * seconds, 2)}


def train(device: str, d: int, width: int, *, batch: int, steps: int, products: str) -> tuple[float, float]:
    """Train a top-k dictionary on planted activations held on the device; return seconds per step, and its FVU."""
    planted = PlantedDictionary(d, max(1, width // 4), seed=0)
    held = planted.outputs(8 * batch).to(device)
    k = min(32, max(1, width // 8))
    config = SaeConfig(variant="topk", k=k, steps=steps, batch_tokens=batch, products=products)  # type: ignore[arg-type]
    info = SaeInfo(0, width, d, unit_scale(held), None, 0, "tuned", "topk", k)
    trainer, source = SaeTrainer(info, config, held[:batch]), HeldActivations({Place(0): held}, batch, 0)
    trained: list[Any] = []
    seconds = timed(lambda: trained.extend(train_saes([trainer], source)), device)
    return seconds / steps, quality(trained[0], planted.outputs(2048, part=2).to(device)).fvu


def load_pair(folder: Path, device: str, **options: Any) -> Pair:
    """Load the models that `_save_pair` wrote, tuned first."""
    tuned, base = (load_model(str(folder / name), device=device, **options) for name in ("tuned", "base"))
    return tuned, base


def draw_texts(n: int, length: int, vocab: int) -> list[TokenizedText]:
    """Draw texts of random tokens."""
    ids = np.random.default_rng(0).integers(vocab, size=(n, length)).tolist()
    return [TokenizedText("", tuple(row), (0,) * length, truncated=False) for row in ids]


def run_pass(
    pair: Pair, texts: list[TokenizedText], places: list[Place], batch_texts: int = 16
) -> Iterator[PairTokens]:
    """Run a pair over texts, as the statistics pass does."""
    return stream_pair(*pair, texts, places=places, batch_texts=batch_texts, prepend_bos=False)


def join(tokens: Iterator[PairTokens]) -> tuple[Tensor, Tensor]:
    """Return the implicit reward [tokens] and the tuned model's activations [tokens, d_model]."""
    parts = list(tokens)
    outputs = torch.cat([next(iter(part.tuned.outputs.values())) for part in parts])
    return torch.cat([part.implicit_reward for part in parts]), outputs


def timed(work: Callable[[], object], device: str) -> float:
    """Return the seconds of some work until the device has done all of it."""
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def share(rate: float, device: str, dtype: torch.dtype) -> Row:
    """Return a rate of operations, and its share of a large matrix product's in the same type on this device now."""
    n = SIZES[device.partition(":")[0]].product
    left, right = torch.randn(2, n, n, device=device, dtype=dtype).unbind()
    _ = left @ right
    seconds = min(timed(lambda: left @ right, device) for _ in range(5))
    peak = 2.0 * n**3 / seconds
    return {"tflops": round(rate / 1e12, 4), "product_tflops": round(peak / 1e12, 4), "share": round(rate / peak, 3)}


def _with_rows(info: SaeInfo, rows: Tensor, *, bias: float) -> Any:
    from lfp.ml.sae.autoencoders import build_sae

    sae = build_sae(info).requires_grad_(False)
    sae.encoder.copy_(rows)
    sae.W_dec.copy_(rows)
    sae.b_enc.fill_(bias)
    return sae


if __name__ == "__main__":
    sys.exit(main())
