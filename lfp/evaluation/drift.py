"""Drift: what tuning did to how each feature fires, and how much of the estimate the change carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lfp.evaluation.results import Estimate
from lfp.evaluation.statistics.resampling import interval, with_null, with_null_of_sizes
from lfp.util.types import Flags, Floats, Ints

BORN, STRENGTHENED, STEADY, WEAKENED, GONE = range(5)
"""Status numbers: places in `lfp.evaluation.results.STATUSES`."""
_MIRRORED = np.array([GONE, WEAKENED, STEADY, STRENGTHENED, BORN])
"""The status each becomes when base and tuned model are swapped."""


@dataclass(frozen=True)
class Thresholds:
    """When a feature counts as changed; each threshold serves both directions."""

    residue: float = 0.1
    """Born: the base model's density is below this share of the tuned model's. Gone: the reverse."""
    gain: float = 1.5
    """Strengthened: mean activation over all tokens is at least this many times the base's. Weakened: mirrored."""
    z: float = 4.0
    """Standard errors that a difference must exceed, so that chance seldom names a feature among many thousands."""


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
        """Features that fire in at least one of the models."""
        return (self.density_tuned > 0) | (self.density_base > 0)


@dataclass(frozen=True)
class Weights:
    """A probe's weights [features] and their noise: `noise` is NaN where it is unknown.

    `nulls` [features, shuffles] are the weights of the same probe on shuffled targets.
    """

    values: Floats
    noise: Floats
    nulls: Floats | None = None


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
        """Contribution in the tuned model less that in the base model."""
        return self.contribution - self.contribution_base

    @property
    def share(self) -> Floats:
        """Each feature's share of the sum of sizes; 0 everywhere where nothing drifted."""
        sizes = np.abs(self.drifted)
        return sizes / (sizes.sum() or 1.0)

    @property
    def flipped(self) -> Flags:
        """Where the two weights have opposite signs, each beyond its noise where that is known."""
        flipped = np.zeros(len(self.weights.values), bool)
        if self.base is not None:
            flipped = np.sign(self.weights.values) * np.sign(self.base.values) < 0
            for weights in (self.weights, self.base):
                flipped &= ~(np.abs(weights.values) <= weights.noise)  # an unknown noise (NaN) is no bar
        return flipped


def statuses(firing: Firing, thresholds: Thresholds = Thresholds()) -> Ints:
    """Classify each feature [features] by its status number; one silent in both models is steady.

    The density's standard error is that of two proportions with the pooled share (Fleiss 1981, 2.1). The mean's takes
    activations as exponential where active, as second moments are not kept: density * 2 * (mean / density)^2. Both
    models read the same tokens, and their agreement makes the difference more certain than either says.
    """
    tuned, base, limit = firing.density_tuned, firing.density_base, thresholds.z
    pooled = (tuned + base) / 2
    density_z = _standard_errors(tuned - base, 2 * pooled * (1 - pooled), firing.n_tokens)
    variance = sum(
        2 * np.divide(mean**2, density, out=np.zeros_like(mean), where=density > 0) - mean**2
        for mean, density in ((firing.mean_tuned, tuned), (firing.mean_base, base))
    )
    mean_z = _standard_errors(firing.mean_tuned - firing.mean_base, np.asarray(variance), firing.n_tokens)
    status = np.full(len(tuned), STEADY)
    status[(firing.mean_tuned >= thresholds.gain * firing.mean_base) & (mean_z > limit)] = STRENGTHENED
    status[(firing.mean_base >= thresholds.gain * firing.mean_tuned) & (mean_z < -limit)] = WEAKENED
    status[(base < thresholds.residue * tuned) & (density_z > limit)] = BORN
    status[(tuned < thresholds.residue * base) & (density_z < -limit)] = GONE
    return status


def _standard_errors(difference: Floats, variance: Floats, n: int) -> Floats:
    """Divide by the standard error; a difference without variance is infinite, no difference is 0."""
    error = np.sqrt(np.maximum(variance, 0.0) / max(1, n))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(difference / error, nan=0.0, posinf=np.inf, neginf=-np.inf)


