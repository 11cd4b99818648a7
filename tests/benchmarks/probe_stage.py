"""All word probes of a run at full size: seconds and peak memory, and scikit-learn's Ridge on one of their targets.

OMP_NUM_THREADS=1 python -m tests.benchmarks.probe_stage --rows 20000 --features 4608 --permutations 20
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse as sp

from lfp.util.types import Floats, Ints

_LAYERS, _ACTIVE, _RAW_WIDTH = 4, 32, 512
_WORDS, _TRIPLES = 1500, 2000
_WIDE = ("sae", "base_sae", "sae_of_base", "random_sae")


def main() -> None:
    """Print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=4608)
    parser.add_argument("--permutations", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kinds", nargs="*", help="kinds of inputs; all by default")
    parser.add_argument("--peer", action="store_true", help="time scikit-learn's Ridge on one target too")
    sys.stdout.write(json.dumps(probe_stage(**vars(parser.parse_args()))) + "\n")


def stage_of_probes() -> dict[str, Any]:
    """All fits at full size, in a process of their own, so that their peak memory is their own."""
    command = [sys.executable, "-m", "tests.benchmarks.probe_stage", "--peer"]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def probe_stage(
    *, rows: int, features: int, permutations: int, threads: int = 2, kinds: list[str] | None = None, peer: bool = False
) -> dict[str, Any]:
    """Fit every target on every kind of inputs, as the stage does after its activations have been read."""
    from precompute.stages.probes.word_probes import fit_word_probes

    task, inputs = _draw_task(rows, features, permutations, threads)
    chosen = [kind for kind in inputs if not kinds or kind.name in kinds]
    started, cpu = time.perf_counter(), time.process_time()
    found = fit_word_probes(task, chosen)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    alphas = {f"{target} {name}": fitted.probe.alpha for (target, name), fitted in found.probes.items()}
    figures = {
        "rows": rows, "features": features, "permutations": permutations, "threads": threads,
        "seconds": round(seconds, 1), "cpu_s": round(cpu_s, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0), "alphas": alphas,
        "sha256": _digest(found),
    }  # fmt: skip
    return figures | (_time_peer(task, inputs[0]) if peer else {})


def _digest(found: Any) -> str:
    """Hash predictions, rounded to four places of the largest."""
    sha = hashlib.sha256()
    for _, fitted in sorted(found.probes.items()):
        sha.update(np.round(fitted.predicted / max(1e-30, np.abs(fitted.predicted).max()), 4).tobytes())
    return sha.hexdigest()[:12]


def _draw_task(n_rows: int, n_features: int, permutations: int, threads: int) -> tuple[Any, list[Any]]:
    """Draw tokens of Zipfian words, features that half follow the word, and rewards; nothing is read from disk."""
    from lfp.config import ProbesConfig
    from lfp.evaluation.words import ScoredWords
    from precompute.stages.probes.inputs import MODELS, Inputs, Kept, one_hot
    from precompute.stages.probes.targets import Words
    from precompute.stages.probes.triples import TriplePoints
    from precompute.stages.probes.word_probes import Task

    rng = np.random.default_rng(0)
    config = ProbesConfig(permutations=permutations, max_rows=n_rows, rollouts=0)
    run = SimpleNamespace(config=SimpleNamespace(probes=config, seed=0, threads=threads), progress=_print_progress)
    n_slots, n_points = n_rows + n_rows // 2, 3 * _TRIPLES
    share = 1.0 / np.arange(10, 10 + _WORDS)
    words_at = rng.choice(_WORDS, size=n_slots + n_points, p=share / share.sum())
    words_at[:n_slots].sort()  # slots are in the order of words
    words_at[n_slots:] -= words_at[n_slots:] % 2  # triples are of words that the lexicon scores
    value = rng.normal(size=_WORDS)
    matrices = {name: _draw_features(words_at, value, n_features, seed) for seed, name in enumerate(_WIDE)}
    dense = rng.normal(size=(n_slots + n_points, _RAW_WIDTH)) + rng.normal(size=(_WORDS, _RAW_WIDTH))[words_at]
    matrices |= {"raw": sp.csr_array(dense), "base_raw": sp.csr_array(dense + rng.normal(size=dense.shape))}
    place_of = np.arange(n_features) * _LAYERS // n_features
    block_of = np.arange(_RAW_WIDTH) * _LAYERS // _RAW_WIDTH
    ids = np.arange(_WORDS)

    def build(name: str) -> Inputs:
        if name == "token_identity":
            return Inputs(name, np.zeros(_WORDS, np.int64), lambda outputs, tokens: one_hot(ids, outputs, tokens))
        matrix = matrices[name]
        place = place_of if name in _WIDE else block_of
        return Inputs(name, place, lambda outputs, tokens: matrix[outputs[:, 0].astype(np.int64)])

    at = np.arange(n_slots, dtype=np.float32)[:, None]
    words_of = words_at[:n_slots]
    order = np.flatnonzero(np.arange(n_slots) - np.searchsorted(words_of, words_of) < config.word_occurrences)
    sample = np.sort(rng.choice(n_slots, n_rows, replace=False))
    reward = value[words_of] + 2.0 * rng.normal(size=n_slots)
    kept = Kept(
        words=words_of, token_ids=words_of, reward=reward, advantage=reward, sample=sample, before=sample - 1,
        occurrence_words=words_of[order], occurrence_starts=order, occurrence_ends=order + 1, corpus_token_ids=ids,
        outputs={"tuned": at, "base": at},
    )  # fmt: skip
    counts = np.bincount(words_of, minlength=_WORDS)
    values = np.where((np.arange(_WORDS) % 2 == 0) & (counts > 0), np.round(3.0 * value, 1), np.nan)
    words = Words([f"w{i}" for i in range(_WORDS)], counts, np.arange(_WORDS) % config.folds, values, {})
    scored = ScoredWords.from_vocabulary(values, counts.astype(float), config, seed=0)
    points_at = np.arange(n_slots, n_slots + n_points, dtype=np.float32)[:, None]
    of_points = words_at[n_slots:]
    points = TriplePoints(
        [f"w{i}" for i in of_points], np.zeros(n_points, np.int64), of_points, {"tuned": points_at, "base": points_at}
    )
    excess = np.where(np.abs(value) > 1.0, value, 0.0)
    task = Task(run, kept, words, scored, points, kept.lasts_of(~np.isnan(values), n_rows), excess)  # type: ignore[arg-type]
    return task, [build(name) for name in MODELS]


def _draw_features(words: Ints, value: Floats, n_features: int, seed: int) -> sp.csr_array:
    """Draw some 32 active features per token, of 4 layers: half by frequency, half by word, one of these by value."""
    rng = np.random.default_rng([1, seed])
    width, half = n_features // _LAYERS, _ACTIVE // _LAYERS // 2
    of_word = rng.integers(width, size=(_WORDS, _LAYERS, half))
    of_word[:, :, 0] = np.clip(20.0 * value, -60, 60).astype(np.int64)[:, None] + width // 2
    often = np.cumsum(1.0 / np.arange(1, width + 1) ** 0.8)
    anywhere = np.searchsorted(often, rng.random((len(words), _LAYERS, half)) * often[-1])
    columns = np.concatenate([of_word[words], anywhere], axis=2) + np.arange(_LAYERS)[:, None] * width
    starts = np.arange(0, len(words) * _ACTIVE + 1, _ACTIVE)
    values = rng.exponential(size=columns.size)
    features = sp.csr_array((values, columns.ravel(), starts), shape=(len(words), n_features))
    features.sum_duplicates()
    return features


def _time_peer(task: Any, kind: Any) -> dict[str, float]:
    """Time scikit-learn's Ridge with Cholesky factors on the implicit reward: one fold's alphas, and all in proportion.

    Nested folds take 15 such sets of alphas, and 6 fits.
    """
    from sklearn.linear_model import Ridge

    kept = task.kept
    features: Floats = kind.encode(kept.outputs["tuned"][kept.sample], kept.token_ids[kept.sample]).toarray()
    rows = task.words.folds[kept.words[kept.sample]] > 1
    started = time.process_time()
    Ridge(alpha=1.0, solver="cholesky").fit(features[rows], kept.advantage[kept.sample][rows])
    once_s = time.process_time() - started
    n_fits = 15 * len(task.run.config.probes.alphas) + 6
    return {"sklearn_fit_s": round(once_s, 2), "sklearn_target_s": round(once_s * n_fits, 1)}


def _print_progress(what: str, done: int, total: int, value: float) -> None:
    sys.stderr.write(f"{time.perf_counter():9.1f}  {what}  {done}/{total}  {value:.3g}\n")


if __name__ == "__main__":
    main()
