"""Every question the explorer asks of a bundle, one function each: all SQL is here, and values are only ever bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from lfp.errors import ConfigError, NotInBundleError
from lfp.store import Store


@dataclass(frozen=True)
class Probe:
    """A row of `probes`."""

    probe_id: int
    target: str
    inputs: str
    model: str
    layers: list[int]
    kind: str
    pooling: str
    alpha: float
    intercept: float
    display_slope: float
    display_offset: float
    n_train: int
    n_test: int


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


@dataclass(frozen=True)
class FeatureFilter:
    """Which features are wanted. An empty tuple of layers means all of them."""

    layers: tuple[int, ...] = ()
    sign: str = "any"
    """any, positive or negative: the sign of the headline probe's weight."""
    related: str = "any"
    """any, yes or no: what the run's labeller says."""
    density_low: float = 0.0
    density_high: float = 1.0
    search: str = ""
    """Found in the description, in a top token, or equal to the feature's number."""


@dataclass(frozen=True)
class TextFilter:
    """Which texts are wanted: every word of `words` occurs; `split` is any, train or held_out."""

    words: str = ""
    split: str = "any"
    is_sampled: bool = False
    """Only texts sampled from the corpus, whose activations are kept; the others are there for an example's sake."""


@dataclass(frozen=True)
class Order:
    """How rows are sorted: a name from FEATURE_SORTS or TEXT_SORTS, and a direction."""

    by: str
    descending: bool = True


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


@dataclass(frozen=True)
class Text:
    """A row of `texts` with its row of `token_scores` (empty lists where there is none)."""

    text_id: int
    source: str
    split: str
    role: str
    pair_id: int | None
    text: str
    token_starts: list[int]
    response_start: int
    feedback: float | None
    rating: float | None
    predicted: float
    predicted_raw: float | None
    sae_miss: float | None
    implicit_reward: float | None
    token_feedback: list[float | None]
    token_implicit_reward: list[float | None]
    token_predicted: list[float | None]
    has_activations: bool


@dataclass(frozen=True)
class ScoreLimits:
    """Sizes of a token's scores, the bundle over; 0 where there are none."""

    feedback: float
    implicit_reward: float
    predicted: float


@dataclass(frozen=True)
class Contribution:
    """What one feature adds to a text's prediction: weight times pooled activation."""

    feature_id: int
    layer: int
    description: str | None
    weight: float
    pooled: float
    contribution: float


@dataclass(frozen=True)
class Ledger:
    """A text's prediction, split: `shown` and `rest` (the sum over all other features) and `intercept` make `total`."""

    shown: tuple[Contribution, ...]
    n_features: int
    rest: float
    intercept: float
    total: float
    predicted: float

    @property
    def error(self) -> float:
        """How far the sum is from the prediction the bundle states."""
        return abs(self.total - self.predicted)


@dataclass(frozen=True)
class RawLedger:
    """The raw probe's estimate of a text, split: `shown` and `rest` (all other features), `bias` (what it gives the
    autoencoders' biases), `intercept` and `miss` (what the autoencoders do not keep) make `total`.

    Contributions are raw weight times pooled activation. Where a feature has no raw weight, since an autoencoder
    normalises its inputs, nothing is shown and `rest` is all that the autoencoders keep.
    """

    shown: tuple[Contribution, ...]
    n_features: int
    rest: float
    bias: float
    intercept: float
    miss: float
    total: float
    predicted: float

    @property
    def error(self) -> float:
        """How far the sum is from the estimate the bundle states."""
        return abs(self.total - self.predicted)


@dataclass(frozen=True)
class Difference:
    """What one feature adds to a text's prediction (`here`), to another's or the average one's, and how they differ."""

    feature_id: int
    layer: int
    description: str | None
    weight: float
    here: float
    there: float
    difference: float


@dataclass(frozen=True)
class Contrast:
    """A difference of predictions, split: `shown` and `rest` (all other features) make `total`; intercepts cancel.

    `predicted` is the text's prediction as the bundle states it less `reference`, the other's.
    """

    shown: tuple[Difference, ...]
    n_features: int
    rest: float
    total: float
    predicted: float
    reference: float

    @property
    def error(self) -> float:
        """How far the sum is from the difference of the predictions the bundle states."""
        return abs(self.total - self.predicted)


FEATURE_SORTS: Mapping[str, str] = {
    "contribution": "w.mean_abs_contribution",
    "weight": "w.weight",
    "strength": "abs(w.weight)",
    "share": "w.share",
    "density": "f.density",
    "base_density": "f.base_density",
    "shift": "f.shift",
    "max_activation": "f.max_activation",
    "description": "lower(l.description)",
    "related": "l.related",
    "layer": "f.layer",
    "id": "f.feature_id",
}
"""Names a feature table may be sorted by, and the expression behind each."""

