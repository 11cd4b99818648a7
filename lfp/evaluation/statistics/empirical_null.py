"""An empirical null: what values that differ by chance look like, read off the middle of many (Efron 2004)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from lfp.util.types import Floats

FEWEST = 20
"""With fewer values, no null is read off them."""
_REACH = 2.5
"""Values within so many spreads of the centre fit the null; those beyond have no part in it."""
_WITHIN = 1.0 - 2.0 * _REACH * norm.pdf(_REACH) / (2.0 * norm.cdf(_REACH) - 1.0)
"""Variance of a standard normal between -2.5 and 2.5."""
_EFFICIENCY = 0.7
"""How many values of a plain standard deviation are as sure as one of a spread fitted so (measured)."""
_ROUNDS = 100


@dataclass(frozen=True)
class EmpiricalNull:
    """A normal with the centre and spread of the `n` values in the middle of a list; both are known with an error."""

    centre: float
    spread: float
    n: int

    @staticmethod
    def fit(values: Floats) -> EmpiricalNull | None:
        """Fit the null of which the values [n] within 2.5 spreads are a part; None for too few, or all alike.

        A value further out moves neither centre nor spread, so that each of those is judged by the others alone.
        """
        values = values[np.isfinite(values)]
        if len(values) < FEWEST:
            return None
        centre = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - centre)))
        for _ in range(_ROUNDS):
            inner = values[np.abs(values - centre) <= _REACH * spread]
            if not len(inner):
                return None
            fitted = float(inner.mean()), float(inner.std()) / float(np.sqrt(_WITHIN))
            if fitted == (centre, spread):
                break
            centre, spread = fitted
        return EmpiricalNull(centre, spread, len(values)) if spread > 0 else None

    @property
    def degrees_of_freedom(self) -> float:
        """How sure the spread is, as Student's t counts it."""
        return _EFFICIENCY * (self.n - 1)

    def p_values(self, values: Floats) -> Floats:
        """Return two-sided p-values [n]; NaN where a value is."""
        sizes = np.abs(values - self.centre) / self.spread
        return np.asarray(2.0 * student.sf(sizes, self.degrees_of_freedom), np.float64)

    def draw(self, n: int, rng: np.random.Generator) -> Floats:
        """Draw lists [n, values] of what chance gives, each with another centre and spread within their errors."""
        sureness = np.sqrt(rng.chisquare(self.degrees_of_freedom, size=n) / self.degrees_of_freedom)
        spreads = (self.spread / sureness)[:, None]
        centres = self.centre + spreads * rng.normal(size=(n, 1)) / np.sqrt(_EFFICIENCY * self.n)
        return np.asarray(centres + spreads * rng.normal(size=(n, self.n)))
