"""What keeps a text out of what is published: slurs, sexual language, profanity, harm, and personal data."""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path

_WORDS = Path(__file__).with_name("screened_words.toml")
_STREETS = "street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|court|highway|hwy|square"
_PERSONAL = {
    "e-mail address": r"[\w.+-]+@[\w-]+\.\w+",
    "account name": r"(?<![\w@])@\w{3,}",
    "number of a card or account": r"\b(?:\d[ -]?){13,19}\b|\b\d{3}-\d{2}-\d{4}\b",
    "phone number": r"(?<!\d)(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)[ .-]?|\d{2,4}[ .-])\d{3,4}[ .-]\d{3,4}(?!\d)"
    r"|(?<![\d.-])\d{3}-\d{4}(?![\d-])|\+\d{9,}",
    "street address": rf"\b\d{{1,5}}\s+(?:[A-Z][\w.]*\s+){{1,3}}(?i:{_STREETS})\b",
    "post code": r"\b[A-Z]{2} \d{5}(?:-\d{4})?\b|\b[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b",
    "internet address": r"\b\d{1,3}(?:\.\d{1,3}){3}\b|https?://|\bwww\.",
}


OFFENSIVE = ("slur", "sexual", "e-mail address", "phone number", "street address")
"""Reasons for which not even a text that a model wrote while it was compared is published."""


def is_offensive(text: str) -> bool:
    """Whether the first objection to a text is one of OFFENSIVE."""
    return find_objection(text) in OFFENSIVE


def find_objection(text: str) -> str | None:
    """Return the first reason why a text should not be published, such as "slur" or "phone number"; None if none."""
    return next((reason for reason, pattern in _patterns().items() if pattern.search(text)), None)


@functools.cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """Return a pattern per reason: of the listed words, whole and in any case, and of personal data."""
    words: dict[str, list[str]] = tomllib.loads(_WORDS.read_text(encoding="utf-8"))
    listed = {
        reason: "|".join(re.escape(word).replace(r"\*", r"\w*") for word in entries)
        for reason, entries in words.items()
    }
    patterns = {reason: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for reason, words in listed.items()}
    return patterns | {reason: re.compile(pattern) for reason, pattern in _PERSONAL.items()}
