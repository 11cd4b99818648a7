"""Are nulls and intervals honest? p-values over shuffled lexicons and how often intervals hold the truth, full size.

python -m tests.benchmarks.nulls        # a JSON line each
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import kendalltau, kstest

from lfp.evaluation.statistics.calibration import calibration_error, calibration_interval
from lfp.evaluation.statistics.resampling import (
    Statistic,
    bootstrap,
    bootstrap_difference,
    permutations_within_bins,
)
from lfp.evaluation.statistics.scores import accuracy, auroc, r2, spearman, tau, tau_within_sign
from lfp.probes.ridge import fit_folded_ridge

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], tuple[Floats, Floats]]

_SHUFFLES, _SIMULATIONS, _DRAWS, _LARGE = 200, 500, 500, 1_000_000


def main() -> None:
    """Prints every check."""
    for figures in nulls():
        sys.stdout.write(json.dumps(figures) + "\n")
        sys.stdout.flush()


def nulls() -> Iterator[dict[str, Any]]:
    """Every check in turn."""
    yield {"check": "uniform_p", **uniform_p()}
    yield {"check": "bootstrap_speed", **bootstrap_speed()}
    for name, statistic, draw in _CASES:
        yield {"check": "coverage", "of": name, **coverage(statistic, draw)}
    yield {"check": "coverage", "of": "tau, tuned - base", **coverage_of_a_difference()}
    for scale in (1.0, 2.0):
        yield {"check": "coverage", "of": f"calibration error, log-odds x {scale:g}", **coverage_of_calibration(scale)}


def uniform_p(*, n_words: int = 1000, n_features: int = 300, n_nulls: int = 29) -> dict[str, float]:
    """Kolmogorov-Smirnov p of the p-values of out-of-fold tau, each shuffle of a lexicon being the lexicon once.

    Word frequency is in the features and in the lexicon. Also p-values that must not pass: tau's own, and those of
    nulls that shuffle the lexicon without regard to frequency.
    """
    rng = np.random.default_rng(0)
    counts = rng.permutation(n_words).astype(float)
    sparse = sp.random_array((n_words, n_features), density=0.05, rng=rng).toarray()
    sparse[:, :10] *= 1.0 + 3.0 * counts[:, None] / n_words
    features, folds = sp.csr_array(sparse), rng.permutation(n_words) % 5
    lexicon = np.round(rng.normal(size=n_words) + 1.5 * counts / n_words)
    stated = permutations_within_bins(lexicon, counts, bins=5, n=_SHUFFLES, rng=rng)
    found: dict[str, list[float]] = {"randomised": [], "analytic": [], "without_bins": []}
    for values in stated:
        within, anyhow = (permutations_within_bins(values, counts, bins=b, n=n_nulls, rng=rng) for b in (5, 1))
        targets = np.vstack([values, within, anyhow]).T
        predicted = _out_of_fold(features, targets, folds)
        taus = np.array([tau(targets[:, i], predicted[:, i]) for i in range(targets.shape[1])])
        found["randomised"].append(randomised_p(taus[0], taus[1 : 1 + n_nulls], rng))
        found["without_bins"].append(randomised_p(taus[0], taus[1 + n_nulls :], rng))
        found["analytic"].append(kendalltau(values, predicted[:, 0]).pvalue)
    return {f"ks_p_{name}": _rounded(kstest(values, "uniform").pvalue) for name, values in found.items()}


def randomised_p(value: float, nulls: Floats, rng: np.random.Generator) -> float:
    """Compute the permutation p-value with ties broken at random: uniform where value and nulls are exchangeable.

    (g + u (e + 1)) / (n + 1), u uniform in [0, 1): g of n nulls are larger, e are equal, and the value itself is one
    more. The p-value that is reported is its upper end, u = 1.
    """
    larger, reached = int((nulls > value + 1e-12).sum()), int((nulls >= value - 1e-12).sum())
    return float((larger + rng.random() * (reached - larger + 1)) / (len(nulls) + 1))


def _out_of_fold(features: sp.csr_array, targets: Floats, folds: NDArray[np.int64]) -> Floats:
    fit = fit_folded_ridge(features, targets, folds, n_folds=5, alphas=(1.0, 10.0, 100.0))
    predicted = np.empty_like(targets)
    for fold, ridge in enumerate(fit.by_fold):
        predicted[folds == fold] = features[folds == fold] @ ridge.coef + ridge.intercept
    return predicted


def bootstrap_speed(*, n_words: int = 1000, draws: int = 500) -> dict[str, float]:
    """Seconds of tau's interval, and how many times longer scoring the draws one by one takes."""
    rng = np.random.default_rng(1)
    true = rng.normal(size=n_words).round(1)
    predicted = true + rng.normal(size=n_words)
    at_once = _seconds(lambda: bootstrap(tau, true, predicted, n=draws, rng=rng))
    by_draw = _seconds(lambda: bootstrap(lambda a, b: tau(a, b), true, predicted, n=draws, rng=rng))
    return {"words": n_words, "draws": draws, "seconds": _rounded(at_once), "one_by_one": _rounded(by_draw / at_once)}


