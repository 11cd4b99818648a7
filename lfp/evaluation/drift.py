"""Drift: what tuning did to how each feature fires, and how much of the estimate the change carries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from lfp.evaluation.results import Estimate
from lfp.evaluation.statistics.resampling import beside_sizes, interval, with_null
from lfp.util.types import Flags, Floats, Ints

BORN, STRENGTHENED, STEADY, WEAKENED, GONE = range(5)
"""Status numbers: places in `lfp.evaluation.results.STATUSES`."""
_MIRRORED = np.array([GONE, WEAKENED, STEADY, STRENGTHENED, BORN])
"""The status each becomes when base and tuned model change places."""


@dataclass(frozen=True)
class Thresholds:
    """When a feature counts as changed; each threshold serves both directions."""

    residue: float = 0.1
    """Born: the base model's density is below this share of the tuned one's. Gone: the other way round."""
    gain: float = 1.5
    """Strengthened: mean activation over all tokens is at least this many times the base's. Weakened: mirrored."""
    z: float = 4.0
    """Standard errors that a difference must pass, so that chance seldom names one feature among many thousands."""


@dataclass(frozen=True)
class Firing:
    """How features fire in both models through one dictionary, all arrays [features]; means are over all tokens.

    `n_tokens` is what each model read: the same tokens.
    """

    density_tuned: Floats
    density_base: Floats
    mean_tuned: Floats
    mean_base: Floats
    n_tokens: int

    @property
    def is_live(self) -> Flags:
        """Features that fire in one of the models at least."""
        return (self.density_tuned > 0) | (self.density_base > 0)


@dataclass(frozen=True)
class Weights:
    """A probe's weights [features] and their noise: `noise` is NaN where it is unknown."""

    values: Floats
    noise: Floats


@dataclass(frozen=True)
class Drift:
    """What became of each feature [features] between two models, as one probe's `weights` see it.

    `base` are the weights of the same target's probe on the base model's activations through the same dictionary.
    """

    status: Ints
    firing: Firing
    weights: Weights
    base: Weights | None

    @property
    def contribution(self) -> Floats:
        """Weight times mean activation over all tokens, tuned model."""
        return self.weights.values * self.firing.mean_tuned

    @property
    def contribution_base(self) -> Floats:
        """The same weight times the base model's mean activation."""
        return self.weights.values * self.firing.mean_base

    @property
    def drifted(self) -> Floats:
        """Contribution in the tuned model less that in the base."""
        return self.contribution - self.contribution_base

    @property
    def share(self) -> Floats:
        """Each feature's share of the sum of sizes; nothing anywhere where nothing drifted."""
        sizes = np.abs(self.drifted)
        return sizes / (sizes.sum() or 1.0)

    @property
    def order(self) -> Ints:
        """Features by the size of their drifted contribution, largest first; of equal ones the lower number first."""
        return np.argsort(-np.abs(self.drifted), kind="stable")

    @property
    def flipped(self) -> Flags:
        """Where the two weights have opposite signs, each beyond its noise where that is known."""
        return _flipped(self.weights, self.base)


def statuses(firing: Firing, thresholds: Thresholds = Thresholds()) -> Ints:
    """What became of each feature [features]; one silent in both models is steady."""
    density_z, mean_z = _density_z(firing), _mean_z(firing)
    tuned, base, limit = firing.density_tuned, firing.density_base, thresholds.z
    status = np.full(len(tuned), STEADY)
    status[(firing.mean_tuned >= thresholds.gain * firing.mean_base) & (mean_z > limit)] = STRENGTHENED
    status[(firing.mean_base >= thresholds.gain * firing.mean_tuned) & (mean_z < -limit)] = WEAKENED
    status[(base < thresholds.residue * tuned) & (density_z > limit)] = BORN
    status[(tuned < thresholds.residue * base) & (density_z < -limit)] = GONE
    return status


def status_count(own: Ints, mirror: Ints, status: int, *, draws: int, rng: np.random.Generator) -> Estimate:
    """How many features of a dictionary have a status, with interval over features, against exchangeable models.

    `own` and `mirror` are statuses in a dictionary trained on one model and in one trained on the other. Were the
    models exchangeable, what is born in the one would be as common as what is gone in the other. So the null turns the
    mirror round, pools the features and deals them anew: the count is hypergeometric. Features are taken as
    independent, which they are not quite: neighbours drift together, and the p-value is that much too small.
    """
    turned = _MIRRORED[mirror]
    count, n = int((own == status).sum()), len(own)
    low, high = interval(rng.binomial(n, count / max(1, n), size=draws).astype(float))
    pooled, marked = n + len(turned), count + int((turned == status).sum())
    return Estimate(
        value=float(count),
        n=n,
        ci_low=low,
        ci_high=high,
        null_mean=n * marked / max(1, pooled),
        null_high=float(hypergeom.ppf(0.95, pooled, marked, n)),
        null_p=float(hypergeom.sf(count - 1, pooled, marked, n)),
    )


