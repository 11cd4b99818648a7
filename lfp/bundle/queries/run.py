"""Queries on a run as a whole: results, layers, dictionaries, samples, ablations, labels against weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lfp.bundle.queries.common import columns, headline_id, shared_start
from lfp.bundle.store.connection import Store
from lfp.evaluation.contrasts import add_contrasts
from lfp.evaluation.results import CONTROL, ResultRow
from lfp.evaluation.written_words import WrittenWord, compare_writing
from lfp.texts.words import words_of


def figures(store: Store, report_row: str | None = None) -> list[ResultRow]:
    """Return the rows of `results`, of one section of the report where named, sorted as the schema states.

    Words paid otherwise than stated keep no null of a bundle older than the row `words_flagged`: it could not reject.
    Changes of pace without an interval keep none either: in older bundles smooth growth was enough to reject.
    """
    rows = store.rows(
        f"SELECT {columns(ResultRow)} FROM results WHERE $row IS NULL OR report_row = $row ORDER BY ALL",
        {"row": report_row},
    )
    found = [_drop_pace_null(ResultRow(**row)) for row in rows]
    if any(row.metric == "words_flagged" for row in found):
        return found
    return [
        replace(row, null_mean=None, null_high=None, null_p=None) if row.metric in _PAID_LISTS else row for row in found
    ]


def _drop_pace_null(row: ResultRow) -> ResultRow:
    is_older = (row.report_row, row.metric) == ("trajectory", "change") and row.ci_low is None
    return replace(row, null_p=None) if is_older else row


_PAID_LISTS = frozenset({"gap_over_paid", "gap_under_paid"})


@dataclass(frozen=True)
class Sample:
    """Completions of one held-out prefix by both models, with their rewards; `index` is the prefix's number.

    `prompt` is the prefix without what nearly all begin with, such as a system message.
    """

    index: int
    prompt: str
    base: str
    tuned: str
    base_reward: float
    tuned_reward: float


def samples(store: Store, *, limit: int | None, offset: int = 0, by_change: bool = False) -> list[Sample]:
    """Select the completions of the first held-out prefixes, which were drawn at random, or of the most changed reward.

    `limit` None selects all.
    """
    rows = store.rows(
        f'{_SAMPLES} ORDER BY {"tuned_reward - base_reward DESC, " if by_change else ""}"index" '
        "LIMIT $limit OFFSET $offset",
        {"limit": limit, "offset": offset},
    )
    start = shared_start(store, f"({_SAMPLES})", "prompt")
    return [Sample(**{**row, "prompt": row["prompt"].removeprefix(start)}) for row in rows]


_SAMPLES = """
SELECT "index", prompt, b.completion AS base, t.completion AS tuned, b.reward AS base_reward,
    t.reward AS tuned_reward
FROM (FROM completions WHERE "group" = 'base') b
JOIN (SELECT "index", completion, reward FROM completions WHERE "group" = 'tuned') t USING ("index")
"""


def count_samples(store: Store) -> int:
    """Count the held-out prefixes that both models continued."""
    return int(store.rows(f"SELECT count(*) AS n FROM ({_SAMPLES})")[0]["n"])


def written_words(store: Store) -> list[WrittenWord]:
    """Compare the words that both models wrote after the same held-out prefixes; each counts once in a continuation."""
    found = samples(store, limit=None)
    sides = ([sample.base for sample in found], [sample.tuned for sample in found])
    return compare_writing(*([{word.word for word in words_of(text)} for text in side] for side in sides))


def tuning(store: Store) -> pa.Table:
    """Select the figures of the tuning by metric and step; empty where the model was tuned elsewhere."""
    return store.query("SELECT metric, step, value FROM tuning ORDER BY metric, step")


def trajectory(store: Store) -> pa.Table:
    """Sum the credits per token of every kind of module at every checkpoint; empty where tuning kept none."""
    return store.query(
        "SELECT step, module, sum(nats) AS nats FROM trajectory GROUP BY step, module ORDER BY module, step"
    )


def layers(store: Store) -> pa.Table:
    """Select all layers, in order, with their divergence."""
    return store.query("SELECT * FROM layers ORDER BY layer")


def dictionaries(store: Store) -> pa.Table:
    """Select all sparse autoencoders that were trained."""
    return store.query("SELECT * FROM saes ORDER BY model DESC, layer, site, variant, width, seed, source")


def word_gaps(store: Store) -> dict[str, float]:
    """Map each word to how far its learned feedback is above the stated one, in noise (`lfp.evaluation.word_gaps`)."""
    rows = store.rows("SELECT word, implicit_gap AS gap FROM vocabulary WHERE implicit_gap IS NOT NULL ORDER BY word")
    return {row["word"]: row["gap"] for row in rows}


@dataclass(frozen=True)
class ForecastFeature:
    """A feature of the base model: its difference in the preference data, and what tuning changed of it.

    `in_data`, `preferred` and their ends, `expected` and `moved` are in units of the feature's standard deviation over
    responses; `credit` is in nats per pair.
    """

    feature_id: int
    layer: int
    tokens: list[str]
    in_data: float
    in_data_low: float
    in_data_high: float
    in_data_q: float
    expected: float | None
    preferred: float | None
    preferred_low: float | None
    preferred_high: float | None
    preferred_q: float | None
    moved: float | None
    credit: float | None
    status: str | None


def forecast(store: Store) -> list[ForecastFeature]:
    """Select the forecast and receipt of all features; empty where the run has none."""
    return [ForecastFeature(**row) for row in store.rows(_FORECAST)]


_FORECAST = """
SELECT feature_id, layer, [item.token FOR item IN top_tokens] AS tokens, in_data / spread AS in_data,
    in_data_low / spread AS in_data_low, in_data_high / spread AS in_data_high, in_data_q,
    expected / spread AS expected, preferred / spread AS preferred, preferred_low / spread AS preferred_low,
    preferred_high / spread AS preferred_high, preferred_q, moved / spread AS moved, credit, status
