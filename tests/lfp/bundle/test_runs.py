"""Two runs side by side: what differs, differences with their intervals, and features that find their like."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.bundle import comparison
from lfp.bundle.comparison import FigurePair
from lfp.bundle.store.connection import Store
from lfp.evaluation import feature_matching
from lfp.evaluation.results import ResultRow
from lfp.testing.synthetic import make_bundle
from tests.conftest import rewrite, with_column


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run of other texts and another seed, and so of another tuned model."""
    return make_bundle(tmp_path_factory.mktemp("runs") / "other", n_features=50, n_texts=40, seed=1)


def test_the_figures_of_both_are_joined_on_all_keys(bundle, other):
    with Store.open(bundle) as one, Store.open(other) as two:
        pairs = comparison.figure_pairs(one, two)
        left, right = (store.rows("SELECT * FROM results") for store in (one, two))
    both = [(a, b) for a in left for b in right if all(a[name] == b[name] for name in comparison.KEYS)]
    assert len(pairs) == len(both) > 50
    for pair in pairs:
        assert (pair.one.as_dict(), pair.other.as_dict()) in both
        assert pair.difference == pair.other.value - pair.one.value


def pair(one, other):
    names = {"report_row": "r", "metric": "m"}
    rows = [ResultRow(**names, value=value, ci_low=low, ci_high=high) for low, value, high in (one, other)]
    return FigurePair(*rows)


@given(values=st.tuples(st.floats(-5, 5), st.floats(-5, 5)), halves=st.tuples(st.floats(0, 3), st.floats(0, 3)))
def test_symmetric_intervals_of_a_difference_add_as_independent_errors_do(values, halves):
    found = pair(*[(value - half, value, value + half) for value, half in zip(values, halves, strict=True)])
    low, high = found.interval
    expected = math.hypot(*halves)
    assert high - found.difference == pytest.approx(expected, abs=1e-9)
    assert found.difference - low == pytest.approx(expected, abs=1e-9)


def test_skewed_intervals_keep_to_their_sides():
    low, high = pair((0.4, 0.5, 0.9), (0.6, 0.7, 0.7)).interval
    assert (low, high) == pytest.approx((0.2 - math.hypot(0.1, 0.4), 0.2 + math.hypot(0.0, 0.1)))


@pytest.mark.parametrize("missing", [(None, 0.5, 0.9), (0.4, 0.5, None)])
def test_without_an_interval_the_difference_has_none(missing):
    assert pair(missing, (0.1, 0.2, 0.3)).interval is None and pair((0.1, 0.2, 0.3), missing).interval is None


def test_what_was_set_otherwise(bundle, tmp_path):
    other = make_bundle(tmp_path / "other", n_features=3, n_texts=3, n_layers=2, seed=7, title="Another")
    with Store.open(bundle) as one, Store.open(other) as two:
        found = {name: values for name, *values in comparison.config_differences(one.manifest, two.manifest)}
        assert comparison.config_differences(one.manifest, one.manifest) == []
    assert found["seed"] == [0, 7] and found["layers.count"] == [3, 2] and found["title"][1] == "Another"
    assert "corpus.source" not in found


def test_a_budget_sets_nothing_otherwise(bundle):
    with Store.open(bundle) as store:
        budgeted = store.manifest.model_copy(update={"config": {**store.manifest.config, "budget": {"base": 20.0}}})
        assert comparison.config_differences(store.manifest, budgeted) == []


def test_a_run_of_one_model_matches_itself(bundle):
    with Store.open(bundle) as store:
        found = comparison.match_features(store, store)
        n = store.manifest.tables["features"].rows
    assert found.by == "decoder cosine" and found.looked_at == found.held == (n, n)
    assert found.pairs["feature_id_one"].equals(found.pairs["feature_id_other"]) and found.pairs.num_rows == n
    assert max(found.pairs["difference"].to_pylist()) == 0 and min(found.pairs["similarity"].to_pylist()) > 0.999


def test_renumbered_features_are_found_by_direction(bundle, copied_bundle):
    """The second run has the same dictionary with its features of a layer in another order."""
    with Store.open(bundle) as store:
        layers = np.array(store.query("SELECT layer FROM features ORDER BY feature_id")["layer"])
    order = np.concatenate([np.flatnonzero(layers == layer)[::-1] for layer in np.unique(layers)])
    rewrite(copied_bundle, "decoders", lambda rows: with_column(rows, "vector", rows["vector"].take(order).to_pylist()))
    with Store.open(bundle) as one, Store.open(copied_bundle) as two:
        found = comparison.match_features(one, two)
    got = dict(zip(found.pairs["feature_id_one"].to_pylist(), found.pairs["feature_id_other"].to_pylist(), strict=True))
    assert got == {int(feature): at for at, feature in enumerate(order)}


def test_runs_of_two_models_match_by_what_features_fire_on(bundle, other):
    with Store.open(bundle) as one, Store.open(other) as two:
        found = comparison.match_features(one, two)
        tops = [
            {
                row["feature_id"]: {item["token"]: item["value"] for item in row["top_tokens"]}
                for row in store.rows(TOPS)
            }
            for store in (one, two)
        ]
    assert found.by == "what they fire on" and 0 < found.pairs.num_rows <= 50
    sizes = found.pairs["similarity"].to_pylist()
    assert sizes == sorted(sizes, reverse=True) and min(sizes) > found.chance > 0
    for row in found.pairs.to_pylist():
        one_, other_ = tops[0][row["feature_id_one"]], tops[1][row["feature_id_other"]]
        (similarity,) = feature_matching.overlaps([one_], [other_])(slice(0, 1))[0]
        assert row["similarity"] == pytest.approx(similarity, abs=1e-6)
        assert row["difference"] == pytest.approx(row["weight_other"] - row["weight_one"], abs=1e-6)


TOPS = "SELECT feature_id, top_tokens FROM features"


def test_only_the_weightiest_are_looked_at(bundle, monkeypatch):
    monkeypatch.setattr(comparison, "LARGEST", 5)
    with Store.open(bundle) as store:
        found = comparison.match_features(store, store)
        ranked = store.rows("SELECT feature_id FROM feature_table ORDER BY mean_abs_contribution DESC LIMIT 5")
    assert found.looked_at == (5, 5) and found.held == (60, 60)
    assert set(found.pairs["feature_id_one"].to_pylist()) == {row["feature_id"] for row in ranked}


def test_empty_runs_match_nothing(bundle, empty_bundle):
    with Store.open(bundle) as one, Store.open(empty_bundle) as two:
        for pair_ in ((one, two), (two, one), (two, two)):
            found = comparison.match_features(*pair_)
            assert found.pairs.num_rows == 0 and isinstance(found.pairs, pa.Table)
            assert comparison.figure_pairs(*pair_) == []


def test_a_run_without_probes_is_matched_without_weights(bundle, copied_bundle):
    rewrite(copied_bundle, "weights", lambda rows: rows.slice(0, 0))
    with Store.open(bundle) as one, Store.open(copied_bundle) as two:
        found = comparison.match_features(one, two)
    assert found.pairs.num_rows == 60 and set(found.pairs["difference"].to_pylist()) == {None}
