"""Stated feedback by words: lexica (VADER's or a file's), values of words and tokens, and the paper's reward."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lfp.config import VADER, FeedbackConfig
from lfp.errors import DataError, LfpError
from lfp.texts.reading.rows import read_rows
from lfp.texts.reading.sources import find_source
from lfp.texts.words import is_spaceless, is_word, normal_form, word_tokens, words_of

Reward = Callable[[list[str]], list[float]]
"""Compute the reward of each text."""

_REWARD_DIVISOR, _REWARD_LIMIT = 5.0, 10.0  # PAPER.md, "Tune": sum / 5, clipped to [-10, 10]


@functools.cache
def vader_lexicon() -> Mapping[str, float]:
    """Return VADER's values of words, -4 to 4 (Hutto and Gilbert 2014), without emoticons and phrases."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return {word: value for word, value in SentimentIntensityAnalyzer().lexicon.items() if is_word(word)}


def lexicon_of(config: FeedbackConfig, *, beside: Path | None) -> Mapping[str, float]:
    """Load the lexicon a config names. Raises CorpusError without the file, DataError for its rows."""
    if config.lexicon == VADER:
        return vader_lexicon()
    return read_lexicon(find_source(config.lexicon, key="feedback.lexicon", beside=beside))


def read_lexicon(path: Path) -> dict[str, float]:
    """Read words, casefolded, and values of a file with columns `word` and `value`, or a JSON object {word: value}.

    Phrases and emoticons are left out, as in VADER's lexicon: no word of a text can be one. Raises DataError naming
    the row where a word comes twice or a value is not a finite number.
    """
    values: dict[str, float] = {}
    for row, (word, value) in enumerate(_lexicon_rows(path)):
        if not isinstance(word, str) or not word.strip():
            raise DataError(f"{path}: row {row} has no word ({word!r}); write one, or drop the row")
        name = normal_form(word.strip())
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or isinstance(value, bool):
            raise DataError(f"{path}: row {row}, {name!r}, has the value {value!r}; write a finite number")
        if name in values:
            raise DataError(f"{path}: row {row} gives {name!r} a second value; keep one row for each word")
        values[name] = number
    found = {name: value for name, value in values.items() if is_word(name)}
    if not found:
        raise DataError(f"{path}: no entry is a word of letters; write one per row")
    return found


def writes_no_spaces(path: Path) -> bool:
    """Return whether a lexicon has entries of a script without spaces; False where it cannot be read."""
    try:
        return any(map(is_spaceless, read_lexicon(path)))
    except LfpError:  # the stage that reads it says what is wrong
        return False


def _lexicon_rows(path: Path) -> list[tuple[Any, Any]]:
    """Read words and values, repeated ones included, of one JSON object, a JSON list of rows, or a table."""
    content = None
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=tuple)
        except ValueError:  # one object per line, or broken: `read_rows` reads the first and reports the second
            content = None
    if isinstance(content, tuple):
        return list(content)
    if isinstance(content, list) and all(isinstance(row, tuple) for row in content):
        return [(dict(row).get("word"), dict(row).get("value")) for row in content]
    return [(row["word"], row["value"]) for row in read_rows(path, columns=("word", "value"))]


def check_lexicon(lexicon: Mapping[str, float], texts: Iterable[str], *, name: str) -> None:
    """Raise DataError where no word of the lexicon is in the texts, or all that are have the same value."""
    first: tuple[str, float] | None = None
    for text in texts:
        for word in words_of(text, lexicon):
            value = lexicon.get(word.word)
            if value is None:
                continue
            if first is not None and value != first[1]:
                return
            first = first or (word.word, value)
    if first is None:
        raise DataError(
            f"lexicon {name}: none of its {len(lexicon)} words, such as {min(lexicon)!r}, is in the corpus;"
            " name one in the corpus's language"
        )
    raise DataError(
        f"lexicon {name}: every word of it that is in the corpus, such as {first[0]!r}, has the value {first[1]}, so"
        " that nothing tells words apart; name one with several values"
    )


def vader_reward(texts: Sequence[str]) -> list[float]:
    """Compute the paper's reward by VADER's lexicon."""
    return lexicon_reward(vader_lexicon())(list(texts))


def lexicon_reward(lexicon: Mapping[str, float]) -> Reward:
    """Build the paper's reward: the sum of the lexicon values of a text's words over 5, clipped to [-10, 10]."""

    def rewards(texts: list[str]) -> list[float]:
        totals = [sum(lexicon.get(word.word, 0.0) for word in words_of(text, lexicon)) for text in texts]
        return [max(-_REWARD_LIMIT, min(_REWARD_LIMIT, total / _REWARD_DIVISOR)) for total in totals]

    return rewards


def token_feedback(
    text: str, token_starts: Sequence[int], lexicon: Mapping[str, float] | None = None
) -> list[float | None]:
    """Give each token its word's value in the lexicon (VADER's by default) where it is the word's last, else None."""
    stated = vader_lexicon() if lexicon is None else lexicon
    values: list[float | None] = [None] * len(token_starts)
    words = words_of(text, stated)
    for word, tokens in zip(words, word_tokens(words, token_starts, len(text)), strict=True):
        if tokens and word.word in stated:
            values[tokens[-1]] = stated[word.word]
    return values
