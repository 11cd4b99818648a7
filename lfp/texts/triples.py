"""Contrastive triples: one sentence with a positive, a negative and a neutral word in the same place."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from lfp.errors import DataError
from lfp.texts.lexicon import Word, words_of
from lfp.texts.word_contexts import Company

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_LONGEST = 30  # words of a sentence
_SPARE = 2  # times as many sentences are tried as triples are wanted: some will have no replacement

CountTokens = Callable[[str], int]
"""How many tokens a word is, written after a space."""
_Choice = Callable[[Sequence[Word]], "int | str"]
"""Which word of a sentence is to be replaced, or why none is."""


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
class Drawn:
    """Triples, and why the other sentences gave none: each sentence of the texts is counted once."""

    triples: tuple[Triple, ...]
    dropped: Mapping[str, int]
    """Sentences by reason."""


@dataclass(frozen=True)
class Rewrite:
    """A sentence with its target word replaced by a negative one, and by a neutral one."""

    negative: str
    neutral: str


class Rewriter(Protocol):
    """What puts other words into sentences, a language model for one."""

    def rewrite(self, sentences: Sequence[str], targets: Sequence[tuple[str, ...]]) -> list[Rewrite | str]:
        """Each sentence with its target words replaced, in order; in place of one that failed, a few words why."""
        ...


def make_triples(
    texts: Sequence[str],
    lexicon: Mapping[str, float],
    *,
    n: int,
    strong_quantile: float,
    min_count: int,
    seed: int,
    n_tokens: CountTokens | None = None,
) -> Drawn:
    """Up to `n` triples from sentences whose only scored word is strong; words take turns, so that none has most.

    A replacement keeps company like the target's (the words next to it in the corpus, which stands for its part of
    speech) and is close in frequency and, for the opposite sign, in strength. Of the closest the least used is taken;
    with `n_tokens`, one of a single token before all others where the target is one. No language model is asked.
    Raises DataError where the corpus has no such sentence or no replacement.
    """
    sentences = _sentences(texts)
    company = Company.of(sentences, lexicon, min_count=min_count)
    strong = strong_words(lexicon, company.counts, strong_quantile, min_count)
    collected, filling = _Collected(lexicon, n), _Filling(company, n_tokens)
    slots = _slots(sentences, lambda words: _only_scored(words, lexicon, strong), collected.dropped)
    for slot in _in_turns(slots, random.Random(seed), n, collected.dropped):
        collected.add(filling.triple(slot))
    return collected.drawn()


def make_triples_by_language_model(
    texts: Sequence[str],
    lexicon: Mapping[str, float],
    rewriter: Rewriter,
    *,
    n: int,
    strong_quantile: float,
    min_count: int,
    seed: int,
) -> Drawn:
    """Up to `n` triples from sentences with one strongly positive word and no negative one, which `rewriter` replaces.

    The paper's way, save that sentences with several strong words are left out: where one is replaced, the others
    would speak for it. A rewrite counts where it changes that word and nothing else, into a negative word of the
    lexicon and into one that the lexicon does not hold. Raises DataError where no triple comes of it.
    """
    sentences = _sentences(texts)
    counts = Counter(word.word for sentence in sentences for word in words_of(sentence))
    strong = {word for word in strong_words(lexicon, counts, strong_quantile, min_count) if lexicon[word] > 0}
    collected = _Collected(lexicon, n)
    slots = _slots(sentences, lambda words: _only_strong(words, lexicon, strong), collected.dropped)
    waiting = _in_turns(slots, random.Random(seed), n, collected.dropped)
    while waiting and collected.wanted:
        asked, waiting = waiting[: collected.wanted], waiting[collected.wanted :]
        answers = rewriter.rewrite([slot.sentence for slot in asked], [(slot.target.word,) for slot in asked])
        for slot, answer in zip(asked, answers, strict=True):
            collected.add(_rewritten(slot, answer))
    collected.dropped["not needed"] += len(waiting)
    return collected.drawn()


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


def fault_of(triple: Triple, lexicon: Mapping[str, float]) -> str | None:
    """What is wrong with a triple; None where it is what it should be.

    In each sentence the role's word stands at `start` and nowhere else, the rest is the same, the positive word's value
    is above nought and the negative one's below, and the lexicon does not hold the neutral one.
    """
    rests = set()
    for role in ("positive", "negative", "neutral"):
        sentence, word = getattr(triple, role), getattr(triple, f"{role}_word")
        places = [place for place in words_of(sentence) if place.word == word]
        if [place.start for place in places] != [triple.start]:
            return "target word not once in its place"
        rests.add((sentence[: triple.start], sentence[places[0].end :]))
    if len(rests) > 1:
        return "other words changed"
    if lexicon.get(triple.positive_word, 0.0) <= 0:
        return "positive word not positive"
    if lexicon.get(triple.negative_word, 0.0) >= 0:
        return "negative word not negative"
    return "neutral word scored" if triple.neutral_word in lexicon else None


@dataclass(frozen=True)
class _Slot:
    """A sentence and which of its words is to be replaced."""

    sentence: str
    words: tuple[Word, ...]
    at: int

    @property
    def target(self) -> Word:
        return self.words[self.at]

    @property
    def vowel(self) -> bool | None:
        """Whether the article in front wants a vowel; None where no article is there."""
        before = self.words[self.at - 1].word if self.at else ""
        return before == "an" if before in ("a", "an") else None

    def with_word(self, word: str) -> str:
        """The sentence with a word in the target's place, in capitals where the target is."""
        start, end = self.target.start, self.target.end
        old = self.sentence[start:end]
        cased = word.upper() if old.isupper() and len(old) > 1 else word.capitalize() if old[0].isupper() else word
        return self.sentence[:start] + cased + self.sentence[end:]


