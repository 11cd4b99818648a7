"""One probe at full size, its penalty chosen by groups: seconds and peak memory, and scikit-learn on a fifth of it.

python -m tests.benchmarks.probes --kind ridge
python -m tests.benchmarks.probes --kind logistic --rows 20000 --features 40000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

ALPHAS = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)
_NON_ZEROS, _TOPICS, _N_FOLDS = 64, 200, 5


def ridge_probe() -> dict[str, float]:
    """100,000 features of 50,000 rows, in a process of its own so that its peak memory is its own."""
    return _apart("ridge")


def logistic_probe() -> dict[str, float]:
    """As `ridge_probe`, of outcomes of 0 and 1."""
    return _apart("logistic")


def main() -> None:
    """Prints a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("ridge", "logistic"), default="ridge")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=100_000)
    arguments = parser.parse_args()
    sys.stdout.write(json.dumps(measure(arguments.kind, arguments.rows, arguments.features)) + "\n")


def measure(kind: str, n_rows: int, n_features: int) -> dict[str, float]:
    """Ours at this size, with its peak memory; then both at a fifth of it."""
    seconds = _ours(kind, Problem.drawn(n_rows, n_features))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    fifth = Problem.drawn(n_rows // 5, n_features // 5)
    ours, theirs = _ours(kind, fifth), _theirs(kind, fifth)
    figures = {"seconds": seconds, "peak_mb": peak, "fifth_s": ours, "sklearn_fifth_s": theirs, "ratio": theirs / ours}
    return {"rows": n_rows, "features": n_features} | {name: round(value, 2) for name, value in figures.items()}


@dataclass(frozen=True)
class Problem:
    """Features of which few fire often, half of them by the row's topic; a target that comes in words."""

    features: sp.csr_array
    target: NDArray[np.float64]
    groups: NDArray[np.int64]

    @staticmethod
    def drawn(n_rows: int, n_features: int) -> Problem:
        """The same for the same size; a word has ten rows, and a part of the target's noise."""
        rng = np.random.default_rng(0)
        often = np.cumsum(1.0 / np.arange(1, n_features + 1) ** 0.8)
        anywhere = np.searchsorted(often, rng.random((n_rows, _NON_ZEROS)) * often[-1])
        width = n_features // _TOPICS
        of_topic = anywhere % width + rng.integers(_TOPICS, size=(n_rows, 1)) * width
        columns = np.where(rng.random((n_rows, _NON_ZEROS)) < 0.5, anywhere, of_topic).astype(np.int32).ravel()
        starts = np.arange(0, n_rows * _NON_ZEROS + 1, _NON_ZEROS, dtype=np.int32)
        features = sp.csr_array((rng.exponential(size=len(columns)), columns, starts), shape=(n_rows, n_features))
        features.sum_duplicates()
        features.data /= np.sqrt((features.data**2).sum() / n_rows)
        groups = rng.integers(max(1, n_rows // 10), size=n_rows)
        weights = rng.normal(size=n_features) * (rng.random(n_features) < 0.05) * 3.0
        noise = rng.normal(size=n_rows) + rng.normal(size=n_rows)[groups]
        return Problem(features, features @ weights + noise, groups)


def _ours(kind: str, problem: Problem) -> float:
    from lfp.probes.estimators import LogisticProbe, RidgeProbe

    probe = RidgeProbe(alphas=ALPHAS, n_folds=_N_FOLDS) if kind == "ridge" else LogisticProbe(alphas=ALPHAS)
    started = time.perf_counter()
    probe.fit(problem.features, _target(kind, problem), problem.groups)
    return time.perf_counter() - started


def _theirs(kind: str, problem: Problem) -> float:
    """A grid search over as many folds of groups, by the solvers that take sparse features with an intercept."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, GroupKFold

    if kind == "ridge":
        model, grid = Ridge(solver="sparse_cg", tol=1e-5), {"alpha": ALPHAS}
    else:
        model, grid = LogisticRegression(max_iter=5000), {"C": [1.0 / alpha for alpha in ALPHAS]}
    scoring = "neg_mean_squared_error" if kind == "ridge" else "neg_log_loss"
    search = GridSearchCV(model, grid, scoring=scoring, cv=GroupKFold(_N_FOLDS))
    started = time.perf_counter()
    with warnings.catch_warnings(action="ignore"):
        search.fit(problem.features, _target(kind, problem), groups=problem.groups)
    return time.perf_counter() - started


def _target(kind: str, problem: Problem) -> NDArray[np.float64] | NDArray[np.bool_]:
    return problem.target if kind == "ridge" else problem.target > np.median(problem.target)


def _apart(kind: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.probes", "--kind", kind]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
