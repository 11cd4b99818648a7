"""Panels of words and numbers as escaped HTML: headings, facts, figures with their intervals, tables, bars, notices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lfp.report.formatting import digits_for, interval, percent, plain, signed
from lfp.util.sanitize import escaped, shortened, token_text


@dataclass(frozen=True)
class Headline:
    """A large figure: its 95 % interval, what chance reaches, and a ceiling where one is known."""

    name: str
    value: float
    sentence: str
    unit: str = ""
    is_change: bool = False
    low: float | None = None
    high: float | None = None
    chance_low: float | None = None
    chance: float | None = None
    ceiling: float | None = None


def kicker(words: str) -> str:
    """Return the small line above a title, which says what it is of."""
    return f'<div class="lfp-kicker">{escaped(words)}</div>'


def heading(above: str, title: str, lede: str = "") -> str:
    """Return the top of a page."""
    body = f'<p class="lfp-lede">{escaped(lede)}</p>' if lede else ""
    return f'{kicker(above)}<h1 class="lfp-title">{escaped(title)}</h1>{body}'


def note(text: str) -> str:
    """Return a quiet sentence under a panel."""
    return f'<p class="lfp-note">{escaped(text)}</p>'


def text(words: str) -> str:
    """Return words within a line of other marks."""
    return f"<span>{escaped(words)}</span>"


def cut(words: str, length: int) -> str:
    """Return at most so many characters of a text on one line; a text that is longer is whole on hover."""
    line = shortened(words, length)
    whole = " ".join(words.split())
    return escaped(line) if len(whole) <= length else f'<span title="{escaped(whole)}">{escaped(line)}</span>'


def plain_text(words: str) -> str:
    """Return a text as it is read, without any score."""
    return f'<p class="lfp-lede" dir="auto">{escaped(words)}</p>'


def anchor(href: str, words: str) -> str:
    """Return a link to another page of the explorer."""
    return f'<a href="{escaped(href)}" target="_self">{escaped(words)}</a>'


def following(href: str, words: str) -> str:
    """Return a link that follows itself, or waits for a click in a browser without scripts. The script is constant.

    It waits, too, where a table selected the cell as Tab or an arrow came to it (`navigation.SCRIPT`): Enter opens it.
    """
    script = "<script>if (!window.lfpByKeys) document.querySelector('.lfp-following a').click()</script>"
    return f'<p class="lfp-note lfp-following">{anchor(href, words)}</p>{script}'


def direction(value: float) -> str:
    """Return the CSS class of a value's sign."""
    return "up" if value >= 0 else "down"


def facts(pairs: Mapping[str, str | None]) -> str:
    """Return names and values in a row, without those that are None."""
    known = {name: value for name, value in pairs.items() if value is not None}
    rows = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in known.items())
    return f'<dl class="lfp-facts">{rows}</dl>'


def badge(text: str, kind: str = "") -> str:
    """Return a short mark. `kind` is good, up, down or nothing."""
    return f'<span class="lfp-badge {kind}">{escaped(text)}</span>'


def cards(headlines: Iterable[Headline]) -> str:
    """Return large figures side by side, each over its strip, with the key to the strips."""
    items = list(headlines)
    body = ""
    for item in items:
        digits = digits_for(item.low, item.high)
        figure = (signed if item.is_change else plain)(item.value, digits)
        span = interval(item.low, item.high, digits)
        unit = escaped(" ".join(part for part in (item.unit, f"[{span}]" if span else "") if part))
        body += (
            f'<section class="lfp-card"><h4>{escaped(item.name)}</h4>'
            f'<div class="lfp-figure">{figure}<small>{unit}</small></div>'
            f"{_headline_strip(item)}<p>{escaped(item.sentence)}</p></section>"
        )
    has_ceiling = any(item.ceiling is not None for item in items)
    ceiling = '<span class="ceiling">knowing only the sign</span>' if has_ceiling else ""
    key = f'<span class="span">95 % interval</span><span class="chance">chance (95 %)</span>{ceiling}'
    return f'<div class="lfp-cards">{body}</div><div class="lfp-key">{key}</div>'


def _headline_strip(item: Headline) -> str:
    """Return interval, chance and ceiling on one line; nothing where there is no interval."""
    if item.low is None or item.high is None:
        return ""
    values = [0.0, item.value, item.low, item.high, item.chance, item.ceiling]
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    marks: list[Mark] = [("zero", 0, None)]
    if item.chance is not None:
        start = max(low, -item.chance) if item.chance_low is None else max(low, item.chance_low)
        marks.append(("chance", min(start, item.chance), item.chance))
    marks.append(("span", item.low, item.high))
    if item.ceiling is not None:
        marks.append(("ceiling", item.ceiling, None))
    marks.append(("point", item.value, None))
    scale = 96 / (high - low or 1)
    return f'<div class="lfp-strip" aria-hidden="true">{strip(marks, 2 - low * scale, scale, narrowest=0.4)}</div>'


Mark = tuple[str, float, float | None]
"""A mark on a strip: its CSS class, where it is or starts, and where it ends if it has a width."""


def strip(marks: Sequence[Mark], origin: float, scale: float, *, narrowest: float = 0.0) -> str:
    """Return marks on a line: zero is at `origin` per cent of its width, and a unit has `scale` per cent."""
    html = ""
    for kind, start, end in marks:
        width = "" if end is None else f";width:{max((end - start) * scale, narrowest):.1f}%"
        html += f'<span class="{kind}" style="left:{origin + start * scale:.1f}%{width}"></span>'
    return html


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, strong: Sequence[int] = (), wraps: bool = False
) -> str:
    """Return a plain table; the first column is its names, and the rows numbered in `strong` stand out.

    With `wraps` long cells break into lines; without it the table scrolls.
    """
    top = "".join(f"<th>{escaped(head)}</th>" for head in heads)
    body = "".join(
        f'<tr class="{"strong" if at in strong else ""}">{"".join(f"<td>{escaped(cell)}</td>" for cell in row)}</tr>'
        for at, row in enumerate(rows)
    )
    head = f"<thead><tr>{top}</tr></thead>"
    kind = "lfp-table wraps" if wraps else "lfp-table"
    return scrolling(f'<table class="{kind}">{head}<tbody>{body}</tbody></table>')


