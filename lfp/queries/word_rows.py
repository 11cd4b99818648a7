"""Questions about words, pairs and texts as points: what was stated, what was learned, what is estimated."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from lfp.errors import NotInBundleError
from lfp.queries.common import headline, headline_id, main_labeller
from lfp.store import Store


@dataclass(frozen=True)
class Word:
    """A row of `vocabulary`; `shown` is `predicted` laid on the lexicon's range, null where there is no probe."""

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


@dataclass(frozen=True)
class WordFeature:
    """A feature that fires on a word: how much more than on all tokens, and its weight in the headline probe."""

    feature_id: int
    layer: int
    mean_activation: float
    lift: float
    weight: float | None
    description: str | None


def judged_words(store: Store, *, limit: int = 3000) -> pa.Table:
    """Words with true feedback, commonest first, with the fields of Word."""
    return store.query(
        f"{_WORDS} WHERE v.feedback IS NOT NULL ORDER BY v.n DESC, v.word LIMIT $limit",
        {"probe": headline_id(store), "limit": limit},
    )


def word(store: Store, name: str) -> Word:
    """One word, in any case. Raises NotInBundleError."""
    wanted = name.strip().casefold()
    rows = store.rows(f"{_WORDS} WHERE v.word = $word", {"probe": headline_id(store), "word": wanted})
    if not rows:
        n = store.rows("SELECT count(*) AS n FROM vocabulary")[0]["n"]
        raise NotInBundleError(f"there is no word “{wanted}” in this bundle; it holds {n:,} words of its corpus")
    return Word(**rows[0])


def word_features(store: Store, name: str, *, limit: int = 8) -> list[WordFeature]:
    """The features that fire on a word, largest lift first; empty where none does."""
    bound = {"word": name, "limit": limit, "probe": headline_id(store), "labeller": main_labeller(store)}
    return [WordFeature(**row) for row in store.rows(_WORD_FEATURES, bound)]


def text_points(store: Store, *, limit: int = 3000) -> pa.Table:
    """Sampled texts as points on their principal components, by number: scores, and how each begins."""
    return store.query(
        'SELECT text_id, pca_x, pca_y, feedback, implicit_reward, predicted, rating, "left"(text, 90) AS begins '
        "FROM texts SEMI JOIN activations USING (text_id) ORDER BY text_id LIMIT $limit",
        {"limit": limit},
    )


def pair_margins(store: Store) -> pa.Table:
    """Held-out pairs kept in the bundle: `margin` is the headline estimate of chosen less rejected, in log-odds.

    Empty unless the headline probe is one of preferences, for other estimates are no probabilities.
    """
    probe = headline(store)
    return store.query(_MARGINS, {"is_preference": probe is not None and probe.target == "preference"})


_WORDS = """
SELECT v.word, v.feedback, v.implicit_reward, v.implicit_matched, v.implicit_matched_se, v.predicted, v.predicted_base,
    v.predicted * p.display_slope + p.display_offset AS shown, v.n, v.n_generated
FROM vocabulary v LEFT JOIN probes p ON p.probe_id = $probe
"""

_WORD_FEATURES = """
SELECT feature_id, f.layer, w.mean_activation, w.lift, h.weight, l.description
FROM (SELECT * FROM word_features WHERE word = $word ORDER BY rank LIMIT $limit) w
JOIN features f USING (feature_id)
LEFT JOIN (SELECT feature_id, weight FROM weights WHERE probe_id = $probe) h USING (feature_id)
LEFT JOIN (SELECT feature_id, description FROM labels WHERE labeller = $labeller) l USING (feature_id)
ORDER BY w.rank
"""

_MARGINS = """
SELECT c.pair_id, c.text_id AS chosen_id, r.text_id AS rejected_id, c.predicted::DOUBLE - r.predicted AS margin
FROM texts c JOIN texts r ON c.pair_id = r.pair_id AND c.role = 'chosen' AND r.role = 'rejected'
WHERE $is_preference AND c.split = 'held_out' AND r.split = 'held_out'
ORDER BY c.pair_id
"""
