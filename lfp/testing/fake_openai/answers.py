"""Rules for answers of the fake server: right, wrong or random, from the prompt alone or knowing a bundle."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lfp.errors import ConfigError
from lfp.labels.prompts import Description, Detection, Fuzzing, Relation, marked, read_excerpts, read_numbered, table
from lfp.labels.rewriting import Rewriting, read_prompt
from lfp.labels.types import Evidence
from lfp.texts.lexicon import words_of

_NEUTRAL = (
    "usual", "ordinary", "recent", "local", "external", "annual", "daily", "typical", "vertical", "indoor",
    "domestic", "urban", "additional", "northern", "internal", "monthly", "average", "early", "written", "outer",
)  # fmt: skip


_NEAREST = 8  # words of like strength that one is drawn among


_LONGEST_LIST, _RANDOM_WORDS, _RANDOM_NUMBER = 4, 4, 10


@dataclass(frozen=True)
class ChatRequest:
    """What a client asks: messages (role, content), the name and JSON schema of the answer, and its most tokens."""

    model: str
    messages: tuple[tuple[str, str], ...]
    schema_name: str
    schema: Mapping[str, Any]
    max_tokens: int | None = None

    @property
    def prompt(self) -> str:
        """All contents, joined."""
        return "\n".join(content for _, content in self.messages)

    @property
    def sha256(self) -> str:
        """Hash of what is asked in which form: equal requests are one prompt."""
        what = [self.model, self.messages, self.schema_name, self.schema]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


class Responder(Protocol):
    """The rule that makes answers of one kind of request."""

    def answer(self, request: ChatRequest, *, right: bool) -> Mapping[str, Any] | None:
        """The right answer, or a well-formed wrong one; None where the request is of another kind."""
        ...


class SwapWords:
    """Rewrites sentences by a lexicon: negative words of like strength for the words named, and unscored ones.

    A wrong rewriting is of the right form: its negative sentence is neutral, its neutral one unchanged.
    """

    def __init__(self, lexicon: Mapping[str, float]) -> None:
        self._lexicon = lexicon
        self._negative = sorted((word for word, value in lexicon.items() if value < 0), key=lambda w: (lexicon[w], w))
        self._neutral = [word for word in _NEUTRAL if word not in lexicon]
        if not self._negative or not self._neutral:
            raise ConfigError("the lexicon has no negative word, or scores every neutral one; pass another")

    def answer(self, request: ChatRequest, *, right: bool) -> Mapping[str, Any] | None:
        """Both sentences; None where the request is no rewriting."""
        if request.schema_name != Rewriting.__name__:
            return None
        sentence, targets = read_prompt(request.messages[-1][1])
        rng = random.Random(request.sha256)
        negative = _swap(sentence, targets, lambda word: self._opposite(word, rng))
        neutral = _swap(sentence, targets, lambda word: rng.choice(_fitting(self._neutral, word)))
        return {"negative": negative, "neutral": neutral} if right else {"negative": neutral, "neutral": sentence}

    def _opposite(self, word: str, rng: random.Random) -> str:
        wanted = -abs(self._lexicon.get(word, 0.0))
        words = _fitting(self._negative, word)
        return rng.choice(sorted(words, key=lambda one: abs(self._lexicon[one] - wanted))[:_NEAREST])


def random_value(request: ChatRequest, *, seed: int) -> dict[str, Any]:
    """A value of the request's form, drawn by seed and prompt; its texts are words of the prompt."""
    rng = random.Random(f"{seed}:{request.sha256}")
    words = sorted({word.word for word in words_of(request.prompt)}) or ["nothing"]
    value = _Drawing(request.schema.get("$defs", {}), words, rng).value(request.schema)
    return dict(value)


@dataclass(frozen=True)
class _Drawing:
    """Draws values of JSON schemas: the parts of them that pydantic's models of plain values make."""

    definitions: Mapping[str, Any]
    words: Sequence[str]
    rng: random.Random

    def value(self, schema: Mapping[str, Any]) -> Any:
        if "$ref" in schema:
            return self.value(self.definitions[schema["$ref"].rpartition("/")[2]])
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.rng.choice(schema["enum"])
        if "anyOf" in schema:
            return self.value(self.rng.choice(schema["anyOf"]))
        return getattr(self, f"_{schema.get('type', 'null')}")(schema)

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.value(part) for name, part in schema.get("properties", {}).items()}

    def _array(self, schema: Mapping[str, Any]) -> list[Any]:
        low = schema.get("minItems", 0)
        length = self.rng.randint(low, schema.get("maxItems", max(low, _LONGEST_LIST)))
        return [self.value(schema.get("items", {})) for _ in range(length)]

    def _string(self, schema: Mapping[str, Any]) -> str:  # noqa: ARG002 (all kinds are drawn alike)
        return " ".join(self.rng.choices(self.words, k=_RANDOM_WORDS))

    def _integer(self, schema: Mapping[str, Any]) -> int:
        low = schema.get("minimum", 0)
        return self.rng.randint(low, schema.get("maximum", low + _RANDOM_NUMBER))

    def _number(self, schema: Mapping[str, Any]) -> float:
        low = schema.get("minimum", 0)
        return self.rng.uniform(low, schema.get("maximum", low + 1))

    def _boolean(self, schema: Mapping[str, Any]) -> bool:  # noqa: ARG002 (all kinds are drawn alike)
        return self.rng.random() < 0.5

    def _null(self, schema: Mapping[str, Any]) -> None:  # noqa: ARG002 (all kinds are drawn alike)
        return None


def _swap(sentence: str, targets: Sequence[str], other: Callable[[str], str]) -> str:
    """The sentence with every target word replaced, capitals kept."""
    swapped, wanted = sentence, {target.casefold() for target in targets}
    for word in reversed(words_of(sentence)):
        if word.word in wanted:
            new = other(word.word)
            cased = new.capitalize() if sentence[word.start].isupper() else new
            swapped = swapped[: word.start] + cased + swapped[word.end :]
    return swapped


def _fitting(words: Sequence[str], word: str) -> Sequence[str]:
    """Those that go with the same article, where there are any."""
    return [one for one in words if (one[0] in "aeiou") == (word[0] in "aeiou")] or words


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