def scrolling(wide: str) -> str:
    """Return a table that scrolls where it is wider than its place, by keys too."""
    return f'<div class="lfp-scroll" tabindex="0" role="group" aria-label="Table">{wide}</div>'


class Moved(NamedTuple):
    """A value and how it is written, what it is of, and what is said of that; the last two are HTML."""

    value: float
    written: str
    text: str
    note: str


def moved_list(rows: Sequence[Moved]) -> str:
    """Return values with bars, relative to the largest, beside what they are of; empty without rows."""
    largest = max((abs(row.value) for row in rows), default=0.0) or 1.0
    items = "".join(
        f'<li><div class="side"><b class="{direction(row.value)}">{row.written}</b>'
        f'<span class="bar {direction(row.value)}" style="--w:{100 * abs(row.value) / largest:.1f}"></span></div>'
        f'<div><p dir="auto">{row.text}</p><small>{row.note}</small></div></li>'
        for row in rows
    )
    return f'<ol class="lfp-moved">{items}</ol>' if items else ""


class LinkedRow(NamedTuple):
    """Where a row leads, by what name, what is said of it, and its figures."""

    href: str
    name: str
    says: str
    cells: tuple[str, ...]


def linked_table(heads: Sequence[str], rows: Sequence[LinkedRow]) -> str:
    """Return rows with their links in the first column, whose head is the first of `heads`."""
    top, body = "".join(f'<th scope="col">{escaped(head)}</th>' for head in heads), ""
    for row in rows:
        says = f" <span>{cut(row.says, 64)}</span>" if row.says else ""
        cells = "".join(f"<td>{escaped(cell)}</td>" for cell in row.cells)
        body += f"<tr><td>{anchor(row.href, row.name)}{says}</td>{cells}</tr>"
    head = f"<thead><tr>{top}</tr></thead>"
    return scrolling(f'<table class="lfp-table lfp-linked">{head}<tbody>{body}</tbody></table>')


def token_bars(items: Sequence[Mapping[str, object]], *, sign: int | None = None) -> str:
    """Return a bar per token: signed numbers coloured up or down, or (`sign` None) shares in the colour of strength."""
    hue = {None: "var(--lfp-act)", 1: "var(--lfp-up)", -1: "var(--lfp-down)"}[sign]
    values = [float(item["value"]) for item in items]  # type: ignore[arg-type]
    longest = max((abs(value) for value in values), default=0) or 1
    show = percent if sign is None else signed
    rows = "".join(
        f"<li><code>{escaped(token_text(str(item['token'])))}</code>"
        f'<div><div class="bar" style="--hue:{hue};--w:{100 * abs(value) / longest:.1f}"></div></div>'
        f"<span>{show(value)}</span></li>"
        for item, value in zip(items, values, strict=True)
    )
    return f'<ul class="lfp-bars">{rows}</ul>'


def sum_check(
    *,
    shown: float,
    n_shown: int,
    rest: float,
    n_rest: int,
    predicted: float,
    size: float = 1.0,
    source: str = "stated in the bundle",
    unit: str = "",
    tolerance: float = 0.0,
    **others: float,
) -> str:
    """Return the sum of contributions, written out, and whether it is the prediction.

    `others` are further parts, by name.
    `source` says where the prediction is from, and `unit` what it is in. It has to be met within a hundred thousandth
    of `size`, the size of what is added up, where that is above 1, or within `tolerance` of `size`, which is said.
    """

    def added(value: float) -> str:
        return f" {'−' if value < 0 else '+'} <b>{plain(abs(value), 4)}</b>"

    total = shown + rest + sum(others.values())
    error = abs(total - predicted)
    rounding = 1e-5 * max(1.0, abs(predicted), size)
    is_exact, is_near = error <= rounding, error <= tolerance * size + rounding
    further = f"{added(rest)} from {n_rest} other{'s' if n_rest != 1 else ''}" if n_rest else ""
    further += "".join(f"{added(value)} {escaped(name)}" for name, value in others.items())
    verdict, mark = ("ok", "✓") if is_near else ("off", "✗")
    says = "adds up exactly" if is_exact else "does not add up"
    if is_near and not is_exact:
        says = f"adds up within the integral’s error, {percent(error / size)} of the parts’ sizes"
    return (
        f'<p class="lfp-sum"><b>{plain(shown, 4)}</b> from the {n_shown} shown{further} '
        f"= <b>{plain(total, 4)}</b><br>{escaped(source)}: <b>{plain(predicted, 4)}</b> {escaped(unit)} · "
        f'<span class="{verdict}">{mark} {says}</span> (difference {error:.0e})</p>'
    )


def notice(title: str, sentence: str, *, is_page: bool = True) -> str:
    """Return what is wrong and what to do, as a page or, with `is_page` False, as a part of one."""
    whole = f"{sentence[:1].upper()}{sentence[1:].rstrip('.')}." if sentence or is_page else ""
    kind, tag = ("lfp-notice", "h1") if is_page else ("lfp-notice here", "h4")
    return f'<div class="{kind}"><{tag}>{escaped(title)}</{tag}><p>{escaped(whole)}</p></div>'
