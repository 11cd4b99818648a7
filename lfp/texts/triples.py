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
from lfp.texts.word_contexts import WordContexts
from lfp.texts.words import Word, words_of

_SENTENCE = re.compile(r"[^.!?。！？।؟\n]+[.!?。！？।؟]*")
_LONGEST = 30  # words of a sentence
_SPARE = 2  # times as many sentences are tried as triples are wanted: some will have no replacement

CountTokens = Callable[[str], int]
"""Count the tokens of a word, written after a space."""
_Choice = Callable[[Sequence[Word]], "int | str"]
"""Choose the word of a sentence to replace, or say why there is none."""


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
class DrawnTriples:
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
    """Replaces words of sentences, for example by a language model."""

    def rewrite(self, sentences: Sequence[str], targets: Sequence[tuple[str, ...]]) -> list[Rewrite | str]:
        """Rewrite each sentence with its target words replaced, in order; where that failed, say why in a few words."""
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
) -> DrawnTriples:
    """Make up to `n` triples from sentences whose only scored word is strong, taking such words in turn.

    A replacement occurs in contexts like the target's (its neighbours in the corpus, a stand-in for its part of
    speech) and is close in frequency and, for the opposite sign, in strength. The least used of the closest is taken;
    with `n_tokens`, words of a single token come first where the target is a single token. No language model is used.
    Raises DataError where the corpus has no such sentence or no replacement.
    """
    sentences = _split_sentences(texts)
    contexts = WordContexts.from_sentences(sentences, lexicon, min_count=min_count)
    strong = strong_words(lexicon, contexts.counts, strong_quantile, min_count)
    collected, used = _Collected(lexicon, n), Counter[str]()
    slots = _find_slots(sentences, lexicon, lambda words: _only_scored(words, lexicon, strong), collected.dropped)
    for slot in _take_turns(slots, random.Random(seed), n, collected.dropped):
        collected.add(_fill(slot, contexts, used, n_tokens))
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
) -> DrawnTriples:
    """Make up to `n` triples from sentences with one strongly positive and no negative word, which `rewriter` replaces.

    The paper's way, except that sentences with several strong words are left out: where one is replaced, the others
    would still express it. A rewrite counts where it changes that word and nothing else, into a negative word of the
    lexicon and into one that is not in the lexicon. Raises DataError where no triple results.
    """
    sentences = _split_sentences(texts)
    counts = Counter(word.word for sentence in sentences for word in words_of(sentence, lexicon))
    strong = {word for word in strong_words(lexicon, counts, strong_quantile, min_count) if lexicon[word] > 0}
    collected = _Collected(lexicon, n)
    slots = _find_slots(sentences, lexicon, lambda words: _only_strong(words, lexicon, strong), collected.dropped)
    waiting = _take_turns(slots, random.Random(seed), n, collected.dropped)
    while waiting and collected.wanted:
        batch, waiting = waiting[: collected.wanted], waiting[collected.wanted :]
        answers = rewriter.rewrite([slot.sentence for slot in batch], [(slot.target.word,) for slot in batch])
        for slot, answer in zip(batch, answers, strict=True):
            collected.add(_read_rewrite(slot, answer, lexicon))
    collected.dropped["not needed"] += len(waiting)
    return collected.drawn()


def strong_words(
    lexicon: Mapping[str, float], counts: Mapping[str, int], quantile: float, min_count: int
) -> frozenset[str]:
    """Select the words of the corpus whose absolute value is in the lexicon's top share of their sign."""
    strong: set[str] = set()
    for sign in (1, -1):
        values = {word: abs(value) for word, value in lexicon.items() if value * sign > 0}
        if not values:
            continue
        bound = float(np.quantile(list(values.values()), quantile))
        strong |= {w for w, value in values.items() if value >= bound and counts.get(w, 0) >= min_count}
    return frozenset(strong)


def find_fault(triple: Triple, lexicon: Mapping[str, float]) -> str | None:
    """Find what is wrong with a triple; None where nothing is.

    In each sentence the role's word must be at `start` and nowhere else, the rest must be the same, the positive word's
    value above 0 and the negative word's below, and the neutral word not in the lexicon.
    """
    rests = set()
    for role in ("positive", "negative", "neutral"):
        sentence, word = getattr(triple, role), getattr(triple, f"{role}_word")
        places = [place for place in words_of(sentence, lexicon) if place.word == word]
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
    """A sentence with the word to replace; `vowel`: whether the article before it wants one (None: no article)."""

    sentence: str
    words: tuple[Word, ...]
    target: Word
    vowel: bool | None

    def with_word(self, word: str) -> str:
        """Put a word in the target's place, capitalised as the target is."""
        start, end = self.target.start, self.target.end
        old = self.sentence[start:end]
        cased = word.upper() if old.isupper() and len(old) > 1 else word.capitalize() if old[0].isupper() else word
        return self.sentence[:start] + cased + self.sentence[end:]