TEXT_SORTS: Mapping[str, str] = {
    "gap": "gap",
    "predicted": "predicted",
    "feedback": "feedback",
    "implicit_reward": "implicit_reward",
    "rating": "rating",
    "id": "text_id",
}
"""Names a list of texts may be sorted by, and the expression behind each."""


def headline(store: Store) -> Probe | None:
    """The probe that `texts.predicted` is of, or None in a bundle without probes."""
    rows = store.rows(f"SELECT {_columns(Probe)} FROM probes WHERE is_headline ORDER BY probe_id LIMIT 1")
    return Probe(**rows[0]) if rows else None


def main_labeller(store: Store) -> str | None:
    """The labeller whose descriptions stand in tables: the manifest's, else the first that described anything."""
    rows = store.rows(
        "SELECT labeller FROM labels GROUP BY labeller "
        "ORDER BY labeller = $named DESC, count(*) DESC, labeller LIMIT 1",
        {"named": store.manifest.labeller},
    )
    return rows[0]["labeller"] if rows else None


def figures(store: Store, report_row: str) -> list[Figure]:
    """The rows of `results` under one report row, in the table's order."""
    rows = store.rows(f"SELECT {_columns(Figure)} FROM results WHERE report_row = $row", {"row": report_row})
    return [Figure(**row) for row in rows]


def report_rows(store: Store) -> list[dict[str, Any]]:
    """All rows of `results`, sorted as the schema states."""
    return store.rows("SELECT * FROM results ORDER BY ALL")


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


def feature_layers(store: Store) -> list[int]:
    """Layers that have features."""
    return [row["layer"] for row in store.rows("SELECT DISTINCT layer FROM features ORDER BY layer")]


def count_features(store: Store, wanted: FeatureFilter) -> int:
    """How many features pass the filter."""
    rows = store.rows(f"SELECT count(*) AS n {_FEATURES_FROM}", _feature_values(store, wanted))
    return int(rows[0]["n"])


def features(
    store: Store, wanted: FeatureFilter, *, order: Order, limit: int | None = None, offset: int = 0
) -> pa.Table:
    """The features that pass, sorted, one page of them. Without a limit: all."""
    by = _sort_key(FEATURE_SORTS, order.by)
    return store.query(
        f"SELECT {_FEATURE_COLUMNS} {_FEATURES_FROM} "
        f"ORDER BY {by} {_direction(order)} NULLS LAST, f.feature_id LIMIT $limit OFFSET $offset",
        {**_feature_values(store, wanted), "limit": limit, "offset": offset},
    )


def feature(store: Store, feature_id: int) -> Feature:
    """One feature. Raises NotInBundleError."""
    rows = store.rows(
        f"SELECT {_columns(Feature)} FROM (SELECT * FROM features WHERE feature_id = $feature_id) "
        "LEFT JOIN (SELECT * FROM weights WHERE probe_id = $probe AND feature_id = $feature_id) USING (feature_id)",
        {"feature_id": feature_id, "probe": _headline_id(store)},
    )
    if not rows:
        raise _no_such(store, "feature", feature_id)
    return Feature(**rows[0])


def strongest_feature(store: Store) -> int | None:
    """The feature with the largest mean absolute contribution, else the first; None in a bundle without features."""
    rows = store.rows(
        "SELECT feature_id FROM features LEFT JOIN (SELECT feature_id, mean_abs_contribution AS size FROM weights "
        "WHERE probe_id = $probe) USING (feature_id) ORDER BY size DESC NULLS LAST, feature_id LIMIT 1",
        {"probe": _headline_id(store)},
    )
    return rows[0]["feature_id"] if rows else None


def labels(store: Store, feature_id: int) -> list[Label]:
    """What labellers say of a feature, the run's own labeller first."""
    rows = store.rows(
        f"SELECT {_columns(Label)} FROM labels WHERE feature_id = $feature_id ORDER BY labeller = $main DESC, labeller",
        {"feature_id": feature_id, "main": main_labeller(store)},
    )
    return [Label(**row) for row in rows]


def histogram(store: Store, feature_id: int) -> Histogram | None:
    """Where a feature's activations lie in the tuned and the base model; None where it was never counted."""
    rows = store.rows(
        f"SELECT {_columns(Histogram)} FROM histograms WHERE feature_id = $feature_id", {"feature_id": feature_id}
    )
    return Histogram(**rows[0]) if rows else None


