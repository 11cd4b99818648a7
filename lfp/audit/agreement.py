"""Whether two reviewers agree more than chance would have them: Cohen's kappa, its interval and its null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 4000
_Z = 1.959963984540054


@dataclass(frozen=True)
class Agreement:
    """Two reviewers over the items that both answered; `table` [first's answer, second's] counts them."""

    n: int
    answers: tuple[str, ...]
    table: NDArray[np.int64]
    agreed: float
    """Share of items with the same answer."""
    kappa: float | None
    """Cohen's kappa; None where both gave one and the same answer throughout, which leaves nothing to measure."""
    low: float | None
    high: float | None
    """95 % credible interval: the quantiles of kappa over cell probabilities drawn from Dirichlet(count + 1 / cells).

    Unlike the bootstrap's it keeps its width where two reviewers never differ on a few items; it is widened to kappa.
    """
    null_high: float | None
    """What chance reaches one time in twenty: kappa with the second reviewer's answers shuffled."""
    null_p: float | None


def agreement(
    first: Sequence[str], second: Sequence[str], *, answers: Sequence[str], seed: int = 0
) -> Agreement | None:
    """Measure how two reviewers' answers to the same items agree; `answers` are all possible ones. None without any."""
    if len(first) != len(second):
        raise ValueError("both reviewers must answer the same items")
    if not first:
        return None
    a, b = (np.array([answers.index(answer) for answer in given]) for given in (first, second))
    m = len(answers)
    table = np.bincount(a * m + b, minlength=m * m).reshape(m, m)
    agreed = float(np.trace(table) / len(a))
    measured = float(cohens_kappa(table))
    if np.isnan(measured):
        return Agreement(len(a), tuple(answers), table, agreed, None, None, None, None, None)
    rng = np.random.default_rng(seed)
    used = (table.sum(axis=0) + table.sum(axis=1)) > 0  # the answers that either reviewer gave
    k = int(used.sum())
    drawn = rng.dirichlet(table[np.ix_(used, used)].ravel() + 1 / (k * k), size=DRAWS).reshape(-1, k, k)
    low, high = np.nanquantile(cohens_kappa(drawn), [0.025, 0.975])
    low, high = min(float(low), measured), max(float(high), measured)
    shuffled = (np.bincount(a * m + rng.permutation(b), minlength=m * m).reshape(m, m) for _ in range(DRAWS // 4))
    null = np.array([cohens_kappa(counts) for counts in shuffled])
    p = float((1 + (null >= measured - 1e-12).sum()) / (1 + len(null)))
    return Agreement(len(a), tuple(answers), table, agreed, measured, low, high, float(np.quantile(null, 0.95)), p)


def cohens_kappa(table: ArrayLike) -> NDArray[np.float64]:
    """Compute kappa [...] of tables [..., k, k] of counts or probabilities: agreement beyond chance.

    NaN where chance leaves nothing: both margins are on one answer.
    """
    shares = np.asarray(table, dtype=np.float64)
    shares = shares / shares.sum(axis=(-2, -1), keepdims=True)
    observed = np.trace(shares, axis1=-2, axis2=-1)
    expected = (shares.sum(axis=-1) * shares.sum(axis=-2)).sum(axis=-1)
    left = 1.0 - expected
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(left > 1e-12, (observed - expected) / left, np.nan)


def share_interval(n_yes: float, n: int) -> tuple[float, float] | None:
    """Compute Wilson's 95 % interval of a share; `n_yes` may be fractional. None where n is 0."""
    if n == 0:
        return None
    share, spread = n_yes / n, _Z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))
