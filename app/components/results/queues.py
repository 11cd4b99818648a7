"""Lists of disagreements as escaped HTML: two percentile ranks on a line, and the features responsible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from app.components.html import panels
from lfp.bundle.queries.words import PaidWord, QueuedText, QueuedWord, Responsible, TwinWord
from lfp.evaluation.results import ResultRow
from lfp.report.formatting import plain, signed
from lfp.util.sanitize import as_label, escaped, shortened


@dataclass(frozen=True)
class Judges:
    """The two scores that are compared: their names on screen, and their units."""

    first: str
    second: str
    first_unit: str = ""
    second_unit: str = ""


@dataclass(frozen=True)
class Named:
    """A feature with its label, and its contribution to the gap where that is known."""

    feature_id: int
    description: str | None
    push: float | None = None


@dataclass(frozen=True)
class Item:
    """A text or word in the list: `head` is its name as HTML, `features` are responsible for its gap.

    One that `is_hidden` is shown without scores and features, for a blind reviewer who has yet to judge it.
    """

    head: str
    thing: QueuedText | QueuedWord
    features: tuple[Named, ...]
    is_hidden: bool = False


def by_text(found: Sequence[Responsible]) -> dict[int, tuple[Named, ...]]:
    """Return the features responsible for each text, largest contribution first."""
    grouped: dict[int, list[Named]] = {}
    for row in found:
        grouped.setdefault(row.text_id, []).append(Named(row.feature_id, row.description, row.difference))
    return {text_id: tuple(features) for text_id, features in grouped.items()}


class Group(NamedTuple):
    """How a button calls a feature responsible for items, and its whole name where that is cut."""

    heading: str
    name: str | None


def groups(features: Sequence[tuple[Named, ...]], *, most: int = 10, is_blind: bool = False) -> dict[int, Group]:
    """Return a heading for each of the features responsible for most items, with their number, largest first.

    With `is_blind` features are not named.
    """
    counts = Counter(feature.feature_id for item in features for feature in item)
    names = {feature.feature_id: feature.description for item in features for feature in item}
    largest = sorted(counts, key=lambda number: (-counts[number], number))[:most]
    made = {}
    for number in largest:
        name = "" if is_blind else names[number] or "no label"
        short = shortened(name, 36)
        heading = as_label(f"{counts[number]} · #{number} {short}".rstrip())
        made[number] = Group(heading, as_label(name) if short.endswith("…") and short != name else None)
    return made


def listed(items: Sequence[Item], judges: Judges, *, feature_href: Mapping[int, str]) -> str:
    """Write each item: gap, both scores, their ranks on a line from lowest to highest, the features responsible."""
    rows = ""
    for item in items:
        if item.is_hidden:
            rows += f'<li><div class="lfp-gap">?</div><div class="said">{item.head}</div></li>'
            continue
        thing = item.thing
        way = "up" if thing.gap > 0 else "down"
        low, high = sorted((thing.first_rank, thing.second_rank))
        scores = ((judges.first, thing.first, judges.first_unit), (judges.second, thing.second, judges.second_unit))
        says = " · ".join(f"{judge} {signed(value, 2)} {unit}".rstrip() for judge, value, unit in scores)
        spoken = f"{judges.first}: rank {thing.first_rank:.2f}; {judges.second}: rank {thing.second_rank:.2f}"
        line = (
            f'<div class="lfp-ranks" role="img" aria-label="{escaped(spoken)}">'
            f'<span class="{way}" style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></span>'
            f'<span class="lfp-second" style="left:{100 * thing.second_rank:.1f}%"></span>'
            f'<span class="lfp-first" style="left:{100 * thing.first_rank:.1f}%"></span></div>'
        )
        rows += (
            f'<li><div class="lfp-gap {way}">{signed(thing.gap)}</div>'
            f'<div class="said">{item.head}<p class="lfp-caption">{escaped(says)}</p>{line}'
            f'<p class="lfp-why">{_features(item.features, feature_href)}</p></div></li>'
        )
    return f'<ol class="lfp-queue">{rows}</ol>'


def legend(judges: Judges) -> str:
    """Write what the two marks are."""
    return (
        f'<div class="lfp-legend"><span class="lfp-first"></span><span>{escaped(judges.first)}</span>'
        f'<span class="lfp-second"></span><span>{escaped(judges.second)}</span>'
        "<span>percentile rank, lowest at the left; click an item to read it</span></div>"
    )


def _features(features: Sequence[Named], href: Mapping[int, str]) -> str:
    if not features:
        return "no feature stands out"
    return "".join(
        f"<span>{panels.anchor(href[feature.feature_id], f'#{feature.feature_id}')} "
        f"{panels.cut(feature.description or 'no label', 44)}"
        f"{'' if feature.push is None else f' <s>{signed(feature.push, 4)}</s>'}</span>"
        for feature in features
    )


def beyond_twins(words: Sequence[TwinWord], href: Callable[[str], str]) -> str:
    """Write words that the tuned model favours more or less than its twins do, each leading to `href` of it."""
    rows = []
    for word in words:
        cells = signed(word.feedback), signed(word.difference), signed(word.t, 1), plain(word.q, 3), f"{word.n:,}"
        rows.append(panels.LinkedRow(href(word.word), word.word, "", cells))
    return panels.linked_table(["word", "reward", "difference, nats", "t", "false discovery rate", "times"], rows)


def standing(words: Sequence[str], n: int, href: Callable[[str], str]) -> str:
    """Name the words that stand out, the first of `n` at most, each leading to `href` of it."""
    if not words:
        return ""
    more = f" and {n - len(words):,} more" if n > len(words) else ""
    return f'<p class="lfp-note">These are {", ".join(panels.anchor(href(word), word) for word in words)}{more}.</p>'


def paid(words: Sequence[PaidWord], figures: Sequence[ResultRow], *, metric: str, href: Callable[[str], str]) -> str:
    """Write words that the tuned model favours more or less than the reward explains, with chance at their rank.

    Each leads to `href` of it.
    """
    nulls = {row.group: row.null_high for row in figures if row.metric == metric}
    rows = []
    for word in words:
        chance = plain(nulls.get(f"word:{word.word}"), 1)
        cells = signed(word.feedback), signed(word.excess), signed(word.gap, 1), chance, f"{word.n:,}"
        rows.append(panels.LinkedRow(href(word.word), word.word, "", cells))
    return panels.linked_table(["word", "reward", "gap, nats", "in standard errors", "chance", "times"], rows)