def share_carried(found: Drift, status: int, *, draws: int, rng: np.random.Generator) -> Estimate:
    """The share of all drifted contribution that features of a status carry, with interval over features.

    The null deals the probe's weights anew over the features: the share that their change alone would carry, whatever
    the probe found in them.
    """
    mine, sizes = found.status == status, np.abs(found.drifted)
    if not len(sizes):
        return Estimate(0.0, 0)
    drawn = (rng.integers(len(sizes), size=len(sizes)) for _ in range(draws))
    low, high = interval(np.array([_share(sizes[rows], mine[rows]) for rows in drawn]))
    nulls = [_share(dealt, mine) for dealt in _dealt_sizes(found, draws, rng)]
    return with_null(Estimate(_share(sizes, mine), int(mine.sum()), low, high), np.array(nulls))


def largest(found: Drift, n: int, *, draws: int, rng: np.random.Generator) -> list[tuple[int, Estimate]]:
    """The `n` features that drifted most, with their drifted contributions.

    The null of the k-th of them is the k-th largest size when the weights are dealt anew over the features; `null_p`
    is the share of deals whose k-th largest is at least as large.
    """
    top = found.order[:n]
    dealt = np.array([_top(sizes, len(top)) for sizes in _dealt_sizes(found, draws, rng)])
    drifted = found.drifted
    return [
        (int(feature), beside_sizes(float(drifted[feature]), found.firing.n_tokens, dealt[:, place]))
        for place, feature in enumerate(top)
    ]


def flips(found: Drift, *, draws: int, rng: np.random.Generator) -> Estimate:
    """How many features' weights flipped, with interval over features; the null deals the base weights anew."""
    assert found.base is not None
    n, count = len(found.status), int(found.flipped.sum())
    low, high = interval(rng.binomial(n, count / max(1, n), size=draws).astype(float))
    nulls = []
    for _ in range(draws):
        rows = rng.permutation(n)
        base = Weights(found.base.values[rows], found.base.noise[rows])
        nulls.append(float(_flipped(found.weights, base).sum()))
    return with_null(Estimate(float(count), n, low, high), np.array(nulls))


def _flipped(weights: Weights, base: Weights | None) -> Flags:
    if base is None:
        return np.zeros(len(weights.values), bool)
    return (np.sign(weights.values) * np.sign(base.values) < 0) & _beyond(weights) & _beyond(base)


def _dealt_sizes(found: Drift, draws: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Sizes of drifted contributions [features] with the probe's weights dealt anew, `draws` times."""
    moves = np.abs(found.firing.mean_tuned - found.firing.mean_base)
    for _ in range(draws):
        yield np.abs(rng.permutation(found.weights.values)) * moves


def _top(values: Floats, n: int) -> Floats:
    """The `n` largest values, largest first; the rest is not sorted."""
    kept = np.partition(values, len(values) - n)[len(values) - n :] if n else values[:0]
    return -np.sort(-kept)


def _share(sizes: Floats, mine: Flags) -> float:
    return float(sizes[mine].sum() / (sizes.sum() or 1.0))


def _beyond(weights: Weights) -> Flags:
    """Weights whose size passes their noise; an unknown noise is no bar."""
    return ~(np.abs(weights.values) <= weights.noise)


def _density_z(firing: Firing) -> Floats:
    """Standard errors between the densities: the two-proportion z with the pooled share (Fleiss 1981, 2.1)."""
    pooled = (firing.density_tuned + firing.density_base) / 2
    return _ratio(firing.density_tuned - firing.density_base, 2 * pooled * (1 - pooled), firing.n_tokens)


def _mean_z(firing: Firing) -> Floats:
    """Standard errors between mean activations over all tokens.

    Second moments are not kept, so activations are taken as exponential where active: density * 2 * (mean / density)^2.
    Both models read the same tokens, and agreeing on them makes the difference surer than this says.
    """
    variance = sum(
        2 * np.divide(mean**2, density, out=np.zeros_like(mean), where=density > 0) - mean**2
        for mean, density in ((firing.mean_tuned, firing.density_tuned), (firing.mean_base, firing.density_base))
    )
    return _ratio(firing.mean_tuned - firing.mean_base, np.asarray(variance), firing.n_tokens)


def _ratio(difference: Floats, variance: Floats, n: int) -> Floats:
    """Difference over its standard error; infinite where a difference has no variance, zero where there is none."""
    error = np.sqrt(np.maximum(variance, 0.0) / max(1, n))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(difference / error, nan=0.0, posinf=np.inf, neginf=-np.inf)
