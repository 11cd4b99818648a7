"""Queries on the list of features: filter and sort it, place a feature in it, map it, and pick some for an audit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lfp.bundle.queries.common import Order, direction, each_of, headline_id, look_up
from lfp.bundle.store.connection import Store
from lfp.util.types import SITES, UNLABELLED

Point = tuple[float, float]
FLIPPED = "sign flipped"
"""What `FeatureFilter.drift` calls features whose weight has the other sign on the base model."""
MATCH = "match"
"""The order of a ranked search, best first in either direction; without a search the largest contributions first."""


@dataclass(frozen=True)
class FeatureFilter:
    """Which features are wanted. A field at its default lets all pass; null passes no other."""

    layers: tuple[int, ...] = ()
    sign: str = "any"
    """any, positive or negative: the sign of the headline probe's weight."""
    related: str = "any"
    """any, yes or no: what the label shown says."""
    density_low: float = 0.0
    density_high: float = 1.0
    search: str = ""
    """Each word found in the name, in a label by a person or a model, or in a top token; or the feature's number."""
    token: str = ""
    """One of its top tokens, spaces around it and capitals aside."""
    null: str = "any"
    """any, beats or within: whether the weight passes what shuffled feedback reaches."""
    drift: tuple[str, ...] = ()
    """Any of these: statuses of `drift`, or FLIPPED."""
    drift_top: float = 1.0
    """Among this share of all features, by the size of the drifted contribution."""
    rank_low: float = 0.0
    rank_high: float = 1.0
    """Rank by mean absolute contribution, as a share of all features: above `rank_low`, up to `rank_high`."""
    stability_low: float = 0.0
    detection_low: float = 0.0
    region: tuple[Point, ...] = ()
    """Corners of a polygon on the map of features, at least three; even-odd where it crosses itself."""
    noted: tuple[int, ...] | None = None
    """Only these: the features with a verdict or a note."""
    sites: tuple[str, ...] = ()
    labelled: str = "any"
    """any, yes or no: whether it has a label that predicts when it fires, or that a person gave."""
    is_tuned_only: bool = False
    """Only features whose direction the base model does not use: column is_tuned_only."""
    found: tuple[int, ...] | None = None
    """Only these: what a ranked search found, best first."""


@dataclass(frozen=True)
class Preset:
    """A named list: its filter, its order, and a sentence that describes it."""

    wanted: FeatureFilter
    order: Order
    says: str


@dataclass(frozen=True)
class Place:
    """Position of a feature in a list, from 0, None where it is not in it, and its neighbours there, None at an end.

    For a feature that is not in the list, `after` is the list's first.
    """

    position: int | None
    total: int
    before: int | None
    after: int | None


@dataclass(frozen=True)
class AuditedFeature:
    """A feature as a list of an audit shows it."""

    feature_id: int
    layer: int
    site: str
    description: str | None
    related: bool | None
    weight: float | None
    mean_abs_contribution: float | None
    beats_null: bool | None


PRESETS: Mapping[str, Preset] = {
    "by credit": Preset(
        FeatureFilter(), Order("credit_size"), "Largest credit first: the part of the implicit reward that it carries."
    ),
    "by change": Preset(
        FeatureFilter(), Order("drift"), "Largest change of contribution first: the tuned model against the base model."
    ),
    "by weight": Preset(
        FeatureFilter(),
        Order("strength"),
        "Largest weight of the probe first; column Beyond chance marks what shuffled feedback does not reach.",
    ),
    "tuned only": Preset(
        FeatureFilter(is_tuned_only=True),
        Order("contribution"),
        "Directions that the tuned model uses and the base model hardly does (latent scaling).",
    ),
    "unlabelled": Preset(
        FeatureFilter(labelled="no"),
        Order("contribution"),
        "No label that predicts when it fires, largest contribution first.",
    ),
    "grew most in tuning": Preset(
        FeatureFilter(drift=("born", "strengthened"), drift_top=0.1),
        Order("drift"),
        "New or strengthened, among the tenth whose contribution changed most.",
    ),
    "important, labelled unrelated": Preset(
        FeatureFilter(related="no", null="beats", rank_high=0.1),
        Order("contribution"),
        "Not labelled related, but among the tenth that contribute most, with a weight beyond chance (false discovery "
        "rate of 5 %).",
    ),
    "labelled related, unimportant": Preset(
        FeatureFilter(related="yes", null="within", rank_low=0.5),
        Order("confidence"),
        "Labelled related, but among the half that contribute least, with a weight within chance.",
    ),
}
"""The named lists."""
_UNLABELLED = f"(description IS NULL OR starts_with(description, '{UNLABELLED}'))"