def coverage(statistic: Statistic, draw: Draw) -> dict[str, float]:
    """The share of intervals that hold the figure of a million rows."""
    rng = np.random.default_rng(2)
    known = statistic(*draw(rng, _LARGE))
    ends = [bootstrap(statistic, *draw(rng, 200), n=_DRAWS, rng=rng) for _ in range(_SIMULATIONS)]
    return _covered(known, ends)


def coverage_of_a_difference() -> dict[str, float]:
    """Two predictions of the same words with shared noise; each tau is 2 / pi asin(correlation)."""
    rng = np.random.default_rng(3)
    known = 2 / np.pi * (np.arcsin(1 / np.sqrt(2)) - np.arcsin(1 / np.sqrt(5)))
    ends = []
    for _ in range(_SIMULATIONS):
        true, shared, one, other = rng.normal(size=(4, 200))
        tuned, base = true + (shared + one) / np.sqrt(2), true + np.sqrt(2) * (shared + other)
        ends.append(bootstrap_difference(tau, true, tuned, base, n=_DRAWS, rng=rng))
    return _covered(known, ends)


def coverage_of_calibration(scale: float) -> dict[str, float]:
    """Intervals of the expected calibration error of log-odds `scale` times the real ones."""
    rng = np.random.default_rng(4)
    known = 0.0 if scale == 1.0 else calibration_error(*_outcomes(rng, _LARGE, scale=scale))
    draws = (_outcomes(rng, 200, scale=scale) for _ in range(_SIMULATIONS))
    return _covered(known, [calibration_interval(*drawn, n=_DRAWS, rng=rng) for drawn in draws])


def _covered(known: float, ends: list[tuple[float, float]]) -> dict[str, float]:
    held = np.mean([low <= known <= high for low, high in ends])
    width = np.mean([high - low for low, high in ends])
    return {"known": _rounded(known), "coverage": _rounded(held), "mean_width": _rounded(width), "n": len(ends)}


def _normals(rho: float) -> Draw:
    def draw(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        true, noise = rng.normal(size=(2, n))
        return true, rho * true + np.sqrt(1 - rho**2) * noise

    return draw


def _lexicon_like(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    true, predicted = _normals(0.6)(rng, n)
    return np.clip(np.round(1.5 * true), -3.0, 3.0), predicted


def _outcomes(rng: np.random.Generator, n: int, *, scale: float = 1.0) -> tuple[Floats, Floats]:
    log_odds = 1.5 * rng.normal(size=n)
    return (rng.random(n) < expit(log_odds / scale)).astype(float), log_odds


_CASES: tuple[tuple[str, Statistic, Draw], ...] = (
    ("tau, rho 0", tau, _normals(0.0)),
    ("tau, rho 0.6", tau, _normals(0.6)),
    ("tau, rho 0.9", tau, _normals(0.9)),
    ("tau, tied values", tau, _lexicon_like),
    ("tau within sign, tied values", tau_within_sign, _lexicon_like),
    ("spearman, tied values", spearman, _lexicon_like),
    ("r2", r2, _normals(0.6)),
    ("accuracy", accuracy, _outcomes),
    ("auroc", auroc, _outcomes),
)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
