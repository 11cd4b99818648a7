"""Questions about a run as a whole: its figures, layers, dictionaries, words, drift and ablations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lfp.queries.common import columns, main_labeller
from lfp.store import Store


@dataclass(frozen=True)
class Figure:
    """A row of `results`: one figure of the report with its interval and null."""

    report_row: str
    model: str | None
    layer: int | None
    probe_id: int | None
    target: str | None
    inputs: str | None
    words: str | None
    split: str | None
    group: str | None
    metric: str
    value: float
    ci_low: float | None
    ci_high: float | None
    null_mean: float | None
    null_high: float | None
    null_p: float | None
    n: int | None


def figures(store: Store, report_row: str) -> list[Figure]:
    """The rows of `results` under one report row, in the table's order."""
    rows = store.rows(f"SELECT {columns(Figure)} FROM results WHERE report_row = $row", {"row": report_row})
    return [Figure(**row) for row in rows]


def report_rows(store: Store) -> list[dict[str, Any]]:
    """All rows of `results`, sorted as the schema states."""
    return store.rows("SELECT * FROM results ORDER BY ALL")


@dataclass(frozen=True)
class Sample:
    """What both models wrote after one held-out prefix, with the reward of each."""

    prompt: str
    base: str
    tuned: str
    base_reward: float
    tuned_reward: float


def samples(store: Store, *, limit: int) -> list[Sample]:
    """What both models wrote after the first held-out prefixes, which were drawn at random; no more than there are."""
    rows = store.rows(
        """
        SELECT prompt, b.completion AS base, t.completion AS tuned, b.reward AS base_reward, t.reward AS tuned_reward
        FROM (FROM completions WHERE "group" = 'base') b
        JOIN (SELECT "index", completion, reward FROM completions WHERE "group" = 'tuned') t USING ("index")
        ORDER BY "index" LIMIT $limit
        """,
        {"limit": limit},
    )
    return [Sample(**row) for row in rows]


def layers(store: Store) -> pa.Table:
    """All layers, in order, with their divergence."""
    return store.query("SELECT * FROM layers ORDER BY layer")


def dictionaries(store: Store) -> pa.Table:
    """All sparse autoencoders trained."""
    return store.query("SELECT * FROM saes ORDER BY model DESC, layer, variant, width, seed")


def scored_words(store: Store, *, limit: int = 3000) -> pa.Table:
    """Words with true feedback, commonest first."""
    return store.query(
        "SELECT word, feedback, implicit_reward, predicted, predicted_base, n FROM vocabulary "
        "WHERE feedback IS NOT NULL ORDER BY n DESC, word LIMIT $limit",
        {"limit": limit},
    )


@dataclass(frozen=True)
class DriftedFeature:
    """A feature whose contribution tuning changed, with its description and the token it fires on most."""

    feature_id: int
    layer: int
    status: str
    drifted_contribution: float
    description: str | None
    top_token: str | None


def drifted_features(store: Store, *, limit: int = 20) -> list[DriftedFeature]:
    """The features whose contribution to the headline estimate changed most; empty where drift was not measured."""
    rows = store.rows(_DRIFTED, {"labeller": main_labeller(store), "limit": limit})
    return [DriftedFeature(**row) for row in rows]


def word_gaps(store: Store) -> dict[str, float]:
    """How far each word's learned feedback is above the stated one, in noise (`lfp.disagreement`), by word."""
    rows = store.rows("SELECT word, implicit_gap AS gap FROM vocabulary WHERE implicit_gap IS NOT NULL ORDER BY word")
    return {row["word"]: row["gap"] for row in rows}


def features_by_drift(store: Store) -> list[dict[str, Any]]:
    """All features by drifted contribution, with the `words` they fire on.

    `rank` is by drifted contribution, `unexplained_rank` by what they carry of the pay that is not explained, from 1.
    """
    return store.rows(
        "SELECT d.feature_id, d.rank, d.unexplained_rank, "
        "coalesce(list(w.word ORDER BY w.word) FILTER (w.word IS NOT NULL), []) AS words "
        "FROM drift d LEFT JOIN word_features w USING (feature_id) GROUP BY ALL ORDER BY d.rank, d.feature_id"
    )


def report_ablations(store: Store) -> list[dict[str, Any]]:
    """All rows of `ablations`, in the table's order."""
    return store.rows('SELECT * FROM ablations ORDER BY "group"')


def report_texts(store: Store, *, limit: int = 2000) -> list[dict[str, Any]]:
    """Sampled texts as points: text_id, pca_x, pca_y, feedback and predicted, by number."""
    return store.rows(
        "SELECT text_id, pca_x, pca_y, feedback, predicted FROM texts SEMI JOIN activations USING (text_id) "
        "ORDER BY text_id LIMIT $limit",
        {"limit": limit},
    )


_DRIFTED = """
SELECT feature_id, f.layer, status, drifted_contribution, l.description, f.top_tokens[1].token AS top_token
FROM (SELECT * FROM drift WHERE rank <= $limit) d
JOIN features f USING (feature_id)
LEFT JOIN (SELECT feature_id, description FROM labels WHERE labeller = $labeller) l USING (feature_id)
ORDER BY d.rank
"""
