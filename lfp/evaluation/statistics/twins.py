"""Compare a tuned model with its twins: a moderated t of every item, as limma does for genes (Smyth 2004).

Few twins give each item a poor estimate of how far tunings differ by chance. So the variances of all items are drawn
towards what items of similar information have, by as much as they agree with each other (empirical Bayes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma
from scipy.stats import t as student

from lfp.errors import DataError
from lfp.evaluation.results import TWINS_RATE, Estimate
from lfp.evaluation.statistics.discoveries import adjusted_p
from lfp.evaluation.statistics.empirical_null import EmpiricalNull
from lfp.util.types import Floats

RATE = TWINS_RATE
_TOO_FEW = "two twins at least are needed to see how far tunings differ by chance; set twins.n to 8"
_DEGREE = 3
"""Of the polynomial in log information that the log variances follow."""
_MANY = 1e6
"""Degrees of freedom that stand for a known variance."""


@dataclass(frozen=True)
class TwinTest:
    """A tuned model's difference from its twins by item, all [items], NaN where there is no value.

    `contrast` is tuned minus the mean of the twins, `error` how far a further twin would be from that mean by chance
    (standard deviation), `t` their ratio, `p` two-sided, `q` the smallest false discovery rate at which it is one.
    """

    contrast: Floats
    error: Floats
    t: Floats
    p: Floats
    q: Floats
    df: float
    """Degrees of freedom: the twins less one, and those that the other items lend."""


def compare_with_twins(tuned: Floats, twins: Floats, information: Floats) -> TwinTest:
    """Test every item of a tuned model [items] against its twins [twins, items].

    With K twins t = (tuned - mean of twins) / sqrt(s^2 (1 + 1/K)), with the twins' variance s^2 moderated: among items
    of similar `information` [items] it varies by chance, and by as much more as the log variances show. Raises
    DataError below two twins.
    """
    n = len(twins)
    if n < 2:
        raise DataError(_TOO_FEW)
    known = np.isfinite(tuned) & np.isfinite(twins).all(axis=0) & (information > 0)
    contrast = np.where(known, tuned - twins.mean(axis=0), np.nan)
    error, t, p = np.full((3, len(tuned)), np.nan)
    variance, df = moderate(twins[:, known].var(axis=0, ddof=1), n - 1, information[known])
    error[known] = np.sqrt(variance * (1.0 + 1.0 / n))
    t[known] = contrast[known] / error[known]
    p[known] = 2.0 * student.sf(np.abs(t[known]), df)
    return TwinTest(contrast, error, t, p, adjusted_p(p), df)


def beside_twins(value: float, twins: Floats) -> Estimate:
    """Compare a figure of a tuned model with that of its twins [twins], where no other figures lend their variance.

    The null is a further twin: its mean, the upper end of its 95 % interval, and two-sided p by Student's t with
    sqrt(1 + 1/K) as in `compare_with_twins`. Twins that do not differ leave no p. Raises DataError below two twins.
    """
    n = len(twins)
    if n < 2:
        raise DataError(_TOO_FEW)
    mean, error = float(twins.mean()), float(twins.std(ddof=1)) * np.sqrt(1.0 + 1.0 / n)
    high = mean + float(student.ppf(0.975, n - 1)) * error
    p = float(2.0 * student.sf(abs(value - mean) / error, n - 1)) if error > 0 else None
    return Estimate(value, n, null_mean=mean, null_high=high, null_p=p)


def leave_one_out(twins: Floats, information: Floats) -> list[TwinTest]:
    """Test every twin against the others: what the same test says of models that nothing was hidden from."""
    return [compare_with_twins(twin, np.delete(twins, k, axis=0), information) for k, twin in enumerate(twins)]


def count_flags(test: TwinTest, left_out: Sequence[TwinTest]) -> Estimate:
    """Count the items that differ from the twins; the null is the same count of every twin against the others."""
    found, by_chance = (test.q <= RATE).sum(), np.array([(twin.q <= RATE).sum() for twin in left_out])
    return Estimate(
        float(found),
        int((~np.isnan(test.q)).sum()),
        null_mean=float(by_chance.mean()),
        null_high=float(by_chance.max()),
        null_p=float((1 + (by_chance >= found).sum()) / (1 + len(by_chance))),
    )


def judge_by_left_out(test: TwinTest, left_out: Sequence[TwinTest]) -> TwinTest:
    """Judge a test by twins left out, where Student's t says less than it claims; a p-value is the larger of both.

    For items of which a twin has some that no other has: then t has longer tails than Student's, and its null is the t
    of all items of every twin left out. Where the items were made with the tuned model and without the twins, all of
    them may differ somewhat; t is then measured from the centre of their middle, in its spread (an empirical null,
    Efron 2004).
    """
    middle = EmpiricalNull.fit(test.t)
    apart = np.abs(test.t)
    if middle is not None and middle.spread > 1.0:
        apart = np.minimum(apart, np.abs(test.t - middle.centre) / middle.spread)
    chance = np.abs(np.concatenate([found.t for found in left_out]))
    chance = np.sort(chance[~np.isnan(chance)])
    reached = len(chance) - np.searchsorted(chance, apart)
    p = np.maximum(test.p, np.where(np.isnan(apart), np.nan, (1 + reached) / (1 + len(chance))))
    return replace(test, p=p, q=adjusted_p(p))


def moderate(variances: Floats, df: float, information: Floats) -> tuple[Floats, float]:
    """Draw variances [items] of `df` degrees of freedom towards their trend over information; return both, moderated.

    The prior's degrees of freedom d0 are those at which log variances scatter about the trend as much as they do:
    trigamma(d0 / 2) is the scatter beyond trigamma(df / 2). With no scatter beyond it the trend is taken as known.
    """
    is_positive = variances > 0
    if is_positive.sum() <= _DEGREE + 1:
        return np.maximum(variances, np.finfo(float).tiny), df
    x = np.log(information)
    logs = np.log(variances[is_positive]) - digamma(df / 2) + np.log(df / 2)
    powers = np.vander((x - x.mean()) / max(float(x.std()), 1e-12), _DEGREE + 1)
    coefficients, _, rank, _ = np.linalg.lstsq(powers[is_positive], logs, rcond=None)
    trend = powers @ coefficients
    scatter = float(((logs - trend[is_positive]) ** 2).sum() / (len(logs) - rank)) - float(polygamma(1, df / 2))
    prior_df = 2.0 * _inverse_trigamma(scatter) if scatter > 0 else _MANY
    prior = np.exp(trend + digamma(prior_df / 2) - np.log(prior_df / 2))
    return (df * variances + prior_df * prior) / (df + prior_df), min(df + prior_df, _MANY)


def _inverse_trigamma(value: float) -> float:
    """Solve trigamma(x) = value, which falls from infinity to 0."""
    if value <= polygamma(1, _MANY):
        return _MANY
    return float(np.exp(brentq(lambda log_x: float(polygamma(1, np.exp(log_x))) - value, -40.0, np.log(_MANY))))
