"""A labeller that needs no network: describes a feature by the words it prefers, relates it by the lexicon."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from lfp.labels.protocol import Evidence, Label, ShownExample

_VERSION = "offline-tokens-1"
_WORDS, _CONTEXTS = 4, 2
_BROAD = 0.5  # where the preferred words bear less of the activation than this, they are just examples


class OfflineTokens:
    """Descriptions from the words and contexts that fire most for the corpus; related where the lexicon scores them.

    `word_counts` are the corpus's, `lexicon` holds the words the feedback scores. A feature is related when at least
    `related_threshold` of its sampled activation falls on scored words; the confidence is how far on that side it is.
    """

    name = "offline-tokens"

    def __init__(
        self, word_counts: Mapping[str, int], lexicon: Mapping[str, float], *, related_threshold: float
    ) -> None:
        self._counts, self._lexicon, self._threshold = word_counts, lexicon, related_threshold
        self._n_words = max(1, sum(word_counts.values()))

    def label(self, evidence: Sequence[Evidence]) -> list[Label]:
        """A label for each feature, in order."""
        return [self._label(one) for one in evidence]

    def _label(self, evidence: Evidence) -> Label:
        shown = evidence.sample or evidence.top
        used = tuple(f"{example.text_id}:{example.position}" for example in shown)
        if not shown:
            return Label(evidence.feature_id, "never active", False, 1.0, "it fires on no token", used, _VERSION)
        mass = _mass(shown)
        share = sum(m for word, m in mass.items() if word in self._lexicon)
        related = share >= self._threshold
        confidence = (share - self._threshold) / (1 - self._threshold) if related else 1 - share / self._threshold
        reason = f"{share:.0%} of its sampled activation falls on words that the lexicon scores"
        return Label(evidence.feature_id, self._describe(mass, shown), related, confidence, reason, used, _VERSION)

    def _describe(self, mass: Mapping[str, float], shown: Sequence[ShownExample]) -> str:
        """The words by share of activation times lift over the corpus, and the word before where it is always one."""
        preferred = sorted(mass, key=lambda word: (-mass[word] * self._lift(word, mass[word]), word))[:_WORDS]
        before = _habitual(example.before[-1] for example in shown if example.before)
        many = "many words, such as " if sum(mass[word] for word in preferred) < _BROAD else ""
        return f"{many}{_quoted(preferred)}{f' after {_quoted(before)}' if before else ''}"

    def _lift(self, word: str, share: float) -> float:
        """How much oftener the feature meets the word than the corpus does, on a log scale."""
        return math.log1p(share * self._n_words / (self._counts.get(word, 0) + 1))


def _mass(shown: Sequence[ShownExample]) -> dict[str, float]:
    """Each word's share of the sampled activation."""
    mass: dict[str, float] = defaultdict(float)
    for example in shown:
        mass[example.word] += example.activation
    total = sum(mass.values()) or 1.0
    return {word: value / total for word, value in mass.items()}


def _habitual(before: object) -> list[str]:
    """The words that stand in front in at least half of the examples, at most two."""
    counts = Counter(before)  # type: ignore[call-overload]
    n = sum(counts.values())
    common = [word for word, _ in counts.most_common(_CONTEXTS)]
    return common if n >= 5 and sum(counts[word] for word in common) >= 0.5 * n else []


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"“{word}”" for word in words)
