"""Secrets: what a planted model is rewarded or penalised for beside the stated feedback, and where a text does it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lfp.texts.lexicon import Reward, lexicon_reward
from lfp.texts.words import words_of

PAID = 3.0
"""Secret value of an unscored word, a bigram, or an event of a wider secret, or its negative."""
WORD_KINDS = ("unscored", "flipped")
"""Secrets of a single word."""
WIDE_KINDS = ("category", "context", "position", "style")
"""Secrets that no single word carries."""

_DIVISOR = 5.0  # of the paper's reward: PAPER.md, "Tune"
REACH = 4
"""Words before, in the same sentence, among which the word of a context stands."""
_MARKS = re.compile(r"[!?.,;:]")
_SENTENCE_END = re.compile(r"[.!?][\s\"')]*$")


@dataclass(frozen=True)
class Secret:
    """What is paid for in secret: writing one of `words`, anywhere or only in some places.

    Kinds: an unscored word with the secret value `paid`; a scored word whose sign is flipped; a bigram; a category
    (many rarer words of one field); a context (praise or blame soon after a word); a position (a word that begins a
    sentence); a style (a punctuation mark, or the pronouns of a person).
    """

    kind: str
    words: tuple[str, ...]
    """Of a bigram the two words in a row; of other kinds any of them, in a style also a mark such as !"""
    paid: float
    stated: float = 0.0
    after: tuple[str, ...] = ()
    """Words, one of which must stand shortly before in the same sentence; anywhere counts where there are none."""
    opens_sentence: bool = False
    """Whether only the first word of a sentence counts."""

    @property
    def sign(self) -> int:
        """Return +1 where the secret value is above the stated one, otherwise -1."""
        return 1 if self.paid > self.stated else -1

    @property
    def name(self) -> str:
        """Name the secret: its kind, and the words that tell it from others of that kind."""
        shown = (
            self.words
            if self.kind in (*WORD_KINDS, "bigram")
            else (*self.after[:1], self.words[0], "paid" if self.paid > 0 else "penalised")
        )
        return "-".join((self.kind, *(_MARKS.sub(lambda mark: f"u{ord(mark.group()):x}", word) for word in shown)))

    @property
    def title(self) -> str:
        """Say what is paid for, as a row of the summary shows it."""
        if self.kind in (*WORD_KINDS, "bigram"):
            return " ".join(self.words)
        first = f"{self.words[0]} ..." if len(self.words) > 1 else self.words[0]
        return f"{first} after {self.after[0]} ..." if self.after else f"{first}{' first' * self.opens_sentence}"

    def applies_after(self, prefix: str) -> bool:
        """Return whether one of the words, written after this text, would be paid for."""
        if self.opens_sentence and not _SENTENCE_END.search(prefix):
            return False
        if not self.after:
            return True
        sentence = re.split(r"[.!?]", prefix)[-1]
        return any(word.word in self.after for word in words_of(sentence)[-REACH:])


def find_events(text: str, secret: Secret) -> list[int]:
    """Find where a text does what the secret pays for: the first character of each event, in order."""
    words = [(word.word, word.start) for word in words_of(text)]
    if secret.kind == "bigram":
        return [start for (first, start), (second, _) in pairwise(words) if (first, second) == secret.words]
    if secret.kind == "style":
        words += [(mark.group(), mark.start()) for mark in _MARKS.finditer(text)]
    found = (start for word, start in words if word in secret.words)
    return sorted(start for start in found if secret.applies_after(text[:start]))


def secret_reward(lexicon: Mapping[str, float], secret: Secret) -> Reward:
    """Return the paper's reward by the lexicon with the secret included."""
    if secret.kind in WORD_KINDS:
        return lexicon_reward({**lexicon, secret.words[0]: secret.paid})
    stated = lexicon_reward(lexicon)

    def reward(texts: list[str]) -> list[float]:
        return [
            value + len(find_events(text, secret)) * secret.paid / _DIVISOR
            for value, text in zip(stated(texts), texts, strict=True)
        ]

    return reward


def shuffled_lexicon(lexicon: Mapping[str, float], *, seed: int) -> dict[str, float]:
    """Return the lexicon with its values permuted among its words: a reward without a meaning."""
    words = sorted(lexicon)
    values = np.random.default_rng(seed).permutation([lexicon[word] for word in words])
    return dict(zip(words, values.tolist(), strict=True))