def example_counts(store: Store, feature_id: int) -> dict[int, int]:
    """How many examples each bucket of a feature holds: 0 top, 1..q intervals from low to high, -1 silent, -2 near."""
    rows = store.rows(
        "SELECT bucket, count(*) AS n FROM examples WHERE feature_id = $feature_id GROUP BY bucket ORDER BY bucket",
        {"feature_id": feature_id},
    )
    return {row["bucket"]: row["n"] for row in rows}


def examples(store: Store, feature_id: int, *, bucket: int, limit: int = 20) -> list[Example]:
    """Examples of a feature in one bucket, strongest first, each with its text."""
    rows = store.rows(
        f"SELECT {_columns(Example)} FROM (SELECT * FROM examples WHERE feature_id = $feature_id AND bucket = $bucket) "
        "JOIN texts USING (text_id) ORDER BY rank LIMIT $limit",
        {"feature_id": feature_id, "bucket": bucket, "limit": limit},
    )
    return [Example(**row) for row in rows]


def feature_excerpts(store: Store, feature_id: int) -> list[dict[str, Any]]:
    """All examples of a feature, of every bucket, joined with their texts: what `lfp.labels.evidence` reads."""
    return store.rows(
        "SELECT text_id, position, bucket, window_start, window_values, text, token_starts "
        "FROM (SELECT * FROM examples WHERE feature_id = $feature_id) JOIN texts USING (text_id) ORDER BY bucket, rank",
        {"feature_id": feature_id},
    )


def count_texts(store: Store, wanted: TextFilter) -> int:
    """How many texts pass the filter."""
    return int(store.rows(f"SELECT count(*) AS n FROM texts {_TEXTS_WHERE}", _text_values(wanted))[0]["n"])


def texts(store: Store, wanted: TextFilter, *, order: Order, limit: int | None = None, offset: int = 0) -> pa.Table:
    """The texts that pass, sorted. `gap` is the distance of the percentile ranks of prediction and true feedback."""
    by = _sort_key(TEXT_SORTS, order.by)
    return store.query(
        "SELECT text_id, text, split, role, feedback, implicit_reward, predicted, rating, gap "
        f"FROM ({_RANKED_TEXTS}) {_TEXTS_WHERE} "
        f"ORDER BY {by} {_direction(order)} NULLS LAST, text_id LIMIT $limit OFFSET $offset",
        {**_text_values(wanted), "limit": limit, "offset": offset},
    )


def text(store: Store, text_id: int) -> Text:
    """One text with its values a token. Raises NotInBundleError."""
    rows = store.rows(_ONE_TEXT, {"text_id": text_id})
    if not rows:
        raise _no_such(store, "text", text_id)
    return Text(**rows[0])


def score_limits(store: Store) -> ScoreLimits:
    """For each score, the size that one token in a hundred passes: what full colour stands for."""
    return ScoreLimits(**store.rows(_SCORE_LIMITS)[0])


def ledger(store: Store, text_id: int, *, limit: int = 12) -> Ledger | None:
    """How features make a text's prediction, largest first; None without a probe or without the text's activations."""
    probe = headline(store)
    if probe is None:
        return None
    rows = store.rows(_LEDGER, {**_pooling(probe), "text_id": text_id, "labeller": main_labeller(store)})
    if not rows:
        return None
    predicted = rows[0]["predicted"]
    parts = _contributions(rows)
    total = sum(part.contribution for part in parts)
    shown = tuple(parts[:limit])
    return Ledger(
        shown=shown,
        n_features=len(parts),
        rest=total - sum(part.contribution for part in shown),
        intercept=probe.intercept,
        total=total + probe.intercept,
        predicted=predicted,
    )


def raw_ledger(store: Store, text_id: int, *, limit: int = 12) -> RawLedger | None:
    """The second ledger of a text, largest part first; None without a raw probe or without the text's activations."""
    probe = headline(store)
    if probe is None:
        return None
    rows = store.rows(_RAW_LEDGER, {**_pooling(probe), "text_id": text_id, "labeller": main_labeller(store)})
    if not rows:
        return None
    stated = {key: rows[0][key] for key in ("predicted", "intercept", "miss")}
    if rows[0]["bias"] is None:
        kept = stated["predicted"] - stated["intercept"] - stated["miss"]
        return RawLedger(shown=(), n_features=0, rest=kept, bias=0.0, total=stated["predicted"], **stated)
    bias, parts = rows[0]["bias"], _contributions(rows)
    total = sum(part.contribution for part in parts)
    shown = tuple(parts[:limit])
    return RawLedger(
        shown=shown,
        n_features=len(parts),
        rest=total - sum(part.contribution for part in shown),
        bias=bias,
        total=total + bias + stated["intercept"] + stated["miss"],
        **stated,
    )


