"""Words, texts and features of the report as rows that lead to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.components.html import tables
from lfp.bundle.queries.run import AblatedFeature
from lfp.bundle.queries.words import Word, WordFeature
from lfp.evaluation.results import ResultRow
from lfp.report.formatting import NONE, count, plain, signed, with_interval

GAPS = {
    ("gap_over_paid", "word"): "words paid more than stated",
    ("gap_under_paid", "word"): "words paid less than stated",
    ("gap_implicit_true", "word"): "words: implicit reward against true",
    ("gap_predicted_true", "word"): "words: estimate against true",
    ("gap_implicit_true", "text"): "texts: implicit reward against true",
    ("gap_predicted_true", "text"): "texts: estimate against true",
    ("gap_true_rating", "text"): "texts: true against rating",
}
"""Lists of largest disagreements, by metric and what is listed; the values of the URL, which the pages reword."""


def word_facts(word: Word) -> dict[str, str]:
    """Return one word's values, the implicit reward in matched contexts with its interval, and how common it is."""
    matched, error = word.implicit_matched, word.implicit_matched_se
    if matched is None or error is None:
        in_matched = signed(matched)
    else:
        in_matched = with_interval(matched, matched - 1.96 * error, matched + 1.96 * error, is_signed=True)
    return {
        "reward": signed(word.feedback),
        "probe estimate, rescaled": signed(word.shown),
        "implicit reward, nats": signed(word.implicit_reward),
        "in matched contexts, nats": NONE if matched is None else in_matched,
        "in the corpus": f"{count(word.n)} times",
        "written by the tuned model": f"{count(word.n_generated)} times",
    }


def word_features(found: Sequence[WordFeature], href: Callable[[int], str]) -> list[tables.Row]:
    """Return features that fire on a word, with lift and weight."""
    return [
        tables.Row(href(feature.feature_id), f"#{feature.feature_id}", feature.description or "no label",
                   (f"×{plain(feature.lift, 0)}", signed(feature.weight, 3)))
        for feature in found
    ]  # fmt: skip


def ablated_features(found: Sequence[AblatedFeature], href: Callable[[int], str]) -> list[tables.Row]:
    """Return features that were ablated alone, with their predicted and measured effects."""
    return [
        tables.Row(
            href(feature.feature_id), f"#{feature.feature_id}", feature.description or "no label",
            (signed(feature.predicted_effect, 3),
             with_interval(feature.effect, feature.ci_low, feature.ci_high, is_signed=True)),
        )
        for feature in found
    ]  # fmt: skip


@dataclass(frozen=True)
class Gap:
    """One of the largest disagreements: a word or a text's number, its gap, and what chance shows at its rank."""

    kind: str
    name: str
    gap: float
    chance: float | None
    p: float | None
    n: int | None


def gap_lists(rows: Sequence[ResultRow]) -> dict[str, tuple[str, str]]:
    """Return the lists of disagreements that the report holds: name, and metric with what is listed."""
    held = {(row.metric, (row.group or "").split(":", 1)[0]) for row in rows}
    return {name: key for key, name in GAPS.items() if key in held}


def gaps(rows: Sequence[ResultRow], metric: str, kind: str) -> list[Gap]:
    """Return one list of disagreements, largest first."""
    shown = [row for row in rows if row.metric == metric and (row.group or "").startswith(f"{kind}:")]
    shown.sort(key=lambda row: -abs(row.value))
    return [Gap(kind, (row.group or "").split(":", 1)[1], row.value, row.null_mean, row.null_p, row.n) for row in shown]


def gap_rows(found: Sequence[Gap], href: Callable[[Gap], str]) -> list[tables.Row]:
    """Return disagreements with chance and p."""
    return [
        tables.Row(href(gap), gap.name if gap.kind == "word" else f"text {gap.name}", "",
                   (signed(gap.gap), plain(gap.chance), plain(gap.p, 3)))
        for gap in found
    ]  # fmt: skip