FEATURE_COLUMNS: Mapping[str, str] = {
    "feature_id": "feature_id", "layer": "layer", "site": "site", "index": '"index"', "description": "description",
    "top_tokens": "[item.token FOR item IN top_tokens]", "related": "related", "confidence": "confidence",
    "agreement": "agreement", "score_detection": "score_detection", "score_fuzzing": "score_fuzzing",
    "labeller": "labeller", "weight": "weight", "ci_low": "ci_low", "ci_high": "ci_high", "null_high": "null_high",
    "q": "q", "beats_null": "beats_null", "mean_contribution": "mean_contribution",
    "mean_abs_contribution": "mean_abs_contribution", "share": "share", "rank": "rank", "status": "status",
    "drifted_contribution": "drifted_contribution", "drift_rank": "drift_rank", "sign_flipped": "sign_flipped",
    "weight_base": "weight_base", "unexplained_contribution": "unexplained_contribution", "credit": "credit",
    "credit_rank": "credit_rank", "abs_credit": "abs_credit", "unexplained_credit": "unexplained_credit",
    "twin_difference": "twin_difference", "twin_q": "twin_q", "beyond_twins": "beyond_twins",
    "promotes": "[item.token FOR item IN promotes]", "demotes": "[item.token FOR item IN demotes]",
    "scale_tuned": "scale_tuned", "scale_base": "scale_base", "scale_tuned_error": "scale_tuned_error",
    "scale_base_error": "scale_base_error", "is_tuned_only": "is_tuned_only", "base_cosine": "base_cosine",
    "base_norm_share": "base_norm_share",
    "density": "density", "base_density": "base_density", "n_active": "n_active", "mean_activation": "mean_activation",
    "base_mean_activation": "base_mean_activation", "max_activation": "max_activation", "shift": "shift",
    "stability": "stability", "decoder_norm": "decoder_norm", "pos_logits": "[item.token FOR item IN pos_logits]",
    "neg_logits": "[item.token FOR item IN neg_logits]", "x": "x", "y": "y",
}  # fmt: skip
"""Columns of the list of features, and the expression behind each; tokens without their values."""

_TOKENS = ("top_tokens", "pos_logits", "neg_logits", "promotes", "demotes")
_WORDS = ("site", "description", "labeller", "status")
FEATURE_SORTS: Mapping[str, str] = {
    "contribution": "mean_abs_contribution",
    "strength": "abs(weight)",
    "drift": "abs(drifted_contribution)",
    "credit_size": "abs(credit)",
    "id": "feature_id",
    "description": "description_words",
    "top_token": "lower(top_token)",
    "raised_token": "lower(raised_token)",
    "lowered_token": "lower(lowered_token)",
    **{
        name: expression
        for name, expression in FEATURE_COLUMNS.items()
        if name not in (*_TOKENS, "description", "feature_id", "mean_abs_contribution")
    },
}
"""Sorts of the list by name, with their SQL: every column, and sizes."""

FEATURE_NUMBERS = tuple(name for name in FEATURE_COLUMNS if name not in (*_TOKENS, *_WORDS, "feature_id"))
"""Columns that a map may be coloured by; flags count as 0 and 1."""
RANDOM = "random sample"
PICKS: Mapping[str, str] = {
    "largest contributions": "true",
    "label and weight disagree": "t.related <> t.beats_null",
    "no label, or no better than a guess": _UNLABELLED.replace("description", "t.description"),
    RANDOM: "true",
}
"""Ways to pick features for review by name, each with its condition."""


def feature_layers(store: Store) -> list[int]:
    """List the layers with features."""
    return [row["layer"] for row in store.rows("SELECT DISTINCT layer FROM features ORDER BY layer")]


