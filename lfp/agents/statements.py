"""What a claim states: its numbers, each with how it is stated (a value, an interval, a null), and its names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lfp.agents.lexicon import Key, Lexicon, Named, normalise

Kind = Literal[
    "value", "about", "above", "below", "between", "interval", "p", "p below", "null", "n", "beyond chance",
    "within chance", "up", "down", "fires on",
]  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A number as written: its value, and half of its last digit."""

    value: float
    half: float

    def fits(self, stored: float | None) -> bool:
        """Whether a stored value rounds to what is written."""
        return stored is not None and math.isfinite(stored) and abs(stored - self.value) <= self.half * (1 + 1e-6)


@dataclass(frozen=True)
class Statement:
    """One thing that a claim states, with what it names for it; `part` is where the claim says so."""

    kind: Kind
    part: str
    figures: tuple[Figure, ...]
    names: tuple[Named, ...]
    noun: str = ""
    """What is counted, or the token that a feature fires on."""


_NUMBER = (
    r"[+-]?(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+|(?=\.\d))(?:\.\d+)?(?:e[+-]?\d{1,2}(?!\d))?(?:\s?(?:%|per ?cent\b))?"
)
_N = rf"(?<![\w.,])({_NUMBER})(?!\w)"
_NOUNS = "features|texts|words|pairs|completions|prefixes|contexts|tokens|layers|labels|probes|dictionaries"
_COUNTED = rf"(?: (?:(?!of )[a-z]+ )?(?P<noun>{_NOUNS})(?!\w))"
_UP = r"rose|rises|raised|raises|increased|increases|grew|gained|improved|went up|is higher|is larger|is greater"
_DOWN = r"fell|falls|dropped|drops|decreased|decreases|lowered|lowers|declined|went down|is lower|is smaller"
_WITHIN = (
    r"(?:is |are |was |does |do )?(?:not|no) (?:\w+ ){0,2}?(?:beyond|above|better than|beats?|significant(?:ly)?)"
    r"(?: than)?(?: (?:its|the|their))?(?: (?:null|chance))?|within (?:chance|its null)|indistinguishable from chance"
)
_BEYOND = (
    r"(?:beyond|above|better than) (?:its |the )?(?:chance|null)|(?:beats|beat|exceeds|passes) (?:its |the |their )?"
    r"(?:null|chance)|(?:statistically )?significant(?:ly)?|flagged"
)


@dataclass(frozen=True)
class _Rule:
    """A way to state something: a pattern, whose groups are numbers unless the kind takes none."""

    kind: Kind
    pattern: re.Pattern[str]


def _rules() -> tuple[_Rule, ...]:
    no_number = rf"(?!\s*[(:=]?\s*(?:of )?{_NUMBER})"
    texts: tuple[tuple[Kind, str], ...] = (
        ("interval", rf"\[\s*{_N}\s*(?:,|;|to)\s*{_N}\s*\]"),
        ("interval", rf"(?:interval|ci)(?: of| is| from|:)?\s+{_N}\s*(?:to|,|and)\s*{_N}"),
        ("between", rf"between {_N} and {_N}"),
        ("p below", rf"(?<!\w)[pq]\s*(?:<|≤|<=|below|at most|under)\s*{_N}"),
        ("p", rf"(?<!\w)[pq](?:\s?-?value)?\s*(?:=|of|is)\s*{_N}"),
        ("n", rf"(?<!\w)n\s*=\s*{_N}"),
        ("within chance", rf"(?:{_WITHIN}){no_number}"),
        ("beyond chance", rf"(?:{_BEYOND}){no_number}"),
        ("null", rf"(?:null|chance|shuffled)(?: [a-z]+){{0,4}}?\s*[=:(]?\s*{_N}"),
        (
            "above",
            rf"(?:more than|above|greater than|higher than|larger than|at least|exceeds|>=?|≥)\s*{_N}{_COUNTED}?",
        ),
        ("below", rf"(?:less than|fewer than|below|lower than|smaller than|at most|under|<=?|≤)\s*{_N}{_COUNTED}?"),
        ("about", rf"(?:about|around|roughly|approximately|nearly|almost|~|≈)\s*{_N}{_COUNTED}?"),
        ("value", rf"{_N}{_COUNTED}?"),
    )
    return tuple(_Rule(kind, re.compile(pattern)) for kind, pattern in texts)


