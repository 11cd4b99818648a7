"""Queries on words, and on the texts and words that two judges disagree on, with the features responsible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lfp.bundle.queries.common import (
    TEXT_GAPS,
    Order,
    direction,
    headline,
    headline_id,
    look_up,
    pooled,
    pooling,
    ranked,
)
from lfp.bundle.store.connection import Store
from lfp.errors import NotInBundleError
from lfp.evaluation.results import RATE


@dataclass(frozen=True)
class Word:
    """A row of `vocabulary`; `shown` is `predicted` on the lexicon's scale, null without a probe."""

    word: str
    feedback: float | None
    implicit_reward: float | None
    implicit_matched: float | None
    implicit_matched_se: float | None
    predicted: float | None
    predicted_base: float | None
    shown: float | None
    n: int
    n_generated: int
    n_generated_base: int


@dataclass(frozen=True)
class WordFeature:
    """A feature that fires on a word: its lift over all tokens, and its weight in the headline probe."""

    feature_id: int
    layer: int
    site: str
    mean_activation: float
    lift: float
    weight: float | None
    description: str | None


def judged_words(store: Store, *, limit: int = 3000) -> pa.Table:
    """Select the words with true feedback, the most frequent first, with the fields of Word."""
    return store.query(
        f"{_WORD_POINTS} WHERE v.feedback IS NOT NULL ORDER BY v.n DESC, v.word LIMIT $limit",
        {"probe": headline_id(store), "limit": limit},
    )


def word(store: Store, name: str) -> Word:
    """Select one word, in any case. Raises NotInBundleError."""
    wanted = name.strip().casefold()
    rows = store.rows(f"{_WORD_POINTS} WHERE v.word = $word", {"probe": headline_id(store), "word": wanted})
    if not rows:
        n = store.rows("SELECT count(*) AS n FROM vocabulary")[0]["n"]
        raise NotInBundleError(f"there is no word “{wanted}” in this bundle; it holds {n:,} words of its corpus")
    return Word(**rows[0])


def word_figures(store: Store, name: str) -> dict[str, Any]:
    """Select all numbers of a word that the bundle holds, and how far its preference is from the twins'."""
    bound = {"probe": headline_id(store), "word": name.strip().casefold()}
    return store.rows(_WORD_FIGURES, bound)[0]


def word_features(store: Store, name: str, *, limit: int = 8) -> list[WordFeature]:
    """Select the features that fire on a word, largest lift first; empty where none does."""
    bound = {"word": name, "limit": limit, "probe": headline_id(store)}
    return [WordFeature(**row) for row in store.rows(_WORD_FEATURES, bound)]


def text_points(store: Store, *, limit: int = 3000) -> pa.Table:
    """Select sampled texts as points on their principal components, by number, with scores and their beginnings."""
    return store.query(
        'SELECT text_id, pca_x, pca_y, feedback, implicit_reward, predicted, rating, "left"(text, 90) AS begins '
        "FROM texts SEMI JOIN activations USING (text_id) ORDER BY text_id LIMIT $limit",
        {"limit": limit},
    )


def pair_margins(store: Store) -> pa.Table:
    """Select the held-out pairs: `margin` is the headline estimate of chosen minus rejected, in log-odds.

    Empty unless the headline probe is of preferences, because other estimates are no probabilities.
    """
    probe = headline(store)
    return store.query(_MARGINS, {"is_preference": probe is not None and probe.target == "preference"})


_WORD_POINTS = """
SELECT v.word, v.feedback, v.implicit_reward, v.implicit_matched, v.implicit_matched_se, v.predicted, v.predicted_base,
    v.predicted * p.display_slope + p.display_offset AS shown,
    v.n, v.n_generated, v.n_generated_base
FROM vocabulary v LEFT JOIN probes p ON p.probe_id = $probe
"""

