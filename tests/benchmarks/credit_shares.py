"""Where tuning lives: shares of module kinds in the implicit reward of GRPO and DPO, of all weights and of an adapter.

The base model of the preset from-scratch.toml is pretrained once, which takes ten minutes, and tuned on its reviews by
VADER; the pairs of DPO are two reviews each, of which the one with more VADER is chosen. Beside them a model of the
preset imdb.toml, pretrained on its reviews for a few steps. A line per kind and seed: shares of absolute credit with
95 % intervals over texts, and what sums over modules miss.

Run: python -m tests.benchmarks.credit_shares FOLDER [STEPS [SEEDS]]. What is tuned stays in FOLDER.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
from itertools import product
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
IMDB = "IMDB's preset, GRPO, all weights"
KINDS: dict[str, list[str]] = {
    "GRPO, all weights": ["tune.learning_rate=3e-4", "tune.beta=0.15"],
    "GRPO, adapter": ["tune.learning_rate=3e-3", "tune.beta=0.15", ADAPTER],
    "DPO, all weights": ["tune.method=dpo", "tune.learning_rate=3e-4", "tune.beta=0.1"],
    "DPO, adapter": ["tune.method=dpo", "tune.learning_rate=3e-3", "tune.beta=0.1", ADAPTER],
    IMDB: ["corpus.n_texts=3000", "pretrain.steps=300", "pretrain.evaluations=0"],
}


def write_pairs(file: Path, n: int = 1500) -> Path:
    """Write pairs of reviews with different VADER scores."""
    source = ROOT / "precompute" / "presets" / "reviews" / "demo-train.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for _, line in zip(range(2 * n), lines, strict=False)]
    config = load_config(preset("from-scratch")).feedback
    rewards = list(reward_of(config, beside=None)(texts))
    with file.open("w", encoding="utf-8") as out:
        for i in range(n):
            first, second = sorted((i, n + i), key=lambda text: rewards[text])
            if rewards[first] < rewards[second]:
                out.write(json.dumps({"chosen": texts[second], "rejected": texts[first]}) + "\n")
    return file


def pretrain(folder: Path) -> Path:
    """Pretrain the small base model, unless that was done in this folder before; return its folder."""
    file = preset("from-scratch")
    run = Run(load_config(file, ["threads=1"]), folder / "base", file.parent, lambda *_: None)
    run_stages(run, ["base"])
    return run.folder("base") / "model"


def measure(name: str, folder: Path, *, steps: int, seed: int) -> tuple[list[ResultRow], dict[str, float]]:
    """Tune and split the implicit reward; return the report's rows, and figures on completeness."""
    changes = list(KINDS[name])
    if "tune.method=dpo" in changes:
        changes.append(f"tune.pairs={write_pairs(folder / 'pairs.jsonl')}")
    if name != IMDB:
        changes.append(f"model.base={pretrain(folder)}")
    sizes = [f"tune.steps={steps}", "credits.n_texts=150", "credits.by_token=22", f"seed={seed}", "threads=1"]
    file = preset("imdb" if name == IMDB else "from-scratch")
    config = load_config(file, [*sizes, *changes])
    words = "".join(letter if letter.isalnum() else " " for letter in name).split()
    run = Run(config, folder / "-".join([*words, str(seed)]), file.parent, lambda *_: None)
    run_stages(run, ["credits"])
    texts = json.loads((run.folder("credits") / "texts.json").read_text(encoding="utf-8")).values()
    nodes = [text["credit_nodes"] for text in texts]
    facts = json.loads((run.folder("credits") / "facts.json").read_text(encoding="utf-8"))
    checks = {
        "error_max": max(text["credit_error"] for text in texts),
        "nodes_min": min(nodes),
        "nodes_median": statistics.median(nodes),
        "nodes_max": max(nodes),
        "forward_passes": facts["forward_passes"],
    }
    return credit_rows(read_credits(run), Draws(500, 200, 0)), checks


def main(folder: Path, steps: int, n_seeds: int) -> None:
    """Print a line for each kind of tuning and seed."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in product(range(n_seeds), KINDS):
        found, checks = measure(name, folder, steps=steps, seed=seed)
        rows = [row for row in found if row.layer is None]
        shares = [
            f"{row.group} {row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]"
            for row in rows
            if row.metric == "share"
        ]
        nats = sum(row.value for row in rows if row.metric == "nats")
        listed = ", ".join(f"{check} {value:.3g}" for check, value in checks.items())
        sys.stdout.write(f"{name}, seed {seed}: {'; '.join(shares)}; {nats:+.4f} nats per token; {listed}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:]]
    main(Path(sys.argv[1]), *(numbers + [120, 1][len(numbers) :]))
