"""Words that the tuned model writes in more, or in fewer, continuations of the same prompts than the base model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from math import comb

import numpy as np

from lfp.evaluation.statistics.discoveries import RATE, adjusted_p

_LEAST = 6
"""Prompts where only one of the models writes a word that is tested: of fewer, none can be beyond chance."""


@dataclass(frozen=True)
class WrittenWord:
    """In how many continuations each model writes a word; `q` is the false discovery rate at which they differ."""

    word: str
    n_base: int
    n_tuned: int
    p: float
    q: float

    @property
    def ratio(self) -> float:
        """Return how many times as many continuations of the tuned model have it; half of one is added to both."""
        return (self.n_tuned + 0.5) / (self.n_base + 0.5)


@dataclass(frozen=True)
class Writing:
    """The words of both models' continuations that were compared, and the number of prompts."""

    words: Sequence[WrittenWord]
    n: int


def compare_writing(base: Sequence[Set[str]], tuned: Sequence[Set[str]]) -> list[WrittenWord]:
    """Compare the words in each of two models' continuations of the same prompts, in falling order of their ratio.

    Were the models alike, each would be as often the only one to write a word:
    p is that of a two-sided sign test over prompts (McNemar's, exact). Words that fewer than six prompts decide are
    left out. Raises ValueError where the numbers of continuations differ.
    """
    counts = [Counter(word for words in side for word in words) for side in (base, tuned)]
    only = [Counter[str](), Counter[str]()]
    for of_base, of_tuned in zip(base, tuned, strict=True):
        only[0].update(of_base - of_tuned)
        only[1].update(of_tuned - of_base)
    tested = sorted(word for word in only[0] | only[1] if only[0][word] + only[1][word] >= _LEAST)
    p = [_sign_test(only[0][word], only[1][word]) for word in tested]
    q = adjusted_p(np.array(p, np.float64)).tolist()
    found = [
        WrittenWord(word, counts[0][word], counts[1][word], *both) for word, *both in zip(tested, p, q, strict=True)
    ]
    return sorted(found, key=lambda word: (-word.ratio, word.word))


def split_words(words: Sequence[WrittenWord]) -> tuple[list[WrittenWord], list[WrittenWord]]:
    """Return the words written in more and those in fewer continuations at a false discovery rate of 5 %."""
    real = [word for word in words if word.q <= RATE]
    return [word for word in real if word.ratio > 1], [word for word in reversed(real) if word.ratio < 1]


def _sign_test(first: int, second: int) -> float:
    """Return how often a fair coin's tosses are as unequal as these counts."""
    n, least = first + second, min(first, second)
    return min(1.0, 2.0 * sum(comb(n, k) for k in range(least + 1)) / 2**n)
