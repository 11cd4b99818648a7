"""How far the learned feedback of words is from the stated feedback, and the features that carry the difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lfp.config import ProbesConfig
from lfp.evaluation.statistics.resampling import permutations_within_bins
from lfp.evaluation.word_gaps import WordFacts, WordGaps, following_feedback, word_gaps
from lfp.probes.folds import row_folds
from lfp.probes.ridge import fit_ridge, place_scales
from lfp.texts.words import words_of
from lfp.util.types import Floats, Ints
from precompute.run.inputs import read_statistics_texts
from precompute.run.work_folder import Run
from precompute.stages.probes.inputs import scaled_columns
from precompute.stages.probes.targets import Words

_PENALTY = 1 / 150
"""Alpha per row, chosen on planted models: with less, features of unrelated words rank first; with more, none does."""


@dataclass(frozen=True)
class Unexplained:
    """Mean contribution of each feature [features] in nats, and `nulls` [shuffles, features] by shuffled excesses."""

    contribution: Floats
    nulls: Floats


def fit_unexplained(
    sample: sp.csr_array,
    word_of: Ints,
    place_of: Ints,
    words: Words,
    excess: Floats,
    config: ProbesConfig,
    *,
    seed: int,
) -> Unexplained:
    """Fit the excess of a token's word on the token's features: weight times mean activation, by feature.

    `sample` [rows, features] are tokens, `word_of` [rows] their words (-1 for none, whose excess is 0), and `excess`
    [words] is NaN where it is unknown. The nulls permute the known excesses among words of similar frequency.
    """
    known = np.flatnonzero(~np.isnan(excess))
    excesses = np.zeros((1 + config.weight_permutations, len(excess) + 1))  # the last is of no word
    excesses[0, known] = excess[known]
    excesses[1:, known] = permutations_within_bins(
        excess[known],
        words.counts[known].astype(np.float64),
        bins=config.frequency_bins,
        n=config.weight_permutations,
        rng=np.random.default_rng(seed),
    )
    targets = excesses[:, word_of]
    varies = np.ptp(targets, axis=1) > 0  # else no sampled word has an excess, and no feature carries any
    contribution = np.zeros((len(targets), sample.shape[1]))
    if varies.any():
        n = sample.shape[0]
        scaled = scaled_columns(sample, place_scales(sample, place_of))
        folds = row_folds(n, n_folds=config.folds, seed=seed)
        ridge = fit_ridge(scaled, targets[varies].T, folds, n_folds=config.folds, alphas=(_PENALTY * n,))
        contribution[varies] = np.asarray(ridge.coef.T * np.asarray(scaled.mean(axis=0)).ravel())
    return Unexplained(contribution[0], contribution[1:])


def measure_gaps(run: Run, words: Words, lexicon: Mapping[str, float]) -> WordGaps:
    """Measure the gaps of the vocabulary's words; `lexicon` is the stated feedback."""
    texts = [[word.word for word in words_of(text.blanked, lexicon)] for text in read_statistics_texts(run)]
    means = words.means
    with np.load(run.folder("rollouts") / "rollouts.npz") as rollouts:
        return word_gaps(
            WordFacts(
                implicit=means["advantage"],
                error=means["advantage_error"],
                counts=means["n"].astype(np.int64),
                stated=np.nan_to_num(words.values),
                following=following_feedback(texts, lexicon, words.words),
                after=rollouts["after"],
                before=rollouts["before"],
                moved=means["moved"],
                moved_after=means["moved_after"],
            )
        )