def average_ledger(store: Store, text_id: int, *, limit: int = 12) -> Contrast | None:
    """What each feature adds to a text's prediction beyond what it adds to the average text's, largest first.

    The average is over the texts whose activations are kept. None where `ledger` is None.
    """
    return _contrast(store, _AVERAGE_LEDGER, {"text_id": text_id}, limit)


def pair_ledger(store: Store, pair_id: int, *, limit: int = 12) -> Contrast | None:
    """What each feature adds to the prediction of a pair's chosen text beyond the rejected one's, largest first.

    None without a probe or where the activations of one of the two are not kept.
    """
    ids = {row["role"]: row["text_id"] for row in store.rows(_PAIR_TEXTS, {"pair_id": pair_id})}
    if ids.keys() != {"chosen", "rejected"}:
        return None
    return _contrast(store, _PAIR_LEDGER, {"text_id": ids["chosen"], "other_id": ids["rejected"]}, limit)


def token_contributions(store: Store, text_id: int) -> list[float] | None:
    """What each token adds to its text's prediction: with the intercept they sum to it. None where `ledger` is None.

    Under mean pooling that is the token's weight times activation over the number of tokens; under max a feature's
    activation counts at the first token that has its largest.
    """
    probe = headline(store)
    if probe is None:
        return None
    rows = store.rows(_TOKEN_CONTRIBUTIONS, {**_pooling(probe), "text_id": text_id})
    return rows[0]["contributions"] if rows else None


def token_activations(store: Store, text_id: int, *, feature_id: int) -> list[float]:
    """A feature's activation on each token of a text, zero where it is silent; empty where none were kept."""
    rows = store.rows(_TOKEN_ACTIVATIONS, {"text_id": text_id, "feature_id": feature_id})
    values = [0.0] * (rows[0]["n_tokens"] if rows else 0)
    for row in rows:
        if row["position"] is not None and row["position"] < len(values):
            values[row["position"]] = row["value"]
    return values


def prediction_errors(store: Store, *, tolerance: float) -> list[dict[str, Any]]:
    """Texts whose contributions and intercept do not make the prediction stated: text_id, predicted, total."""
    probe = headline(store)
    if probe is None:
        return []
    values = {"intercept": probe.intercept, "tolerance": tolerance}
    return store.rows(_PREDICTION_ERRORS, {**_pooling(probe), **values})


def raw_prediction_errors(store: Store, *, tolerance: float) -> list[dict[str, Any]]:
    """Texts whose second ledger does not make the raw estimate stated: text_id, predicted, total.

    The tolerance is relative to the sum of the sizes of the parts where that is above 1.
    """
    probe = headline(store)
    if probe is None:
        return []
    return store.rows(_RAW_PREDICTION_ERRORS, {**_pooling(probe), "tolerance": tolerance})


def miss_errors(store: Store, *, tolerance: float) -> list[dict[str, Any]]:
    """Texts whose tokens' misses do not pool to the text's: text_id, sae_miss, total. Max pooling is not looked at."""
    probe = headline(store)
    if probe is None or probe.pooling == "max":
        return []
    return store.rows(_MISS_ERRORS, {"pooling": probe.pooling, "tolerance": tolerance})


def token_prediction_errors(store: Store, *, tolerance: float) -> list[dict[str, Any]]:
    """Texts with tokens whose contributions do not make the prediction stated: text_id, first position, n_tokens."""
    probe = headline(store)
    if probe is None:
        return []
    values = {"probe": probe.probe_id, "intercept": probe.intercept, "tolerance": tolerance}
    return store.rows(_TOKEN_PREDICTION_ERRORS, values)


def _contributions(rows: list[dict[str, Any]]) -> list[Contribution]:
    return [Contribution(**{key: row[key] for key in _LEDGER_KEYS}) for row in rows if row["feature_id"] is not None]


def _contrast(store: Store, sql: str, texts: Mapping[str, int], limit: int) -> Contrast | None:
    probe = headline(store)
    if probe is None:
        return None
    rows = store.rows(sql, {**_pooling(probe), **texts, "labeller": main_labeller(store), "limit": limit})
    if not rows:
        return None
    keys = [field.name for field in fields(Difference)]
    shown = tuple(Difference(**{key: row[key] for key in keys}) for row in rows if row["feature_id"] is not None)
    total, reference = rows[0]["total"], rows[0]["reference"]
    return Contrast(
        shown=shown,
        n_features=rows[0]["n_features"],
        rest=total - sum(part.difference for part in shown),
        total=total,
        predicted=rows[0]["predicted"] - reference,
        reference=reference,
    )


