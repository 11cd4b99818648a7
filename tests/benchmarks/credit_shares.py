"""Where tuning lives: shares of module kinds in the implicit reward of GRPO and DPO, of all weights and of an adapter.

The demo's base model is tuned on the demo's reviews by VADER; the pairs of DPO are two reviews each, of which the one
with more VADER is chosen. A row each: shares of absolute credit with 95 % intervals over texts.

Run: python -m tests.benchmarks.credit_shares FOLDER [STEPS]. What is tuned stays in FOLDER.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import torch

from lfp.config import load_config
from lfp.evaluation.module_credits import credit_rows
from lfp.evaluation.results import ResultRow
from lfp.evaluation.statistics.resampling import Draws
from lfp.texts.rewards import reward_of
from precompute.pipeline import run_stages
from precompute.presets import preset
from precompute.run.work_folder import Run
from precompute.stages.models.credits import read_credits
from tests.conftest import ROOT

ADAPTER = "tune.adapter={r = 16, alpha = 32}"
KINDS: dict[str, list[str]] = {
    "GRPO, all weights": ["tune.learning_rate=3e-4", "tune.beta=0.15"],
    "GRPO, adapter": ["tune.learning_rate=3e-3", "tune.beta=0.15", ADAPTER],
    "DPO, all weights": ["tune.method=dpo", "tune.learning_rate=3e-4", "tune.beta=0.1"],
    "DPO, adapter": ["tune.method=dpo", "tune.learning_rate=3e-3", "tune.beta=0.1", ADAPTER],
}


def write_pairs(file: Path, n: int = 1500) -> Path:
    """Write pairs of reviews with different VADER scores."""
    source = ROOT / "precompute" / "presets" / "reviews" / "demo-train.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for _, line in zip(range(2 * n), lines, strict=False)]
    config = load_config(preset("demo")).feedback
    rewards = list(reward_of(config, beside=None)(texts))
    with file.open("w", encoding="utf-8") as out:
        for i in range(n):
            first, second = sorted((i, n + i), key=lambda text: rewards[text])
            if rewards[first] < rewards[second]:
                out.write(json.dumps({"chosen": texts[second], "rejected": texts[first]}) + "\n")
    return file


def measure(name: str, folder: Path, *, steps: int) -> list[ResultRow]:
    """Tune, split the implicit reward, and return the report's rows."""
    changes = list(KINDS[name])
    if "tune.method=dpo" in changes:
        changes.append(f"tune.pairs={write_pairs(folder / 'pairs.jsonl')}")
    base = ROOT / "data" / "demo" / "artifacts" / "base"
    sizes = [f"model.base={base}", f"tune.steps={steps}", "credits.n_texts=150", "credits.by_token=0", "threads=1"]
    file = preset("demo")
    config = load_config(file, [*sizes, *changes])
    run = Run(config, folder / name.replace(", ", "-").replace(" ", "-"), file.parent, lambda *_: None)
    run_stages(run, ["credits"])
    return credit_rows(read_credits(run), Draws(500, 200, 0))


def main(folder: Path, steps: int) -> None:
    """Print a row per kind of tuning."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for name in KINDS:
        rows = [row for row in measure(name, folder, steps=steps) if row.layer is None]
        shares = [
            f"{row.group} {row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]"
            for row in rows
            if row.metric == "share"
        ]
        nats = sum(row.value for row in rows if row.metric == "nats")
        sys.stdout.write(f"{name}: {'; '.join(shares)}; {nats:+.4f} nats per token\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 120)
