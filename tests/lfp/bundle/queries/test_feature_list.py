"""The list of features against the same filter, order and polygon in Python."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.bundle import queries
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.features import FLIPPED, MATCH, FeatureFilter
from lfp.bundle.schema import BY_NAME
from lfp.bundle.store.connection import Store
from lfp.errors import ConfigError
from lfp.evaluation.results import STATUSES
from lfp.util.types import UNLABELLED
from tests.conftest import rewrite, with_column

BY_NUMBER = Order("id", descending=False)
SHARES = st.sampled_from([0.0, 0.1, 0.35, 0.5, 1.0])
POINTS = st.tuples(st.floats(-7, 7), st.floats(-7, 7))
FILTERS = st.builds(
    FeatureFilter,
    token=st.sampled_from(["", "", "hated", " HATED ", "the", "hate"]),
    null=st.sampled_from(["any", "beats", "within"]),
    drift=st.lists(st.sampled_from([*STATUSES, FLIPPED]), unique=True, max_size=3).map(tuple),
    drift_top=SHARES.filter(bool),
    rank_low=SHARES,
    rank_high=SHARES,
    stability_low=st.sampled_from([0.0, 0.0, 0.5, 0.9]),
    detection_low=st.sampled_from([0.0, 0.0, 0.7]),
    region=st.just(()) | st.lists(POINTS, min_size=3, max_size=9).map(tuple),
    labelled=st.sampled_from(["any", "any", "yes", "no"]),
    is_tuned_only=st.sampled_from([False, False, True]),
    noted=st.none() | st.lists(st.integers(0, 70), max_size=40).map(tuple),
)
ORDERS = st.builds(Order, by=st.sampled_from(sorted(queries.features.FEATURE_SORTS)), descending=st.booleans())


@pytest.fixture(scope="module")
def rows(store):
    return queries.features.features(store, FeatureFilter(), order=BY_NUMBER).to_pylist()


def inside(x: float, y: float, corners: tuple[tuple[float, float], ...]) -> bool:
    """The even-odd rule, edge by edge."""
    crossed = False
    for (ax, ay), (bx, by) in zip(corners, (*corners[1:], corners[0]), strict=True):
        if (y < ay) != (y < by) and x < ax + (bx - ax) * (y - ay) / (by - ay):
            crossed = not crossed
    return crossed


def is_unlabelled(row: dict[str, Any]) -> bool:
    return row["description"] is None or row["description"].startswith(UNLABELLED)


def passes(row: dict[str, Any], wanted: FeatureFilter, n: int) -> bool:
    token = wanted.token.strip().lower()
    return all(
        (
            not token or token in [item.strip(" ").lower() for item in row["top_tokens"]],
            {"any": True, "beats": row["beats_null"], "within": not row["beats_null"]}[wanted.null],
            not wanted.drift or row["status"] in wanted.drift or (FLIPPED in wanted.drift and row["sign_flipped"]),
            wanted.drift_top == 1 or row["drift_rank"] <= math.ceil(wanted.drift_top * n),
            row["rank"] > math.ceil(wanted.rank_low * n),
            wanted.rank_high == 1 or row["rank"] <= math.ceil(wanted.rank_high * n),
            not wanted.stability_low or (row["stability"] or 0) >= wanted.stability_low,
            not wanted.detection_low or (row["score_detection"] or 0) >= wanted.detection_low,
            not wanted.region or inside(row["x"], row["y"], wanted.region),
            wanted.labelled == "any" or (wanted.labelled == "no") == is_unlabelled(row),
            not wanted.is_tuned_only or row["is_tuned_only"],
            wanted.noted is None or row["feature_id"] in wanted.noted,
        )
    )


@settings(max_examples=50)
@given(wanted=FILTERS)
def test_a_filter_is_what_it_says(store, rows, wanted):
    expected = [row["feature_id"] for row in rows if passes(row, wanted, len(rows))]
    assert queries.features.features(store, wanted, order=BY_NUMBER)["feature_id"].to_pylist() == expected
    assert queries.features.count_features(store, wanted) == len(expected)


@settings(max_examples=25)
@given(corners=st.lists(POINTS, min_size=3, max_size=24).map(tuple))
def test_an_area_holds_what_is_inside_it(store, rows, corners):
    found = queries.features.features(store, FeatureFilter(region=corners), order=BY_NUMBER)["feature_id"].to_pylist()
    assert found == [row["feature_id"] for row in rows if inside(row["x"], row["y"], corners)]


def test_each_filter_leaves_some_out(store, rows):
    """So that the comparison above is of something."""
    for changes in (
        {"token": "hated"}, {"null": "beats"}, {"null": "within"}, {"drift": ("steady",)}, {"drift": (FLIPPED,)},
        {"drift_top": 0.1}, {"rank_low": 0.5}, {"rank_high": 0.1}, {"stability_low": 0.5}, {"detection_low": 0.7},
        {"region": ((0, 0), (9, 0), (9, 9), (0, 9))}, {"noted": (3, 4)}, {"noted": ()},
        {"labelled": "yes"}, {"labelled": "no"},
    ):  # fmt: skip
        wanted = FeatureFilter(**changes)
        assert 0 <= queries.features.count_features(store, wanted) < len(rows)
        assert changes == {"noted": ()} or queries.features.count_features(store, wanted)


def test_tuned_only_features_are_those_that_say_so(copied_bundle):
    rewrite(copied_bundle, "features", lambda rows: with_column(rows, "is_tuned_only", [None, True, False] * 20))
    with Store.open(copied_bundle) as scaled:
        found = queries.features.features(scaled, FeatureFilter(is_tuned_only=True), order=BY_NUMBER)
        assert found["feature_id"].to_pylist() == list(range(1, 60, 3))
        assert "tuned only" in queries.features.presets(scaled)


@pytest.mark.parametrize("name", queries.features.PRESETS)
def test_a_preset_is_an_ordered_list(store, rows, name):
    preset = queries.features.PRESETS[name]
    found = queries.features.features(store, preset.wanted, order=preset.order).to_pylist()
    keep = {
        "by credit": lambda row: True,
        "by change": lambda row: True,
        "by weight": lambda row: True,
        "tuned only": lambda row: row["is_tuned_only"],
        "unlabelled": is_unlabelled,
        "grew most in tuning": lambda row: row["status"] in ("born", "strengthened") and row["drift_rank"] <= 6,
        "important, labelled unrelated": lambda row: row["beats_null"] and not row["related"] and row["rank"] <= 6,
        "labelled related, unimportant": lambda row: row["related"] and not row["beats_null"] and row["rank"] > 30,
    }[name]
    assert {row["feature_id"] for row in found} == {row["feature_id"] for row in rows if keep(row)}


def sort_value(row: dict[str, Any], by: str) -> Any:
    sizes = {"contribution": "mean_abs_contribution", "strength": "weight", "drift": "drifted_contribution",
             "credit_size": "credit"}  # fmt: skip
    firsts = {"top_token": "top_tokens", "raised_token": "pos_logits", "lowered_token": "neg_logits"}
    if by in sizes:
        return abs(row[sizes[by]])
    if by in firsts:
        return row[firsts[by]][0].lower() if row[firsts[by]] else None
    value = row["feature_id" if by == "id" else by]
    return value.lower() if by == "description" and value else value


@pytest.mark.parametrize("by", queries.features.FEATURE_SORTS)
@pytest.mark.parametrize("descending", [False, True])
def test_any_column_sorts_with_nulls_last_and_ties_by_number(store, rows, by, descending):
    known = [row for row in rows if sort_value(row, by) is not None]
    known.sort(key=lambda row: row["feature_id"])
    if isinstance(next((sort_value(row, by) for row in known), None), str):
        known.sort(key=lambda row: sort_value(row, by).encode(), reverse=descending)  # DuckDB orders text by bytes
    else:
        known.sort(key=lambda row: sort_value(row, by), reverse=descending)
    blank = [row for row in rows if sort_value(row, by) is None]
    found = queries.features.features(store, FeatureFilter(), order=Order(by, descending))["feature_id"].to_pylist()
    assert found == [row["feature_id"] for row in [*known, *blank]]


@settings(max_examples=30)
@given(wanted=FILTERS, order=ORDERS, limit=st.integers(0, 12), offset=st.integers(0, 70))
def test_a_page_is_a_part_of_the_list(store, wanted, order, limit, offset):
    every = queries.features.features(store, wanted, order=order)
    page = queries.features.features(store, wanted, order=order, limit=limit, offset=offset)
    assert page.schema == every.schema
    assert page.to_pylist() == every.slice(min(offset, len(every)), limit).to_pylist()


def test_every_column_of_the_view_can_be_shown(store):
    held = set(store.query("SELECT * FROM feature_table LIMIT 0").column_names)
    kept = {column.name for table in ("features", "weights", "drift", "labels") for column in BY_NAME[table].columns}
    assert set(queries.features.FEATURE_NUMBERS) <= set(queries.features.FEATURE_COLUMNS) <= held
    assert held & kept <= set(queries.features.FEATURE_COLUMNS)


@settings(max_examples=40)
@given(wanted=FILTERS, order=ORDERS, here=st.integers(0, 61))
def test_a_place_is_that_in_the_list(store, wanted, order, here):
    ids = queries.features.features(store, wanted, order=order)["feature_id"].to_pylist()
    place = queries.features.feature_place(store, here, wanted, order=order)
    assert place.total == len(ids)
    if here in ids:
        at = ids.index(here)
        assert (place.position, place.before) == (at, ids[at - 1] if at else None)
        assert place.after == (ids[at + 1] if at + 1 < len(ids) else None)
    else:
        assert (place.position, place.before, place.after) == (None, None, ids[0] if ids else None)


@settings(max_examples=20)
@given(wanted=FILTERS, colour=st.sampled_from(queries.features.FEATURE_NUMBERS), limit=st.integers(0, 80))
def test_points_are_those_that_contribute_most(store, wanted, colour, limit):
    listed = queries.features.features(store, wanted, order=Order("contribution"), limit=limit).to_pydict()
    points = queries.features.feature_points(store, wanted, colour=colour, limit=limit).to_pydict()
    assert points["feature_id"] == listed["feature_id"] and points["x"] == listed["x"]
    expected = [None if value is None else float(value) for value in listed[colour]]
    assert points["value"] == pytest.approx(expected)


@pytest.mark.parametrize("colour", ["description", "feature_id", "1; DROP TABLE features"])
def test_only_numbers_colour_a_map(store, colour):
    with pytest.raises(ConfigError, match="choose one of"):
        queries.features.feature_points(store, FeatureFilter(), colour=colour)


def test_a_bundle_without_drift_or_weights_lists_its_features(copied_bundle):
    for table in ("drift", "weights", "labels", "probes"):
        rewrite(copied_bundle, table, lambda rows: rows.slice(0, 0))
    with Store.open(copied_bundle) as bare:
        bare_of_these = ("by weight", "by change", "grew most in tuning", "labelled related, unimportant")
        assert not set(queries.features.presets(bare)) & set(bare_of_these)
        assert queries.features.features(bare, FeatureFilter(), order=Order("contribution")).num_rows == 60
        assert queries.features.feature_place(
            bare, 5, FeatureFilter(), order=Order("contribution")
        ) == queries.features.Place(5, 60, 4, 6)
        for name in bare_of_these[2:]:
            assert queries.features.count_features(bare, queries.features.PRESETS[name].wanted) == 0


def test_a_feature_without_a_place_on_the_map_is_in_no_area(copied_bundle):
    def lift(table: pa.Table) -> pa.Table:
        return with_column(table, "x", [math.nan, *table["x"].to_pylist()[1:]])

    rewrite(copied_bundle, "features", lift)
    with Store.open(copied_bundle) as lifted:
        everywhere = FeatureFilter(region=((-99, -99), (99, -99), (99, 99), (-99, 99)))
        assert queries.features.features(lifted, everywhere, order=BY_NUMBER)["feature_id"].to_pylist() == list(
            range(1, 60)
        )


@pytest.mark.parametrize("order", [Order("contribution"), Order("description", descending=False), Order(MATCH)])
def test_all_rows_come_in_the_order_of_pages(store, order: Order) -> None:
    wanted = FeatureFilter(found=(9, 2, 30, 4)) if order.by == MATCH else FeatureFilter(sign="positive")
    asked = {"order": order, "columns": ("description", "weight"), "offset": 1}
    every = queries.features.features(store, wanted, **asked)
    assert every.equals(queries.features.features(store, wanted, limit=10**6, **asked)) and every.num_rows > 2
