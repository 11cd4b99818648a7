"""What a run at internet scale would take, by arithmetic from measured constants: the tables of docs/SCALE.md.

python -m tests.benchmarks.scale        # prints the tables
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

GPUS = (8, 64, 512)


@dataclass(frozen=True)
class Constant:
    """A measured value, and the row of docs/BENCHMARKS.md that it follows from."""

    what: str
    value: float
    unit: str
    row: str


CONSTANTS = {
    "forward": Constant("forward pass of a pair, share of a product", 0.69, "", "Statistics of features, 256 features"),
    "encode": Constant("encoder, share of a product, statistics included", 0.37, "",
                       "Statistics of features, 4,096 features, pair"),
    "entry": Constant("statistics pass", 119.0, "core-ns per activation",
                      "Statistics of features, growth, 131,072 tokens"),
    "merge": Constant("merge of a shard at first", 499.0, "core-ns per activation", "Merging, shards of 8,192 tokens"),
    "held": Constant("result of a merge", 7.3, "kB per feature", "Merging, state after 888 shards"),
    "pair": Constant("neighbours by shared contexts", 177.0, "core-ns per pair of features",
                     "Merging, neighbours of 4,000 features"),
    "bundle": Constant("bundle with 20 examples per feature", 1.03, "kB per feature",
                       "The explorer at size, 1,028 MB of Parquet"),
    "copy": Constant("sorted copy for the explorer", 27.0, "s per million features",
                     "The explorer at size, built once"),
    "page": Constant("page of the table of a million features, p95", 35.0, "ms", "The explorer at size"),
}  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """What is to be computed, and what the machines are assumed to have."""

    parameters: float = 8e9
    layers: int = 30
    features: float = 1e6
    """Of each layer."""
    d_model: int = 4096
    active: int = 100
    """Features active per token and layer."""
    tokens: float = 1e10
    shard_tokens: float = 1e6
    train_tokens: float = 1e9
    """Activations that each dictionary is trained on."""
    bf16_flops: float = 989e12
    """Of a GPU, dense."""
    fp32_flops: float = 67e12
    train_share: float = 0.4
    """Of the bfloat16 peak that training reaches."""
    cores: int = 16
    """Of the host, per GPU."""
    gpu_gb: float = 80.0
    host_gb: float = 256.0
    """Per GPU."""
    dollars: float = 3.0
    """Per GPU and hour, host included."""

    @property
    def all_features(self) -> float:
        """Features of all layers."""
        return self.layers * self.features


def list_times(run: Scenario) -> list[tuple[str, str, float | None, float | None]]:
    """Return what is done, how its work is counted, GPU-hours, and core-hours."""
    value = {name: constant.value for name, constant in CONSTANTS.items()}
    forward = 4.0 * run.parameters * run.tokens
    encode = 4.0 * run.d_model * run.all_features * run.tokens
    train = 12.0 * run.d_model * run.all_features * run.train_tokens
    entries = 2.0 * run.active * run.layers * run.tokens
    shards = run.tokens / run.shard_tokens
    kept = min(run.active * run.layers * run.shard_tokens, 340.0 * run.all_features)
    pairs = run.all_features * run.features / 2.0
    hour = 3600.0
    return [
        ("forward pass of both models, bf16", "4 P T", forward / value["forward"] / run.bf16_flops / hour, None),
        ("encode both, float32 (as now)", "4 d F T", encode / value["encode"] / run.fp32_flops / hour, None),
        ("encode both, bf16", "4 d F T", encode / value["encode"] / run.bf16_flops / hour, None),
        ("train the dictionaries, bf16", "12 d F tokens", train / run.train_share / run.bf16_flops / hour, None),
        ("statistics, on hosts", "activations of both", None, entries * value["entry"] * 1e-9 / hour),
        ("merge of the shards", "activations kept", None, shards * kept * value["merge"] * 1e-9 / hour),
        ("neighbours within layers", "F^2 / 2 per layer", None, pairs * value["pair"] * 1e-9 / hour),
        ("neighbours across layers", "(L F)^2 / 2", None, pairs * run.layers * value["pair"] * 1e-9 / hour),
        ("sorted copy of the bundle, on one core", "features", None, run.all_features / 1e6 * value["copy"] / hour),
    ]


def list_memory(run: Scenario) -> list[tuple[str, float, str]]:
    """Return what is held, its size in GB, and where."""
    weights = 8.0 * run.d_model * run.features / 1e9
    return [
        ("both models, bf16", 4.0 * run.parameters / 1e9, "each GPU"),
        ("encoder and decoder of a layer, float32", weights, "a GPU"),
        ("the same in training, with gradients and Adam", 4.0 * weights, "a GPU"),
        ("encoders and decoders of all layers", run.layers * weights, "all GPUs"),
        ("statistics of all features", CONSTANTS["held"].value * run.all_features / 1e6, "hosts"),
        ("bundle", CONSTANTS["bundle"].value * run.all_features / 1e6, "disk"),
    ]


def render(run: Scenario) -> str:
    """Return the constants, times and memory as Markdown."""
    constants = [[c.what, f"{c.value:g} {c.unit}".strip(), c.row] for c in CONSTANTS.values()]
    times = []
    for what, work, gpu_hours, core_hours in list_times(run):
        total = gpu_hours if gpu_hours is not None else core_hours or 0.0
        per = 1 if gpu_hours is not None else run.cores
        spread = [total if "one core" in what else total / per / gpus for gpus in GPUS]
        cost = total / per * run.dollars
        amount = f"{_short(total)} {'GPU' if gpu_hours is not None else 'core'}-hours"
        priced = "" if "one core" in what else f"{_short(cost)} $"
        times.append([what, work, amount, *(_hours(hours) for hours in spread), priced])
    memory = [[what, f"{size:,.0f} GB", where] for what, size, where in list_memory(run)]
    return "\n\n".join([
        _table(["constant", "value", "row of BENCHMARKS.md"], constants),
        _table(["what", "work", "in all", *(f"{gpus} GPUs" for gpus in GPUS), "cost"], times),
        _table(["what", "size", "on"], memory),
    ])  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _short(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def _hours(hours: float) -> str:
    if hours >= 48:
        return f"{_short(hours / 24)} days"
    return f"{_short(hours)} h" if hours >= 1 else f"{_short(hours * 60)} min"


if __name__ == "__main__":
    sys.stdout.write(render(Scenario()) + "\n")