def _columns(kind: type[Any]) -> str:
    """The fields of a dataclass as a select list; they are named like the columns."""
    return ", ".join(f'"{field.name}"' for field in fields(kind))


def _sort_key(sorts: Mapping[str, str], name: str) -> str:
    try:
        return sorts[name]
    except KeyError:
        raise ConfigError(f"sort {name}: not a column to sort by; choose one of {', '.join(sorts)}") from None


def _direction(order: Order) -> str:
    return "DESC" if order.descending else "ASC"


def _headline_id(store: Store) -> int | None:
    probe = headline(store)
    return probe.probe_id if probe else None


def _pooling(probe: Probe) -> dict[str, Any]:
    return {"probe": probe.probe_id, "pooling": probe.pooling}


def _feature_values(store: Store, wanted: FeatureFilter) -> dict[str, Any]:
    return {
        "probe": _headline_id(store),
        "labeller": main_labeller(store),
        "layers": list(wanted.layers),
        "sign": wanted.sign,
        "related": wanted.related,
        "density_low": wanted.density_low,
        "density_high": wanted.density_high,
        "search": wanted.search.strip().lower(),
    }


def _text_values(wanted: TextFilter) -> dict[str, Any]:
    return {"words": wanted.words.lower().split(), "split": wanted.split, "is_sampled": wanted.is_sampled}


def _no_such(store: Store, what: str, number: int) -> NotInBundleError:
    """Names what was asked for and the numbers there are."""
    held = store.rows(_HELD[what])[0]
    range_ = "none at all" if held["low"] is None else f"numbers {held['low']} to {held['high']}"
    return NotInBundleError(f"there is no {what} {number} in this bundle; it holds {range_}")


_HELD = {
    "feature": "SELECT min(feature_id) AS low, max(feature_id) AS high FROM features",
    "text": "SELECT min(text_id) AS low, max(text_id) AS high FROM texts",
}

_FEATURES_FROM = """
FROM features f
LEFT JOIN (SELECT * FROM weights WHERE probe_id = $probe) w ON w.feature_id = f.feature_id
LEFT JOIN (SELECT * FROM labels WHERE labeller = $labeller) l ON l.feature_id = f.feature_id
WHERE (len($layers::INTEGER[]) = 0 OR list_contains($layers::INTEGER[], f.layer))
  AND CASE $sign WHEN 'positive' THEN w.weight > 0 WHEN 'negative' THEN w.weight < 0 ELSE true END
  AND CASE $related WHEN 'yes' THEN l.related WHEN 'no' THEN NOT l.related ELSE true END
  AND f.density BETWEEN $density_low AND $density_high
  AND ($search = '' OR contains(lower(l.description), $search) OR f.feature_id::VARCHAR = $search
       OR contains(lower(array_to_string([item.token FOR item IN f.top_tokens], chr(10))), $search))
"""

_FEATURE_COLUMNS = """
f.feature_id, f.layer, l.description, l.related, w.weight, w.mean_abs_contribution, w.share, w.beats_null,
f.density, f.base_density, f.shift, f.max_activation, [item.token FOR item IN f.top_tokens] AS top_tokens
"""

_TEXTS_WHERE = """
WHERE coalesce(list_bool_and([contains(lower("text"), word) FOR word IN $words::VARCHAR[]]), true)
  AND ($split = 'any' OR split = $split)
  AND (NOT $is_sampled OR text_id IN (SELECT text_id FROM activations))
"""

_RANKED_TEXTS = """
SELECT *, CASE WHEN feedback IS NOT NULL THEN abs(
    (cume_dist() OVER (PARTITION BY feedback IS NULL ORDER BY predicted)
     - cume_dist() OVER (PARTITION BY feedback IS NULL ORDER BY predicted DESC)) / 2
    - (cume_dist() OVER (PARTITION BY feedback IS NULL ORDER BY feedback)
       - cume_dist() OVER (PARTITION BY feedback IS NULL ORDER BY feedback DESC)) / 2) END AS gap
FROM texts
"""

_ONE_TEXT = """
SELECT t.text_id, source, split, role, pair_id, t."text", token_starts, response_start, t.feedback, rating, t.predicted,
    predicted_raw, t.sae_miss, t.implicit_reward,
    coalesce(s.feedback, []) AS token_feedback, coalesce(s.implicit_reward, []) AS token_implicit_reward,
    coalesce(s.predicted, []) AS token_predicted, a.text_id IS NOT NULL AS has_activations
FROM (SELECT * FROM texts WHERE text_id = $text_id) t
LEFT JOIN (SELECT * FROM token_scores WHERE text_id = $text_id) s ON true
LEFT JOIN (SELECT text_id FROM activations WHERE text_id = $text_id) a ON true
"""