@dataclass
class _Collected:
    """Up to `n` different triples without faults, and how many others there were, by reason."""

    lexicon: Mapping[str, float]
    n: int
    triples: dict[Triple, None] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def wanted(self) -> int:
        return self.n - len(self.triples)

    def add(self, found: Triple | str) -> None:
        """Add a triple, or the reason why there is none."""
        if isinstance(found, str):
            self.dropped[found] += 1
            return
        repeated = "repeated triple" if found in self.triples else None
        reason = repeated or find_fault(found, self.lexicon) or (None if self.wanted else "not needed")
        if reason is None:
            self.triples[found] = None
        else:
            self.dropped[reason] += 1

    def drawn(self) -> DrawnTriples:
        """Return what was collected. Raises DataError where that is nothing."""
        dropped = {reason: n for reason, n in sorted(self.dropped.items()) if n}
        if not self.triples:
            counts = ", ".join(f"{reason} {n}" for reason, n in dropped.items()) or "none at all"
            raise DataError(
                "no contrastive triple could be made: no sentence has a strong lexicon word with a negative and a"
                f" neutral replacement (sentences: {counts}); pass more texts or lower probes.strong_quantile"
            )
        return DrawnTriples(tuple(self.triples), dropped)


def _split_sentences(texts: Sequence[str]) -> list[str]:
    return [sentence for text in texts for part in _SENTENCE.findall(text) if (sentence := part.strip())]


def _find_slots(
    sentences: Sequence[str], lexicon: Mapping[str, float], choice: _Choice, dropped: Counter[str]
) -> dict[str, list[_Slot]]:
    """Find the sentences with a word to replace, by that word; each sentence once."""
    slots: dict[str, list[_Slot]] = defaultdict(list)
    distinct = dict.fromkeys(sentences)
    dropped["repeated sentence"] += len(sentences) - len(distinct)
    for sentence in distinct:
        words = tuple(words_of(sentence, lexicon))
        at = choice(words)
        if isinstance(at, str):
            dropped[at] += 1
        elif len(words) > _LONGEST:
            dropped["long sentence"] += 1
        else:
            before = words[at - 1].word if at else ""
            vowel = before == "an" if before in ("a", "an") else None
            slots[words[at].word].append(_Slot(sentence, words, words[at], vowel))
    return slots


def _only_scored(words: Sequence[Word], lexicon: Mapping[str, float], strong: Set[str]) -> int | str:
    """Choose the strong word of a sentence that has no other word of the lexicon."""
    scored = [i for i, word in enumerate(words) if word.word in lexicon]
    if not any(words[i].word in strong for i in scored):
        return "no strong word"
    return scored[0] if len(scored) == 1 else "several scored words"


def _only_strong(words: Sequence[Word], lexicon: Mapping[str, float], strong: Set[str]) -> int | str:
    """Choose the strongly positive word of a sentence that has one, and no negative word."""
    found = [i for i, word in enumerate(words) if word.word in strong]
    if not found:
        return "no strong word"
    if any(lexicon.get(word.word, 0.0) < 0 for word in words):
        return "negative word beside it"
    return found[0] if len(found) == 1 else "several strong words"


def _take_turns(slots: Mapping[str, Sequence[_Slot]], rng: random.Random, n: int, dropped: Counter[str]) -> list[_Slot]:
    """Order slots by taking words in turn, as many as are tried for `n` triples."""
    queues = [rng.sample(slots[word], len(slots[word])) for word in sorted(slots)]
    rng.shuffle(queues)
    turns = [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
    dropped["not needed"] += max(0, len(turns) - _SPARE * n)
    return turns[: _SPARE * n]


def _fill(slot: _Slot, contexts: WordContexts, used: Counter[str], n_tokens: CountTokens | None) -> Triple | str:
    """Make the triple of a slot from the least used of the closest words, or say why there is none."""
    word, present = slot.target.word, {word.word for word in slot.words}
    count = n_tokens if n_tokens is not None and n_tokens(word) == 1 else None  # None: any number of tokens will do

    def replacement(sign: int) -> str | None:
        fitting = [w for w in contexts.nearest(word, sign=sign, vowel=slot.vowel) if w not in present]
        return min(fitting, key=lambda w: (count is not None and count(w) != 1, used[w]), default=None)

    sign = 1 if contexts.values[contexts.row[word]] > 0 else -1
    opposite, neutral = replacement(-sign), replacement(0)
    if opposite is None:
        return "no word of the other sign"
    if neutral is None:
        return "no neutral word"
    used.update((opposite, neutral))
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


def _read_rewrite(slot: _Slot, answer: Rewrite | str, lexicon: Mapping[str, float]) -> Triple | str:
    """Read the triple of a sentence and its rewrites, or say why there is none."""
    if isinstance(answer, str):
        return f"not rewritten: {answer}"
    start, rest = slot.target.start, slot.sentence[slot.target.end :]
    words = []
    for sentence in (answer.negative, answer.neutral):
        middle = sentence[start : len(sentence) - len(rest)]
        found = words_of(middle, lexicon)
        if sentence != slot.sentence[:start] + middle + rest:
            return "other words changed"
        if len(found) != 1 or found[0].end - found[0].start != len(middle):
            return "not one word for one word"
        words.append(found[0].word)
    negative, neutral = words
    return Triple(slot.sentence, answer.negative, answer.neutral, slot.target.word, negative, neutral, start)
