"""Rules by which the fake server answers: right, wrong or random, from the prompt alone or knowing a bundle."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lfp.errors import ConfigError
from lfp.labels.client.questions import SCHEMA_INTRODUCTION
from lfp.labels.prompts import (
    Description,
    Detection,
    Fuzzing,
    Relation,
    format_table,
    mark_token,
    read_excerpts,
    read_numbered,
)
from lfp.labels.rewriting import Rewriting, read_question
from lfp.labels.types import Evidence
from lfp.texts.words import words_of

_NEUTRAL = (
    "usual", "ordinary", "recent", "local", "external", "annual", "daily", "typical", "vertical", "indoor",
    "domestic", "urban", "additional", "northern", "internal", "monthly", "average", "early", "written", "outer",
)  # fmt: skip
_NEAREST = 8  # words of similar strength that a replacement is drawn from
_DESCRIBED_WORDS = 3
_LONGEST_LIST, _RANDOM_WORDS, _RANDOM_NUMBER = 4, 4, 10
_NUMBER, _MARKED = re.compile(r"what feature (\d+) fires on"), re.compile("«(.*?)»", re.DOTALL)


@dataclass(frozen=True)
class ChatRequest:
    """A request: messages (role, content), the name and JSON schema of the answer, and the tokens it may have."""

    model: str
    messages: tuple[tuple[str, str], ...]
    schema_name: str
    schema: Mapping[str, Any]
    max_tokens: int | None = None

    @staticmethod
    def parse(sent: Mapping[str, Any]) -> ChatRequest:
        """Parse the JSON of a request; the schema may be in its `response_format` or in its prompt, and leaves that.

        Raises an error of KeyError, ValueError, TypeError or AttributeError for any other request.
        """
        form = sent.get("response_format", {}).get("json_schema")
        messages = []
        for message in sent["messages"]:
            content, _, written = str(message["content"]).partition(SCHEMA_INTRODUCTION)
            if written:
                schema = json.loads(written)
                form = {"name": schema["title"], "schema": schema}
            if content or not written:
                messages.append((str(message["role"]), content.removesuffix("\n\n") if written else content))
        limit = sent.get("max_completion_tokens") or sent.get("max_tokens")
        return ChatRequest(str(sent["model"]), tuple(messages), str(form["name"]), dict(form["schema"]), limit)

    @property
    def prompt(self) -> str:
        """The contents of all messages."""
        return "\n".join(content for _, content in self.messages)

    @property
    def sha256(self) -> str:
        """Hash of messages and schema: requests of equal hash are one prompt."""
        parts = [self.model, self.messages, self.schema_name, self.schema]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Responder(Protocol):
    """A rule that answers one kind of request."""

    def answer(self, request: ChatRequest, *, right: bool) -> Mapping[str, Any] | None:
        """Return the right answer, or a well-formed wrong one; None for requests of another kind."""
        ...


class SwapWords:
    """Rewrites sentences by a lexicon: target words become negative ones of similar strength, and neutral ones.

    A wrong rewriting has the right form: its negative sentence is neutral, its neutral one unchanged.
    """

    def __init__(self, lexicon: Mapping[str, float]) -> None:
        self._lexicon = lexicon
        negative = ((value, word) for word, value in lexicon.items() if value < 0)
        self._negative = [word for _, word in sorted(negative)]
        self._neutral = [word for word in _NEUTRAL if word not in lexicon]
        if not self._negative or not self._neutral:
            raise ConfigError("the lexicon has no negative word, or scores every neutral one; pass another")

    def answer(self, request: ChatRequest, *, right: bool) -> Mapping[str, Any] | None:
        """Rewrite the sentence twice; None if the request is no rewriting."""
        if request.schema_name != Rewriting.__name__:
            return None
        sentence, targets = read_question(request.messages[-1][1])
        rng, wanted = random.Random(request.sha256), {target.casefold() for target in targets}
        negative, neutral = (self._swap(sentence, wanted, rng, negative=side) for side in (True, False))
        return {"negative": negative, "neutral": neutral} if right else {"negative": neutral, "neutral": sentence}

    def _swap(self, sentence: str, targets: set[str], rng: random.Random, *, negative: bool) -> str:
        """Replace every target word by one that suits its article; keep capitals."""
        for word in reversed(words_of(sentence)):
            if word.word not in targets:
                continue
            candidates = self._negative if negative else self._neutral
            vowel = word.word[0] in "aeiou"
            candidates = [each for each in candidates if (each[0] in "aeiou") == vowel] or candidates
            if negative:
                strength = -abs(self._lexicon.get(word.word, 0.0))
                candidates = sorted(candidates, key=lambda each: abs(self._lexicon[each] - strength))[:_NEAREST]
            new = rng.choice(candidates)
            cased = new.capitalize() if sentence[word.start].isupper() else new
            sentence = sentence[: word.start] + cased + sentence[word.end :]
        return sentence


@dataclass(frozen=True)
class ReadsPrompts:
    """Answers from the prompt alone: describes by the words with the most activation, judges by the words named."""

    lexicon: Mapping[str, float]

    def answer(self, request: ChatRequest, *, right: bool) -> Mapping[str, Any] | None:
        """Answer a question about a label. Wrong: the words with the least activation, and the opposite judgement."""
        content = request.messages[-1][1]
        if request.schema_name == Description.__name__:
            mass: Counter[str] = Counter()
            for table in read_excerpts(content)["Fires"]:
                for line in table.splitlines():
                    token, _, level = line.rpartition("\t")
                    mass.update(dict.fromkeys(_words(token), int(level)))
            ordered = sorted(mass, key=lambda word: (-mass[word], word))
            loudest = [word for word in ordered[:_DESCRIBED_WORDS] if mass[word]]
            named = ", ".join(f"“{word}”" for word in (loudest if right else ordered[-_DESCRIBED_WORDS:]))
            return {"description": named or "nothing in particular"}
        if request.schema_name == Relation.__name__:
            is_scored = any(word in self.lexicon for word in _words(content))
            return {"related": is_scored == right, "confidence": 0.8, "reason": "by the words that it names"}
        if request.schema_name not in (Detection.__name__, Fuzzing.__name__):
            return None
        description, texts = read_numbered(content)
        words = _words(description)
        parts = [_MARKED.findall(text) if request.schema_name == Fuzzing.__name__ else [text] for text in texts]
        fires = [any(words & _words(each) for each in part) == right for part in parts]
        return {"firing": [number for number, firing in enumerate(fires, 1) if firing]}


class KnowsFeatures:
    """Knows the features of a bundle: recognises a feature by the excerpts in a prompt, and knows where it fires.

    Wrong, it describes another feature and calls related ones unrelated. It always judges excerpts truthfully by the
    feature described, as an honest reader would.
    """

    def __init__(self, evidence: Iterable[Evidence], related: Mapping[int, bool]) -> None:
        self._related = related
        self._shown: dict[str, set[int]] = defaultdict(set)  # features by the tables that may be shown of them
        self._fires: set[tuple[int, str]] = set()
        self._place: dict[int, int] = {}
        for feature in evidence:
            self._place[feature.feature_id] = len(self._place)
            for excerpt in (*feature.firing, *feature.look_alikes):
                self._shown[format_table(excerpt, feature.max_activation)].add(feature.feature_id)
            for excerpt in feature.held_out:
                if excerpt.fires:
                    self._fires |= {(feature.feature_id, text) for text in (excerpt.text, mark_token(excerpt))}

    def answer(self, request: ChatRequest, *, right: bool) -> Mapping[str, Any] | None:
        """Answer a question about a label; None for requests of another kind and for unknown features."""
        content = request.messages[-1][1]
        if request.schema_name == Description.__name__:
            tables = [table for part in read_excerpts(content).values() for table in part]
            votes = Counter(feature for table in tables for feature in sorted(self._shown.get(table, ())))
            if not votes:
                return None
            ids, shift = list(self._place), 0 if right else len(self._place) // 2
            place = self._place[votes.most_common(1)[0][0]]
            return {"description": f"what feature {ids[(place + shift) % len(ids)]} fires on"}
        named = _NUMBER.search(content)
        if named is None:
            return None
        feature = int(named[1])
        if request.schema_name == Relation.__name__:
            related = self._related.get(feature, False) == right
            return {"related": related, "confidence": 1.0, "reason": f"feature {feature} is known"}
        if request.schema_name not in (Detection.__name__, Fuzzing.__name__):
            return None
        return {
            "firing": [
                number for number, text in enumerate(read_numbered(content)[1], 1) if (feature, text) in self._fires
            ]
        }


def random_value(request: ChatRequest, *, seed: int) -> dict[str, Any]:
    """Draw a value that fits the request's schema, by seed and prompt; its texts are words of the prompt.

    Supports the parts of JSON schema that pydantic models of plain values use.
    """
    rng, definitions = random.Random(f"{seed}:{request.sha256}"), request.schema.get("$defs", {})
    words = sorted(_words(request.prompt)) or ["nothing"]

    def draw(schema: Mapping[str, Any]) -> Any:
        if "$ref" in schema:
            return draw(definitions[schema["$ref"].rpartition("/")[2]])
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return rng.choice(schema["enum"])
        if "anyOf" in schema:
            return draw(rng.choice(schema["anyOf"]))
        low = schema.get("minimum", 0)
        match schema.get("type"):
            case "object":
                return {name: draw(part) for name, part in schema.get("properties", {}).items()}
            case "array":
                least = schema.get("minItems", 0)
                length = rng.randint(least, schema.get("maxItems", max(least, _LONGEST_LIST)))
                return [draw(schema.get("items", {})) for _ in range(length)]
            case "string":
                return " ".join(rng.choices(words, k=_RANDOM_WORDS))
            case "integer":
                return rng.randint(low, schema.get("maximum", low + _RANDOM_NUMBER))
            case "number":
                return rng.uniform(low, schema.get("maximum", low + 1))
            case "boolean":
                return rng.random() < 0.5
        return None

    return dict(draw(request.schema))


def _words(text: str) -> set[str]:
    return {word.word for word in words_of(text)}