_RULES = _rules()
_IGNORED = re.compile(r"95\s?(?:%|per ?cent|th percentile)|top \d+")
_KINDS = "feature|text|pair|layer|probe"
_REFERENCE = re.compile(
    rf"(?<!\w)(?:({_KINDS})s (\d{{1,9}}(?:(?:,| and|, and) \d{{1,9}})+)|({_KINDS}) (?:no\.? |number |#)?(\d{{1,9}}))"
    r"(?!\w|[.,]\d)"
)
_QUOTED = re.compile(r"[“\"]([^“”\"]{1,80})[”\"]|(?<![\w'])'([^']{1,40})'(?!\w)")
_WORD = re.compile(r"the word (?![“\"'])(\w+)")
_FROM_TO = re.compile(rf"from {_N}[^\d;]{{0,40}}? to {_N}|{_N}\s*(?:→|->)\s*{_N}")
_BY = re.compile(rf"by {_N}")
_NEAR = 80
"""How many characters after a verb of change its size may stand."""
_CHANGE = re.compile(rf"(?<!\w)(?:(?P<up>{_UP})|(?P<down>{_DOWN}))(?!\w)")
_STATING = re.compile(rf"\d|{_CHANGE.pattern.replace('?P<up>', '?:').replace('?P<down>', '?:')}|{_BEYOND}|null")
"""What would be a statement, or a part of one, outside a name."""
_FIRES = re.compile(r"fires? (?:most )?(?:often |strongly )?(?:on|for)(?: the)?(?: token| word)?s?\s*$")
_BREAKS = (r"[;.](?=\s|$)", r",? (?:and|but|while|whereas|against|versus|vs\.?|compared (?:with|to))(?= )", r",(?=\s)")
"""What separates statements, the strongest first."""


@dataclass(frozen=True)
class _Found:
    """A statement before names are given to it."""

    kind: Kind
    figures: tuple[Figure, ...]
    start: int
    stop: int
    noun: str = ""
    names: tuple[Named, ...] = ()


def read(claim: str, lexicon: Lexicon) -> list[Statement]:
    """Read a claim's statements, in order; each has the names of its own part, and those before where it has none."""
    reading = _Reading(claim)
    names = [*reading.names, *reading.read_phrases(lexicon)]
    found = sorted(reading.statements(), key=lambda statement: statement.start)
    if not found:
        return []
    ends = [_break(reading.plain, left.stop, right.start) for left, right in pairwise(found)]
    parts = list(zip([0, *ends], [*ends, len(claim)], strict=True))
    statements: list[Statement] = []
    before: tuple[Named, ...] = ()
    for statement, (start, stop) in zip(found, parts, strict=True):
        here = [name for name in names if start <= name.start < stop]
        named = _replace(_replace(before, here), statement.names)
        before = tuple(name for name in named if name.start >= 0 or "model" in name.families)
        if not any("metric" in name.families for name in named):
            named = (*named, *(name for name in names if "metric" in name.families))
        part = claim[min(start, statement.start) : max(stop, statement.stop)].strip(" ,;(")
        statements.append(Statement(statement.kind, part, statement.figures, named, statement.noun))
    return statements


def read_names(claim: str) -> list[Named]:
    """Read the features, words, texts, layers and probes that a claim names by number or in quotation marks."""
    return _Reading(claim).names


def _replace(names: tuple[Named, ...], later: list[Named] | tuple[Named, ...]) -> tuple[Named, ...]:
    """Return the names with later ones, which replace those about the same."""
    about = frozenset[str]().union(*(name.families for name in later))
    return (*(name for name in names if not name.families & about), *later)


def _break(text: str, start: int, stop: int) -> int:
    """Return where the part of one statement ends and that of the next begins."""
    for pattern in _BREAKS:
        found = re.search(pattern, text[start:stop])
        if found:
            return start + found.start()
    return stop