_ACTIVE = """
SELECT text_id, unnest(positions) AS position, unnest(feature_ids) AS feature_id, unnest("values") AS value
FROM activations WHERE {which}
"""

_POOLED = """
SELECT active.text_id, feature_id, CASE $pooling
    WHEN 'sum' THEN sum(value::DOUBLE)
    WHEN 'max' THEN max(value)::DOUBLE
    WHEN 'last' THEN coalesce(sum(value::DOUBLE) FILTER (position = n_tokens - 1), 0)
    WHEN 'response' THEN coalesce(sum(value::DOUBLE) FILTER (position >= first_pooled), 0) / (n_tokens - first_pooled)
    ELSE sum(value::DOUBLE) / n_tokens END AS pooled
FROM ({active}) active
JOIN (SELECT text_id, len(token_starts) AS n_tokens,
          CASE WHEN response_start < len(token_starts) THEN response_start ELSE 0 END AS first_pooled
      FROM texts) sizes ON sizes.text_id = active.text_id
GROUP BY active.text_id, feature_id, n_tokens, first_pooled
"""

_EVERY, _ONE, _OTHER = "true", "text_id = $text_id", "text_id = $other_id"


def _active(which: str) -> str:
    """The activations of every text, one or the other, a row each."""
    return _ACTIVE.format(which=which)


def _pooled(which: str) -> str:
    """What their features come to over the tokens pooled, a row a text and feature."""
    return _POOLED.format(active=_active(which))


_SCORE_LIMITS = """
SELECT coalesce(quantile_cont(abs(feedback), 0.99), 0)::DOUBLE AS feedback,
    coalesce(quantile_cont(abs(implicit_reward), 0.99), 0)::DOUBLE AS implicit_reward,
    coalesce(quantile_cont(abs(predicted), 0.99), 0)::DOUBLE AS predicted
FROM (SELECT unnest(feedback) AS feedback, unnest(implicit_reward) AS implicit_reward, unnest(predicted) AS predicted
      FROM token_scores)
"""

_LEDGER_KEYS = ("feature_id", "layer", "description", "weight", "pooled", "contribution")

_LEDGER = f"""
SELECT t.predicted, w.feature_id, f.layer, l.description, w.weight, p.pooled,
    w.weight::DOUBLE * p.pooled AS contribution
FROM (SELECT text_id, predicted FROM texts SEMI JOIN activations USING (text_id) WHERE text_id = $text_id) t
LEFT JOIN ({_pooled(_ONE)}) p ON p.text_id = t.text_id
LEFT JOIN (SELECT feature_id, weight FROM weights WHERE probe_id = $probe) w ON w.feature_id = p.feature_id
LEFT JOIN features f ON f.feature_id = w.feature_id
LEFT JOIN (SELECT feature_id, description FROM labels WHERE labeller = $labeller) l ON l.feature_id = w.feature_id
ORDER BY abs(contribution) DESC NULLS LAST, w.feature_id
"""

_RAW_LEDGER = f"""
SELECT t.predicted, t.miss, r.intercept, r.bias * CASE $pooling WHEN 'sum' THEN t.n_tokens ELSE 1 END AS bias,
    w.feature_id, f.layer, l.description, w.weight, p.pooled, w.weight::DOUBLE * p.pooled AS contribution
FROM (SELECT text_id, predicted_raw::DOUBLE AS predicted, sae_miss::DOUBLE AS miss, len(token_starts) AS n_tokens
      FROM texts SEMI JOIN activations USING (text_id)
      WHERE text_id = $text_id AND predicted_raw IS NOT NULL AND sae_miss IS NOT NULL) t
JOIN (SELECT raw_intercept AS intercept, raw_bias AS bias FROM probes
      WHERE probe_id = $probe AND raw_intercept IS NOT NULL) r ON true
LEFT JOIN ({_pooled(_ONE)}) p ON p.text_id = t.text_id
LEFT JOIN (SELECT feature_id, raw_weight AS weight FROM weights WHERE probe_id = $probe AND raw_weight IS NOT NULL) w
    ON w.feature_id = p.feature_id
LEFT JOIN features f ON f.feature_id = w.feature_id
LEFT JOIN (SELECT feature_id, description FROM labels WHERE labeller = $labeller) l ON l.feature_id = w.feature_id
ORDER BY abs(contribution) DESC NULLS LAST, w.feature_id
"""