@dataclass
class _Collected:
    """Up to `n` triples that are faultless and not there yet, and how many were not, by reason."""

    lexicon: Mapping[str, float]
    n: int
    triples: dict[Triple, None] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def wanted(self) -> int:
        return self.n - len(self.triples)

    def add(self, found: Triple | str) -> None:
        """Takes a triple, or the reason why there is none."""
        reason = found if isinstance(found, str) else self._reason(found)
        if reason is not None:
            self.dropped[reason] += 1
        elif isinstance(found, Triple):
            self.triples[found] = None

    def _reason(self, triple: Triple) -> str | None:
        if triple in self.triples:
            return "repeated triple"
        return fault_of(triple, self.lexicon) or (None if self.wanted else "not needed")

    def drawn(self) -> Drawn:
        """What was collected. Raises DataError where that is nothing."""
        dropped = {reason: n for reason, n in sorted(self.dropped.items()) if n}
        if not self.triples:
            told = ", ".join(f"{reason} {n}" for reason, n in dropped.items()) or "none at all"
            raise DataError(
                "no contrastive triple could be made: no sentence has a strong lexicon word with a negative and a"
                f" neutral replacement (sentences: {told}); pass more texts or lower probes.strong_quantile"
            )
        return Drawn(tuple(self.triples), dropped)


