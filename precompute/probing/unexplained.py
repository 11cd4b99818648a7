"""Features that carry what the stated feedback does not explain: a ridge of words' excesses on features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lfp.config import ProbesConfig
from lfp.evaluation.statistics.resampling import permutations_within_bins
from lfp.probes.folds import row_folds
from lfp.probes.ridge import fit_ridge, layer_scales
from lfp.util.types import Floats, Ints
from precompute.probing.kept import scaled_columns
from precompute.probing.targets import Words
from precompute.run import Output, Run

_PENALTY = 1 / 150
"""Alpha a row, chosen on planted models: with less, features of innocent words come first; with more, none does."""


@dataclass(frozen=True)
class Unexplained:
    """Each feature's mean contribution [features], in nats, and `nulls` [shuffles, features] by excesses dealt anew."""

    contribution: Floats
    nulls: Floats

    @staticmethod
    def load(run: Run) -> Unexplained:
        """What the run's probes stage found."""
        with np.load(run.folder("probes") / "unexplained.npz") as stored:
            return Unexplained(stored["contribution"], stored["nulls"])

    def save(self, output: Output) -> None:
        """Writes unexplained.npz."""
        arrays = {"contribution": self.contribution, "nulls": self.nulls}
        np.savez(output.folder / "unexplained.npz", allow_pickle=False, **arrays)


def fit_unexplained(
    sample: sp.csr_array, of: Ints, layer_of: Ints, words: Words, excess: Floats, config: ProbesConfig, *, seed: int
) -> Unexplained:
    """The ridge of the excess of a token's word on the token's features: weight times mean activation, by feature.

    `sample` [rows, features] are tokens, `of` [rows] their words (-1 for none, whose excess is 0), `excess` [words] NaN
    where it is unknown. The nulls deal the known excesses to words of like frequency.
    """
    known = np.flatnonzero(~np.isnan(excess))
    dealt = np.zeros((1 + config.weight_permutations, len(excess) + 1))  # the last is of no word
    dealt[0, known] = excess[known]
    dealt[1:, known] = permutations_within_bins(
        excess[known],
        words.counts[known].astype(np.float64),
        bins=config.frequency_bins,
        n=config.weight_permutations,
        rng=np.random.default_rng(seed),
    )
    targets = dealt[:, of]
    told = np.ptp(targets, axis=1) > 0  # else no sampled word has an excess, and no feature carries any
    contribution = np.zeros((len(targets), sample.shape[1]))
    if told.any():
        contribution[told] = _contributions(sample, targets[told].T, layer_of, config, seed=seed)
    return Unexplained(contribution[0], contribution[1:])


def _contributions(sample: sp.csr_array, targets: Floats, layer_of: Ints, config: ProbesConfig, *, seed: int) -> Floats:
    """Weight times mean activation [targets, features] of the ridge of each target [rows, targets]."""
    scales, n = layer_scales(sample, layer_of), len(targets)
    folds = row_folds(n, n_folds=config.folds, seed=seed)
    scaled = scaled_columns(sample, scales)
    coef = fit_ridge(scaled, targets, folds, n_folds=config.folds, alphas=(_PENALTY * n,)).coef
    return np.asarray(coef.T * np.asarray(scaled.mean(axis=0)).ravel())
