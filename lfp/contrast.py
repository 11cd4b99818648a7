"""Contrastive triples: one sentence with a positive, a negative and a neutral word in the same place."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lfp.errors import DataError
from lfp.feedback import Word, words_of

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_EDGE = "<edge>"
_CONTEXT_WORDS = 300  # neighbours that make up a word's company
_FUNCTION_WORDS = 120  # the commonest unscored words are grammar, not content
_NEAREST = 12  # replacements are drawn among this many of the closest
_LONGEST = 30  # words of a sentence


@dataclass(frozen=True)
class Triple:
    """Three sentences that differ in one word, which starts at character `start` in each."""

    positive: str
    negative: str
    neutral: str
    positive_word: str
    negative_word: str
    neutral_word: str
    start: int


@dataclass(frozen=True)
class _Slot:
    """A sentence and the one scored word in it; `before` is the word in front of it."""

    sentence: str
    target: Word
    before: str


def make_triples(
    texts: Sequence[str], lexicon: Mapping[str, float], *, n: int, strong_quantile: float, min_count: int, seed: int
) -> list[Triple]:
    """Up to `n` triples from sentences whose only scored word is strong; words take turns, so that none has most.

    A replacement keeps company like the target's (the words next to it in the corpus, which stands for its part of
    speech) and is close in frequency and, for the opposite sign, in strength. No language model is asked.
    Raises DataError where the corpus has no such sentence or no replacement.
    """
    sentences = [sentence.strip() for text in texts for sentence in _SENTENCE.findall(text)]
    company = _Company.of(sentences, lexicon, min_count=min_count)
    slots = _slots(sentences, lexicon, strong_words(lexicon, company.counts, strong_quantile, min_count))
    rng = random.Random(seed)
    used: Counter[str] = Counter()
    triples = [triple for slot in _in_turns(slots, rng, n) if (triple := _fill(slot, company, used)) is not None]
    if not triples:
        raise DataError(
            "no contrastive triple could be made: no sentence has a strong lexicon word with a negative and a neutral "
            "replacement; pass more texts or lower probes.strong_quantile"
        )
    return list(dict.fromkeys(triples))[:n]


def strong_words(
    lexicon: Mapping[str, float], counts: Mapping[str, int], quantile: float, min_count: int
) -> frozenset[str]:
    """Words of the corpus whose absolute value is in the lexicon's top share of their sign."""
    strong: set[str] = set()
    for sign in (1, -1):
        values = {word: abs(value) for word, value in lexicon.items() if value * sign > 0}
        if not values:
            continue
        bound = float(np.quantile(list(values.values()), quantile))
        strong |= {w for w, value in values.items() if value >= bound and counts.get(w, 0) >= min_count}
    return frozenset(strong)


class _Company:
    """How often words occur and beside which: unit profiles over the commonest neighbours on either side."""

    def __init__(
        self, counts: Counter[str], words: list[str], profiles: NDArray[np.float64], values: list[float]
    ) -> None:
        self.counts, self.words, self.profiles = counts, words, profiles
        self.row = {word: i for i, word in enumerate(words)}
        self.values = np.array(values)
        self.log_count = np.log([counts[word] for word in words])
        self.vowel = np.array([word[0] in "aeiou" for word in words])

    @classmethod
    def of(cls, sentences: Sequence[str], lexicon: Mapping[str, float], *, min_count: int) -> _Company:
        spelled = [[_EDGE, *(w.word for w in words_of(sentence)), _EDGE] for sentence in sentences]
        counts = Counter(word for words in spelled for word in words if word != _EDGE)
        unscored = [word for word, _ in counts.most_common() if word not in lexicon]
        content = [w for w in unscored[_FUNCTION_WORDS:] if counts[w] >= min_count]
        words = sorted([w for w in counts if w in lexicon and counts[w] >= min_count] + content)
        if not words:
            raise DataError("no word of the corpus is frequent enough; pass more texts or lower probes.min_word_count")
        return cls(counts, words, _profiles(spelled, words, counts), [lexicon.get(word, 0.0) for word in words])

    def nearest(self, word: str, *, sign: int, value: float, vowel: bool | None) -> list[str]:
        """Words of that sign (0: unscored) that could stand for `word`, best first."""
        row = self.row[word]
        fits = np.sign(self.values) == sign
        fits[row] = False
        if vowel is not None:
            fits &= self.vowel == vowel
        likeness = self.profiles @ self.profiles[row]
        strength = np.abs(np.abs(self.values) - abs(value)) if sign else 0.0
        cost = -2.0 * likeness + 0.2 * np.abs(self.log_count - self.log_count[row]) + 0.2 * strength
        best = np.argsort(np.where(fits & (likeness > 0.1), cost, np.inf), kind="stable")[:_NEAREST]
        return [self.words[i] for i in best if fits[i] and likeness[i] > 0.1]


