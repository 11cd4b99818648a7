"""Names of features, decided for every page alike: the label, unless the strongest examples contradict it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lfp.bundle.queries.feature import Feature
from lfp.util.types import UNLABELLED

MOST_WORDS = 5
_QUOTED = re.compile("“([^”]+)”")
_AFTER_NAMES = re.compile("; promotes|; demotes|, demotes| after | before | following ")
"""What stands between the tokens that a rule says a feature fires on and other tokens that it quotes."""
_IN_WORD = re.compile(r"[^\W_]|['’]")


def strongest_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the words around the tokens of the strongest examples (bucket 0), strongest first, each once."""
    found = [_word_at(row) for row in rows if row["bucket"] == 0]
    return list(dict.fromkeys(word for word in found if word))


def quoted_parts(name: str) -> list[str]:
    """Return the tokens that a name says the feature fires on, in small letters; none where it quotes nothing."""
    quoted = [part.strip(" ␣").casefold() for part in _QUOTED.findall(_AFTER_NAMES.split(name)[0])]
    return [part for part in quoted if part.strip("-")]


def names_words(name: str, words: Sequence[str]) -> bool:
    """Tell whether a name quotes any of these words, or a part of one; a name that quotes nothing may mean any."""
    known = quoted_parts(name)
    if not known or not words:
        return True
    return any(_are_akin(part, word.casefold()) for part in known for word in words)


def _are_akin(part: str, word: str) -> bool:
    """Tell whether a quoted part is the word, a form of it, or, as hyphens say, what it begins or ends with.

    Numbers and marks are parts of a word wherever they are in it.
    """
    core = part.strip("-")
    if (part.startswith("-") and word.endswith(core)) or (part.endswith("-") and word.startswith(core)):
        return True
    if not any(map(str.isalpha, core)):
        return core in word
    short, long = sorted((core, word), key=len)
    return short == long or (len(short) > 2 and (long.startswith(short) or long.endswith(short)))


def name_feature(description: str | None, words: Sequence[str]) -> str | None:
    """Return a feature's name, given the words of its strongest examples; None without a label and examples."""
    strongest = _listed(words)
    if description is not None and names_words(description, words):
        return description
    return f"strongest on {strongest}" if strongest else None


def page_title(feature: Feature, words: Sequence[str]) -> tuple[str, str]:
    """Return a feature's title, and what has to be said of it; a name that its examples contradict is no title."""
    title = name_feature(feature.description, words) or "no label"
    if feature.description is None:
        return title, "No label." if words else ""
    if title == feature.description:
        return title, f"Strongest examples: {_listed(words)}." if words else ""
    who = "rule" if feature.description.startswith(UNLABELLED) else "label"
    return title, f"Its {who} quotes none of these: {feature.description.removeprefix(UNLABELLED)}."


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f"“{word}”" for word in words[:MOST_WORDS])


def _word_at(row: Mapping[str, Any]) -> str:
    """Return the word that holds an example's token; the token itself where that is no part of a word."""
    text, starts, position = row["text"], row["token_starts"], row["position"]
    start, stop = starts[position], starts[position + 1] if position + 1 < len(starts) else len(text)
    token = text[start:stop]
    start, stop = start + len(token) - len(token.lstrip()), stop - len(token) + len(token.rstrip())
    if not _IN_WORD.search(text[start:stop]):
        return token.strip()
    while start > 0 and _IN_WORD.match(text[start - 1]):
        start -= 1
    while stop < len(text) and _IN_WORD.match(text[stop]):
        stop += 1
    return text[start:stop].strip("'’")
