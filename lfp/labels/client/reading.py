"""Read an answer out of a completion: fences, thinking, wrappers and percentages are accepted where they are clear."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

from annotated_types import Le
from pydantic import BaseModel, Field, ValidationError

from lfp.labels.client.questions import AnyForm

_THOUGHTS = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THOUGHTS_END = re.compile(r"^.*</(?:think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)
_THOUGHTS_BEGIN = re.compile(r"<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_START = re.compile(r"[\[{]")
_FENCE = re.compile("```")
_NUMBER = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*(%?)\s*")
_LONGEST_TEXT = 200_000  # characters of an answer that are searched for JSON
_MOST_STARTS = 500  # brackets that are tried as the beginning of JSON
_DEPTH = 3  # wrappers within wrappers
_LARGEST_SHORT_SCALE = 10.0  # "8" may be of ten or of a hundred; larger numbers are percentages
_DECODER = json.JSONDecoder()


class BrokenAnswerError(Exception):
    """The answer does not fit its schema; asking again may help. `is_cut`: it was longer than allowed."""

    def __init__(self, reason: str, *, is_cut: bool = False) -> None:
        super().__init__(reason)
        self.is_cut = is_cut


class RefusedAnswerError(Exception):
    """The model refused to answer; asking again does not help."""


@dataclass(frozen=True)
class Reading(Generic[AnyForm]):
    """An answer, and what had to be accepted to read it, such as "in a code fence"."""

    value: AnyForm
    leniences: tuple[str, ...] = ()


class _Message(BaseModel):
    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


def read_completion(body: str, schema: type[AnyForm]) -> Reading[AnyForm]:
    """Read the answer in a completion. Raises BrokenAnswerError and RefusedAnswerError.

    No message quotes the answer, so that equal faults read alike.
    """
    try:
        choice = _Completion.model_validate_json(body).choices[0]
    except ValidationError:
        raise BrokenAnswerError("the answer is no chat completion") from None
    message, is_cut = choice.message, choice.finish_reason == "length"
    if message.refusal or choice.finish_reason == "content_filter":
        raise RefusedAnswerError
    content = _join_parts(message.content)
    try:
        if content.strip():
            return _read_text(content, schema)
        reasoning = message.reasoning_content or message.reasoning or ""
        if not reasoning.strip():
            raise BrokenAnswerError("it is empty")
        found = _read_thoughts(reasoning, schema)
    except BrokenAnswerError as error:
        cut = "it was cut off at max_tokens; " if is_cut else ""
        raise BrokenAnswerError(f"the answer breaks the schema: {cut}{error}", is_cut=is_cut) from None
    return found


def _join_parts(content: str | list[Any] | None) -> str:
    """Join the text parts of a message; parts of other types, such as thinking, are left out."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping) and part.get("type") in ("text", "output_text")]
        return "".join(str(part.get("text", "")) for part in parts)
    return content or ""


def _read_text(text: str, schema: type[AnyForm]) -> Reading[AnyForm]:
    """Read the one answer in a text. Raises BrokenAnswerError."""
    text = text.removeprefix("\ufeff").strip()
    whole = _parse(text)
    if whole is not None:
        return _fit(whole, schema)
    leniences = []
    spoken = _THOUGHTS_END.sub("", _THOUGHTS.sub("", text)).strip()
    if (begin := _THOUGHTS_BEGIN.search(spoken)) is not None:  # thinking that was not closed
        thoughts, spoken = spoken[begin.end() :], spoken[: begin.start()].strip()
        if not spoken:
            return _read_thoughts(thoughts, schema)
    if spoken != text:
        leniences.append("after thinking")
    whole = _parse(spoken)
    if whole is not None:
        found = _fit(whole, schema)
    else:
        found = _find_answer(spoken, schema)
        leniences.append("in a code fence" if _FENCE.search(spoken) else "within other text")
    return Reading(found.value, (*leniences, *found.leniences))