def feature_sites(store: Store) -> list[str]:
    """List the sites that features are read at, those of `SITES` in order; empty without features."""
    found = {row["site"] for row in store.rows("SELECT DISTINCT site FROM features")}
    return [site for site in SITES if site in found]


def count_features(store: Store, wanted: FeatureFilter) -> int:
    """Count the features that pass the filter."""
    where, values = conditions(store, wanted)
    return int(store.rows(f"SELECT count(*) AS n FROM feature_table WHERE {where}", values)[0]["n"])


def presets(store: Store) -> list[str]:
    """Name the presets that list something in this bundle, sorted by what is known of it."""

    def lists_something(preset: Preset) -> bool:
        where, values = conditions(store, preset.wanted)
        sql = f"SELECT count({look_up(FEATURE_SORTS, preset.order.by)}) AS n FROM feature_table WHERE {where}"
        return bool(store.rows(sql, values)[0]["n"])

    return [name for name, preset in PRESETS.items() if lists_something(preset)]


def features(
    store: Store,
    wanted: FeatureFilter,
    *,
    order: Order,
    columns: Sequence[str] = tuple(FEATURE_COLUMNS),
    limit: int | None = None,
    offset: int = 0,
) -> pa.Table:
    """Select one page of the features that pass, sorted, with these of FEATURE_COLUMNS; all of them without a limit.

    Nulls come last in either direction, ties by number. Raises ConfigError for an unknown column.
    """
    order, sort = _sort(order, wanted)
    by = f"{sort} {direction(order)} NULLS LAST, feature_table.feature_id"
    where, values = conditions(store, wanted)
    named = ", ".join(f'{look_up(FEATURE_COLUMNS, name)} AS "{name}"' for name in columns)
    if limit is None:  # numbers alone are sorted: whole rows of a million features take more memory than a store has
        sql = f"SELECT feature_id FROM feature_table WHERE {where} ORDER BY {by} OFFSET $offset"
        sorted_ids = store.query(sql, {**values, "offset": offset})["feature_id"]
        rows = store.query(f"SELECT feature_id AS number, {named} FROM feature_table WHERE {where}", values)
        return rows.take(pc.index_in(sorted_ids, rows["number"])).drop_columns("number")
    sql = f"SELECT feature_id FROM feature_table WHERE {where} ORDER BY {by} LIMIT $limit OFFSET $offset"
    ids = [row["feature_id"] for row in store.rows(sql, {**values, "limit": limit, "offset": offset})]
    if not ids:
        return store.query(f"SELECT {named} FROM feature_table WHERE false")
    listed, bound = each_of(ids)  # by number, so that a page of a large list costs as much as of a small one
    return store.query(
        f"SELECT {named} FROM feature_table WHERE feature_id IN {listed} "
        "ORDER BY list_position($ids::INTEGER[], feature_table.feature_id)",
        {**bound, "ids": ids},
    )


def feature_place(store: Store, feature_id: int, wanted: FeatureFilter, *, order: Order) -> Place:
    """Find a feature's position among those that pass the filter, in that order, and its neighbours there."""
    where, values = conditions(store, wanted)
    order, by = _sort(order, wanted)
    down = order.descending
    ahead, behind = ("DESC", "ASC") if down else ("ASC", "DESC")
    sql = _PLACE.format(by=by, where=where, larger=">" if down else "<", ahead=ahead, behind=behind)
    row = store.rows(sql, {**values, "here": feature_id})[0]
    return Place(**row)


def feature_points(store: Store, wanted: FeatureFilter, *, colour: str, limit: int = 10_000) -> pa.Table:
    """Features that pass as points: feature_id, x, y, value (of the column named by `colour`, null where it has none)
    and description. Where there are more than `limit`, those that contribute most.
    """
    value = look_up({name: FEATURE_COLUMNS[name] for name in FEATURE_NUMBERS}, colour)
    where, values = conditions(store, wanted)
    return store.query(
        f"SELECT feature_id, x, y, ({value})::FLOAT AS value, description FROM feature_table "
        f"WHERE {where} ORDER BY mean_abs_contribution DESC NULLS LAST, feature_table.feature_id LIMIT $limit",
        {**values, "limit": limit},
    )


