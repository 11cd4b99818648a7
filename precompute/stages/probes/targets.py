"""Targets of word probes: the rows that a probe is fitted on, its targets there, and shuffled targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from lfp.config import ProbesConfig
from lfp.evaluation.results import Estimate, ResultKeys, ResultRow
from lfp.evaluation.statistics.resampling import permutations_within_bins
from lfp.evaluation.words import ScoredWords
from lfp.probes.folds import Split
from lfp.probes.ridge import place_scales
from lfp.util.types import Flags, Floats, Ints
from precompute.run.work_folder import Run
from precompute.stages.probes.inputs import Kept

WORD_TARGETS = ("delta", "feedback", "implicit_reward")
_LEAST_LEFT = 0.2
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
    group (a word, else a token) are never on both sides of a fold. `barred` [rows, folds] marks rows of other folds
    whose token a word of the fold is written with, which its probes are not fitted on; None where there are none.
    """

    features: sp.csr_array
    targets: Floats
    folds: Ints
    words: Ints
    groups: Ints
    weight_nulls: Floats
    barred: Flags | None
    is_silent: bool = False
    """Whether the targets are made of inputs none of which ever changes."""


@dataclass(frozen=True)
class SharedTokens:
    """The tokens that words of each fold are written with: a fold's probes are to know nothing of them.

    `held_out` [tokens + 1, folds] is by the tokens in `ids`, ascending; the last row is of all other tokens.
    """

    ids: Ints
    held_out: Flags

    @staticmethod
    def from_words(kept: Kept, word_folds: Ints, config: ProbesConfig) -> SharedTokens:
        """Find the tokens of words by fold; none where `probes.shared_tokens` is to keep them."""
        inside = np.flatnonzero(kept.words >= 0) if config.shared_tokens == "drop" else np.zeros(0, np.int64)
        ids, place = np.unique(kept.token_ids[inside], return_inverse=True)
        held_out = np.zeros((len(ids) + 1, config.folds), bool)
        held_out[place, word_folds[kept.words[inside]]] = True
        return SharedTokens(ids, held_out)

    def barred(self, token_ids: Ints, folds: Ints) -> Flags | None:
        """Mark the rows [rows, folds] whose token a word of another fold has.

        None where there is none, and where without them less than a fifth of the rows is left: words are then written
        with so few tokens that most have all of them.
        """
        places = np.searchsorted(self.ids, token_ids)
        is_known = np.append(self.ids, -1)[places] == token_ids
        barred = self.held_out[np.where(is_known, places, len(self.ids))]
        barred[np.arange(len(folds)), folds] = False
        n_folds = self.held_out.shape[1]
        return barred if barred.any() and Split(folds, barred).least_left(n_folds) >= _LEAST_LEFT else None


def overlap_rows(rows: Rows, token_ids: Ints, kept: Kept, words: Words, scored: Ints) -> list[ResultRow]:
    """Report how far the tokens of scored words are kept from the probes that predict them.

    `words_sharing_tokens` is the share of them that have a token in common with a row that their fold's probe is fitted
    on, `rows_dropped` the share of the rows of other folds that are left out; `token_ids` [rows] are those of the rows.
    """
    split, shares, dropped = Split(rows.folds, rows.barred), np.zeros(len(words.words), bool), []
    for fold in np.unique(words.folds):
        fitted = split.fitted((int(fold),))
        dropped.append(1.0 - len(fitted) / max(1, int((rows.folds != fold).sum())))
        bears = np.isin(kept.token_ids, token_ids[fitted]) & (kept.words >= 0)
        of_fold = kept.words[bears]
        shares[of_fold[words.folds[of_fold] == fold]] = True
    shared = float(shares[scored].mean())
    keys: ResultKeys = {"target": "implicit_reward", "split": "held_out_words"}
    return [
        ResultRow.from_estimate("kendall_tau", "words_sharing_tokens", Estimate(shared, len(scored)), **keys),
        ResultRow.from_estimate(
            "kendall_tau", "rows_dropped", Estimate(float(np.mean(dropped)), len(token_ids)), **keys
        ),
    ]


def delta_rows(
    points: sp.csr_array,
    neutral: sp.csr_array,
    rows: Ints,
    words: Words,
    scored: ScoredWords,
    place_of: Ints,
    *,
    shared: SharedTokens,
    token_ids: Ints,
) -> Rows:
    """Build the rows of the paper's target: plus or minus the norm of the change from the neutral point, places scaled.

    The sign is the lexicon's; the target of each shuffled lexicon has the sign of the shuffled value and the same norm.
    `rows` [points] are the target words' rows in the vocabulary, `token_ids` [points] their last tokens; points of
    other words, and of words that are not scored, are left out.
    """
    values = _stack_values(words, scored)
    kept = np.flatnonzero((rows >= 0) & ~np.isnan(values[0][rows]))
    change = (points - neutral).multiply(place_scales(points, place_of))
    norms = np.sqrt(np.asarray(change.multiply(change).sum(axis=1)).ravel())[kept]
    of = rows[kept]
    targets = np.sign(values[:, of].T) * norms[:, None]
    folds = words.folds[of]
    barred = shared.barred(token_ids[kept], folds)
    return Rows(points[kept], targets, folds, of, of, targets[:, 1:], barred, is_silent=not norms.any())


def feedback_rows(
    lasts: sp.csr_array, of: Ints, words: Words, scored: ScoredWords, *, shared: SharedTokens, token_ids: Ints
) -> Rows:
    """Build rows with the lexicon's value at the last token of scored words; another target per shuffled lexicon."""
    targets, folds = _stack_values(words, scored)[:, of].T, words.folds[of]
    return Rows(lasts, targets, folds, of, of, targets[:, 1:], shared.barred(token_ids, folds))


def implicit_rows(run: Run, sample: sp.csr_array, kept: Kept, words: Words, *, shared: SharedTokens) -> Rows:
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
    return Rows(sample, reward[:, None], folds, of, groups, nulls, shared.barred(ids, folds))


def rows_before(rows: Rows, before: sp.csr_array, kept: Kept) -> Rows:
    """Replace the features of `implicit_rows` by those at the token before, where the rewarded token is not yet read.

    `before` are features of the tokens in `kept.before` that exist, in its order; rows without such a token are left
    out.
    """
    has = np.flatnonzero(kept.before >= 0)
    return replace(
        rows, features=before, targets=rows.targets[has], folds=rows.folds[has], words=rows.words[has],
        groups=rows.groups[has], weight_nulls=rows.weight_nulls[has],
        barred=None if rows.barred is None else rows.barred[has],
    )  # fmt: skip


def _stack_values(words: Words, scored: ScoredWords) -> Floats:
    """Return values [1 + permutations, words]: the lexicon's, then shuffled; NaN for words that are not scored."""
    values = np.full((1 + len(scored.shuffled), len(words.words)), np.nan)
    values[:, scored.rows] = np.vstack([scored.true, scored.shuffled])
    return values
