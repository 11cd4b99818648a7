"""Panels of words and numbers as escaped HTML: headings, facts, figures with their intervals, tables, bars, notices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lfp.report.formatting import digits_for, interval, percent, plain, signed
from lfp.util.sanitize import escaped, token_text


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


def heading(kicker: str, title: str, lede: str = "") -> str:
    """Return the top of a page."""
    body = f'<p class="lfp-lede">{escaped(lede)}</p>' if lede else ""
    return f'<div class="lfp-kicker">{escaped(kicker)}</div><h1 class="lfp-title">{escaped(title)}</h1>{body}'


def note(text: str) -> str:
    """Return a quiet sentence under a panel."""
    return f'<p class="lfp-note">{escaped(text)}</p>'


def text(words: str) -> str:
    """Return words within a line of other marks."""
    return f"<span>{escaped(words)}</span>"


def quoted(words: str) -> str:
    """Return words of a corpus, line by line as they are."""
    return f'<pre class="lfp-prompt">{escaped(words)}</pre>'


def anchor(href: str, words: str) -> str:
    """Return a link to another page of the explorer."""
    return f'<a href="{escaped(href)}" target="_self">{escaped(words)}</a>'


def following(href: str, words: str) -> str:
    """Return a link that follows itself, or waits for a click in a browser without scripts. The script is constant."""
    script = "<script>document.querySelector('.lfp-following a').click()</script>"
    return f'<p class="lfp-note lfp-following">{anchor(href, words)}</p>{script}'


def facts(pairs: Mapping[str, str]) -> str:
    """Return names and values in a row."""
    rows = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in pairs.items())
    return f'<dl class="lfp-facts">{rows}</dl>'


def badge(text: str, kind: str = "") -> str:
    """Return a short mark. `kind` is good, up, down or nothing."""
    return f'<span class="lfp-badge {kind}">{escaped(text)}</span>'


def cards(headlines: Iterable[Headline]) -> str:
    """Return large figures side by side, with the key to their strips."""
    items = list(headlines)
    has_ceiling = any(item.ceiling is not None for item in items)
    ceiling = '<span class="ceiling">knowing only the sign</span>' if has_ceiling else ""
    key = (
        '<div class="lfp-key"><span class="span">95 % interval</span><span class="chance">chance (95 %)</span>'
        f"{ceiling}</div>"
    )
    return f'<div class="lfp-cards">{"".join(_card(item) for item in items)}</div>{key}'


def _card(item: Headline) -> str:
    digits = digits_for(item.low, item.high)
    figure = (signed if item.is_change else plain)(item.value, digits)
    span = interval(item.low, item.high, digits)
    unit = escaped(" ".join(part for part in (item.unit, f"[{span}]" if span else "") if part))
    return (
        f'<section class="lfp-card"><h4>{escaped(item.name)}</h4>'
        f'<div class="lfp-figure">{figure}<small>{unit}</small></div>'
        f"{_strip(item)}<p>{escaped(item.sentence)}</p></section>"
    )


def _strip(item: Headline) -> str:
    """Return interval, chance and ceiling on one line; nothing where there is no interval."""
    if item.low is None or item.high is None:
        return ""
    marks = [0.0, item.value, item.low, item.high, item.chance, item.ceiling]
    known = [mark for mark in marks if mark is not None]
    low, high = min(known), max(known)
    scale = 96 / (high - low or 1)

    def at(value: float) -> str:
        return f"{2 + (value - low) * scale:.1f}%"

    def span(kind: str, start: float, end: float) -> str:
        return f'<span class="{kind}" style="left:{at(start)};width:{max((end - start) * scale, 0.4):.1f}%"></span>'

    parts = [f'<span class="zero" style="left:{at(0)}"></span>']
    if item.chance is not None:
        start = max(low, -item.chance) if item.chance_low is None else max(low, item.chance_low)
        parts.append(span("chance", min(start, item.chance), item.chance))
    parts.append(span("span", item.low, item.high))
    if item.ceiling is not None:
        parts.append(f'<span class="ceiling" style="left:{at(item.ceiling)}"></span>')
    parts.append(f'<span class="point" style="left:{at(item.value)}"></span>')
    return f'<div class="lfp-strip" aria-hidden="true">{"".join(parts)}</div>'


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
    return f'<div class="lfp-scroll"><table class="{kind}">{head}<tbody>{body}</tbody></table></div>'


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
    **others: float,
) -> str:
    """Return the sum of contributions, written out, and whether it is the prediction.

    `others` are further parts, by name.
    `source` says where the prediction is from. It has to be met within a hundred thousandth of `size`, the size of what
    is added up, where that is above 1.
    """

    def added(value: float) -> str:
        return f" {'−' if value < 0 else '+'} <b>{plain(abs(value), 4)}</b>"

    total = shown + rest + sum(others.values())
    error = abs(total - predicted)
    is_exact = error <= 1e-5 * max(1.0, abs(predicted), size)
    further = f"{added(rest)} from {n_rest} other{'s' if n_rest != 1 else ''}" if n_rest else ""
    further += "".join(f"{added(value)} {escaped(name)}" for name, value in others.items())
    verdict = "ok" if is_exact else "off"
    says = "adds up exactly" if is_exact else "does not add up"
    return (
        f'<p class="lfp-sum"><b>{plain(shown, 4)}</b> from the {n_shown} shown{further} '
        f"= <b>{plain(total, 4)}</b><br>{escaped(source)}: <b>{plain(predicted, 4)}</b> · "
        f'<span class="{verdict}">{"✓" if is_exact else "✗"} {says}</span> (difference {error:.0e})</p>'
    )


def notice(title: str, sentence: str) -> str:
    """Return a page that says what is wrong and what to do."""
    whole = f"{sentence[:1].upper()}{sentence[1:].rstrip('.')}."
    return f'<div class="lfp-notice"><h1>{escaped(title)}</h1><p>{escaped(whole)}</p></div>'


def notice_here(title: str, sentence: str) -> str:
    """Return a notice within a page."""
    whole = f"{sentence[:1].upper()}{sentence[1:].rstrip('.')}." if sentence else ""
    return f'<div class="lfp-notice here"><h4>{escaped(title)}</h4><p>{escaped(whole)}</p></div>'
