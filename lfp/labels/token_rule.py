"""A labeller that needs no network: describes a feature by the words it prefers, relates it by the lexicon."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lfp.labels.scoring import score
from lfp.labels.types import Evidence, Excerpt, Label
from lfp.texts.lexicon import words_of

OFFLINE = "offline-tokens"
"""What labels.labeller says."""
_VERSION = "offline-tokens-2"
_WORDS, _CONTEXTS, _BEFORE = 4, 2, 3
_BROAD = 0.5  # where the preferred words bear less of the activation than this, they are just examples


@dataclass(frozen=True)
class _Seen:
    """An excerpt as words: the one at its place, those before it, all of them, and the activation there."""

    word: str
    before: tuple[str, ...]
    words: tuple[str, ...]
    activation: float


@dataclass(frozen=True)
class Rule:
    """What a description says, as a rule: the feature fires on `words`, after one of `after` where there are any."""

    words: tuple[str, ...]
    after: tuple[str, ...] = ()

    def fires_in(self, words: Sequence[str]) -> bool:
        """Whether a text of these words holds one that the feature fires on."""
        return any(self.fires_on(word, words[:i]) for i, word in enumerate(words))

    def fires_on(self, word: str, before: Sequence[str]) -> bool:
        """Whether it fires on the word, after those."""
        return word in self.words and (not self.after or (bool(before) and before[-1] in self.after))


class OfflineTokens:
    """Descriptions from the words and contexts that fire most for the corpus; related where the lexicon scores them.

    `word_counts` are the corpus's, `lexicon` holds the words the feedback scores. A feature is related when at least
    `related_threshold` of its shown activation falls on scored words; the confidence is how far on that side it is.
    Agreement is over `repeats` - 1 random halves of what is shown. A description is held to the held-out excerpts as
    the rule that it is, and so is another feature's.
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
        """A label for each feature, in order."""
        seen = [[_seen(one) for one in self._shown(each)] for each in evidence]
        rules = [self._rule(one) for one in seen]
        others = [*rules[len(rules) // 2 :], *rules[: len(rules) // 2]] if len(rules) > 1 else [None]
        return [self._label(*each) for each in zip(evidence, seen, rules, others, strict=False)]

    @staticmethod
    def _shown(evidence: Evidence) -> tuple[Excerpt, ...]:
        """The sample of active contexts; the largest activations where there is none."""
        return tuple(one for one in evidence.firing if one.bucket > 0) or evidence.firing

    def _label(self, evidence: Evidence, seen: list[_Seen], rule: Rule, other: Rule | None) -> Label:
        used = tuple(one.key for one in self._shown(evidence))
        if not seen:
            return Label(evidence.feature_id, "never active", False, 1.0, "it fires on no token", used, _VERSION)
        share = self._share(seen)
        related = share >= self._threshold
        confidence = (share - self._threshold) / (1 - self._threshold) if related else 1 - share / self._threshold
        reason = f"{share:.0%} of its shown activation falls on words that the lexicon scores"
        return Label(
            evidence.feature_id,
            self._describe(rule, _mass(seen)),
            related,
            confidence,
            reason,
            used,
            _VERSION,
            agreement=self._agreement(evidence.feature_id, seen, related),
            score=score(evidence.held_out, **self._answers(evidence.held_out, rule, other)),
        )

    @staticmethod
    def _answers(held_out: Sequence[Excerpt], rule: Rule, other: Rule | None) -> dict[str, list[bool] | None]:
        seen = [_seen(one) for one in held_out]
        return {
            "detected": [rule.fires_in(one.words) for one in seen],
            "fuzzed": [rule.fires_on(one.word, one.before) for one in seen],
            "swapped": None if other is None else [other.fires_in(one.words) for one in seen],
        }

    def _share(self, seen: Sequence[_Seen]) -> float:
        """The share of activation on words that the lexicon scores."""
        return sum(mass for word, mass in _mass(seen).items() if word in self._lexicon)

    def _agreement(self, feature_id: int, seen: Sequence[_Seen], related: bool) -> float | None:
        if self._repeats < 2:
            return None
        rng, half = random.Random(feature_id), -(-len(seen) // 2)
        says = [self._share(rng.sample(seen, half)) >= self._threshold for _ in range(self._repeats - 1)]
        return sum(one == related for one in says) / len(says)

    def _rule(self, seen: Sequence[_Seen]) -> Rule:
        """The words by share of activation times lift over the corpus, and the word before where it is always one."""
        mass = _mass(seen)
        preferred = sorted(mass, key=lambda word: (-mass[word] * self._lift(word, mass[word]), word))[:_WORDS]
        return Rule(tuple(preferred), tuple(_habitual(one.before[-1] for one in seen if one.before)))

    @staticmethod
    def _describe(rule: Rule, mass: Mapping[str, float]) -> str:
        many = "many words, such as " if sum(mass[word] for word in rule.words) < _BROAD else ""
        return f"{many}{_quoted(rule.words)}{f' after {_quoted(rule.after)}' if rule.after else ''}"

    def _lift(self, word: str, share: float) -> float:
        """How much oftener the feature meets the word than the corpus does, on a log scale."""
        return math.log1p(share * self._n_words / (self._counts.get(word, 0) + 1))


def _seen(one: Excerpt) -> _Seen:
    """The word that the token at the place is part of; the token's own text where it is of none."""
    start = sum(map(len, one.tokens[: one.at]))
    end = start + len(one.tokens[one.at])
    words = words_of(one.text)
    here = next((word for word in words if word.start < end and word.end > start), None)
    word = here.word if here else one.tokens[one.at].strip() or "␣"
    before = tuple(each.word for each in words if each.end <= (here.start if here else start))
    return _Seen(word, before[-_BEFORE:], tuple(each.word for each in words), one.activations[one.at])


def _mass(seen: Sequence[_Seen]) -> dict[str, float]:
    """Each word's share of the activation."""
    mass: dict[str, float] = defaultdict(float)
    for one in seen:
        mass[one.word] += one.activation
    total = sum(mass.values()) or 1.0
    return {word: value / total for word, value in mass.items()}


def _habitual(before: Iterable[str]) -> list[str]:
    """The words that stand in front in at least half of the examples, at most two."""
    counts = Counter(before)
    n = sum(counts.values())
    common = [word for word, _ in counts.most_common(_CONTEXTS)]
    return common if n >= 5 and sum(counts[word] for word in common) >= 0.5 * n else []


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"“{word}”" for word in words)
