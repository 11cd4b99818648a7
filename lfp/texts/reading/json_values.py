"""Read JSON in whatever shape rows come: a row per line, an array, a list inside an object, or columns."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lfp.errors import CorpusError
from lfp.texts.reading.encodings import LONGEST, TOO_LONG, split_rows

_MOST_DIGITS = 4000
"""Python converts no longer whole numbers by default."""
_LISTS = ("data", "rows", "examples", "instances", "train", "items", "records")
"""Keys of an object under which its rows may stand."""
_LIST_FIRST = re.compile(rf'\s*\{{\s*"(?:{"|".join(_LISTS)})"\s*:\s*(?=\[)')
_BRACKET, _CLOSING = re.compile(r"\s*\["), re.compile(r"\]")
_FEW = 4
"""Keys that an object around an object of rows has at most."""
_MOST_KEYS = 10_000
"""Keys of a row, which has a text and what is said of it."""
_WORD = 32
"""An error this close to the end of what has been read may be of a value that is not complete."""
_OF_MESSAGES = ({"role", "content"}, {"from", "value"}, {"messages"}, {"conversations"})
_SPACE = " \t\r\n"


class WrittenFloat(float):
    """A number of a JSON file; as text it is what the file says."""

    def __new__(cls, written: str) -> WrittenFloat:
        """Read a number and keep how it is written."""
        number = super().__new__(cls, written)
        number.written = written
        return number

    written: str

    def __str__(self) -> str:
        return self.written


class Unreadable(str):
    """Why a place of a file has no row, in a few words."""


def _whole(written: str) -> int | WrittenFloat:
    return int(written) if len(written) < _MOST_DIGITS and written != "-0" else WrittenFloat(written)


def _no_number(_: str) -> None:
    """NaN and Infinity, as pandas writes what is missing."""
    return None


DECODER = json.JSONDecoder(parse_float=WrittenFloat, parse_int=_whole, parse_constant=_no_number, strict=False)
"""Reads numbers as they are written, and control characters inside texts."""


def json_rows(blocks: Iterator[str], where: str) -> Iterator[Mapping[str, Any] | Unreadable]:
    """Yield the rows of JSON text. Raises CorpusError where it is cut off or broken beyond a line."""
    text = _Text(blocks, where)
    first = text.peek()
    if first == "[" or (first == "{" and text.skip_match(_LIST_FIRST)):
        yield from _in_array(text, where)
    elif first == "{" and not (_is_object(text.first_line()) and text.has_more_lines()):
        yield from _in_values(text, where)
    else:
        yield from _by_line(text.rest(), where)


def _by_line(blocks: Iterator[str], where: str) -> Iterator[Mapping[str, Any] | Unreadable]:
    for line in split_rows(blocks, where):
        if line.isspace():
            continue
        yield _row_of(line)


def _row_of(line: str) -> Mapping[str, Any] | Unreadable:
    """Read a line; in a function of its own, so that nothing of it is kept while the next one is read."""
    try:
        return _row(DECODER.decode(line))
    except (ValueError, RecursionError):
        return Unreadable("a line that is not JSON")


def _in_array(text: _Text, where: str) -> Iterator[Mapping[str, Any] | Unreadable]:
    """Yield the values of one array, or of several one after another; what follows them is left out."""
    number = itertools.count()
    while text.skip_match(_BRACKET):
        while (following := text.peek(",")) != "]":
            row = next(number)
            if not following:
                raise CorpusError(f"{where}: its list of rows ends without a bracket after row {row - 1}; get it whole")
            try:
                yield _row(text.value())
            except (ValueError, RecursionError) as error:
                raise CorpusError(f"{where}: row {row} is not JSON ({_reason(error)}); fix it") from error
        text.skip_match(_CLOSING)


def _in_values(text: _Text, where: str) -> Iterator[Mapping[str, Any] | Unreadable]:
    """Yield objects that stand one after another over several lines, or what a single object holds."""
    try:
        value = text.value()
    except (ValueError, RecursionError):  # a broken first line, or no JSON at all
        yield from _by_line(text.rest(), where)
        return
    if not text.peek():
        yield from map(_row, _rows_of_object(value, where))
        return
    yield _row(value)
    for row in itertools.count(1):
        if not text.peek():
            return
        try:
            yield _row(text.value())
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where}: row {row} is not JSON ({_reason(error)}); fix it") from error


def _rows_of_object(value: Any, where: str) -> list[Any]:
    """Find the rows of a file that is one object: a list in it, its columns, or the object itself."""
    if not isinstance(value, dict):
        return [value]
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return [dict(zip(map(str, columns), row, strict=False)) for row in data]  # pandas, orient="split"
    inside = next((value[key] for key in _LISTS if isinstance(value.get(key), dict) and len(value) <= _FEW), None)
    if inside is not None and any(_holds_rows(rows) for rows in inside.values()):
        return _rows_of_object(inside, where)
    lists = {key: rows for key, rows in value.items() if _holds_rows(rows)}
    named = [key for key in _LISTS if key in lists]
    if named:
        return list(lists[named[0]])
    inner = list(value.values())
    if any(map(_is_dialogue, inner)):
        return [value]
    if len(lists) == 1:
        return list(next(iter(lists.values())))
    if lists:
        raise CorpusError(f"{where}: several lists of rows ({', '.join(lists)}); save one of them in a file of its own")
    if inner and all(isinstance(each, dict) for each in inner):
        if all(key.isdigit() for each in inner for key in each):  # pandas, orient="columns"
            keys = dict.fromkeys(key for each in inner for key in each)
            return [{name: column.get(key) for name, column in value.items()} for key in keys]
        return inner  # pandas, orient="index"
    if inner and all(isinstance(each, list) and len(each) == len(inner[0]) > 0 for each in inner):
        return [dict(zip(value, row, strict=True)) for row in zip(*inner, strict=True)]
    return [value]


def _holds_rows(rows: Any) -> bool:
    """Return whether a value is a list of objects that are no messages."""
    is_list = isinstance(rows, list) and len(rows) > 0 and all(isinstance(row, dict) for row in rows)
    return is_list and not _is_dialogue(rows)


def _is_dialogue(value: Any) -> bool:
    """Return whether a value is messages: a list of them, one of them, or an object that holds them."""
    messages = value if isinstance(value, list) else [value]
    named = [message.keys() for message in messages if isinstance(message, dict)]
    return any(keys <= names for names in named for keys in _OF_MESSAGES)


def _row(value: Any) -> Mapping[str, Any] | Unreadable:
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict):
        return Unreadable("a value that is not an object")
    if len(value) > _MOST_KEYS:
        return Unreadable(f"an object of more than {_MOST_KEYS:,} keys")
    if isinstance(value.get("row"), dict) and value.keys() <= {"row_idx", "row", "truncated_cells"}:
        return dict(value["row"])  # pages of the hub's viewer
    return value


def _is_object(line: str) -> bool:
    try:
        return isinstance(DECODER.decode(line), dict)
    except (ValueError, RecursionError):
        return False


def _reason(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__


class _Text:
    """Text that is read block by block, from which values are taken one by one; `where` begins errors."""

    def __init__(self, blocks: Iterator[str], where: str) -> None:
        self._blocks, self._where = blocks, where
        self._read, self._at = "", 0

    def peek(self, ignored: str = "") -> str:
        """Return the next character that is neither white space nor among `ignored`; nothing at the end."""
        while True:
            while self._at < len(self._read):
                if (character := self._read[self._at]) not in _SPACE and character not in ignored:
                    return character
                self._at += 1
            if not self._more(1):
                return ""

    def skip_match(self, pattern: re.Pattern[str]) -> bool:
        """Pass over what a pattern matches here; return whether it matched."""
        found = pattern.match(self._read, self._at)
        self._at = found.end() if found else self._at
        return found is not None

    def first_line(self) -> str:
        """Return what stands before the next end of a line."""
        while (end := self._read.find("\n", self._at)) < 0 and self._more(len(self._read)):
            pass
        return self._read[self._at : end if end >= 0 else None]

    def has_more_lines(self) -> bool:
        """Return whether anything but white space stands after the next end of a line."""
        while not (rest := self._read[self._at :].partition("\n")[2]).strip() and self._more(1):
            pass
        return bool(rest.strip())

    def value(self) -> Any:
        """Take the next value. Raises ValueError where there is none."""
        self.peek()
        while True:
            try:
                value, self._at = DECODER.raw_decode(self._read, self._at)
            except json.JSONDecodeError as error:
                is_inside = error.pos < len(self._read) - _WORD and not error.msg.startswith("Unterminated")
                if is_inside or not self._more(len(self._read)):
                    raise
            else:
                return value

    def rest(self) -> Iterator[str]:
        """Yield all that has not been taken."""
        yield self._read[self._at :]
        yield from self._blocks

    def _more(self, n: int) -> bool:
        """Read at least `n` more characters where there are any; return whether there were. Raises CorpusError."""
        parts, found = [self._read[self._at :]], 0
        if len(parts[0]) > LONGEST:
            raise CorpusError(f"{self._where}: a line or a value of it is {TOO_LONG}; save a text on each line")
        while found < n and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            found += len(block)
        self._read, self._at = "".join(parts), 0
        return found > 0
