"""Probes at full size: seconds and peak memory, and how many times longer scikit-learn takes.

python -m tests.benchmarks.probes --kind ridge
python -m tests.benchmarks.probes --kind logistic --rows 20000 --features 40000
OMP_NUM_THREADS=1 python -m tests.benchmarks.probes --kind targets --rows 2000 --features 4608 --solver dual
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
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

ALPHAS = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)
_NON_ZEROS, _TOPICS, _N_FOLDS = 64, 200, 5


def ridge_probe() -> dict[str, float]:
    """100,000 features of 50,000 rows, in a process of its own, so that its peak memory is its own."""
    return _run_alone("ridge")


def logistic_probe() -> dict[str, float]:
    """As `ridge_probe`, for outcomes of 0 and 1."""
    return _run_alone("logistic")


def main() -> None:
    """Print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("ridge", "logistic", "targets"), default="ridge")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--targets", type=int, default=201, help="of --kind targets")
    parser.add_argument("--solver", choices=("primal", "dual", "iterative"), default="primal", help="of --kind targets")
    parser.add_argument("--against", choices=("cholesky", "sparse_cg"), default="cholesky", help="of --kind targets")
    arguments = parser.parse_args()
    if arguments.kind == "targets":
        figures = many_targets(
            arguments.rows, arguments.features, arguments.targets, solver=arguments.solver, against=arguments.against
        )
    else:
        figures = measure(arguments.kind, arguments.rows, arguments.features)
    sys.stdout.write(json.dumps(figures) + "\n")


def measure(kind: str, n_rows: int, n_features: int) -> dict[str, float]:
    """Fit this library's probe at this size, with its peak memory; then both libraries' at a fifth of it."""
    seconds = _fit_probe(kind, Problem.draw(n_rows, n_features))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    fifth = Problem.draw(n_rows // 5, n_features // 5)
    fifth_s, sklearn_s = _fit_probe(kind, fifth), _fit_sklearn(kind, fifth)
    figures = {
        "seconds": seconds,
        "peak_mb": peak,
        "fifth_s": fifth_s,
        "sklearn_fifth_s": sklearn_s,
        "ratio": sklearn_s / fifth_s,
    }
    return {"rows": n_rows, "features": n_features} | {name: round(value, 2) for name, value in figures.items()}


def many_targets(n_rows: int, n_features: int, n_targets: int, *, solver: str, against: str) -> dict[str, float]:
    """Fit a target and its permutations over nested folds, in CPU seconds, and scikit-learn's Ridge the same way.

    scikit-learn fits the first set of folds, times 16.7: seven alphas for each of ten pairs of folds and five folds,
    and two alphas for each of six probes. The difference is of the weights of all rows, relative to the largest.
    """
    from sklearn.linear_model import Ridge

    from lfp.probes.exact_ridge import Dual, Primal
    from lfp.probes.folds import choose_nested
    from lfp.probes.iterative_ridge import Iterative

    problem, rng = Problem.draw(n_rows, n_features), np.random.default_rng(1)
    x, folds = problem.features, rng.permutation(n_rows) % _N_FOLDS
    y = np.column_stack([problem.target, *(rng.permutation(problem.target) for _ in range(n_targets - 1))])
    started = time.process_time()
    build: Any = {"primal": Primal.from_rows, "dual": Dual.from_rows, "iterative": Iterative}[solver]
    whole = choose_nested(build(x, y, folds), _N_FOLDS, np.array(ALPHAS))[1]
    seconds = time.process_time() - started
    inputs, kept = x.toarray() if against == "cholesky" else x, folds > 1
    started = time.process_time()
    for alpha in ALPHAS:
        Ridge(alpha=alpha, solver=against, tol=1e-5).fit(inputs[kept], y[kept])
    sklearn_s = (time.process_time() - started) * (15 + 6 * 2 / 7)
    difference = 0.0
    for alpha in np.unique(whole.alpha):
        some = whole.alpha == alpha
        expected = np.atleast_2d(Ridge(alpha=alpha, solver=against, tol=1e-5).fit(inputs, y[:, some]).coef_).T
        difference = max(difference, np.abs(whole.coef[:, some] - expected).max() / np.abs(expected).max())
    sizes = {"rows": n_rows, "features": n_features, "targets": n_targets}
    return sizes | {
        solver: round(seconds, 2),
        against: round(sklearn_s, 2),
        "ratio": round(sklearn_s / seconds, 1),
        "difference": difference,
    }


@dataclass(frozen=True)
class Problem:
    """Features of which few fire often, half of them by the row's topic; a target that comes in words."""

    features: sp.csr_array
    target: NDArray[np.float64]
    groups: NDArray[np.int64]

    @staticmethod
    def draw(n_rows: int, n_features: int) -> Problem:
        """Draw the same problem for the same size; a word has ten rows, and a part of the target's noise."""
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


def _fit_probe(kind: str, problem: Problem) -> float:
    from lfp.probes.estimators import LogisticProbe, RidgeProbe

    probe = RidgeProbe(alphas=ALPHAS, n_folds=_N_FOLDS) if kind == "ridge" else LogisticProbe(alphas=ALPHAS)
    started = time.perf_counter()
    probe.fit(problem.features, _target(kind, problem), problem.groups)
    return time.perf_counter() - started


def _fit_sklearn(kind: str, problem: Problem) -> float:
    """Search the same grid over as many folds of groups, by solvers that take sparse features with an intercept."""
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


def _run_alone(kind: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.probes", "--kind", kind]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