def status_count(own: Ints, mirror: Ints, status: int, *, draws: int, rng: np.random.Generator) -> Estimate:
    """Count the features of a dictionary that have a status, beside the count with the models exchanged.

    `own` and `mirror` are statuses in a dictionary trained on one model and in one trained on the other. Were the
    models exchangeable, features born in the one would be as common as features gone in the other: `null_mean` is the
    count that the average of both shares gives. There is no p-value: features of one tuning drift together, and how
    counts vary over tunings is not known from one. The interval is over features of the same two models.
    """
    if not len(own) and not len(mirror):
        return Estimate(0.0, 0)
    turned = _MIRRORED[mirror]
    count, n = int((own == status).sum()), len(own)
    low, high = interval(rng.binomial(n, count / max(1, n), size=draws).astype(float))
    pooled, marked = n + len(turned), count + int((turned == status).sum())
    return Estimate(value=float(count), n=n, ci_low=low, ci_high=high, null_mean=n * marked / max(1, pooled))


def count_beside_twins(tuned: Ints, twins: Sequence[Ints], status: int) -> Estimate:
    """Count the features that have a status in a tuned model, beside the count of each of its twins.

    Statuses [features] are -1 for features that fire in neither model. The null is the twins' mean and the largest; p
    is the share of twins, the model itself counted, whose distance from their mean reaches the model's.
    """
    value, counts = int((tuned == status).sum()), np.array([int((twin == status).sum()) for twin in twins])
    reached = int((np.abs(counts - counts.mean()) >= abs(value - counts.mean())).sum())
    return Estimate(
        float(value),
        int((tuned >= 0).sum()),
        null_mean=float(counts.mean()),
        null_high=float(counts.max()),
        null_p=(reached + 1) / (len(counts) + 1),
    )


def share_carried(drift: Drift, status: int, *, draws: int, rng: np.random.Generator) -> Estimate:
    """Compute the share of all drifted contribution that features of a status carry, with interval over features.

    The null has the probe's weights on shuffled targets: the share that the change of firing would carry in a probe
    that found nothing. It keeps what a fit makes of firing, which weights permuted over the features would not: then
    nearly every probe of noise passes.
    """

    def share(sizes: Floats, members: Flags) -> float:
        return float(sizes[members].sum() / (sizes.sum() or 1.0))

    members, sizes = drift.status == status, np.abs(drift.drifted)
    if not len(sizes):
        return Estimate(0.0, 0)
    drawn = (rng.integers(len(sizes), size=len(sizes)) for _ in range(draws))
    low, high = interval(np.array([share(sizes[rows], members[rows]) for rows in drawn]))
    estimate, nulls = Estimate(share(sizes, members), int(members.sum()), low, high), _null_sizes(drift)
    return estimate if nulls is None else with_null(estimate, np.array([share(null, members) for null in nulls]))


def largest(drift: Drift, n: int) -> list[tuple[int, Estimate]]:
    """Select the `n` features that drifted most, with their drifted contributions.

    The null of the k-th of them is the k-th largest size with the probe's weights on a shuffled target; `null_p` is
    the share of shuffles whose k-th largest is at least as large.
    """
    drifted, nulls = drift.drifted, _null_sizes(drift)
    top = np.argsort(-np.abs(drifted), kind="stable")[:n]
    if nulls is None:
        return [(int(feature), Estimate(float(drifted[feature]), drift.firing.n_tokens)) for feature in top]
    by_rank = -np.sort(-nulls, axis=1)
    return [
        (int(feature), with_null_of_sizes(float(drifted[feature]), drift.firing.n_tokens, by_rank[:, k]))
        for k, feature in enumerate(top)
    ]


def _null_sizes(drift: Drift) -> Floats | None:
    """Compute sizes of drifted contributions [shuffles, features] by weights on shuffled targets; None without any."""
    if drift.weights.nulls is None:
        return None
    return np.abs(drift.weights.nulls.T * (drift.firing.mean_tuned - drift.firing.mean_base))


def flips(drift: Drift, *, draws: int, rng: np.random.Generator) -> Estimate:
    """Count the features whose weights flipped, with interval over features.

    The null has both probes' weights on the same shuffled targets, at the noise of the real ones.
    """
    assert drift.base is not None
    n, count = len(drift.status), int(drift.flipped.sum())
    low, high = interval(rng.binomial(n, count / max(1, n), size=draws).astype(float))
    estimate, nulls = Estimate(float(count), n, low, high), []
    if drift.weights.nulls is None or drift.base.nulls is None:
        return estimate
    for tuned, base in zip(drift.weights.nulls.T, drift.base.nulls.T, strict=True):
        shuffled = replace(drift, weights=replace(drift.weights, values=tuned), base=replace(drift.base, values=base))
        nulls.append(float(shuffled.flipped.sum()))
    return with_null(estimate, np.array(nulls))
