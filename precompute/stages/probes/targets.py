"""Targets of word probes: the rows that a probe is fitted on, its targets there, and shuffled targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from lfp.evaluation.statistics.resampling import permutations_within_bins
from lfp.evaluation.words import ScoredWords
from lfp.probes.ridge import place_scales
from lfp.util.types import Floats, Ints
from precompute.run.work_folder import Run
from precompute.stages.probes.inputs import Kept

WORD_TARGETS = ("delta", "feedback", "implicit_reward")
POOLING = {"delta": "last", "feedback": "last", "implicit_reward": "mean"}


@dataclass(frozen=True)
class Words:
    """The vocabulary as the probes see it; arrays are [words].

    `values` are the lexicon's, NaN where it has no value or the word has no occurrence; `means` by name are means over
    occurrences: reward, advantage, matched (NaN where undefined), tokens; `n` is the number of occurrences.
    """

    words: list[str]
    counts: Ints
    folds: Ints
    values: Floats
    means: Mapping[str, Floats]

    @staticmethod
    def load(run: Run, lexicon: Mapping[str, float]) -> Words:
        """Load the vocabulary that the features stage wrote, with the values of a lexicon."""
        stored = run.json("features", "vocabulary")
        with np.load(run.folder("features") / "words.npz") as means:
            arrays = {name: means[name] for name in means.files}
        values = np.array([lexicon.get(word, np.nan) for word in stored["words"]])
        values[arrays["n"] == 0] = np.nan
        return Words(stored["words"], np.array(stored["counts"]), np.array(stored["folds"]), values, arrays)


@dataclass(frozen=True)
class Rows:
    """What a probe is fitted on: inputs [rows, columns], targets [rows, 1 + nulls], and the fold and word of each row.

    Target 0 is the real target, the others are by shuffled lexicons; `weight_nulls` [rows, nulls] are the shuffled
    targets that give weights their null. `words` are -1 for rows of words outside the vocabulary; rows of the same
    group (a word, else a token) are never on both sides of a fold.
    """

    features: sp.csr_array
    targets: Floats
    folds: Ints
    words: Ints
    groups: Ints
    weight_nulls: Floats
    is_silent: bool = False
    """Whether the targets are made of inputs none of which ever changes."""


def delta_rows(
    points: sp.csr_array, neutral: sp.csr_array, rows: Ints, words: Words, scored: ScoredWords, place_of: Ints
) -> Rows:
    """Build the rows of the paper's target: plus or minus the norm of the change from the neutral point, places scaled.

    The sign is the lexicon's; the target of each shuffled lexicon has the sign of the shuffled value and the same norm.
    `rows` [points] are the target words' rows in the vocabulary; points of other words, and of words that are not
    scored, are left out.
    """
    values = _stack_values(words, scored)
    kept = np.flatnonzero((rows >= 0) & ~np.isnan(values[0][rows]))
    change = (points - neutral).multiply(place_scales(points, place_of))
    norms = np.sqrt(np.asarray(change.multiply(change).sum(axis=1)).ravel())[kept]
    of = rows[kept]
    targets = np.sign(values[:, of].T) * norms[:, None]
    return Rows(points[kept], targets, words.folds[of], of, of, targets[:, 1:], is_silent=not norms.any())


def feedback_rows(lasts: sp.csr_array, of: Ints, words: Words, scored: ScoredWords) -> Rows:
    """Build rows with the lexicon's value at the last token of scored words; another target per shuffled lexicon."""
    targets = _stack_values(words, scored)[:, of].T
    return Rows(lasts, targets, words.folds[of], of, of, targets[:, 1:])


def implicit_rows(run: Run, sample: sp.csr_array, kept: Kept, words: Words) -> Rows:
    """Build rows with the implicit reward of sampled tokens, centred on its context: c_t, 0 on average over the base.

    PAPER.md compares c_t across contexts. r_t also depends on how much a context has to give, which no probe of a
    token can know, and is below 0 on average, so that its sum would count the tokens of a word.

    In the nulls of weights, the mean of a token's word is replaced by the mean of another word of similar frequency in
    the sample, and the deviation from the mean is kept: this breaks the link between words and rewards, and keeps
    contexts and spread.
    """
    config, reward, ids = run.config.probes, kept.advantage[kept.sample], kept.token_ids[kept.sample]
    of = kept.words[kept.sample]
    groups = np.where(of >= 0, of, len(words.words) + ids)
    _, group = np.unique(groups, return_inverse=True)
    counts = np.bincount(group).astype(np.float64)
    means = np.bincount(group, reward) / counts
    shuffled = permutations_within_bins(
        means,
        counts,
        bins=config.frequency_bins,
        n=config.weight_permutations,
        rng=np.random.default_rng(run.config.seed),
    )
    nulls = (reward - means[group])[:, None] + shuffled[:, group].T
    folds = np.where(of >= 0, words.folds[of], ids % config.folds)
    return Rows(sample, reward[:, None], folds, of, groups, nulls)


def rows_before(rows: Rows, before: sp.csr_array, kept: Kept) -> Rows:
    """Replace the features of `implicit_rows` by those at the token before, where the rewarded token is not yet read.

    `before` are features of the tokens in `kept.before` that exist, in its order; rows without such a token are left
    out.
    """
    has = np.flatnonzero(kept.before >= 0)
    return replace(
        rows, features=before, targets=rows.targets[has], folds=rows.folds[has], words=rows.words[has],
        groups=rows.groups[has], weight_nulls=rows.weight_nulls[has],
    )  # fmt: skip


def _stack_values(words: Words, scored: ScoredWords) -> Floats:
    """Return values [1 + permutations, words]: the lexicon's, then shuffled; NaN for words that are not scored."""
    values = np.full((1 + len(scored.shuffled), len(words.words)), np.nan)
    values[:, scored.rows] = np.vstack([scored.true, scored.shuffled])
    return values
