"""Questions about one feature: its numbers, labels, examples and histogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lfp.queries.common import columns, main_labeller, no_such
from lfp.store import Store


@dataclass(frozen=True)
class Feature:
    """A row of `features` with its weight in the headline probe; weight fields are None where no probe reads it."""

    feature_id: int
    layer: int
    index: int
    density: float
    n_active: int
    mean_activation: float
    max_activation: float
    base_density: float
    base_mean_activation: float
    shift: float
    stability: float | None
    top_tokens: list[dict[str, Any]]
    pos_logits: list[dict[str, Any]]
    neg_logits: list[dict[str, Any]]
    weight: float | None
    ci_low: float | None
    ci_high: float | None
    mean_contribution: float | None
    mean_abs_contribution: float | None
    share: float | None
    rank: int | None
    null_high: float | None
    beats_null: bool | None


@dataclass(frozen=True)
class Label:
    """A description of a feature by one labeller."""

    labeller: str
    model: str | None
    description: str | None
    related: bool | None
    confidence: float | None
    reason: str | None
    agreement: float | None
    score_detection: float | None
    score_fuzzing: float | None
    score_ci_low: float | None
    score_ci_high: float | None
    score_n: int | None
    score_swapped: float | None
    status: str
    failure: str | None
    prompt_version: str
    prompt_sha256: str | None
    task: str | None
    examples_used: list[str]
    created_at: str | None
    cost_usd: float | None


@dataclass(frozen=True)
class Histogram:
    """Active tokens by activation: `edges` has one more than `counts` and `base_counts`."""

    edges: list[float]
    counts: list[int]
    base_counts: list[int]


@dataclass(frozen=True)
class Example:
    """An example of a feature, with the text it is in."""

    bucket: int
    rank: int
    text_id: int
    position: int
    activation: float
    window_start: int
    window_values: list[float]
    text: str
    token_starts: list[int]
    feedback: float | None


def feature(store: Store, feature_id: int) -> Feature:
    """One feature. Raises NotInBundleError."""
    rows = store.rows(
        f"SELECT {columns(Feature)} FROM feature_table WHERE feature_id = $feature_id", {"feature_id": feature_id}
    )
    if not rows:
        raise no_such(store, "feature", feature_id)
    return Feature(**rows[0])


def strongest_feature(store: Store) -> int | None:
    """The feature with the largest mean absolute contribution, else the first; None in a bundle without features."""
    rows = store.rows(
        "SELECT feature_id FROM feature_table ORDER BY mean_abs_contribution DESC NULLS LAST, feature_id LIMIT 1"
    )
    return rows[0]["feature_id"] if rows else None


def labels(store: Store, feature_id: int) -> list[Label]:
    """What labellers say of a feature, the run's own labeller first."""
    rows = store.rows(
        f"SELECT {columns(Label)} FROM labels WHERE feature_id = $feature_id ORDER BY labeller = $main DESC, labeller",
        {"feature_id": feature_id, "main": main_labeller(store)},
    )
    return [Label(**row) for row in rows]


def histogram(store: Store, feature_id: int) -> Histogram | None:
    """Where a feature's activations lie in the tuned and the base model; None where it was never counted."""
    rows = store.rows(
        f"SELECT {columns(Histogram)} FROM histograms WHERE feature_id = $feature_id", {"feature_id": feature_id}
    )
    return Histogram(**rows[0]) if rows else None


def examples(store: Store, feature_id: int, *, bucket: int, limit: int = 20) -> list[Example]:
    """Examples of a feature in one bucket, strongest first, each with its text."""
    rows = store.rows(
        f"SELECT {columns(Example)} FROM (SELECT * FROM examples WHERE feature_id = $feature_id AND bucket = $bucket) "
        "JOIN texts USING (text_id) ORDER BY rank LIMIT $limit",
        {"feature_id": feature_id, "bucket": bucket, "limit": limit},
    )
    return [Example(**row) for row in rows]


def feature_excerpts(store: Store, feature_id: int) -> list[dict[str, Any]]:
    """All examples of a feature, as dicts of Example's fields: what `lfp.labels.evidence` reads.

    Buckets are 0 top, 1..q intervals from low to high, -1 silent, -2 near miss.
    """
    return store.rows(
        f"SELECT {columns(Example)} FROM (SELECT * FROM examples WHERE feature_id = $feature_id) "
        "JOIN texts USING (text_id) ORDER BY bucket, rank",
        {"feature_id": feature_id},
    )
