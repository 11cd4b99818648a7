"""Compare two runs: configs that differ, results with their differences, and features matched one to one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from lfp.bundle import queries
from lfp.bundle.manifest import Manifest
from lfp.bundle.store.connection import Store
from lfp.config import drop_retired
from lfp.evaluation import feature_matching
from lfp.evaluation.results import ResultRow
from lfp.util.types import SITES, Floats32, Ints

LARGEST = 2000
"""Features of each run that are matched: those that contribute most."""
CHANCE = 0.95
"""The quantile of nearest similarities under chance that a match must exceed."""
KEYS = ("report_row", "model", "layer", "site", "target", "inputs", "words", "split", "group", "metric")
"""Columns that identify a figure in both runs; the number of a probe is valid in its own run only."""

By = Literal["decoder cosine", "what they fire on"]


@dataclass(frozen=True)
class FigurePair:
    """One figure of the report in both runs: a row of `results` from each, with the same KEYS."""

    one: ResultRow
    other: ResultRow

    @property
    def difference(self) -> float:
        """The other run's value minus this one's."""
        return self.other.value - self.one.value

    @property
    def interval(self) -> tuple[float, float] | None:
        """The difference's 95 % interval from both intervals, for independent runs; None where a run has none.

        Zou and Donner 2008: the margin of each end is the root of the summed squares of both margins.
        """
        one, other = self.one, self.other
        if one.ci_low is None or one.ci_high is None or other.ci_low is None or other.ci_high is None:
            return None
        below = math.hypot(other.value - other.ci_low, one.ci_high - one.value)
        above = math.hypot(other.ci_high - other.value, one.value - one.ci_low)
        return self.difference - below, self.difference + above


@dataclass(frozen=True, eq=False)
class MatchedFeatures:
    """Features of two runs in pairs that chance does not reach, most similar first.

    `pairs` has similarity, difference (of weights, other minus one), and for `_one` and `_other` each: feature_id,
    layer, site, description, weight, ci_low, ci_high. `looked_at` counts the features of each run that were compared,
    `held` all of them. `chance` is the similarity that a match had to exceed.
    """

    by: By
    pairs: pa.Table
    looked_at: tuple[int, int]
    held: tuple[int, int]
    chance: float


def config_differences(one: Manifest, other: Manifest) -> list[tuple[str, Any, Any]]:
    """List the keys of the configs, as section.key, that differ, with both values; None where a run has no such key."""
    left, right = (dict(_flat(drop_retired(run.config))) for run in (one, other))
    names = sorted(left.keys() | right.keys())
    return [(name, left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)]


def figure_pairs(one: Store, other: Store) -> list[FigurePair]:
    """Pair the figures that both runs have, in the order of the first run's report."""
    values = attrgetter(*KEYS)

    def key(row: ResultRow) -> tuple[object, ...]:
        return values(row if row.site else replace(row, site="mlp_out"))  # older bundles name no site

    found = {key(row): row for row in queries.run.figures(other)}
    return [FigurePair(row, found[key(row)]) for row in queries.run.figures(one) if key(row) in found]


def match_features(one: Store, other: Store) -> MatchedFeatures:
    """Match the features of two runs: by decoder cosine where both have the same tuned model, else by their top tokens.

    Only the LARGEST features of each by contribution are compared. A pair is two features that are each other's most
    similar, above what random directions like the other run's, or its tokens shuffled, reach in CHANCE of cases.
    """
    left, right = (queries.run.weightiest_features(store, limit=LARGEST) for store in (one, other))
    models = [store.manifest.models.get("tuned") for store in (one, other)]
    is_one_model = models[0] is not None and models[1] is not None and models[0].sha256 == models[1].sha256
    has_decoders = all(store.manifest.tables["decoders"].rows for store in (one, other))
    by: By = "decoder cosine" if is_one_model and has_decoders else "what they fire on"
    if by == "decoder cosine":
        rows, others = _directions(one, left), _directions(other, right)
        places = {"left_places": _places(left), "right_places": _places(right)}
        shuffled = feature_matching.random_directions(others, places["right_places"], seed=0)
        similar = feature_matching.cosines(rows, others, **places)
        null = feature_matching.cosines(rows, shuffled, **places)
    else:
        first, second = (
            [{item["token"]: item["value"] for item in tokens} for tokens in table["top_tokens"].to_pylist()]
            for table in (left, right)
        )
        similar = feature_matching.overlaps(first, second)
        null = feature_matching.overlaps(first, feature_matching.permute_tokens(second, seed=0))
    sizes = left.num_rows, right.num_rows
    by_chance = feature_matching.nearest_sizes(null, *sizes)
    by_chance = by_chance[by_chance > feature_matching.NO_MATCH]
    chance = float(np.quantile(by_chance, CHANCE)) if len(by_chance) else 0.0
    found = feature_matching.mutual_nearest(similar, *sizes).above(chance)
    held = one.manifest.tables["features"].rows, other.manifest.tables["features"].rows
    return MatchedFeatures(by, _pairs(left, right, found), sizes, held, chance)


def _directions(store: Store, features: pa.Table) -> Floats32:
    """Return the decoder rows [n, d_in] of the features in their order; zeros where a feature has none."""
    ids = _column(features, "feature_id")
    kept = queries.run.decoder_rows(store, ids.tolist())
    if not kept.num_rows:
        return np.zeros((len(ids), 1), np.float32)
    vectors = np.array(kept["vector"].to_pylist(), np.float32)
    rows = np.zeros((len(ids), vectors.shape[1]), np.float32)
    order = np.argsort(ids)
    rows[order[np.searchsorted(ids[order], _column(kept, "feature_id"))]] = vectors
    return rows


def _pairs(left: pa.Table, right: pa.Table, found: feature_matching.Matching) -> pa.Table:
    columns: dict[str, Any] = {"similarity": pa.array(found.similarity, pa.float32())}
    for side, table, places in (("one", left, found.left), ("other", right, found.right)):
        for name in ("feature_id", "layer", "site", "description", "weight", "ci_low", "ci_high"):
            columns[f"{name}_{side}"] = table[name].take(pa.array(places)).combine_chunks()
    weights = zip(columns["weight_one"].to_pylist(), columns["weight_other"].to_pylist(), strict=True)
    columns["difference"] = pa.array([None if None in pair else pair[1] - pair[0] for pair in weights], pa.float32())
    return pa.table(columns).sort_by([("similarity", "descending"), ("feature_id_one", "ascending")])


def _places(features: pa.Table) -> Ints:
    """Number where each feature is read [n]: the same for the same layer and site in every run."""
    sites = np.array([SITES.index(site) for site in features["site"].to_pylist()], np.int64)
    return _column(features, "layer") * len(SITES) + sites


def _column(table: pa.Table, name: str) -> Ints:
    return np.asarray(table[name].to_numpy(), np.int64)


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
