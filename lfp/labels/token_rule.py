"""A labeller without a network: describes a feature by the words it prefers, relates it to feedback by the lexicon."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lfp.labels.scoring import score
from lfp.labels.types import Evidence, Excerpt, Label
from lfp.texts.words import words_of

OFFLINE = "offline-tokens"
"""Value of `labels.labeller`."""

_VERSION = "offline-tokens-2"
_WORDS, _CONTEXTS, _BEFORE = 4, 2, 3
_BROAD = 0.5  # if the preferred words have less of the activation than this, they are only examples


@dataclass(frozen=True)
class _Reading:
    """An excerpt as words: the word at its place, the words before it, all words, and the activation at the place."""

    word: str
    before: tuple[str, ...]
    words: tuple[str, ...]
    activation: float

    @classmethod
    def from_excerpt(cls, excerpt: Excerpt) -> _Reading:
        """Find the word that the token at the place is part of; for a token of no word, the token's own text."""
        start = sum(map(len, excerpt.tokens[: excerpt.at]))
        end = start + len(excerpt.tokens[excerpt.at])
        words = words_of(excerpt.text)
        here = next((word for word in words if word.start < end and word.end > start), None)
        text = here.word if here else excerpt.tokens[excerpt.at].strip() or "␣"
        before = tuple(word.word for word in words if word.end <= (here.start if here else start))
        every = tuple(word.word for word in words)
        return cls(text, before[-_BEFORE:], every, excerpt.activations[excerpt.at])


@dataclass(frozen=True)
class Rule:
    """A description as a rule: the feature fires on `words`, and only after one of `after` if there are any."""

    words: tuple[str, ...]
    after: tuple[str, ...] = ()

    def fires_in(self, words: Sequence[str]) -> bool:
        """Whether the feature fires on any of the words of a text."""
        return any(self.fires_on(word, words[:i]) for i, word in enumerate(words))

    def fires_on(self, word: str, before: Sequence[str]) -> bool:
        """Whether the feature fires on a word that follows the words `before`."""
        return word in self.words and (not self.after or (bool(before) and before[-1] in self.after))

    def describe(self, mass: Mapping[str, float]) -> str:
        """Write the rule in words; `mass` is each word's share of the activation."""
        many = "many words, such as " if sum(mass[word] for word in self.words) < _BROAD else ""
        words, after = (", ".join(f"“{word}”" for word in part) for part in (self.words, self.after))
        return f"{many}{words}{f' after {after}' if after else ''}"


class OfflineTokens:
    """Describes features by the words and contexts with the most activation for their frequency in the corpus.

    `word_counts` are the corpus's, `lexicon` holds the words that the feedback scores. A feature is related if at least
    `related_threshold` of its shown activation falls on scored words; the confidence is the distance from that
    threshold. The agreement is over `repeats` - 1 random halves of what is shown. The score tests the description as
    the rule that it is, and another feature's rule on the same held-out excerpts.
    """

    name = OFFLINE

    def __init__(
        self,
        word_counts: Mapping[str, int],
        lexicon: Mapping[str, float],
        *,
        related_threshold: float,
        repeats: int = 1,
    ) -> None:
        self._counts, self._lexicon, self._threshold = word_counts, lexicon, related_threshold
        self._n_words, self._repeats = max(1, sum(word_counts.values())), repeats

    def label(self, evidence: Sequence[Evidence]) -> list[Label]:
        """Label each feature, in order."""
        # the sample of active contexts is described; the largest activations if there is no sample
        shown = [tuple(each for each in feature.firing if each.bucket > 0) or feature.firing for feature in evidence]
        readings = [[_Reading.from_excerpt(excerpt) for excerpt in excerpts] for excerpts in shown]
        masses = [_activation_shares(each) for each in readings]
        rules = [self._find_rule(*each) for each in zip(readings, masses, strict=True)]
        half = len(rules) // 2
        others: list[Rule | None] = [*rules[half:], *rules[:half]] if half else [None] * len(rules)
        labels = []
        for feature, excerpts, read, mass, rule, other in zip(
            evidence, shown, readings, masses, rules, others, strict=True
        ):
            keys = tuple(excerpt.key for excerpt in excerpts)
            if not read:
                reason = "it fires on no token"
                labels.append(Label(feature.feature_id, "never active", False, 1.0, reason, keys, _VERSION))
                continue
            share = self._scored_share(mass)
            related = share >= self._threshold
            confidence = (share - self._threshold) / (1 - self._threshold) if related else 1 - share / self._threshold
            held_out = [_Reading.from_excerpt(excerpt) for excerpt in feature.held_out]
            labels.append(
                Label(
                    feature.feature_id,
                    rule.describe(mass),
                    related,
                    confidence,
                    f"{share:.0%} of its shown activation falls on words that the lexicon scores",
                    keys,
                    _VERSION,
                    agreement=self._agreement(feature.feature_id, read, related),
                    score=score(
                        feature.held_out,
                        detected=[rule.fires_in(each.words) for each in held_out],
                        fuzzed=[rule.fires_on(each.word, each.before) for each in held_out],
                        swapped=[other.fires_in(each.words) for each in held_out] if other else None,
                    ),
                )
            )
        return labels

    def _scored_share(self, mass: Mapping[str, float]) -> float:
        """Share of the activation on words that the lexicon scores."""
        return sum(share for word, share in mass.items() if word in self._lexicon)

    def _agreement(self, feature_id: int, readings: Sequence[_Reading], related: bool) -> float | None:
        """Share of random halves of the excerpts that give the same `related`; None without repeats."""
        if self._repeats < 2:
            return None
        rng, half = random.Random(feature_id), -(-len(readings) // 2)
        halves = [rng.sample(readings, half) for _ in range(self._repeats - 1)]
        same = [(self._scored_share(_activation_shares(part)) >= self._threshold) == related for part in halves]
        return sum(same) / len(same)

    def _find_rule(self, readings: Sequence[_Reading], mass: Mapping[str, float]) -> Rule:
        """Pick words by activation share times lift over the corpus, and the word before if it is mostly the same."""
        counts, n = self._counts, self._n_words
        strength = {word: share * math.log1p(share * n / (counts.get(word, 0) + 1)) for word, share in mass.items()}
        words = sorted(mass, key=lambda word: (-strength[word], word))[:_WORDS]
        before = Counter(each.before[-1] for each in readings if each.before)
        common = [word for word, _ in before.most_common(_CONTEXTS)]
        is_habit = before.total() >= 5 and sum(before[word] for word in common) >= 0.5 * before.total()
        return Rule(tuple(words), tuple(common if is_habit else ()))


def _activation_shares(readings: Sequence[_Reading]) -> dict[str, float]:
    """Each word's share of the activation."""
    mass: dict[str, float] = defaultdict(float)
    for each in readings:
        mass[each.word] += each.activation
    total = sum(mass.values()) or 1.0
    return {word: value / total for word, value in mass.items()}
