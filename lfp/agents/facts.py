"""Stored figures as facts: each with the row it comes from, the names it goes by, its interval and its null."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lfp.agents.answers import Figure
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import ResultRow
from lfp.report.rows import read_report
from lfp.util.types import SITE_NAMES

LEVEL = 0.05
"""A null is beaten where its p is at most this."""
SUBJECTS = ("feature", "word", "text", "pair")
"""Keys of a fact that is about a single feature, word, text or pair."""


@dataclass(frozen=True)
class Fact:
    """A stored number. `keys` name it: section or table, metric, model, target, layer and so on."""

    row_id: str
    keys: Mapping[str, str]
    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    null_mean: float | None = None
    null_high: float | None = None
    null_p: float | None = None
    is_beyond: bool | None = None
    n: int | None = None

    @property
    def name(self) -> str:
        """What it is, in phrases that a claim may use."""
        return ", ".join(phrase(key, value) for key, value in self.keys.items())

    def as_figure(self) -> Figure:
        """Return it as an answer holds it."""
        return Figure(
            row_id=self.row_id,
            name=self.name,
            value=self.value,
            ci_low=self.ci_low,
            ci_high=self.ci_high,
            null_mean=self.null_mean,
            null_high=self.null_high,
            null_p=self.null_p,
            beyond_chance=self.is_beyond,
            n=self.n,
        )


_METRICS = {
    "kl_per_token": "KL per token",
    "nats": "credit in nats",
    "nats_same_position": "credit in nats same position",
    "mean_abs_contribution": "contribution",
    "contribution": "contribution of the tuned model",
    "contribution_base": "contribution of the base model",
}
_MODELS = {"tuned": "tuned model", "base": "base model", "difference": "difference"}
_SPLITS = {"held_out_words": "held-out words", "held_out": "held-out texts", "random_rows": "random rows"}
REFERENCES = ("layer", "probe", "feature", "text", "pair")
"""Keys that names and claims write with their number: layer 3."""
_COMMON = frozenset({
    "before", "after", "true", "count", "check", "kept", "dropped", "tokens", "control", "scale", "size", "features",
    "rows", "n", "nodes", "differences", "cores", "layer", "shift", "written", "part", "half", "change",
})  # fmt: skip
"""Metrics whose names are common words: names and claims write “metric” before them."""


def phrase(key: str, value: str) -> str:
    """Return how a key and its value are written in names, and may be written in claims."""
    plain = value.replace("_", " ")
    if key in REFERENCES:
        return f"{key} {value}"
    match key:
        case "metric":
            return f"metric {plain}" if value in _COMMON else _METRICS.get(value, plain)
        case "model":
            return _MODELS.get(value, f"model {plain}")
        case "split":
            return _SPLITS.get(value, plain)
        case "word":
            return f"“{value}”"
        case "words":
            return f"{plain} words"
        case "site":
            return SITE_NAMES.get(value, plain)
        case "target" | "inputs" | "group" | "table" | "section":
            return f"{key} {plain}"
    return plain


def report_facts(store: Store) -> dict[str, list[Fact]]:
    """Return every row of the report by section; `report/SECTION/N` is row N, from 0, of `lfp report --json`."""
    return {
        section: [_from_result(row, f"report/{section}/{place}") for place, row in enumerate(rows)]
        for section, rows in read_report(store).items()
    }


def table_facts(store: Store) -> list[Fact]:
    """Return how many rows each table has."""
    return [
        Fact(f"tables/{name}", {"table": name, "metric": "rows"}, float(info.rows))
        for name, info in store.manifest.tables.items()
    ]


def feature_facts(store: Store, feature_id: int) -> list[Fact]:
    """Return the numbers of one feature. Raises NotInBundleError."""
    row = queries.feature.feature(store, feature_id)
    found = _Columns(f"features/{feature_id}", {"feature": str(feature_id)})
    weight = {"ci_low": row.ci_low, "ci_high": row.ci_high, "null_high": row.null_high, "null_p": row.q}
    found.add("weight", row.weight, is_beyond=row.beats_null, **weight)
    for name in ("mean_contribution", "mean_abs_contribution", "share", "rank", "layer", "stability", "base_cosine",
                 "shift", "n_active", "mean_activation", "max_activation", "density"):  # fmt: skip
        found.add(name, getattr(row, name))
    found.add("density", row.base_density, "base")
    found.add("mean_activation", row.base_mean_activation, "base")
    drift = queries.feature.feature_drift(store, feature_id)
    if drift is not None:
        found.add("drifted_contribution", drift.drifted_contribution)
        found.add("drift_rank", drift.rank)
        found.add("weight", drift.weight_base, "base")
    credit = queries.feature.feature_credit(store, feature_id)
    if credit is not None:
        twins = {"null_p": credit.twin_q, "is_beyond": credit.beyond_twins}
        found.add("credit", credit.credit, ci_low=credit.ci_low, ci_high=credit.ci_high, **twins)
        found.add("credit_rank", credit.rank)
        found.add("absolute_credit", credit.abs_credit)
    effect = queries.feature.feature_intervention(store, feature_id)
    if effect is not None:
        found.add("intervention_effect", effect.effect, ci_low=effect.ci_low, ci_high=effect.ci_high)
    for label in queries.feature.labels(store, feature_id)[:1]:
        ends = {"ci_low": label.score_ci_low, "ci_high": label.score_ci_high, "null_p": label.score_q}
        found.add("detection", label.score_detection, n=label.score_n, **ends)
    return found.facts


def word_facts(store: Store, word: str) -> list[Fact]:
    """Return the numbers of one word. Raises NotInBundleError."""
    queries.words.word(store, word)
    row = queries.words.word_figures(store, word)
    found = _Columns(f"vocabulary/{row['word']}", {"word": row["word"]})
    gap_p = row["implicit_gap_q"]
    for name in ("feedback", "implicit_reward", "implicit_advantage", "implicit_matched", "predicted", "estimate"):
        found.add(name, row[name])
    found.add("predicted", row["predicted_base"], "base")
    found.add("implicit_excess", row["implicit_excess"])
    found.add("implicit_gap", row["implicit_gap"], null_p=gap_p, is_beyond=None if gap_p is None else gap_p <= LEVEL)
    found.add("occurrences", row["n"])
    found.add("written", row["n_generated"], "tuned")
    found.add("written", row["n_generated_base"], "base")
    if row["twin_difference"] is not None:
        q = row["twin_q"]
        found.add("twin_difference", row["twin_difference"], null_p=q, is_beyond=q <= LEVEL)
    return found.facts


def text_facts(store: Store, text_id: int) -> list[Fact]:
    """Return the numbers of one text. Raises NotInBundleError."""
    row = queries.texts.text(store, text_id)
    found = _Columns(f"texts/{text_id}", {"text": str(text_id)})
    for name in ("feedback", "predicted", "predicted_raw", "implicit_reward", "rating"):
        found.add(name, getattr(row, name))
    found.add("estimate", row.predicted)
    found.add("tokens", len(row.token_starts))
    return found.facts


def all_facts(store: Store) -> list[Fact]:
    """Return the facts of the report and of the tables' sizes, once read."""

    def read() -> list[Fact]:
        return [*(fact for facts in report_facts(store).values() for fact in facts), *table_facts(store)]

    return store.once("facts", read)


