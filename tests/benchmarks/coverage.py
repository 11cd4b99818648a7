"""False flags, twin against twin. Run: python -m tests.benchmarks.coverage PLANTING OUT [PART ...].

Twins are tuned from one base model on one stated reward by seeds alone, so that whatever a flag says of them is chance.
PLANTING is the --out of `precompute plant` with its base model and eight twins; OUT keeps finished stages. A JSON line
each: flags, tests, their share, and its 95 % interval (Clopper and Pearson 1934). Parts are the names in PARTS.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from scipy.stats import binomtest

from lfp.config import load_config
from lfp.evaluation.statistics.twins import RATE
from lfp.evaluation.twin_features import TwinFeatures, sum_texts
from lfp.ml.implicit_reward.feature_credits import feature_credits
from precompute.pipeline import run_stages
from precompute.presets import preset
from precompute.run.inputs import load_dictionary, load_pair
from precompute.run.work_folder import Run
from precompute.stages.models.credit_shards import read_split_texts
from precompute.stages.models.twins import load_twin

SEEDS = range(10_001, 10_009)
PAIRS = ((10_001, 10_002), (10_003, 10_004))
KINDS = ("tuned", "shared", "crosscoder", "base_finetuned", "change")
SIZES = ("threads=1", "layers.count=2", "layers.by=divergence", "stats.n_texts=1000", "sae.train_tokens=40000")
SPARSE = ("sae.variant=batchtopk", "sae.k=16", "sae.expansion=[4]", "sae.steps=500")
PROBES = (
    "tune.eval_prefixes=20", "credits.n_texts=10", "credits.by_token=0", "probes.rollouts=0", "probes.permutations=20",
    "probes.triples=100", "probes.max_rows=8000", "probes.matched_contexts=500", "probes.weight_permutations=200",
)  # fmt: skip
N_TEXTS, NODES = 60, 2
Row = dict[str, Any]


def find_twin(planting: Path, seed: int) -> Path:
    """Return the folder of a twin's model."""
    return planting / f"twin-{seed}" / "model"


def start_run(base: Path, tuned: Path, work: Path, changes: Sequence[str]) -> Run:
    """Return a run of the planting's preset on two models."""
    file = preset("plant")
    config = load_config(file, [*SIZES, *SPARSE, f"model.base={base}", f"model.tuned={tuned}", *changes])
    return Run(config, work, file.parent, lambda *_: None)


def compare_pair(planting: Path, out: Path, pair: tuple[int, int], kind: str, changes: Sequence[str] = ()) -> Run:
    """Return a run in which one twin is the base and another the tuned model."""
    first, second = (find_twin(planting, seed) for seed in pair)
    return start_run(first, second, out / f"pair-{pair[1]}-{kind}", [f"sae.trained_on={kind}", *changes])


def count_tuned_only(planting: Path, out: Path) -> Iterator[Row]:
    """Count the features of one twin alone, and with the twins exchanged, by kind of dictionary."""
    for pair in PAIRS:
        for kind in KINDS:
            run = compare_pair(planting, out, pair, kind)
            run_stages(run, ["saes"])
            for row in run.results(["saes"]):
                if (row.report_row, row.metric, row.layer) == ("latent_scaling", "exclusive", None):
                    names = {"kind": kind, "twins": pair, "of": "second" if row.model == "tuned" else "first"}
                    yield {"flag": "tuned-only", **names, **share(int(row.value), int(row.n or 0))}


def count_beyond_twins(planting: Path, out: Path) -> Iterator[Row]:
    """Count the features of a twin whose credit differs from the other twins', and the same of each of those."""
    base = planting / "base" / "base" / "model"
    for seed, kind in ((10_001, "change"), (10_001, "tuned"), (10_002, "change"), (10_003, "tuned")):
        work = out / f"base-{seed}-{kind}"
        run = start_run(base, find_twin(planting, seed), work, [f"sae.trained_on={kind}", f"seed={seed}"])
        file = work / "credits.npz"
        if not file.is_file():
            run_stages(run, ["saes"])
            twins = [find_twin(planting, other) for other in SEEDS if other != seed]
            np.savez(file, allow_pickle=False, **split_models(run, twins))
        with np.load(file) as stored:
            found = TwinFeatures.compare(stored["credits"], stored["sizes"])
        for of, tests in ((seed, [found.test]), ("twins left out", found.left_out)):
            flags, known = (sum(int(part.sum()) for part in parts) for parts in zip(*map(_flags, tests), strict=True))
            yield {"flag": "credit beyond twins", "kind": kind, "of": of, **share(flags, known)}


def _flags(test: Any) -> tuple[Any, Any]:
    return test.q <= RATE, ~np.isnan(test.q)


def split_models(run: Run, twins: Sequence[Path]) -> dict[str, Any]:
    """Return credits and their sizes [models, features] per token, of the run's tuned model and then of twins."""
    base, tuned = load_pair(run, exact=True)
    dictionary, split = load_dictionary(run, "tuned"), read_split_texts(run, base, N_TEXTS)
    sums = []
    for model in (tuned, *(load_twin(run, folder) for folder in twins)):
        found = feature_credits(
            base, model, dictionary, split.tokenized, nodes=NODES, batch_texts=16, counted=split.counted
        )
        sums.append(sum_texts(list(found), dictionary.n_features))
    n_tokens = sum(len(text.token_ids) for text in split.tokenized)
    return dict(zip(("credits", "sizes"), np.array(sums).swapaxes(0, 1) / n_tokens, strict=True))


def count_beats_null(planting: Path, out: Path) -> Iterator[Row]:
    """Count the weights beyond their null in the probes of two twins."""
    for pair in PAIRS:
        run = compare_pair(planting, out, pair, "tuned", PROBES)
        run_stages(run, ["probes"])
        weights = run.made("weights")
        for probe in run.made("probes").to_pylist():
            own = weights.filter(pc.equal(weights["probe_id"], probe["probe_id"]))
            tests = own.num_rows - own["p"].null_count
            if tests:
                names = {"target": probe["target"], "inputs": probe["inputs"], "twins": pair}
                yield {"flag": "beats its null", **names, **share(pc.sum(own["beats_null"]).as_py() or 0, tests)}


def share(flags: int, tests: int) -> Row:
    """Return the share of flags with its interval."""
    interval = binomtest(flags, max(tests, 1)).proportion_ci(method="exact")
    ends = [round(float(end), 4) for end in (interval.low, interval.high)]
    return {"flags": flags, "tests": tests, "share": round(flags / max(tests, 1), 4), "interval": ends}


PARTS: dict[str, Callable[[Path, Path], Iterator[Row]]] = {
    "tuned_only": count_tuned_only,
    "beyond_twins": count_beyond_twins,
    "beats_null": count_beats_null,
}


def main(planting: Path, out: Path, parts: Sequence[str]) -> None:
    """Print the rows of some parts, all by default."""
    torch.set_num_threads(1)
    for name in parts or PARTS:
        for row in PARTS[name](planting, out):
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
