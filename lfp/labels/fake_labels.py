"""Rules by which the fake server labels features: reading the prompt alone, or knowing what a bundle's features do."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lfp.feedback import words_of
from lfp.labels.fake_answers import ChatRequest
from lfp.labels.prompts import (
    Description,
    Detection,
    Fuzzing,
    Relation,
    marked,
    read_excerpts,
    read_numbered,
    table,
)
from lfp.labels.protocol import Evidence

_WORDS = 3
_NUMBER = re.compile(r"what feature (\d+) fires on")
_MARKED = re.compile("«(.*?)»", re.DOTALL)


class ReadsPrompts:
    """Knows nothing but the prompt: describes by the words that fire most, relates and judges by the words it named."""

    def __init__(self, lexicon: Mapping[str, float]) -> None:
        self._lexicon = lexicon

    def answer(self, request: ChatRequest, *, right: bool) -> Mapping[str, Any] | None:
        """A label's part; None where the request is of another kind. Wrong: the words that fire least, the opposite."""
        content = request.messages[-1][1]
        if request.schema_name == Description.__name__:
            return {"description": _quoted(_loudest(read_excerpts(content)["Fires"], right=right))}
        if request.schema_name == Relation.__name__:
            scored = any(word.word in self._lexicon for word in words_of(content))
            return {"related": scored == right, "confidence": 0.8, "reason": "by the words that it names"}
        if request.schema_name not in (Detection.__name__, Fuzzing.__name__):
            return None
        description, texts = read_numbered(content)
        named = {word.word for word in words_of(description)}
        parts = [_MARKED.findall(text) if request.schema_name == Fuzzing.__name__ else [text] for text in texts]
        return {"firing": _numbers((any(named & _words(one) for one in part) == right) for part in parts)}


class KnowsFeatures:
    """Knows the features of a bundle: tells by a prompt's excerpts which feature it is about, and where that fires.

    Wrong, it describes another feature and holds those that are related for unrelated; it judges excerpts by the truth
    of the feature described either way, as an honest reader would.
    """

    def __init__(self, evidence: Iterable[Evidence], related: Mapping[int, bool]) -> None:
        self._related = related
        self._shown: dict[str, set[int]] = defaultdict(set)
        self._fires: set[tuple[int, str]] = set()
        self._place: dict[int, int] = {}
        for one in evidence:
            self._place[one.feature_id] = len(self._place)
            for excerpt in (*one.firing, *one.look_alikes):
                self._shown[table(excerpt, one.max_activation)].add(one.feature_id)
            for excerpt in one.held_out:
                if excerpt.fires:
                    self._fires |= {(one.feature_id, excerpt.text), (one.feature_id, marked(excerpt))}

    def answer(self, request: ChatRequest, *, right: bool) -> Mapping[str, Any] | None:
        """A label's part; None where the request is of another kind, or of a feature it does not know."""
        content = request.messages[-1][1]
        if request.schema_name == Description.__name__:
            feature = self._feature(read_excerpts(content))
            return None if feature is None else {"description": f"what feature {self._other(feature, right)} fires on"}
        named = _NUMBER.search(content)
        if named is None:
            return None
        feature = int(named[1])
        if request.schema_name == Relation.__name__:
            related = self._related.get(feature, False) == right
            return {"related": related, "confidence": 1.0, "reason": f"feature {feature} is known"}
        if request.schema_name not in (Detection.__name__, Fuzzing.__name__):
            return None
        return {"firing": _numbers((feature, text) in self._fires for text in read_numbered(content)[1])}

    def _feature(self, tables: Mapping[str, Sequence[str]]) -> int | None:
        """The feature that most of the excerpts were cut for."""
        votes = Counter(one for part in tables.values() for each in part for one in sorted(self._shown.get(each, ())))
        return votes.most_common(1)[0][0] if votes else None

    def _other(self, feature: int, right: bool) -> int:
        ids, away = list(self._place), 0 if right else len(self._place) // 2
        return ids[(self._place[feature] + away) % len(ids)]


def _loudest(tables: Sequence[str], *, right: bool) -> list[str]:
    """The words with the most activation over all tables, none on which it is silent; or those with the least."""
    mass: Counter[str] = Counter()
    for one in tables:
        for line in one.splitlines():
            token, _, level = line.rpartition("\t")
            for word in _words(token):
                mass[word] += int(level)
    ordered = sorted(mass, key=lambda word: (-mass[word], word))
    return [word for word in ordered[:_WORDS] if mass[word]] if right else ordered[-_WORDS:]


def _words(text: str) -> set[str]:
    return {word.word for word in words_of(text)}


def _numbers(flags: Iterable[bool]) -> list[int]:
    return [number for number, flag in enumerate(flags, 1) if flag]


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"“{word}”" for word in words) or "nothing in particular"