class _Reading:
    """Takes what it has read out of the text, so that nothing is read twice."""

    def __init__(self, claim: str) -> None:
        self.plain = normalise(claim)
        self.text = self.plain
        self.names: list[Named] = []
        self._first: list[_Found] = []
        self._quotations()
        self._take(_REFERENCE, self._refer)
        if any(("feature" in name.families) for name in self.names):
            self._read_layers()
        self._take(_IGNORED, lambda _match: None)

    def read_phrases(self, lexicon: Lexicon) -> list[Named]:
        """Read what the lexicon knows; a number or verb inside a name, as in width=512, states nothing."""
        found = lexicon.read(self.text)
        for name in found:
            if _STATING.search(self.text[name.start : name.stop]):
                self._blank(name.start, name.stop)
        return found

    def statements(self) -> list[_Found]:
        """Read statements of change first, then the others by rule."""
        found = [*self._first, *self._changes()]
        for rule in _RULES:
            self._take(rule.pattern, lambda match, kind=rule.kind: found.append(_statement(kind, match)))  # type: ignore[misc]
        return found

    def _quotations(self) -> None:
        def take(match: re.Match[str]) -> None:
            quoted = (match[1] or match[2] or "").strip()
            before = _FIRES.search(self.text[: match.start()])
            if before:
                self._first.append(_Found("fires on", (), before.start(), match.end(), noun=quoted))
            else:
                self._name(("word", quoted), match)

        self._take(_QUOTED, take)
        self._take(_WORD, lambda match: self._name(("word", match[1]), match))

    def _refer(self, match: re.Match[str]) -> None:
        kind = match[1] or match[3]
        for number in re.findall(r"\d+", match[2] or match[4]):
            self._name((kind, str(int(number))), match)

    def _read_layers(self) -> None:
        """Read “feature 12 is in layer 3” as a statement: a feature's layer needs no naming."""
        for name in [name for name in self.names if "layer" in name.families]:
            ((_, number),) = name.keys
            metric = Named(frozenset([("metric", "layer")]), -1, -1)
            self._first.append(_Found("value", (_figure(number),), name.start, name.stop, names=(metric,)))
            self.names.remove(name)

    def _changes(self) -> list[_Found]:
        """Read “rose from A to B”, “rose by D” and “rose”."""
        found: list[_Found] = []

        def from_to(match: re.Match[str]) -> None:
            old, new = [group for group in match.groups() if group]
            span = match.start(), match.end()
            if verb and (_figure(new).value > _figure(old).value) != bool(verb["up"]):
                found.append(_Found("up" if verb["up"] else "down", (), *span, names=(_model("difference"),)))
            found.append(_Found("value", (_figure(old),), *span, names=(_model("base"),)))
            found.append(_Found("value", (_figure(new),), *span, names=(_model("tuned"),)))

        verb = _CHANGE.search(self.text)
        if verb:
            self._take(_FROM_TO, from_to)
            sign = 1 if verb["up"] else -1
            span = verb.start(), verb.end()
            by = _BY.search(self.text, verb.end(), verb.end() + _NEAR)
            if by:
                figure = _figure(by[1])
                size = Figure(sign * figure.value, figure.half)
                found.append(_Found("value", (size,), span[0], by.end(), names=(_model("difference"),)))
                self._blank(by.start(), by.end())
            elif not found and not re.match(rf"(?: than)? {_NUMBER}", self.text[verb.end() :]):
                found.append(_Found("up" if verb["up"] else "down", (), *span, names=(_model("difference"),)))
                self._blank(*span)
        return found

    def _take(self, pattern: re.Pattern[str], take: Callable[[re.Match[str]], None]) -> None:
        for match in list(pattern.finditer(self.text)):
            take(match)
            self._blank(match.start(), match.end())

    def _blank(self, start: int, stop: int) -> None:
        self.text = self.text[:start] + "\x00" * (stop - start) + self.text[stop:]

    def _name(self, key: Key, match: re.Match[str]) -> None:
        self.names.append(Named(frozenset([key]), match.start(), match.end()))


def _model(name: str) -> Named:
    return Named(frozenset([("model", name)]), -1, -1)


def _statement(kind: Kind, match: re.Match[str]) -> _Found:
    noun = match.groupdict().get("noun") or ""
    written = [group for group in match.groups() if group and group != noun]
    return _Found(kind, tuple(map(_figure, written)), match.start(), match.end(), noun=noun)


def _figure(written: str) -> Figure:
    """Read a number as written; one in per cent is a share. A small whole number is not taken for a rounded one."""
    digits = re.sub(r"[,\s]|%|per ?cent", "", written)
    mantissa, _, exponent = digits.partition("e")
    decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
    is_share = "%" in written or "cent" in written
    value, half = float(digits), 0.5 * 10.0**-decimals
    if is_share:
        return Figure(value / 100, half / 100)
    return Figure(value, half if decimals > 0 or abs(value) >= _ROUNDED else _SMALL)


_ROUNDED, _SMALL = 10, 0.05
"""Whole numbers from the first up may be rounded; smaller ones are within the second of the stored value."""