FROM forecast WHERE spread > 0 ORDER BY feature_id
"""


def report_ablations(store: Store) -> list[dict[str, Any]]:
    """Select all rows of `ablations`, in order; contrasts that are absent, or lack an interval, are made of effects."""
    rows = store.rows('SELECT * FROM ablations ORDER BY "group"')
    known = [(row["contrast_low"], row["contrast_high"]) for row in rows if row["contrast"] is not None]
    if (known and not any(None in ends for ends in known)) or all(row["kind"] != CONTROL for row in rows):
        return rows
    return add_contrasts(rows)


def weightiest_features(store: Store, *, limit: int) -> pa.Table:
    """Select the features that contribute most to the headline estimate, largest first; by number without a probe."""
    return store.query(
        "SELECT feature_id, layer, site, description, top_tokens, weight, ci_low, ci_high, mean_abs_contribution "
        "FROM feature_table ORDER BY mean_abs_contribution DESC NULLS LAST, feature_id LIMIT $limit",
        {"limit": limit},
    )


def decoder_rows(store: Store, feature_ids: Sequence[int]) -> pa.Table:
    """Select the decoder rows (feature_id, vector) of features, by number; features without one are left out."""
    return store.query(
        "SELECT feature_id, vector FROM decoders WHERE feature_id IN (SELECT unnest($ids::INTEGER[])) "
        "ORDER BY feature_id",
        {"ids": list(feature_ids)},
    )


@dataclass(frozen=True)
class AblatedFeature:
    """A single ablated feature: effects in units of reward, the predicted one in units of the probe's target.

    `contrast` is the effect less the mean effect of all single controls, `contrast_reach` the size that 95 % of
    controls stay within, `contrast_q` a false discovery rate; None where there are no controls.
    """

    feature_id: int
    layer: int
    site: str
    effect: float
    ci_low: float
    ci_high: float
    contrast: float | None
    contrast_low: float | None
    contrast_high: float | None
    contrast_reach: float | None
    contrast_q: float | None
    predicted_effect: float | None
    n_completions: int
    weight: float | None
    description: str | None

    @property
    def measured(self) -> tuple[float, float, float]:
        """The contrast with its interval; without controls, the effect itself."""
        if self.contrast is None or self.contrast_low is None or self.contrast_high is None:
            return self.effect, self.ci_low, self.ci_high
        return self.contrast, self.contrast_low, self.contrast_high


def beliefs(store: Store, labeller: str, *, limit: int = 2000) -> pa.Table:
    """Select a labeller's confidence that features are related, with their headline weights, by number.

    `belief` is the confidence, negative where the feature is called unrelated; `size` is |weight|. Features that never
    fire are left out, as in the report. Where there are more than `limit`, a sample by the hash of the number.
    """
    return store.query(_BELIEFS, {"labeller": labeller, "probe": headline_id(store), "limit": limit})


def count_beliefs(store: Store, labeller: str) -> int:
    """Count the features that `beliefs` selects from."""
    bound = {"labeller": labeller, "probe": headline_id(store)}
    return int(store.rows(f"SELECT count(*) AS n {_JUDGED}", bound)[0]["n"])


def ablated_features(store: Store) -> list[AblatedFeature]:
    """Select the features that were ablated one at a time, the largest predicted effect first."""
    bound = {"probe": headline_id(store)}
    measured = {row["group"]: row for row in report_ablations(store)}
    found = []
    for row in store.rows(_ABLATED, bound):
        own = measured[row.pop("group")]
        found.append(AblatedFeature(**row, **{name: own[name] for name in _MEASURED}))
    return found


_MEASURED = (
    "effect", "ci_low", "ci_high", "contrast", "contrast_low", "contrast_high", "contrast_reach", "contrast_q",
    "predicted_effect", "n_completions",
)  # fmt: skip


_JUDGED = """
FROM labels l JOIN features f USING (feature_id) JOIN weights w USING (feature_id)
WHERE l.labeller = $labeller AND l.related IS NOT NULL AND f.n_active > 0 AND w.probe_id = $probe
"""
_BELIEFS = f"""
SELECT * FROM (
    SELECT l.feature_id, f.layer, f.site, l.related, if(l.related, 1, -1) * coalesce(l.confidence, 1)::DOUBLE AS belief,
        w.weight, abs(w.weight) AS size, w.beats_null, l.description
    {_JUDGED} ORDER BY hash(l.feature_id) LIMIT $limit
) ORDER BY feature_id
"""

_ABLATED = """
SELECT feature_id, f.layer, f.site, a."group", w.weight, l.description
FROM (SELECT *, features[1] AS feature_id FROM ablations WHERE kind = 'feature') a
JOIN features f USING (feature_id)
LEFT JOIN (SELECT feature_id, weight FROM weights WHERE probe_id = $probe) w USING (feature_id)
LEFT JOIN (SELECT feature_id, description FROM feature_table) l USING (feature_id)
ORDER BY abs(a.predicted_effect) DESC NULLS LAST, feature_id
"""
