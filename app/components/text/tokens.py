"""Tokens as HTML: shaded by one feature's activation, or with a strip per score under each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lfp.report.formatting import NONE, plain, short, signed
from lfp.report.running_text import breaks_after, pieces, shaded, strength
from lfp.util.sanitize import escaped, token_text

CONTEXT = 3
"""Tokens shown on each side of an example's window."""


@dataclass(frozen=True)
class Row:
    """One score of a text's tokens: a value per token (None: no score); `limit` is the value of full colour."""

    name: str
    values: Sequence[float | None]
    limit: float
    unit: str


def example(row: Mapping[str, Any], *, limit: float, caption: str, weight: float | None = None) -> str:
    """Write an example: its window with its token marked, and the whole text in a disclosure.

    `row` is one of `feature_excerpts`; `caption` is HTML.
    """
    parts, values = pieces(row["text"], row["token_starts"]), row["window_values"]
    first, position = row["window_start"], row["position"]
    low, high = max(first - CONTEXT, 0), first + len(values) + CONTEXT
    window = shaded(parts[low:high], values, limit=limit, peak=position - low, first=first - low, weight=weight)
    cut = ("…" if low else "") + f"{window}" + ("…" if high < len(parts) else "")
    whole = shaded(parts, values, limit=limit, peak=position, first=first, weight=weight)
    more = f"<details><summary>Whole text</summary><p>{whole}</p></details>" if low or high < len(parts) else ""
    return f'<li class="lfp-example"><div class="lfp-caption">{caption}</div><div><p>{cut}</p>{more}</div></li>'


def examples(items: Sequence[str], *, numbers: bool) -> str:
    """Write a list of examples."""
    return f'<ol class="lfp-examples{" lfp-numbers" if numbers else ""}">{"".join(items)}</ol>'


def strength_legend(limit: float, says: str) -> str:
    """Write the legend of the shading, 0 to `limit`."""
    return (
        '<div class="lfp-legend"><span>0</span><span class="lfp-ramp lfp-ramp-one"></span>'
        f"<span>{plain(limit)}</span><span>{escaped(says)}</span></div>"
    )


def sheet(
    parts: Sequence[str],
    rows: Sequence[Row],
    *,
    activations: Sequence[float] = (),
    limit: float = 0,
    numbers: bool = False,
    tips: Sequence[str] = (),
) -> str:
    """Write a text as a score sheet: under each token one strip per score, blue above zero and orange below.

    With `activations` the tokens are shaded by one feature. `tips`, HTML, are shown with a token's scores while it is
    hovered or focused; without them its scores are its title.
    """
    head = "".join(f"<i>{escaped(row.name)}</i>" for row in rows)
    cells = f'<div class="lfp-cell lfp-head" aria-hidden="true"><b>token</b>{head}</div>'
    for at, part in enumerate(parts):
        values = [row.values[at] if at < len(row.values) else None for row in rows]
        active = activations[at] if at < len(activations) else None
        is_joined = at > 0 and parts[at - 1][-1:].isalnum() and part[:1].isalnum()  # both belong to one word
        shade = f' style="--a:{strength(active, limit)}"' if active else ""
        tip = tips[at] if at < len(tips) else None
        cells += _cell(part, rows, values, active=active, shade=shade, tip=tip, is_joined=is_joined)
        if breaks_after(parts, at):
            cells += '<div class="lfp-break"></div>'
    return f'<div class="lfp-sheet{" lfp-numbers" if numbers else ""}">{cells}</div>'


def _cell(
    part: str,
    rows: Sequence[Row],
    values: Sequence[float | None],
    *,
    active: float | None,
    shade: str,
    tip: str | None,
    is_joined: bool,
) -> str:
    """Write a token and its strips; its scores are its title or, with a `tip`, shown together with that."""
    strips, scores, lines = "", "", [token_text(part)]
    for row, value in zip(rows, values, strict=True):
        if value is None or value != value:
            says = f"{NONE} (no score)"
            strips += '<i class="lfp-none"></i>'
        else:
            says, sign = signed(value, 3), "lfp-up" if value >= 0 else "lfp-down"
            strips += f'<i class="{sign}" style="--a:{strength(value, row.limit)}"><s>{short(value)}</s></i>'
        lines.append(f"{row.name}: {says}")
        scores += f"<div><dt>{escaped(row.name)}</dt><dd>{says}</dd></div>"
    if active is not None:
        lines.append(f"activation: {plain(active, 3)}")
    title = escaped("\n".join(lines)).replace("\n", "&#10;")
    attributes, shown = f'title="{title}"', ""
    if tip is not None:
        attributes = f'tabindex="0" role="group" aria-label="{title}"'
        shown = (
            f'<div class="lfp-tip" role="tooltip"><code>{escaped(token_text(part))}</code>'
            f'<dl class="lfp-facts">{scores}</dl>{tip}</div>'
        )
    return (
        f'<div class="lfp-cell{" lfp-joined" if is_joined else ""}" {attributes}>'
        f'<b class="lfp-t"{shade}>{_alone(part)}</b>{strips}{shown}</div>'
    )  # fmt: skip


def sheet_legend(rows: Sequence[Row]) -> str:
    """Write one legend for all scores: the ramp, and each score's value of full colour."""
    limits = "".join(
        f"<span><b>{escaped(row.name)}</b> ± {plain(row.limit)} {escaped(row.unit)}</span>"
        for row in rows
        if row.limit > 0
    )
    return (
        '<div class="lfp-legend"><span>below zero</span><span class="lfp-ramp lfp-ramp-two"></span>'
        "<span>above zero</span>"
        f'<span class="lfp-none"></span><span>no score</span><div>{limits}</div></div>'
    )


def _alone(part: str) -> str:
    """Write a token in its own cell, without the space before a word."""
    core = token_text(part)
    if part.isspace() or not part:
        return f'<span class="lfp-space">{escaped(core)}</span>'
    return escaped(core.removeprefix("␣"))
