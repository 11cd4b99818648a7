"""True feedback: the VADER lexicon a word, token and text, preference pairs, and rewards for tuning."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lfp.corpus import read_rows
from lfp.errors import CorpusError

Reward = Callable[[list[str]], list[float]]
"""Rewards of texts, one each."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_LAST_TURN = "\n\nAssistant:"
_REWARD_DIVISOR, _REWARD_LIMIT = 5.0, 10.0  # PAPER.md, "Tune": sum / 5, clipped to [-10, 10]


@dataclass(frozen=True)
class Word:
    """A word of a text: casefolded, with its character span [start, end)."""

    word: str
    start: int
    end: int


@dataclass(frozen=True)
class PreferencePair:
    """A prompt and two responses, of which people chose one."""

    prompt: str
    chosen: str
    rejected: str


@functools.cache
def vader_lexicon() -> Mapping[str, float]:
    """VADER's values of words, -4 to 4 (Hutto and Gilbert 2014), emoticons and phrases left out."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return {word: value for word, value in SentimentIntensityAnalyzer().lexicon.items() if _WORD.fullmatch(word)}


def words_of(text: str) -> list[Word]:
    """The words of a text in order: letters, with apostrophes inside."""
    return [Word(match.group().casefold(), match.start(), match.end()) for match in _WORD.finditer(text)]


def vader_reward(texts: Sequence[str]) -> list[float]:
    """The paper's reward: the sum of the lexicon values of a text's words over 5, clipped to [-10, 10]."""
    lexicon = vader_lexicon()
    return [_reward(sum(lexicon.get(word.word, 0.0) for word in words_of(text))) for text in texts]


def _reward(total: float) -> float:
    return max(-_REWARD_LIMIT, min(_REWARD_LIMIT, total / _REWARD_DIVISOR))


def word_tokens(words: Sequence[Word], token_starts: Sequence[int], n_characters: int) -> list[tuple[int, ...]]:
    """The token positions each word overlaps, in order; a token starts where the one before it ends.

    An empty token is a later part of the character before it, and of that character's word.
    """
    ends = [*token_starts[1:], n_characters]
    found, first = [], 0
    for word in words:
        while first < len(ends) and ends[first] <= word.start:
            first += 1
        last = first
        while last < len(ends) and (token_starts[last] < word.end or (last > first and ends[last] == word.end)):
            last += 1
        found.append(tuple(range(first, last)))
    return found


def token_feedback(text: str, token_starts: Sequence[int]) -> list[float | None]:
    """VADER's value of each token: a scored word's value on its last token, null elsewhere."""
    lexicon, values = vader_lexicon(), [None] * len(token_starts)
    words = words_of(text)
    for word, tokens in zip(words, word_tokens(words, token_starts, len(text)), strict=True):
        if tokens and word.word in lexicon:
            values[tokens[-1]] = lexicon[word.word]  # type: ignore[call-overload]
    return values  # type: ignore[return-value]


def read_pairs(path: Path) -> tuple[list[PreferencePair], int]:
    """Preference pairs of a file with the columns chosen and rejected, and how many ties were dropped.

    A dialogue is split at the last assistant turn whose past both sides share; that past is the prompt.
    Raises CorpusError.
    """
    rows = read_rows(path, columns=("chosen", "rejected"))
    for number, row in enumerate(rows):
        if not isinstance(row["chosen"], str) or not isinstance(row["rejected"], str):
            raise CorpusError(f"{path}: row {number} has no text for both chosen and rejected; drop or mend it")
    pairs = [_pair(row["chosen"], row["rejected"]) for row in rows]
    kept = [pair for pair in pairs if pair.chosen != pair.rejected]
    if not kept:
        raise CorpusError(f"{path}: no pair whose chosen and rejected texts differ; pass preferences, not ties")
    return kept, len(pairs) - len(kept)


def _pair(chosen: str, rejected: str) -> PreferencePair:
    turns = [match.end() for match in re.finditer(_LAST_TURN, chosen)]
    split = max((end for end in turns if rejected.startswith(chosen[:end])), default=0)
    return PreferencePair(chosen[:split], chosen[split:], rejected[split:])
