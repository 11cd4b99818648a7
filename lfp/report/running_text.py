"""Tokens as running text in HTML, shaded by one feature's activation: in the explorer and on pages of an export."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from lfp.report.formatting import plain, signed
from lfp.util.sanitize import escaped, token_text

_NEWLINE = '<span class="lfp-space">↵</span>'
_NEWLINES = re.compile("\n+")


def pieces(text: str, token_starts: Sequence[int]) -> list[str]:
    """Split a text at its tokens; of several tokens within one character only the last is not empty."""
    return [text[start:end] for start, end in itertools.pairwise([*token_starts, len(text)])]


def strength(value: float | None, limit: float) -> int:
    """Return a value's colour strength, 0 to 100: the square root of its share of `limit`, so that low ones show."""
    if value is None or not limit > 0 or value != value:
        return 0
    return round(100 * min(abs(value) / limit, 1.0) ** 0.5)


def shaded(
    parts: Sequence[str],
    values: Sequence[float | None],
    *,
    limit: float,
    peak: int | None = None,
    first: int = 0,
    weight: float | None = None,
) -> str:
    """Write tokens as running text, shaded by activation, with number and contribution (by `weight`) on hover.

    `values` start at token `first`; the token at `peak` is marked.
    """
    out = []
    for at, part in enumerate(parts):
        value = values[at - first] if 0 <= at - first < len(values) else None
        inside = "" if 0 <= at - first < len(values) else " lfp-far"
        mark = " lfp-peak" if at == peak else ""
        title = escaped(token_text(part))
        if value:
            title += f" · {plain(value, 3)}" + ("" if weight is None else f" · contributes {signed(weight * value, 4)}")
        number = f' data-v="{plain(value, 1)}"' if value else ""
        out.append(
            f'<span class="lfp-t{inside}{mark}" style="--a:{strength(value, limit)}" title="{title}"{number}>'
            f"{_running(part, breaks=breaks_after(parts, at))}</span>"
        )
    return "".join(out)


def breaks_after(parts: Sequence[str], at: int) -> bool:
    """Return whether the line ends after a token: of several tokens of line breaks only after the last."""
    continues = at + 1 < len(parts) and parts[at + 1] != "" and not parts[at + 1].strip("\n")
    return parts[at].endswith("\n") and not continues


def _running(part: str, *, breaks: bool) -> str:
    """Write a token in running text: blanks and line breaks are visible, and the last of several breaks the line."""
    if not part:
        return "‥"
    if part.isspace() and "\n" not in part:
        return escaped(part.replace("\t", "⇥")).replace(" ", '<span class="lfp-space">·</span>')
    lines = _NEWLINES.sub(lambda run: _NEWLINE * len(run.group()) + "<br>", escaped(part).replace("\t", "⇥"))
    return lines if breaks else lines.removesuffix("<br>")