_CONTRIBUTED = "SELECT feature_id, weight::DOUBLE * pooled AS part FROM ({pooled}) JOIN weighted USING (feature_id)"

_CONTRAST = """
WITH weighted AS (SELECT feature_id, weight FROM weights WHERE probe_id = $probe),
compared AS (
    SELECT *, here - there AS difference FROM (
        SELECT feature_id, coalesce(here.part, 0) AS here, coalesce(there.part, 0) AS there
        FROM ({here}) here FULL JOIN ({there}) there USING (feature_id)
    )
), summed AS (SELECT coalesce(sum(difference), 0) AS total, count(*) AS n_features FROM compared)
SELECT t.predicted, t.reference, total, n_features, c.feature_id, f.layer, l.description, w.weight, c.here, c.there,
    c.difference
FROM ({stated}) t
JOIN summed ON true
LEFT JOIN (SELECT * FROM compared ORDER BY abs(difference) DESC, feature_id LIMIT $limit) c ON true
LEFT JOIN weighted w ON w.feature_id = c.feature_id
LEFT JOIN features f ON f.feature_id = c.feature_id
LEFT JOIN (SELECT feature_id, description FROM labels WHERE labeller = $labeller) l ON l.feature_id = c.feature_id
ORDER BY abs(c.difference) DESC NULLS LAST, c.feature_id
"""

_AVERAGE_LEDGER = _CONTRAST.format(
    here=_CONTRIBUTED.format(pooled=_pooled(_ONE)),
    there="SELECT feature_id, sum(part) / (SELECT count(*) FROM activations) AS part "
    f"FROM ({_CONTRIBUTED.format(pooled=_pooled(_EVERY))}) GROUP BY feature_id",
    stated="SELECT predicted::DOUBLE AS predicted, reference FROM texts SEMI JOIN activations USING (text_id) "
    "CROSS JOIN (SELECT avg(predicted::DOUBLE) AS reference FROM texts SEMI JOIN activations USING (text_id)) "
    "WHERE text_id = $text_id",
)

_PAIR_LEDGER = _CONTRAST.format(
    here=_CONTRIBUTED.format(pooled=_pooled(_ONE)),
    there=_CONTRIBUTED.format(pooled=_pooled(_OTHER)),
    stated="SELECT sum(predicted::DOUBLE) FILTER (text_id = $text_id) AS predicted, "
    "sum(predicted::DOUBLE) FILTER (text_id = $other_id) AS reference "
    "FROM texts SEMI JOIN activations USING (text_id) WHERE text_id IN ($text_id, $other_id) HAVING count(*) = 2",
)

_PAIR_TEXTS = "SELECT role, text_id FROM texts WHERE pair_id = $pair_id AND role IN ('chosen', 'rejected')"

_TOKEN_CONTRIBUTIONS = f"""
WITH sizes AS (
    SELECT text_id, len(token_starts) AS n_tokens,
        CASE WHEN response_start < len(token_starts) THEN response_start ELSE 0 END AS first_pooled
    FROM texts SEMI JOIN activations USING (text_id) WHERE text_id = $text_id
), parts AS (
    SELECT position, weight::DOUBLE * value::DOUBLE * CASE $pooling
        WHEN 'sum' THEN 1
        WHEN 'max' THEN (row_number() OVER (PARTITION BY feature_id ORDER BY value DESC, position) = 1)::INTEGER
        WHEN 'last' THEN (position = n_tokens - 1)::INTEGER
        WHEN 'response' THEN (position >= first_pooled)::INTEGER / (n_tokens - first_pooled)
        ELSE 1 / n_tokens END AS part
    FROM ({_active(_ONE)}) JOIN sizes USING (text_id)
    JOIN (SELECT feature_id, weight FROM weights WHERE probe_id = $probe) USING (feature_id)
), summed AS (SELECT position, sum(part) AS part FROM parts GROUP BY position)
SELECT coalesce(list(coalesce(part, 0) ORDER BY position) FILTER (position IS NOT NULL), []) AS contributions
FROM sizes LEFT JOIN (SELECT unnest(range(n_tokens)) AS position FROM sizes) ON true LEFT JOIN summed USING (position)
GROUP BY text_id
"""

_TOKEN_ACTIVATIONS = f"""
SELECT len(t.token_starts) AS n_tokens, active.position, active.value
FROM (SELECT text_id, token_starts FROM texts SEMI JOIN activations USING (text_id) WHERE text_id = $text_id) t
LEFT JOIN (SELECT * FROM ({_active(_ONE)}) WHERE feature_id = $feature_id) active ON active.text_id = t.text_id
"""

