"""What every finding is made of: how many draws, and figures beside their nulls where larger is not simply better."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lfp.metrics import Estimate, with_null
from lfp.util.types import Floats


@dataclass(frozen=True)
class Draws:
    """How many resamples an interval rests on, how many permutations a null, and the seed of both."""

    bootstraps: int
    permutations: int
    seed: int

    def rng(self) -> np.random.Generator:
        """A generator of its own for one figure, so that no figure depends on which others were made."""
        return np.random.default_rng(self.seed)


def interval(values: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of a figure's resamples."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def beside_sizes(value: float, n: int, nulls: Floats) -> Estimate:
    """A signed figure whose null is of sizes: `null_p` is the share of them that reach its size."""
    return replace(with_null(Estimate(abs(value), n), nulls), value=value)


def beside_larger(estimate: Estimate, nulls: Floats) -> Estimate:
    """A figure that is better the smaller it is, such as an error: `null_p` is the share of nulls as small."""
    small = with_null(replace(estimate, value=-estimate.value), -nulls)
    return replace(with_null(estimate, nulls), null_p=small.null_p)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """The same figure in another unit: value, interval and null times `factor`; p and n stay."""
    return Estimate(
        value=estimate.value * factor,
        n=estimate.n,
        ci_low=_times(estimate.ci_low, factor),
        ci_high=_times(estimate.ci_high, factor),
        null_mean=_times(estimate.null_mean, factor),
        null_high=_times(estimate.null_high, factor),
        null_p=estimate.null_p,
    )


def _times(figure: float | None, factor: float) -> float | None:
    return None if figure is None else figure * factor