_WORD_FIGURES = """
SELECT v.*, v.predicted * p.display_slope + p.display_offset AS estimate, t.preference - t.twin_mean AS twin_difference,
    t.q AS twin_q
FROM (SELECT * FROM vocabulary WHERE word = $word) v
LEFT JOIN probes p ON p.probe_id = $probe LEFT JOIN twins t ON t.word = v.word
"""

_WORD_FEATURES = """
SELECT feature_id, f.layer, f.site, w.mean_activation, w.lift, h.weight, l.description
FROM (SELECT * FROM word_features WHERE word = $word ORDER BY rank LIMIT $limit) w
JOIN features f USING (feature_id)
LEFT JOIN (SELECT feature_id, weight FROM weights WHERE probe_id = $probe) h USING (feature_id)
LEFT JOIN (SELECT feature_id, description FROM feature_table) l USING (feature_id)
ORDER BY w.rank
"""

_MARGINS = """
SELECT c.pair_id, c.text_id AS chosen_id, r.text_id AS rejected_id, c.predicted::DOUBLE - r.predicted AS margin
FROM texts c JOIN texts r ON c.pair_id = r.pair_id AND c.role = 'chosen' AND r.role = 'rejected'
WHERE $is_preference AND c.split = 'held_out' AND r.split = 'held_out'
ORDER BY c.pair_id
"""

WORD_GAPS: Mapping[str, tuple[str, str]] = {
    "gap": ("estimate", "feedback"),
    "implicit gap": ("implicit_reward", "feedback"),
}
"""The disagreements about words, by the names of TEXT_GAPS; words have no ratings."""
SIDES = ("any", "over", "under")
"""over: the first judge ranks a text or word higher than the second does; under: lower."""


@dataclass(frozen=True)
class QueuedText:
    """A text that two judges disagree on: both values, its percentile rank by each (0 to 1), and their gap."""

    text_id: int
    text: str
    first: float
    second: float
    first_rank: float
    second_rank: float
    gap: float


@dataclass(frozen=True)
class QueuedWord:
    """A word that two judges disagree on; `feature_ids` fire on it most, with their `descriptions`."""

    word: str
    n: int
    first: float
    second: float
    first_rank: float
    second_rank: float
    gap: float
    feature_ids: tuple[int, ...]
    descriptions: tuple[str | None, ...]


@dataclass(frozen=True)
class Responsible:
    """A feature that moves a text's estimate in the direction of its gap: what it adds beyond the average text's."""

    text_id: int
    feature_id: int
    description: str | None
    difference: float


@dataclass(frozen=True)
class PaidWord:
    """A word that tuning pays more (or less) than the stated feedback: `excess` in nats, `gap` is excess over noise."""

    word: str
    n: int
    feedback: float | None
    implicit_advantage: float
    excess: float
    gap: float


def queued_texts(store: Store, queue: str, *, side: str = "any", limit: int | None = 100) -> list[QueuedText]:
    """Select the sampled texts with the largest gaps; `queue` is from TEXT_GAPS. Only texts with both values rank."""
    rows = store.rows(_head(queue), {"side": side, "limit": limit})
    return [QueuedText(**{key: row[key] for key in QueuedText.__dataclass_fields__}) for row in rows]


def responsible_features(
    store: Store, queue: str, *, side: str = "any", limit: int | None = 100, each: int = 3
) -> list[Responsible]:
    """Select, for every text of `queued_texts`, the `each` features that move its estimate most towards its gap.

    A feature moves it by what it adds beyond the average text's, as in `average_ledger`, so a feature that the text
    lacks counts as well. Sorted by text, largest first. Empty without a probe.
    """
    probe = headline(store)
    if probe is None:
        return []
    values = {**pooling(probe), "side": side, "limit": limit, "each": each}
    return [Responsible(**row) for row in store.rows(_RESPONSIBLE.format(head=_head(queue)), values)]