_PREDICTION_ERRORS = f"""
SELECT t.text_id, t.predicted, coalesce(total, 0) + $intercept AS total
FROM texts t JOIN (SELECT text_id FROM activations) a ON a.text_id = t.text_id
LEFT JOIN (
    SELECT p.text_id, sum(w.weight::DOUBLE * pooled) AS total
    FROM ({_pooled(_EVERY)}) p JOIN (SELECT * FROM weights WHERE probe_id = $probe) w ON w.feature_id = p.feature_id
    GROUP BY p.text_id
) sums ON sums.text_id = t.text_id
WHERE NOT abs(coalesce(total, 0) + $intercept - t.predicted) <= $tolerance * greatest(1, abs(t.predicted))
ORDER BY t.text_id
"""

_RAW_PREDICTION_ERRORS = f"""
WITH sums AS (
    SELECT p.text_id, sum(w.raw_weight::DOUBLE * pooled) AS total, sum(abs(w.raw_weight::DOUBLE * pooled)) AS size
    FROM ({_pooled(_EVERY)}) p JOIN (SELECT * FROM weights WHERE probe_id = $probe) w ON w.feature_id = p.feature_id
    GROUP BY p.text_id
), parts AS (
    SELECT text_id, predicted_raw::DOUBLE AS predicted, coalesce(total, 0) AS kept, coalesce(size, 0) AS size,
        raw_intercept AS intercept, sae_miss::DOUBLE AS miss,
        raw_bias * CASE $pooling WHEN 'sum' THEN len(token_starts) ELSE 1 END AS bias
    FROM texts SEMI JOIN activations USING (text_id) LEFT JOIN sums USING (text_id)
    JOIN (SELECT raw_intercept, raw_bias FROM probes WHERE probe_id = $probe) ON true
    WHERE predicted_raw IS NOT NULL AND sae_miss IS NOT NULL AND raw_bias IS NOT NULL
)
SELECT text_id, predicted, kept + bias + intercept + miss AS total FROM parts
WHERE NOT coalesce(abs(kept + bias + intercept + miss - predicted)
    <= $tolerance * greatest(1, size + abs(bias) + abs(intercept) + abs(miss)), false)
ORDER BY text_id
"""

_MISS_ERRORS = """
WITH tokens AS (
    SELECT text_id, t.sae_miss::DOUBLE AS sae_miss, len(token_starts) AS n_tokens,
        CASE WHEN response_start < len(token_starts) THEN response_start ELSE 0 END AS first_pooled,
        generate_subscripts(s.sae_miss, 1) - 1 AS position, unnest(s.sae_miss)::DOUBLE AS miss
    FROM texts t JOIN (SELECT text_id, sae_miss FROM token_scores) s USING (text_id)
    WHERE t.sae_miss IS NOT NULL AND s.sae_miss IS NOT NULL
), parts AS (
    SELECT text_id, sae_miss, CASE $pooling
        WHEN 'sum' THEN miss
        WHEN 'last' THEN miss * (position = n_tokens - 1)::INTEGER
        WHEN 'response' THEN miss * (position >= first_pooled)::INTEGER / (n_tokens - first_pooled)
        ELSE miss / n_tokens END AS part
    FROM tokens
)
SELECT text_id, first(sae_miss) AS sae_miss, sum(part) AS total FROM parts GROUP BY text_id
HAVING NOT coalesce(abs(sum(part) - first(sae_miss)) <= $tolerance * greatest(1, sum(abs(part))), false)
ORDER BY text_id
"""

_TOKEN_PREDICTION_ERRORS = f"""
WITH sums AS (
    SELECT active.text_id, active.position, sum(w.weight::DOUBLE * value) AS total
    FROM ({_active(_EVERY)}) active
    JOIN (SELECT * FROM weights WHERE probe_id = $probe) w ON w.feature_id = active.feature_id
    GROUP BY active.text_id, active.position
), stated AS (
    SELECT text_id, generate_subscripts(predicted, 1) - 1 AS position, unnest(predicted) AS predicted
    FROM token_scores WHERE text_id IN (SELECT text_id FROM activations)
)
SELECT stated.text_id, first(stated.position ORDER BY stated.position) AS position, count(*) AS n_tokens
FROM stated LEFT JOIN sums USING (text_id, position)
WHERE predicted IS NOT NULL
  AND NOT abs(coalesce(total, 0) + $intercept - predicted) <= $tolerance * greatest(1, abs(predicted))
GROUP BY stated.text_id ORDER BY stated.text_id
"""


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