class _Columns:
    """Collects the columns of one row as facts."""

    def __init__(self, row_id: str, keys: Mapping[str, str]) -> None:
        self._row_id, self._keys, self.facts = row_id, keys, list[Fact]()

    def add(self, metric: str, value: float | None, model: str | None = None, /, **figures: Any) -> None:
        """Add a column, unless its value is null."""
        if value is None or not math.isfinite(value):
            return
        keys = {**self._keys, "metric": metric, **({} if model is None else {"model": model})}
        self.facts.append(Fact(self._row_id, keys, float(value), **figures))


def _from_result(row: ResultRow, row_id: str) -> Fact:
    keys = dict(_keys(row))
    beyond = None
    if row.null_p is not None:
        beyond = row.null_p <= LEVEL
    elif row.null_high is not None:
        beyond = row.beats_null
    return Fact(
        row_id, keys, row.value, row.ci_low, row.ci_high, row.null_mean, row.null_high, row.null_p, beyond, row.n
    )


def _keys(row: ResultRow) -> Iterator[tuple[str, str]]:
    """Name a row of the report; a group such as `feature:12` is a subject."""
    kind, _, name = (row.group or "").partition(":")
    if kind in SUBJECTS and name:
        yield kind, name
    elif row.report_row == "token_sentiment" and row.group:
        yield "word", row.group
    yield "section", row.report_row
    yield "metric", row.metric
    for key in ("model", "target", "inputs", "words", "split", "layer", "site"):
        value = getattr(row, key)
        if value is not None and (key, value) != ("site", "mlp_out"):
            yield key, str(value)
    if row.probe_id is not None:
        yield "probe", str(row.probe_id)
    if row.group and kind not in SUBJECTS and row.report_row != "token_sentiment":
        yield "group", row.group
