"""Queues of disagreement as escaped HTML: two percentile ranks of a thing on a line, and the features responsible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.components.html import panels
from lfp.bundle.queries.words import PaidWord, QueuedText, QueuedWord, Responsible
from lfp.evaluation.results import ResultRow
from lfp.report.formatting import plain, signed
from lfp.report.sentences import largest_gap_sentence
from lfp.util.sanitize import as_label, escaped, shortened


@dataclass(frozen=True)
class Judges:
    """The two that a queue is between, as a reader names them, and the units of what they say."""

    first: str
    second: str
    first_unit: str = ""
    second_unit: str = ""


@dataclass(frozen=True)
class Named:
    """A feature with its description, and how far it pushes where that is known."""

    feature_id: int
    description: str | None
    push: float | None = None


@dataclass(frozen=True)
class Item:
    """A text or word in a queue: `head` is its name as HTML, `features` are responsible."""

    head: str
    thing: QueuedText | QueuedWord
    features: tuple[Named, ...]


def by_text(found: Sequence[Responsible]) -> dict[int, tuple[Named, ...]]:
    """The features responsible for each text, furthest first."""
    grouped: dict[int, list[Named]] = {}
    for one in found:
        grouped.setdefault(one.text_id, []).append(Named(one.feature_id, one.description, one.difference))
    return {text_id: tuple(features) for text_id, features in grouped.items()}


def of_word(word: QueuedWord, *, most: int = 3) -> tuple[Named, ...]:
    """The features that fire on a word most."""
    pairs = zip(word.feature_ids, word.descriptions, strict=True)
    return tuple(Named(number, description) for number, description in pairs)[:most]


def groups(features: Sequence[tuple[Named, ...]], *, most: int = 10) -> dict[int, str]:
    """Headings by feature, as labels: those responsible for most things of a queue, with how many, largest first."""
    counts = Counter(one.feature_id for named in features for one in named)
    names = {one.feature_id: one.description for named in features for one in named}
    largest = sorted(counts, key=lambda number: (-counts[number], number))[:most]
    return {
        number: as_label(f"{counts[number]} · #{number} {shortened(names[number] or 'not described', 40)}")
        for number in largest
    }


def listed(items: Sequence[Item], judges: Judges, *, feature_href: Mapping[int, str]) -> str:
    """The queue: gap, what both say, their ranks on a line from lowest to highest, the features responsible."""
    rows = "".join(_row(item, judges, feature_href) for item in items)
    return f'<ol class="lfp-queue">{rows}</ol>'


def legend(judges: Judges) -> str:
    """What the two marks are."""
    return (
        f'<div class="lfp-legend"><span class="lfp-first"></span><span>{escaped(judges.first)}</span>'
        f'<span class="lfp-second"></span><span>{escaped(judges.second)}</span>'
        "<span>rank among all, lowest at the left; click one to read it</span></div>"
    )


def _row(item: Item, judges: Judges, feature_href: Mapping[int, str]) -> str:
    thing = item.thing
    way = "up" if thing.gap > 0 else "down"
    low, high = sorted((thing.first_rank, thing.second_rank))
    says = (
        f"{_said(judges.first, thing.first, judges.first_unit)} · "
        f"{_said(judges.second, thing.second, judges.second_unit)}"
    )
    spoken = f"{judges.first}: rank {thing.first_rank:.2f}; {judges.second}: rank {thing.second_rank:.2f}"
    line = (
        f'<div class="lfp-ranks" role="img" aria-label="{escaped(spoken)}">'
        f'<span class="{way}" style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></span>'
        f'<span class="lfp-second" style="left:{100 * thing.second_rank:.1f}%"></span>'
        f'<span class="lfp-first" style="left:{100 * thing.first_rank:.1f}%"></span></div>'
    )
    return (
        f'<li><div class="lfp-gap {way}">{signed(thing.gap)}</div>'
        f'<div class="said">{item.head}<p class="lfp-caption">{says}</p>{line}'
        f'<p class="lfp-why">{_features(item.features, feature_href)}</p></div></li>'
    )


def _said(judge: str, value: float, unit: str) -> str:
    return escaped(" ".join(part for part in (judge, signed(value, 2), unit) if part))


def _features(features: Sequence[Named], href: Mapping[int, str]) -> str:
    if not features:
        return "no feature stands out"
    return "".join(
        f"<span>{panels.anchor(href[one.feature_id], f'#{one.feature_id}')} "
        f"{escaped(shortened(one.description or 'not described', 44))}"
        f"{'' if one.push is None else f' <s>{signed(one.push, 4)}</s>'}</span>"
        for one in features
    )


def chance(rows: Sequence[ResultRow], *, metric: str, kind: str) -> str:
    """The largest gap beside what shuffled ranks reach; nothing where the run did not measure it."""
    says = largest_gap_sentence(rows, metric=metric, kind=kind)
    return panels.note(says) if says else ""


def paid(words: Sequence[PaidWord], figures: Sequence[ResultRow], *, metric: str) -> str:
    """Words that tuning pays otherwise than is stated, each beside what noise alone reaches at its place."""
    nulls = {row.group: row.null_high for row in figures if row.metric == metric}
    rows = [
        [word.word, signed(word.feedback), signed(word.excess), signed(word.gap, 1),
         plain(nulls.get(f"word:{word.word}"), 1), f"{word.n:,}"]
        for word in words
    ]  # fmt: skip
    return panels.table(["word", "stated", "excess, nats", "in noise", "chance reaches", "times"], rows)