def pick_features(store: Store, pick: str, *, limit: int, seed: int = 0) -> list[int]:
    """Pick features to review by a name from PICKS, largest contribution first; a random sample in random order.

    The sample is the same for the same seed and bundle. Raises ConfigError for another name.
    """
    condition = look_up(PICKS, pick)
    order, values = "t.mean_abs_contribution DESC NULLS LAST", {"limit": limit}
    if pick == RANDOM:
        order, values = "hash(t.feature_id::VARCHAR || ':' || $seed::VARCHAR)", {**values, "seed": seed}
    sql = f"SELECT t.feature_id {_PICKED_FROM} WHERE {condition} ORDER BY {order}, t.feature_id LIMIT $limit"
    return [row["feature_id"] for row in store.rows(sql, values)]


def count_picked(store: Store, pick: str) -> int:
    """Count the features to pick from. Raises ConfigError for another name."""
    return int(store.rows(f"SELECT count(*) AS n {_PICKED_FROM} WHERE {look_up(PICKS, pick)}")[0]["n"])


def audited_features(store: Store, feature_ids: Sequence[int]) -> list[AuditedFeature]:
    """Select the features of a list that the bundle holds, in the given order."""
    rows = store.rows(
        "SELECT feature_id, layer, site, description, related, weight, mean_abs_contribution, beats_null "
        "FROM feature_table WHERE feature_id IN (SELECT unnest($ids::BIGINT[]))",
        {"ids": list(feature_ids)},
    )
    found = {row["feature_id"]: AuditedFeature(**row) for row in rows}
    return [found[feature_id] for feature_id in feature_ids if feature_id in found]


def contribution_share(store: Store, feature_ids: Sequence[int]) -> float | None:
    """Compute the share of these features in the headline's mean absolute contributions; None without a probe."""
    rows = store.rows(
        "SELECT sum(mean_abs_contribution) FILTER (WHERE chosen IS NOT NULL) AS part, "
        "sum(mean_abs_contribution) AS whole FROM weights "
        "LEFT JOIN (SELECT DISTINCT unnest($ids::BIGINT[]) AS chosen) ON chosen = feature_id WHERE probe_id = $probe",
        {"ids": list(feature_ids), "probe": headline_id(store)},
    )
    part, whole = rows[0]["part"], rows[0]["whole"]
    return (part or 0.0) / whole if whole else None


def _sort(order: Order, wanted: FeatureFilter) -> tuple[Order, str]:
    """Return an order with its direction, and its SQL over `feature_table`."""
    if order.by != MATCH:
        return order, look_up(FEATURE_SORTS, order.by)
    if wanted.found is None:
        return Order("contribution"), FEATURE_SORTS["contribution"]
    return Order(MATCH, descending=False), "list_position($found::INTEGER[], feature_id)"


def conditions(store: Store, wanted: FeatureFilter) -> tuple[str, dict[str, Any]]:
    """Write the filter as SQL over `feature_table`, from constant parts, with the values that it binds."""
    parts: list[str] = []
    values: dict[str, Any] = {}
    for choice, conditions in (
        (wanted.sign, {"positive": "weight > 0", "negative": "weight < 0"}),
        (wanted.related, {"yes": "related", "no": "NOT related"}),
        (wanted.null, {"beats": "beats_null", "within": "NOT beats_null"}),
        (wanted.labelled, {"yes": f"NOT {_UNLABELLED}", "no": _UNLABELLED}),
    ):
        if choice in conditions:
            parts.append(conditions[choice])
    token = wanted.token.strip().lower()
    for number, word in enumerate(wanted.search.lower().split()):
        parts.append(_SEARCH.format(word=f"word{number}"))
        values[f"word{number}"] = word
    n, shares = store.manifest.tables["features"].rows, (wanted.drift_top, wanted.rank_low, wanted.rank_high)
    drift_most, rank_after, rank_most = (math.ceil(share * n) for share in shares)
    for is_set, sql, bound in (
        (wanted.layers, "list_contains($layers::INTEGER[], layer)", {"layers": list(wanted.layers)}),
        (wanted.sites, "list_contains($sites::VARCHAR[], site)", {"sites": list(wanted.sites)}),
        (wanted.density_low > 0, "density >= $density_low", {"density_low": wanted.density_low}),
        (wanted.density_high < 1, "density <= $density_high", {"density_high": wanted.density_high}),
        (token, "contains(token_words, chr(10) || $token || chr(10))", {"token": token}),
        (wanted.drift, _DRIFT, {"drift": list(wanted.drift), "flipped": FLIPPED in wanted.drift}),
        (wanted.drift_top < 1, "drift_rank <= $drift_most", {"drift_most": drift_most}),
        (wanted.rank_low > 0, "rank > $rank_after", {"rank_after": rank_after}),
        (wanted.rank_high < 1, "rank <= $rank_most", {"rank_most": rank_most}),
        (wanted.stability_low > 0, "stability >= $stability_low", {"stability_low": wanted.stability_low}),
        (wanted.detection_low > 0, "score_detection >= $detection_low", {"detection_low": wanted.detection_low}),
        (wanted.is_tuned_only, "is_tuned_only", {}),
        (
            wanted.found is not None,
            "feature_id IN (SELECT unnest($found::INTEGER[]))",
            {"found": list(wanted.found or ())},
        ),
        (wanted.noted is not None, _NOTED, {"noted": list(wanted.noted or ())}),
    ):
        if is_set:
            parts.append(sql)
            values |= bound
    if wanted.region:
        sql, bound = _inside(wanted.region)
        parts.append(sql)
        values |= bound
    return " AND ".join(parts) or "true", values