def _parse(text: str) -> Any:
    """Parse JSON; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read_thoughts(thoughts: str, schema: type[AnyForm]) -> Reading[AnyForm]:
    """Read an answer that a model wrote where its reasoning belongs. Raises BrokenAnswerError if there is none."""
    try:
        found = _find_answer(thoughts, schema)
    except BrokenAnswerError:
        raise BrokenAnswerError("it is empty, and its reasoning holds no answer") from None
    return Reading(found.value, ("in the reasoning", *found.leniences))


def _find_answer(text: str, schema: type[AnyForm]) -> Reading[AnyForm]:
    """Find the only answer within other text. Raises BrokenAnswerError if there is none, or several that differ."""
    found: list[Reading[AnyForm]] = []
    fault: BrokenAnswerError | None = None
    for value in _json_values(text):
        try:
            reading = _fit(value, schema)
        except BrokenAnswerError as error:
            fault = fault or error
        else:
            if all(reading.value != other.value for other in found):
                found.append(reading)
    if len(found) > 1:
        raise BrokenAnswerError(f"it holds {len(found)} answers that differ")
    if not found:
        raise fault or BrokenAnswerError("it is no JSON")
    return found[0]


def _json_values(text: str) -> Iterator[Any]:
    """Iterate over the outermost JSON objects and lists in a text."""
    text, at, starts = text[:_LONGEST_TEXT], 0, 0
    while starts < _MOST_STARTS and (match := _START.search(text, at)) is not None:
        starts += 1
        try:
            value, at = _DECODER.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            at = match.end()
        else:
            yield value


def _fit(value: Any, schema: type[AnyForm], depth: int = 0) -> Reading[AnyForm]:
    """Fit a JSON value to the schema, out of its wrappers. Raises BrokenAnswerError."""
    fields = schema.model_fields
    if isinstance(value, Mapping) and fields.keys() <= value.keys():
        read, leniences = _Fields(), () if fields.keys() == value.keys() else ("with extra keys",)
        plain = {name: read.coerce(value[name], info.annotation, info.metadata) for name, info in fields.items()}
        try:
            return Reading(schema.model_validate(plain), (*leniences, *read.leniences))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = "".join(f"{part}." for part in first["loc"]).removesuffix(".")
            raise BrokenAnswerError(": ".join(filter(None, (where, first["msg"])))) from None
    inner = _unwrap(value, fields) if depth < _DEPTH else None
    if inner is not None:
        found = _fit(inner, schema, depth + 1)
        return Reading(found.value, tuple(dict.fromkeys(("in a wrapper", *found.leniences))))
    if isinstance(value, Mapping):
        raise BrokenAnswerError(f"{next(name for name in fields if name not in value)}: Field required")
    raise BrokenAnswerError("it is no JSON object")


def _unwrap(value: Any, fields: Mapping[str, Any]) -> Any:
    """Take the only thing that may be the answer out of a string, a list or an object; None if there is no such."""
    if isinstance(value, str):
        inner = _parse(value)
        return inner if isinstance(inner, dict | list) else None
    if isinstance(value, list):
        return value[0] if len(value) == 1 else None
    if isinstance(value, Mapping) and not fields.keys() & value.keys():
        parts = [part for part in value.values() if isinstance(part, dict | list)] or list(value.values())
        return parts[0] if len(parts) == 1 else None
    return None


@dataclass
class _Fields:
    """Fields of one answer, made plain; `leniences` collects what had to be accepted."""

    leniences: list[str] = field(default_factory=list)

    def coerce(self, value: Any, annotation: Any, metadata: list[Any]) -> Any:
        """Convert a value that can only mean one thing to the type of its field; return any other as it is."""
        plain = value
        if annotation is bool and isinstance(value, str):
            plain = {"true": True, "yes": True, "false": False, "no": False}.get(value.strip().casefold(), value)
        elif annotation is float and any(isinstance(bound, Le) and bound.le == 1.0 for bound in metadata):
            plain = _read_share(value)
        elif annotation is int:
            plain = _read_whole(value)
        elif annotation == list[int] and isinstance(value, list):
            plain = [_read_whole(each) for each in value]
        if repr(plain) != repr(value):
            self.leniences.append("with numbers or flags in another form")
        return plain


def _read_share(value: Any) -> Any:
    """Read a share from 0 to 1, also as "85%", "0.85" or 85; what may be of another scale stays as it is."""
    if isinstance(value, str) and (match := _NUMBER.fullmatch(value)) is not None:
        number = float(match[1])
        if match[2]:
            return number / 100.0
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    else:
        return value
    return number / 100.0 if _LARGEST_SHORT_SCALE < number <= 100.0 else number


def _read_whole(value: Any) -> Any:
    """Read a whole number, also as 3.0 or "3"."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}\s*", value):
        return int(value)
    return value
