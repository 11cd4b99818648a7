"""Compare two runs: configs that differ, results with their differences, and features matched one to one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from lfp.bundle import queries
from lfp.bundle.manifest import Manifest
from lfp.bundle.store.connection import Store
from lfp.config import drop_retired
from lfp.evaluation import feature_matching
from lfp.evaluation.results import ResultRow
from lfp.util.types import Floats32, Ints

LARGEST = 2000
"""Features of each run that are matched: those that contribute most."""
CHANCE = 0.95
"""The share of chance's own nearest similarities that a match must pass."""
KEYS = ("report_row", "model", "layer", "target", "inputs", "words", "split", "group", "metric")
"""What names a figure in either run. A probe's number counts within its run alone, and target and inputs name it."""

By = Literal["decoder cosine", "what they fire on"]


@dataclass(frozen=True)
class FigurePair:
    """One figure of the report in both runs: a row of `results` from each, with the same KEYS."""

    one: ResultRow
    other: ResultRow

    @property
    def difference(self) -> float:
        """The other run's value less this one's."""
        return self.other.value - self.one.value

    @property
    def interval(self) -> tuple[float, float] | None:
        """The difference's 95 % interval, from both intervals, the runs taken as independent; None where one lacks.

        Zou and Donner 2008: each end of the difference is off by the root of the squares of what the ends are off.
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

    `pairs` has similarity, difference (of weights, other less one), and for `_one` and `_other` each: feature_id,
    layer, description, weight, ci_low, ci_high. `looked_at` and `held` count each run's features: matched or not, and
    all there are. `chance` is what a match had to pass.
    """

    by: By
    pairs: pa.Table
    looked_at: tuple[int, int]
    held: tuple[int, int]
    chance: float


def config_differences(one: Manifest, other: Manifest) -> list[tuple[str, Any, Any]]:
    """Keys of the configs, as section.key, whose values differ, with both; None where a run has no such key."""
    ours, theirs = (dict(_flat(drop_retired(run.config))) for run in (one, other))
    names = sorted(ours.keys() | theirs.keys())
    return [(name, ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)]


def figure_pairs(one: Store, other: Store) -> list[FigurePair]:
    """The figures that both runs have, in the order of the first's report."""
    theirs = {_key(row): row for row in queries.run.report_rows(other)}
    return [FigurePair(row, theirs[_key(row)]) for row in queries.run.report_rows(one) if _key(row) in theirs]


def match_features(one: Store, other: Store) -> MatchedFeatures:
    """The features of two runs matched: by decoder cosine where both read one tuned model, else by what they fire on.

    Only the LARGEST that contribute most of each are looked at. A pair is two features that are each other's most
    similar, above what random directions like the other run's, or its tokens dealt anew, reach in CHANCE of cases.
    """
    left, right = (queries.run.weightiest_features(store, limit=LARGEST) for store in (one, other))
    by = _by(one, other)
    similar, null = _cosines(one, other, left, right) if by == "decoder cosine" else _overlaps(left, right)
    sizes = left.num_rows, right.num_rows
    by_chance = feature_matching.nearest_sizes(null, *sizes)
    by_chance = by_chance[by_chance > feature_matching.NO_MATCH]
    chance = float(np.quantile(by_chance, CHANCE)) if len(by_chance) else 0.0
    found = feature_matching.mutual_nearest(similar, *sizes).above(chance)
    held = one.manifest.tables["features"].rows, other.manifest.tables["features"].rows
    return MatchedFeatures(by, _pairs(left, right, found), sizes, held, chance)


def _by(one: Store, other: Store) -> By:
    """Directions can be compared where one model wrote the activations, and both bundles hold them."""
    models = [store.manifest.models.get("tuned") for store in (one, other)]
    is_one_model = models[0] is not None and models[1] is not None and models[0].sha256 == models[1].sha256
    has_decoders = all(store.manifest.tables["decoders"].rows for store in (one, other))
    return "decoder cosine" if is_one_model and has_decoders else "what they fire on"


def _cosines(
    one: Store, other: Store, left: pa.Table, right: pa.Table
) -> tuple[feature_matching.Similar, feature_matching.Similar]:
    rows, others = _directions(one, left), _directions(other, right)
    layers = {"left_layers": _column(left, "layer"), "right_layers": _column(right, "layer")}
    by_chance = feature_matching.random_directions(others, layers["right_layers"], seed=0)
    return feature_matching.cosines(rows, others, **layers), feature_matching.cosines(rows, by_chance, **layers)


def _directions(store: Store, features: pa.Table) -> Floats32:
    """Decoder rows [n, d_in] of the features, in their order; zeros where a feature has none."""
    ids = _column(features, "feature_id")
    kept = queries.run.decoder_rows(store, ids.tolist())
    if not kept.num_rows:
        return np.zeros((len(ids), 1), np.float32)
    vectors = np.array(kept["vector"].to_pylist(), np.float32)
    rows = np.zeros((len(ids), vectors.shape[1]), np.float32)
    order = np.argsort(ids)
    rows[order[np.searchsorted(ids[order], _column(kept, "feature_id"))]] = vectors
    return rows


def _overlaps(left: pa.Table, right: pa.Table) -> tuple[feature_matching.Similar, feature_matching.Similar]:
    ours, theirs = (
        [{item["token"]: item["value"] for item in tokens} for tokens in table["top_tokens"].to_pylist()]
        for table in (left, right)
    )
    return feature_matching.overlaps(ours, theirs), feature_matching.overlaps(
        ours, feature_matching.permute_tokens(theirs, seed=0)
    )


def _pairs(left: pa.Table, right: pa.Table, found: feature_matching.Matching) -> pa.Table:
    columns: dict[str, Any] = {"similarity": pa.array(found.similarity, pa.float32())}
    for side, table, places in (("one", left, found.left), ("other", right, found.right)):
        for name in ("feature_id", "layer", "description", "weight", "ci_low", "ci_high"):
            columns[f"{name}_{side}"] = table[name].take(pa.array(places)).combine_chunks()
    weights = zip(columns["weight_one"].to_pylist(), columns["weight_other"].to_pylist(), strict=True)
    columns["difference"] = pa.array([None if None in pair else pair[1] - pair[0] for pair in weights], pa.float32())
    return pa.table(columns).sort_by([("similarity", "descending"), ("feature_id_one", "ascending")])


def _column(table: pa.Table, name: str) -> Ints:
    return np.asarray(table[name].to_numpy(), np.int64)


def _key(row: ResultRow) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in KEYS)


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
