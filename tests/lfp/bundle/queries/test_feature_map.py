"""The density and the clusters of the map, counted again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.bundle import queries
from lfp.bundle.queries import feature_map
from lfp.bundle.queries.features import FeatureFilter
from lfp.bundle.store.connection import Store
from tests.conftest import rewrite, with_column

PLACES = st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=40, unique=True)


@pytest.mark.parametrize("wanted", [FeatureFilter(), FeatureFilter(sign="negative"), FeatureFilter(search="zzzz")])
def test_every_feature_is_in_one_cell(store, wanted):
    found = feature_map.density(store, wanted)
    rows = store.rows("SELECT x, y FROM feature_table")
    assert found.counts.sum() == queries.features.count_features(store, wanted)
    width = found.xs[1] - found.xs[0]
    assert found.xs[0] - width / 2 == pytest.approx(min(row["x"] for row in rows), abs=1e-5)
    assert found.ys[-1] + (found.ys[1] - found.ys[0]) / 2 == pytest.approx(max(row["y"] for row in rows), abs=1e-5)
    if wanted == FeatureFilter():
        for row in rows[:10]:
            at = np.argmin(np.abs(found.ys - row["y"])), np.argmin(np.abs(found.xs - row["x"]))
            assert found.counts[at] or found.counts[max(at[0] - 1, 0) : at[0] + 2, max(at[1] - 1, 0) : at[1] + 2].any()


@settings(max_examples=40)
@given(places=PLACES, n=st.integers(1, 8))
def test_centres_are_the_means_of_what_is_nearest(places, n):
    points, sizes = np.array(places), np.arange(1.0, len(places) + 1)
    centres = feature_map.k_means(points, sizes, n)
    assert 1 <= len(centres) <= min(n, len(points)) and np.isfinite(centres).all()
    spread = sizes @ ((points - np.average(points, axis=0, weights=sizes)) ** 2).sum(axis=1)
    at = feature_map.nearest(points, centres)
    assert sizes @ ((points - centres[at]) ** 2).sum(axis=1) <= spread * (1 + 1e-6) + 1e-9


def test_regions_hold_all_features(store):
    found, again = (feature_map.regions(store, n=3) for _ in range(2))
    assert np.array_equal(found.centres, again.centres) and len(found.centres) == 3
    assert found.sizes.sum() == len(found.feature_ids) == 60 and set(found.at) == {0, 1, 2}
    active = dict(zip(found.feature_ids, found.are_active.tolist(), strict=True))
    for row in store.rows("SELECT feature_id, max_activation FROM feature_table"):
        assert active[row["feature_id"]] == (row["max_activation"] > 0)


def test_a_map_of_nothing_has_neither(none, copied_bundle):
    assert feature_map.density(none, FeatureFilter()) is None and feature_map.regions(none) is None
    rewrite(copied_bundle, "features", lambda rows: with_column(rows, "x", [math.nan] * 59 + [1.0]))
    with Store.open(copied_bundle) as placed:
        assert feature_map.density(placed, FeatureFilter()).counts.sum() == 1
        assert len(feature_map.regions(placed).centres) == 1
