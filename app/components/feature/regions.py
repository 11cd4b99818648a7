"""Names of the map's regions: a word that the names of a region's features share, with how many bear it out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lfp.bundle.queries.feature_map import Regions
from lfp.report.formatting import count, percent
from lfp.texts.words import words_of
from lfp.util.types import UNLABELLED

LEAST_SHARE, LEAST_HOLDERS = 0.25, 3
"""Share of a region's active features, and how many of them, whose names must have a word for it to be the name."""
LEVEL = 0.05
"""How often a map whose names lie at random would have any region with a name."""
_RULE_WORDS = frozenset(word.word for word in words_of(
    UNLABELLED + "nearly every token many tokens such as promotes demotes after before at the start of a text and or "
    "words forms strongest weaker on never active"))  # fmt: skip
"""Words of the sentences that names are made of, which say nothing of a region."""


@dataclass(frozen=True)
class Region:
    """A named region: its centre, its name, and what bears it out."""

    x: float
    y: float
    name: str
    says: str


def name_regions(regions: Regions, names: Mapping[int, str | None]) -> tuple[Region, ...]:
    """Name the regions whose features share something; `names` are the features' own names.

    A word names a region where at least LEAST_SHARE of its active features have the word in their names, and more than
    chance would give any region: the hypergeometric tail, times the number of words and regions tried, is at most
    LEVEL.
    """
    words = {
        number: frozenset(word.word for word in words_of(names.get(number) or "") if len(word.word) > 1) - _RULE_WORDS
        for number, is_active in zip(regions.feature_ids, regions.are_active.tolist(), strict=True)
        if is_active
    }
    members: list[list[int]] = [[] for _ in regions.centres]
    for number, at in zip(regions.feature_ids, regions.at.tolist(), strict=True):
        if number in words:
            members[at].append(number)
    total = Counter(word for held in words.values() for word in held)
    n_tests = len(total) * len(members)
    found = []
    for (x, y), size, active in zip(regions.centres.tolist(), regions.sizes.tolist(), members, strict=True):
        n = len(active)
        held = Counter(word for number in active for word in words[number])
        likely = sorted((_tail(k, n, total[word], len(words)), word) for word, k in held.items() if _is_common(k, n))
        if likely and likely[0][0] * n_tests <= LEVEL:
            word = likely[0][1]
            share, rest = percent(held[word] / n), (total[word] - held[word]) / max(len(words) - n, 1)
            says = (
                f"The names of {count(held[word])} of {count(n)} active features here have “{word}”, {percent(rest)} "
                f"of those elsewhere. {count(size)} features in all."
            )
            found.append(Region(x, y, f"“{word}” {share}", says))
    return tuple(found)


def _is_common(k: int, n: int) -> bool:
    return k >= LEAST_HOLDERS and k >= LEAST_SHARE * n


def _tail(k: int, n: int, n_marked: int, n_all: int) -> float:
    """Return the probability that `n` drawn of `n_all` without replacement hold at least `k` of those `n_marked`."""
    total = _log_choices(n_all, n)
    ways = range(max(k, n + n_marked - n_all), min(n, n_marked) + 1)
    return sum(math.exp(_log_choices(n_marked, i) + _log_choices(n_all - n_marked, n - i) - total) for i in ways)


def _log_choices(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
