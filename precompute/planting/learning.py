"""Whether a secret was learned: the planted model's completions against its twin's, on prefixes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lfp.texts.lexicon import words_of
from lfp.util.types import Ints
from precompute.planting.secrets import Secret

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
