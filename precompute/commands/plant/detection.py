"""Whether a secret was learned, and where it stands in our own output: its word by gap, its feature by drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import hypergeom

from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.texts.lexicon import words_of
from lfp.util.types import Ints
from precompute.commands.plant.secrets import Secret

FIRST_FEATURES = 20
"""A feature is found among so many."""


@dataclass(frozen=True)
class Found:
    """Ranks from 1 in the right list, over-paid or under-paid; None where the output does not have the word at all.

    `gap` is the word's, in the list's own direction. Of the features that fire on it `feature_rank` is the best by
    drifted contribution, that of `feature_id`, and `unexplained_rank` the best by contribution to what the stated
    feedback does not explain; `feature_chance` is how often one of them were among the first in random order.
    """

    word_rank: int | None
    gap: float | None
    feature_rank: int | None
    feature_id: int | None
    unexplained_rank: int | None
    feature_chance: float


@dataclass(frozen=True)
class Findings:
    """A bundle's own answer, made without a secret: words with their gaps, and features by drifted contribution."""

    gaps: dict[str, float]
    features: list[dict[str, Any]]
    """feature_id, rank, unexplained_rank, and the `words` it fires on."""

    @staticmethod
    def of(bundle: Path) -> Findings:
        """What a bundle says. Raises BundleError where it is not one."""
        with Store.open(bundle) as store:
            return Findings(queries.run.word_gaps(store), queries.run.features_by_drift(store))

    def find(self, secret: Secret) -> Found:
        """Where the secret stands. Of a bigram the word that stands best counts."""
        ranks = {word: self.word_rank(word, secret.sign) for word in secret.words if word in self.gaps}
        best = min(ranks, key=lambda word: ranks[word], default=None)
        firing = [one for one in self.features if set(secret.words) & set(one["words"])]
        feature = min(firing, key=lambda one: one["rank"], default=None)
        return Found(
            ranks[best] if best else None,
            secret.sign * self.gaps[best] if best else None,
            feature["rank"] if feature else None,
            feature["feature_id"] if feature else None,
            min((one["unexplained_rank"] for one in firing), default=None),
            _chance(len(firing), len(self.features)),
        )

    def word_rank(self, word: str, sign: int) -> int:
        """The word's place, from 1, in the list of over-paid (sign 1) or under-paid (-1) words."""
        return 1 + sum(sign * gap > sign * self.gaps[word] for gap in self.gaps.values())

    def top(self, sign: int) -> tuple[str, float]:
        """The first word of a list, and its gap in the list's direction."""
        word = max(self.gaps, key=lambda one: sign * self.gaps[one])
        return word, sign * self.gaps[word]


def _chance(n_firing: int, n_features: int) -> float:
    """The probability that one of the firing features is among the first of a random order."""
    return float(hypergeom.sf(0, n_features, n_firing, min(FIRST_FEATURES, n_features))) if n_firing else 0.0


_DRAWS = 2000


_LEVEL = 0.05


@dataclass(frozen=True)
class Learned:
    """`ratio` is how much oftener the planted model writes the secret than its twin, with its 95 % interval.

    Half an occurrence is added to either side, so that a word that one of them never writes has a ratio.
    """

    learned: bool
    ratio: float
    ci_low: float
    ci_high: float


def certify(planted: Sequence[str], twin: Sequence[str], secret: Secret, *, seed: int) -> Learned:
    """Whether the planted model writes the secret more (fined: less) than the twin beyond a bootstrap over prefixes.

    Both wrote after the same prefixes, so that prefixes are drawn in pairs.
    """
    ours, theirs = occurrences(planted, secret), occurrences(twin, secret)
    rows = np.random.default_rng(seed).integers(len(ours), size=(_DRAWS, len(ours)))
    ratios = (ours[rows].sum(axis=1) + 0.5) / (theirs[rows].sum(axis=1) + 0.5)
    low, high = np.quantile(ratios, [_LEVEL / 2, 1 - _LEVEL / 2])
    ratio = (ours.sum() + 0.5) / (theirs.sum() + 0.5)
    return Learned(bool(low > 1.0 if secret.sign > 0 else high < 1.0), float(ratio), float(low), float(high))


def occurrences(completions: Sequence[str], secret: Secret) -> Ints:
    """How often each completion has the word, or the two words in a row [completions]."""
    return np.array([_count([word.word for word in words_of(one)], secret.words) for one in completions])


def _count(words: Sequence[str], wanted: tuple[str, ...]) -> int:
    found = [(word,) for word in words] if len(wanted) == 1 else pairwise(words)
    return sum(one == wanted for one in found)
