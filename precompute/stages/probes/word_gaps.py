"""How far the learned feedback of words is from the stated one, and the features that carry the difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lfp.config import ProbesConfig
from lfp.evaluation.statistics.resampling import permutations_within_bins
from lfp.evaluation.word_gaps import WordFacts, WordGaps, following_feedback, word_gaps
from lfp.probes.folds import row_folds
from lfp.probes.ridge import fit_ridge, layer_scales
from lfp.texts.lexicon import words_of
from lfp.util.types import Floats, Ints
from precompute.run.inputs import read_statistics_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.probes.inputs import scaled_columns
from precompute.stages.probes.targets import Words

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


def gaps_of(run: Run, words: Words, lexicon: Mapping[str, float]) -> WordGaps:
    """The gaps of the vocabulary's words; `lexicon` is the stated feedback."""
    texts = [[word.word for word in words_of(text.text)] for text in read_statistics_texts(run)]
    means, ahead = words.means, _ahead(run)
    return word_gaps(
        WordFacts(
            implicit=means["advantage"],
            error=means["advantage_error"],
            counts=means["n"].astype(np.int64),
            stated=np.nan_to_num(words.values),
            following=following_feedback(texts, lexicon, words.words),
            after=ahead["after"],
            before=ahead["before"],
            moved=means["moved"],
            moved_after=means["moved_after"],
        )
    )


def _ahead(run: Run) -> dict[str, Floats]:
    """What stage `rollouts` found [words]."""
    with np.load(run.folder("rollouts") / "rollouts.npz") as stored:
        return {name: stored[name] for name in stored.files}