def _inside(corners: tuple[Point, ...]) -> tuple[str, dict[str, Any]]:
    """Write whether (x, y) is inside a polygon: a ray to the right crosses its edges an odd number of times.

    The bounding box is checked first, because it is cheap and excludes most features.
    """
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    values: dict[str, Any] = {"x_low": min(xs), "x_high": max(xs), "y_low": min(ys), "y_high": max(ys)}
    crossings = []
    for at, (x, y) in enumerate(corners):
        following = (at + 1) % len(corners)
        values |= {f"x{at}": x, f"y{at}": y}
        crossings.append(_CROSSING.format(a=at, b=following))
    sql = f"x BETWEEN $x_low AND $x_high AND y BETWEEN $y_low AND $y_high AND ({' + '.join(crossings)}) % 2 = 1"
    return sql, values


_CROSSING = (
    "(CASE WHEN (y < $y{a}) <> (y < $y{b}) THEN x < $x{a} + ($x{b} - $x{a}) * (y - $y{a}) / ($y{b} - $y{a}) "
    "ELSE false END)::INTEGER"
)
_SEARCH = """
(contains(token_words, ${word}) OR contains(description_words, ${word}) OR contains(label_words, ${word})
 OR (feature_id = try_cast(${word} AS INTEGER) AND ${word} = try_cast(${word} AS INTEGER)::VARCHAR))
"""
_NOTED = "feature_id IN (SELECT unnest($noted::INTEGER[]))"
_DRIFT = "(list_contains($drift::VARCHAR[], status) OR ($flipped AND sign_flipped))"

_PLACE = """
WITH passed AS (SELECT feature_id AS id, {by} AS key FROM feature_table WHERE {where}),
here AS (SELECT key AS here_key FROM passed WHERE id = $here),
placed AS (
    SELECT id, key, (here_key IS NULL AND key IS NOT NULL) OR coalesce(key {larger} here_key, false)
        OR (key IS NOT DISTINCT FROM here_key AND id < $here) AS is_before
    FROM passed CROSS JOIN here
)
SELECT (SELECT count(*) FILTER (is_before) FROM placed HAVING count(*) > 0) AS position,
    (SELECT count(*) FROM passed) AS total,
    (SELECT id FROM placed WHERE is_before ORDER BY key {behind} NULLS FIRST, id DESC LIMIT 1) AS "before",
    CASE WHEN EXISTS (FROM here)
        THEN (SELECT id FROM placed WHERE NOT is_before AND id <> $here ORDER BY key {ahead} NULLS LAST, id LIMIT 1)
        ELSE (SELECT id FROM passed ORDER BY key {ahead} NULLS LAST, id LIMIT 1) END AS "after"
"""
_PICKED_FROM = """
FROM feature_table t
LEFT JOIN (SELECT feature_id, labeller, score_ci_low FROM labels) l
    ON l.feature_id = t.feature_id AND l.labeller = t.labeller
"""
