import pytest

from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.errors import ConfigError
from lfp.util.types import UNLABELLED


@pytest.fixture(scope="module")
def store(bundle):
    with Store.open(bundle) as store:
        yield store


@pytest.fixture(scope="module")
def rows(store):
    return {row["feature_id"]: row for row in store.rows("FROM feature_table")}


def size(row):
    return -(row["mean_abs_contribution"] or 0.0), row["feature_id"]


def test_the_largest_come_first(store, rows):
    expected = [row["feature_id"] for row in sorted(rows.values(), key=size)]
    assert queries.features.pick_features(store, "largest contributions", limit=7) == expected[:7]
    assert queries.features.count_picked(store, "largest contributions") == len(rows)


def test_disagreements_are_those_of_label_and_weight(store, rows):
    known = [row for row in rows.values() if None not in (row["related"], row["beats_null"])]
    expected = [row["feature_id"] for row in sorted(known, key=size) if row["related"] != row["beats_null"]]
    assert queries.features.pick_features(store, "label and weight disagree", limit=1000) == expected != []
    assert queries.features.count_picked(store, "label and weight disagree") == len(expected)


def test_failures_have_no_label_or_one_that_could_be_a_guess(store, rows):
    ordered = sorted(rows.values(), key=size)
    expected = [row["feature_id"] for row in ordered if (row["description"] or UNLABELLED).startswith(UNLABELLED)]
    assert queries.features.pick_features(store, "no label, or no better than a guess", limit=1000) == expected != []


def test_a_sample_is_its_seeds(store, rows):
    first, again, other = (
        queries.features.pick_features(store, queries.features.RANDOM, limit=20, seed=s) for s in (1, 1, 2)
    )
    assert first == again != other and len(set(first)) == 20
    assert sorted(queries.features.pick_features(store, queries.features.RANDOM, limit=1000, seed=3)) == sorted(rows)


def test_an_unknown_pick_is_said(store):
    with pytest.raises(ConfigError, match="largest contributions"):
        queries.features.pick_features(store, "1; DROP TABLE", limit=1)


def test_coverage_is_a_share_of_the_sum(store, rows):
    total = sum(row["mean_abs_contribution"] or 0 for row in rows.values())
    ids = sorted(rows)[::3]
    part = sum(rows[id_]["mean_abs_contribution"] or 0 for id_ in ids)
    assert queries.features.contribution_share(store, ids) == pytest.approx(part / total, rel=1e-6)
    assert queries.features.contribution_share(store, []) == 0
    assert queries.features.contribution_share(store, [*rows, 99_999]) == pytest.approx(1)


def test_features_come_in_the_order_asked_for(store, rows):
    found = queries.features.audited_features(store, (5, 2, 99_999, 7))
    assert [feature.feature_id for feature in found] == [5, 2, 7]
    assert found[0].description == rows[5]["description"] and found[1].weight == rows[2]["weight"]


def test_an_empty_bundle_has_nothing_to_pick(empty_bundle):
    with Store.open(empty_bundle) as store:
        assert [queries.features.pick_features(store, pick, limit=5) for pick in queries.features.PICKS] == [[]] * len(
            queries.features.PICKS
        )
        assert queries.features.contribution_share(store, [1]) is None