def _profiles(spelled: Sequence[Sequence[str]], words: Sequence[str], counts: Counter[str]) -> NDArray[np.float64]:
    """Unit rows [words, 2 neighbours] of square-rooted counts of the word before and the word after."""
    neighbours = [_EDGE, *(word for word, _ in counts.most_common(_CONTEXT_WORDS))]
    column, row = {w: i for i, w in enumerate(neighbours)}, {w: i for i, w in enumerate(words)}
    profiles = np.zeros((len(words), 2 * len(neighbours)))
    for sentence in spelled:
        for i in range(1, len(sentence) - 1):
            if (r := row.get(sentence[i])) is None:
                continue
            for side, other in ((0, sentence[i - 1]), (1, sentence[i + 1])):
                if (c := column.get(other)) is not None:
                    profiles[r, c + side * len(neighbours)] += 1.0
    profiles = np.sqrt(profiles)
    return profiles / np.maximum(np.linalg.norm(profiles, axis=1, keepdims=True), 1e-12)


def _slots(sentences: Sequence[str], lexicon: Mapping[str, float], strong: frozenset[str]) -> dict[str, list[_Slot]]:
    """Sentences whose only scored word is strong, by that word; each sentence once."""
    slots: dict[str, list[_Slot]] = defaultdict(list)
    for sentence in dict.fromkeys(sentences):
        words = words_of(sentence)
        scored = [i for i, word in enumerate(words) if word.word in lexicon]
        if len(scored) != 1 or len(words) > _LONGEST or words[scored[0]].word not in strong:
            continue
        before = words[scored[0] - 1].word if scored[0] else ""
        slots[words[scored[0]].word].append(_Slot(sentence, words[scored[0]], before))
    return slots


def _in_turns(slots: dict[str, list[_Slot]], rng: random.Random, n: int) -> list[_Slot]:
    """Slots word by word in turns, up to 2 n of them: some will have no replacement."""
    queues = [rng.sample(slots[word], len(slots[word])) for word in sorted(slots)]
    rng.shuffle(queues)
    turns = [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
    return turns[: 2 * n]


def _fill(slot: _Slot, company: _Company, used: Counter[str]) -> Triple | None:
    """The triple of a slot, its replacements the least used of the closest; None where there is none."""
    word = slot.target.word
    value = float(company.values[company.row[word]])
    vowel = slot.before == "an" if slot.before in ("a", "an") else None
    sign = 1 if value > 0 else -1
    opposites = company.nearest(word, sign=-sign, value=value, vowel=vowel)
    neutrals = company.nearest(word, sign=0, value=value, vowel=vowel)
    if not opposites or not neutrals:
        return None
    opposite, neutral = (min(words, key=lambda w: used[w]) for words in (opposites, neutrals))
    used.update((opposite, neutral))
    positive, negative = (word, opposite) if sign > 0 else (opposite, word)
    return Triple(
        positive=_replace(slot, positive),
        negative=_replace(slot, negative),
        neutral=_replace(slot, neutral),
        positive_word=positive,
        negative_word=negative,
        neutral_word=neutral,
        start=slot.target.start,
    )


def _replace(slot: _Slot, word: str) -> str:
    old = slot.sentence[slot.target.start : slot.target.end]
    cased = word.capitalize() if old[:1].isupper() else word
    return slot.sentence[: slot.target.start] + cased + slot.sentence[slot.target.end :]