def queued_words(store: Store, queue: str, *, side: str = "any", limit: int | None = 100) -> list[QueuedWord]:
    """Select the words with the largest gaps; `queue` is from WORD_GAPS. The estimate is on the lexicon's scale."""
    first, second = look_up(WORD_GAPS, queue)
    sql = _WORDS.format(ranked=ranked(_KNOWN_WORDS, first, second), first=first, second=second)
    rows = store.rows(sql, {"side": side, "limit": limit})
    lists = ("feature_ids", "descriptions")
    return [QueuedWord(**{**row, **{name: tuple(row[name]) for name in lists}}) for row in rows]


def paid_words(store: Store, *, over: bool, limit: int | None = 10) -> list[PaidWord]:
    """Select the words that tuning pays most above (`over`) or below the stated feedback, in units of noise."""
    return [PaidWord(**row) for row in store.rows(_PAID, {"sign": 1 if over else -1, "limit": limit})]


def standing_words(store: Store, *, limit: int | None = 12) -> list[str]:
    """Select the words that `words_flagged` counts, the surest first: tuning treated them unlike the others."""
    return [row["word"] for row in store.rows(_STANDING, {"rate": RATE, "limit": limit})]


@dataclass(frozen=True)
class TwinWord:
    """A word that the tuned model prefers otherwise than its twins: by `difference` nats, `t` of the error by chance.

    `q` is the smallest false discovery rate at which it differs.
    """

    word: str
    n: int
    feedback: float | None
    difference: float
    t: float
    q: float


def twin_words(store: Store, *, over: bool, limit: int | None = 10) -> list[TwinWord]:
    """Select the words preferred most above (`over`) or below the twins' mean; none where a run has no twins."""
    return [TwinWord(**row) for row in store.rows(_TWINS, {"sign": 1 if over else -1, "limit": limit})]


def _head(queue: str) -> str:
    """Return SQL for the first texts of a queue."""
    first, second = look_up(TEXT_GAPS, queue)
    return _HEAD.format(ranked=ranked(_SAMPLED, first, second), first=first, second=second)


_SAMPLED = """
SELECT text_id, "text", feedback, implicit_reward, predicted, rating FROM texts SEMI JOIN activations USING (text_id)
"""
_SIDE = "abs(gap) > 1e-9 AND ($side = 'any' OR (gap > 0) = ($side = 'over'))"
_HEAD = f"""
SELECT text_id, "text", {{first}}::DOUBLE AS first, {{second}}::DOUBLE AS second, first_rank, second_rank, gap
FROM ({{ranked}}) WHERE {_SIDE} ORDER BY abs(gap) DESC, text_id LIMIT $limit
"""

_RESPONSIBLE = f"""
WITH head AS ({{head}}), weighted AS (SELECT feature_id, weight FROM weights WHERE probe_id = $probe),
usual_parts AS (SELECT feature_id, weight::DOUBLE * pooled AS usual FROM usual JOIN weighted USING (feature_id)),
here AS (
    SELECT text_id, feature_id, weight::DOUBLE * pooled AS part, sign(gap) AS way
    FROM ({pooled("text_id IN (SELECT text_id FROM head)")}) JOIN weighted USING (feature_id) JOIN head USING (text_id)
),
room AS (SELECT $each + coalesce(max(n), 0) AS room FROM (SELECT count(*) AS n FROM here GROUP BY text_id)),
missing AS (
    SELECT text_id, feature_id, way FROM (
        SELECT feature_id, -sign(usual) AS way FROM usual_parts WHERE usual <> 0
        QUALIFY row_number() OVER (PARTITION BY sign(usual) ORDER BY abs(usual) DESC, feature_id)
            <= (SELECT room FROM room)
    ) JOIN (SELECT text_id, sign(gap) AS way FROM head) USING (way) ANTI JOIN here USING (text_id, feature_id)
),
pushed AS (
    SELECT text_id, feature_id, way, part - usual AS difference FROM here JOIN usual_parts USING (feature_id)
    UNION ALL SELECT text_id, feature_id, way, -usual FROM missing JOIN usual_parts USING (feature_id)
),
furthest AS (
    SELECT * FROM pushed WHERE way * difference > 0
    QUALIFY row_number() OVER (PARTITION BY text_id ORDER BY way * difference DESC, feature_id) <= $each
)
SELECT text_id, feature_id, description, difference FROM furthest
LEFT JOIN (SELECT feature_id, description FROM feature_table) USING (feature_id)
ORDER BY text_id, abs(difference) DESC, feature_id
"""
"""Of the features that a text lacks only the usually largest are compared: as many as it could have of larger ones."""

