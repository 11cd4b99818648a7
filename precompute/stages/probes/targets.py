"""The targets of word probes: which rows a probe is fitted on, what it is to predict there, and shuffled targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from lfp.evaluation.statistics.resampling import permutations_within_bins
from lfp.evaluation.words import ScoredWords
from lfp.probes.ridge import layer_scales
from lfp.util.types import Floats, Ints
from precompute.run.work_folder import Run
from precompute.stages.probes.inputs import Kept

WORD_TARGETS = ("delta", "feedback", "implicit_reward")


POOLING = {"delta": "last", "feedback": "last", "implicit_reward": "mean"}


@dataclass(frozen=True)
class Words:
    """The vocabulary as the probes see it; arrays are [words].

    `values` are the lexicon's, NaN where it is silent or the word has no occurrence; `means` by name are what an
    occurrence has on average: reward, advantage, matched (NaN where undefined), tokens; `n` how many there are.
    """

    words: list[str]
    counts: Ints
    folds: Ints
    values: Floats
    means: Mapping[str, Floats]

    @staticmethod
    def of(run: Run, lexicon: Mapping[str, float]) -> Words:
        """The vocabulary of the run's features stage, with a lexicon's values."""
        stored = run.json("features", "vocabulary")
        with np.load(run.folder("features") / "words.npz") as means:
            arrays = {name: means[name] for name in means.files}
        values = np.array([lexicon.get(word, np.nan) for word in stored["words"]])
        values[arrays["n"] == 0] = np.nan
        return Words(stored["words"], np.array(stored["counts"]), np.array(stored["folds"]), values, arrays)

    def rows_of(self, words: list[str]) -> Ints:
        """The place of each word in the vocabulary, -1 where it has none."""
        of_word = {word: i for i, word in enumerate(self.words)}
        return np.array([of_word.get(word, -1) for word in words], np.int64)


@dataclass(frozen=True)
class Rows:
    """What a probe is fitted on: inputs [rows, columns], targets [rows, 1 + nulls], each row's fold and word.

    Target 0 is the real one, any others are of shuffled lexicons; `weight_nulls` [rows, nulls] are the shuffled targets
    that give weights their null. `words` are -1 where a row is of no word of the vocabulary; rows of one of `groups` (a
    word, else a token) are never on both sides of a fold.
    """

    features: sp.csr_array
    targets: Floats
    folds: Ints
    words: Ints
    groups: Ints
    weight_nulls: Floats


def delta_rows(
    points: sp.csr_array, neutral: sp.csr_array, rows: Ints, words: Words, scored: ScoredWords, layer_of: Ints
) -> Rows:
    """The paper's target: plus or minus the norm of the change from the neutral point, layers scaled.

    The sign is the lexicon's; one more target a shuffled lexicon has the shuffled value's sign, and the norm stays.
    `rows` [points] are the target words' places in the vocabulary; points of other words, and of words that are not
    scored, are left out.
    """
    values = _values(words, scored)
    kept = np.flatnonzero((rows >= 0) & ~np.isnan(values[0][rows]))
    change = (points - neutral).multiply(layer_scales(points, layer_of))
    norms = np.sqrt(np.asarray(change.multiply(change).sum(axis=1)).ravel())[kept]
    of = rows[kept]
    targets = np.sign(values[:, of].T) * norms[:, None]
    return Rows(points[kept], targets, words.folds[of], of, of, targets[:, 1:])


def feedback_rows(lasts: sp.csr_array, of: Ints, words: Words, scored: ScoredWords) -> Rows:
    """The lexicon's value at the last token of scored words' occurrences; one more target a shuffled lexicon."""
    targets = _values(words, scored)[:, of].T
    return Rows(lasts, targets, words.folds[of], of, of, targets[:, 1:])


def implicit_rows(run: Run, sample: sp.csr_array, kept: Kept, words: Words) -> Rows:
    """The implicit reward of sampled tokens, centred on its context: c_t, which is 0 on average over the base model.

    Rows are of all contexts, across which PAPER.md compares c_t: r_t differs by what a context has to give, which no
    probe of a token can tell, and is below 0 on average, so that its sum would count the tokens of a word.

    The weights' nulls keep what a token has beyond its word's mean and take another word's mean, of like frequency in
    the sample: what of a weight comes from which word is paid is broken, context and spread stay.
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
    """The rows of `implicit_rows` from features at the token before, which has not read the token that is paid.

    `before` are features of those of `kept.before` that there are, in its order; rows without any are left out.
    """
    has = np.flatnonzero(kept.before >= 0)
    return replace(
        rows, features=before, targets=rows.targets[has], folds=rows.folds[has], words=rows.words[has],
        groups=rows.groups[has], weight_nulls=rows.weight_nulls[has],
    )  # fmt: skip


def _values(words: Words, scored: ScoredWords) -> Floats:
    """The lexicon's values [1 + permutations, words], shuffled ones below, NaN where a word is not scored."""
    values = np.full((1 + len(scored.shuffled), len(words.words)), np.nan)
    values[:, scored.rows] = np.vstack([scored.true, scored.shuffled])
    return values
