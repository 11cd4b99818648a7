"""A card: one image of a feature as SVG, with its name, what it fires on, promotes and demotes, and an example."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lfp.report.figures.frame import BASE, NEGATIVE, POSITIVE, STRENGTH
from lfp.util.sanitize import escaped, shortened, token_text

WIDTH, HEIGHT = 1200, 630
INK, MUTED, PAPER, LINE = "#24221d", "#6b675e", "#fbfaf7", "#dcd8cd"
SERIF, SANS = "Source Serif 4, Source Serif, Georgia, serif", "Inter, Segoe UI, Helvetica, Arial, sans-serif"
COLOURS = {"up": POSITIVE, "down": NEGATIVE, "strength": STRENGTH, "base": BASE}
MOST_TOKENS = 5
"""Tokens of a list that are shown."""
_LEFT, _COLUMN = 60, 360
_TITLE_LETTERS, _EXAMPLE_LETTERS, _TOKEN_LETTERS = 50, 104, 16
"""Letters that fit on a line."""


class TokenList(NamedTuple):
    """A list of tokens: its title, tokens with values, and the name of its colour."""

    title: str
    tokens: Sequence[tuple[str, float]]
    colour: str


class Example(NamedTuple):
    """A token in a text, with what is around it."""

    before: str
    token: str
    after: str


@dataclass(frozen=True)
class Card:
    """What a card shows, top to bottom."""

    above: str
    title: str
    figure: str
    lists: Sequence[TokenList]
    example: Example | None
    below: str


def draw_card(card: Card) -> str:
    """Return a card as SVG of 1200 by 630; every text is escaped, and cut where it would not fit."""
    parts = [_text(_LEFT, 62, shortened(card.above, 96), size=20, fill=MUTED)]
    lines = _break_lines(shortened(card.title, 2 * _TITLE_LETTERS - 6), _TITLE_LETTERS)
    parts += [_text(_LEFT, 116 + 50 * at, line, size=42, family=SERIF, weight=600) for at, line in enumerate(lines)]
    y = 116 + 50 * len(lines) - 4
    parts.append(_text(_LEFT, y, shortened(card.figure, 104), size=21))
    parts += [_draw_list(found, _LEFT + _COLUMN * at, y + 56) for at, found in enumerate(card.lists)]
    if card.example is not None:
        parts.append(_draw_example(card.example, 500))
    parts.append(_text(_LEFT, 602, shortened(card.below, 110), size=17, fill=MUTED))
    body = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{escaped(card.title)}"><rect width="100%" height="100%" fill="{PAPER}"/>'
        f'<rect width="100%" height="8" fill="{STRENGTH}"/>{body}</svg>'
    )


def _text(x: float, y: float, words: str, *, size: int, fill: str = INK, family: str = SANS, weight: int = 400) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-family="{family}" font-size="{size}" font-weight="{weight}" '
        f'fill="{fill}">{escaped(words)}</text>'
    )


def _draw_list(found: TokenList, x: float, y: float) -> str:
    """Draw a title, and tokens with bars as long as their values are large."""
    largest = max((abs(value) for _, value in found.tokens), default=0.0) or 1.0
    parts = [_text(x, y, found.title, size=18, fill=MUTED, weight=600)]
    if not found.tokens:
        parts.append(_text(x, y + 32, "none", size=20, fill=MUTED))
    for at, (token, value) in enumerate(found.tokens[:MOST_TOKENS]):
        top = y + 32 + 32 * at
        width = 110 * abs(value) / largest
        parts.append(_text(x, top, shortened(token_text(token), _TOKEN_LETTERS), size=20))
        parts.append(
            f'<rect x="{x + 190:g}" y="{top - 14:g}" width="{width:.1f}" height="14" rx="3" '
            f'fill="{COLOURS[found.colour]}"/>'
        )
    return "".join(parts)


def _draw_example(example: Example, y: float) -> str:
    """Draw a text on two lines, its token marked."""
    room = 2 * _EXAMPLE_LETTERS - len(example.token) - 8
    before, after = " ".join(example.before.split()), " ".join(example.after.split())
    head = before[-(room * 2 // 3) :] if len(before) > room * 2 // 3 else before
    tail = after[: max(room - len(head), 0)]
    words = [(word, False) for word in head.split()] + [(example.token.strip() or token_text(example.token), True)]
    is_joined = bool(head) and not example.before[-1:].isspace() and not example.token[:1].isspace()
    rows: list[list[str]] = [[]]
    n = 0
    for word, is_token in words + [(word, False) for word in tail.split()]:
        if n + len(word) > _EXAMPLE_LETTERS and len(rows) < 2:
            rows.append([])
            n = 0
        n += len(word) + 1
        mark = f'<tspan font-weight="700" fill="{STRENGTH}">{escaped(word)}</tspan>' if is_token else escaped(word)
        glue = "" if not rows[-1] or (is_token and is_joined) else " "
        rows[-1].append(glue + mark)
    lines = "".join(
        f'<text x="{_LEFT}" y="{y + 34 * at:g}" font-family="{SERIF}" font-size="22" fill="{INK}" '
        f'xml:space="preserve">{"".join(row)}</text>'
        for at, row in enumerate(rows)
    )
    return f'<line x1="{_LEFT}" x2="{WIDTH - _LEFT}" y1="{y - 36:g}" y2="{y - 36:g}" stroke="{LINE}"/>{lines}'


def _break_lines(text: str, letters: int) -> list[str]:
    """Break a text into at most two lines at spaces."""
    if len(text) <= letters:
        return [text]
    cut = text.rfind(" ", 0, letters + 1)
    cut = cut if cut > 0 else letters
    return [text[:cut], re.sub(r"^ ", "", text[cut:])]