_KNOWN_WORDS = """
SELECT word, n, feedback::DOUBLE AS feedback, implicit_reward::DOUBLE AS implicit_reward,
    display_slope * predicted::DOUBLE + display_offset AS estimate
FROM vocabulary JOIN (SELECT display_slope, display_offset FROM probes WHERE is_headline ORDER BY probe_id LIMIT 1)
    ON true
WHERE feedback IS NOT NULL AND predicted IS NOT NULL
"""

_WORDS = f"""
WITH head AS (
    SELECT word, n, {{first}} AS first, {{second}} AS second, first_rank, second_rank, gap
    FROM ({{ranked}}) WHERE {_SIDE} ORDER BY abs(gap) DESC, word LIMIT $limit
), firing AS (
    SELECT word, list(feature_id ORDER BY f.rank) AS feature_ids, list(description ORDER BY f.rank) AS descriptions
    FROM word_features f SEMI JOIN head USING (word)
    LEFT JOIN (SELECT feature_id, description FROM feature_table) USING (feature_id)
    GROUP BY word
)
SELECT word, n, first, second, first_rank, second_rank, gap, coalesce(feature_ids, []) AS feature_ids,
    coalesce(descriptions, []) AS descriptions
FROM head LEFT JOIN firing USING (word) ORDER BY abs(gap) DESC, word
"""

_PAID = """
SELECT word, n, feedback, implicit_advantage, implicit_excess AS excess, implicit_gap AS gap FROM vocabulary
WHERE implicit_gap IS NOT NULL AND $sign * implicit_gap > 0
ORDER BY $sign * implicit_gap DESC, word LIMIT $limit
"""

_STANDING = """
SELECT word FROM vocabulary WHERE implicit_gap_q <= $rate
ORDER BY implicit_gap_q, abs(implicit_gap) DESC, word LIMIT $limit
"""

_TWINS = """
SELECT word, n, feedback, preference - twin_mean AS difference, t, q FROM twins
WHERE $sign * t > 0 ORDER BY $sign * t DESC, word LIMIT $limit
"""

WORD_SORTS: Mapping[str, str] = {
    name: name
    for name in (
        "word", "n", "n_generated", "feedback", "implicit_reward", "implicit_advantage", "implicit_matched",
        "implicit_excess", "implicit_gap", "predicted", "predicted_base", "estimate",
    )
}  # fmt: skip
"""Names the vocabulary may be sorted by, and the expression behind each."""


def words(store: Store, *, order: Order, limit: int | None = None) -> pa.Table:
    """Select the whole vocabulary, sorted; `estimate` is `predicted` on the lexicon's scale, null without a probe."""
    by = look_up(WORD_SORTS, order.by)
    return store.query(
        "SELECT word, n, n_generated, feedback, implicit_reward, implicit_advantage, implicit_matched, "
        "implicit_matched_se, implicit_excess, implicit_gap, predicted, predicted_base, "
        "predicted * display_slope + display_offset AS estimate "
        "FROM vocabulary LEFT JOIN probes ON probe_id = $probe "
        f"ORDER BY {by} {direction(order)} NULLS LAST, word LIMIT $limit",
        {"probe": headline_id(store), "limit": limit},
    )
