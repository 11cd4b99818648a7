"""Which architectures can be tuned: GRPO and DPO, all weights and a low-rank adapter.

Three steps each, of which the first has a rate of zero. Columns: GRPO, GRPO of an adapter, DPO, DPO of an adapter.

Run: python -m tests.benchmarks.tuned_architectures [ARCHITECTURE ...]
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from lfp.config import TuneConfig
from lfp.ml.models.finetuning.dpo import tune_dpo
from lfp.ml.models.finetuning.grpo import tune_grpo
from lfp.texts.preferences import PreferencePair
from tests.lfp.ml.conftest import EVERY_ARCHITECTURE, build_model, build_without_special_tokens

PREFIXES = ["The movie", "A terrible", "I love this", "What a", "Good", "The plot was", "bad", "The acting and"]
PAIRS = [PreferencePair(prefix, " great view", " bad ending") for prefix in PREFIXES]
SMALL = {"steps": 3, "prompts_per_step": 4, "group_size": 4, "completion_tokens": 6, "pairs_batch": 4}
ADAPTER = {"r": 4, "alpha": 8}


def letters(completions: Sequence[str]) -> list[float]:
    """How many of a completion's characters are among the first letters of the alphabet."""
    return [sum(letter in "abcdefgh" for letter in text) / max(1, len(text)) for text in completions]


def tune(base: Path, folder: Path, method: str, *, adapter: bool) -> str:
    """Return yes and the KL or margin of the first and last step, or the error's sentence."""
    config = TuneConfig(**SMALL, method=method, pairs="-", learning_rate=1e-3, adapter=ADAPTER if adapter else None)
    try:
        if method == "grpo":
            report = tune_grpo(base, PREFIXES, letters, config, seed=0, folder=folder)
        else:
            report = tune_dpo(base, PAIRS, config, seed=0, folder=folder)
    except Exception as error:  # noqa: BLE001 - the table says which
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    values = [value for _, value in report.curves["kl" if method == "grpo" else "margin"]]
    return f"{'yes' if values[0] == 0.0 != values[-1] else 'no'} ({values[0]:.1e} to {values[-1]:.1e})"


def main(names: Sequence[str]) -> None:
    """Print the table."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        for name in names or (*EVERY_ARCHITECTURE, "no special tokens"):
            base = Path(root) / name / "base"
            if name == "no special tokens":
                build_without_special_tokens(base)
            else:
                build_model(base, architecture=name)
            started, cells = time.perf_counter(), []
            for method in ("grpo", "dpo"):
                for adapter in (False, True):
                    cells.append(tune(base, base.parent / f"{method}-{adapter}", method, adapter=adapter))
            print(f"| {name} | {' | '.join(cells)} | {time.perf_counter() - started:.1f} s |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