class _Filling:
    """Makes the triples of slots from words of like company, the least used of the closest first."""

    def __init__(self, company: Company, n_tokens: CountTokens | None) -> None:
        self._company, self._n_tokens = company, n_tokens
        self._used: Counter[str] = Counter()

    def triple(self, slot: _Slot) -> Triple | str:
        """The triple of a slot, or why there is none."""
        word = slot.target.word
        sign = 1 if self._company.values[self._company.row[word]] > 0 else -1
        opposite, neutral = self._replacement(slot, -sign), self._replacement(slot, 0)
        if opposite is None:
            return "no word of the other sign"
        if neutral is None:
            return "no neutral word"
        self._used.update((opposite, neutral))
        positive, negative = (word, opposite) if sign > 0 else (opposite, word)
        return Triple(
            positive=slot.with_word(positive),
            negative=slot.with_word(negative),
            neutral=slot.with_word(neutral),
            positive_word=positive,
            negative_word=negative,
            neutral_word=neutral,
            start=slot.target.start,
        )

    def _replacement(self, slot: _Slot, sign: int) -> str | None:
        there = {word.word for word in slot.words}
        words = self._company.nearest(slot.target.word, sign=sign, vowel=slot.vowel)
        fitting = [word for word in words if word not in there]
        whole = self._is_whole(slot.target.word)
        return min(fitting, key=lambda w: (whole and not self._is_whole(w), self._used[w]), default=None)

    def _is_whole(self, word: str) -> bool:
        return self._n_tokens is not None and self._n_tokens(word) == 1


def _sentences(texts: Sequence[str]) -> list[str]:
    return [sentence for text in texts for part in _SENTENCE.findall(text) if (sentence := part.strip())]


def _slots(sentences: Sequence[str], choice: _Choice, dropped: Counter[str]) -> dict[str, list[_Slot]]:
    """Sentences with a word to be replaced, by that word; each sentence once."""
    slots: dict[str, list[_Slot]] = defaultdict(list)
    distinct = dict.fromkeys(sentences)
    dropped["repeated sentence"] += len(sentences) - len(distinct)
    for sentence in distinct:
        words = tuple(words_of(sentence))
        at = choice(words)
        if isinstance(at, str):
            dropped[at] += 1
        elif len(words) > _LONGEST:
            dropped["long sentence"] += 1
        else:
            slots[words[at].word].append(_Slot(sentence, words, at))
    return slots


def _only_scored(words: Sequence[Word], lexicon: Mapping[str, float], strong: Set[str]) -> int | str:
    """The strong word of a sentence that has no other word of the lexicon."""
    scored = [i for i, word in enumerate(words) if word.word in lexicon]
    if not any(words[i].word in strong for i in scored):
        return "no strong word"
    return scored[0] if len(scored) == 1 else "several scored words"


def _only_strong(words: Sequence[Word], lexicon: Mapping[str, float], strong: Set[str]) -> int | str:
    """The strongly positive word of a sentence that has one, and no negative word."""
    found = [i for i, word in enumerate(words) if word.word in strong]
    if not found:
        return "no strong word"
    if any(lexicon.get(word.word, 0.0) < 0 for word in words):
        return "negative word beside it"
    return found[0] if len(found) == 1 else "several strong words"


def _in_turns(slots: Mapping[str, Sequence[_Slot]], rng: random.Random, n: int, dropped: Counter[str]) -> list[_Slot]:
    """Slots word by word in turns, as many as are tried for `n` triples."""
    queues = [rng.sample(slots[word], len(slots[word])) for word in sorted(slots)]
    rng.shuffle(queues)
    turns = [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
    dropped["not needed"] += max(0, len(turns) - _SPARE * n)
    return turns[: _SPARE * n]


def _rewritten(slot: _Slot, answer: Rewrite | str) -> Triple | str:
    """The triple of a sentence and its rewrites; where there is none, the reason."""
    if isinstance(answer, str):
        return f"not rewritten: {answer}"
    start, rest = slot.target.start, slot.sentence[slot.target.end :]
    words = []
    for sentence in (answer.negative, answer.neutral):
        middle = sentence[start : len(sentence) - len(rest)]
        found = words_of(middle)
        if sentence != slot.sentence[:start] + middle + rest:
            return "other words changed"
        if len(found) != 1 or found[0].end - found[0].start != len(middle):
            return "not one word for one word"
        words.append(found[0].word)
    negative, neutral = words
    return Triple(slot.sentence, answer.negative, answer.neutral, slot.target.word, negative, neutral, start)
