from collections import Counter

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfp.bundle.manifest import read_manifest
from lfp.bundle.schema import TABLES
from lfp.bundle.validation import validate
from lfp.probes.pooling import POOLINGS
from lfp.testing.synthetic import make_bundle


def hashes(path):
    return {name: info.sha256 for name, info in read_manifest(path).tables.items()}


def test_the_same_arguments_give_the_same_tables(bundle, tmp_path):
    again = make_bundle(tmp_path / "again", n_features=60, n_texts=40)
    assert hashes(again) == hashes(bundle)


def test_another_seed_gives_other_tables(bundle, tmp_path):
    other = hashes(make_bundle(tmp_path / "other", n_features=60, n_texts=40, seed=1))
    assert {"features", "texts", "weights"} <= {name for name, value in hashes(bundle).items() if other[name] != value}


def test_near_misses_are_where_the_first_neighbour_fires_and_the_feature_does_not(bundle):
    tables = {name: pq.read_table(bundle / f"{name}.parquet") for name in ("examples", "neighbours", "activations")}
    first = {row["feature_id"]: row["neighbour_id"] for row in tables["neighbours"].to_pylist() if row["rank"] == 0}
    fires = {row["text_id"]: set(zip(row["positions"], row["feature_ids"], strict=True))
             for row in tables["activations"].to_pylist()}  # fmt: skip
    near = [row for row in tables["examples"].to_pylist() if row["bucket"] == -2 and row["text_id"] in fires]
    assert len(near) > 20
    for row in near:
        active = fires[row["text_id"]]
        assert (row["position"], first[row["feature_id"]]) in active
        window = range(row["window_start"], row["window_start"] + len(row["window_values"]))
        assert not {(position, row["feature_id"]) for position in window} & active


def test_pairs_change_nothing_but_who_was_chosen(bundle, tmp_path):
    path = make_bundle(tmp_path / "pairs", n_features=60, n_texts=40, n_pairs=9)
    changed = {name for name, value in hashes(bundle).items() if hashes(path)[name] != value}
    assert changed == {"forecast", "results", "texts"}
    texts = pq.read_table(path / "texts.parquet").to_pylist()
    pairs = [texts[2 * i : 2 * i + 2] for i in range(9)]
    for number, pair in enumerate(pairs):
        sides = {row["role"]: row["feedback"] for row in pair}
        assert {row["pair_id"] for row in pair} == {number} and sides["chosen"] >= sides["rejected"]
    assert {(row["role"], row["pair_id"]) for row in texts[18:]} == {("text", None)} and validate(path) == []


def test_every_table_is_filled(bundle):
    empty = {name for name, info in read_manifest(bundle).tables.items() if not info.rows}
    assert empty == {"forecast"}, "only pairs are forecast"
    assert {table.name for table in TABLES} == set(read_manifest(bundle).tables)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_features=st.integers(0, 40),
    n_texts=st.integers(0, 6),
    n_layers=st.integers(1, 4),
    seed=st.integers(0, 9),
    pooling=st.sampled_from(POOLINGS),
    extra=st.lists(st.text(max_size=40).filter(lambda text: text.isprintable()), max_size=2),
)
def test_any_size_is_valid(tmp_path, n_features, n_texts, n_layers, seed, pooling, extra):
    path = make_bundle(
        tmp_path / "b", n_features=n_features, n_texts=n_texts, n_layers=n_layers, seed=seed, pooling=pooling,
        extra_texts=extra,
    )  # fmt: skip
    assert validate(path) == []
    assert read_manifest(path).tables["features"].rows == n_features


def test_hostile_texts_are_kept_word_for_word(hostile_bundle):
    from tests.conftest import HOSTILE

    assert validate(hostile_bundle) == []
    assert pq.read_table(hostile_bundle / "texts.parquet")["text"].to_pylist()[: len(HOSTILE)] == list(HOSTILE)


@pytest.mark.parametrize("table", ["features", "texts", "activations", "weights"])
def test_none_of_anything_is_a_bundle_too(empty_bundle, table):
    assert validate(empty_bundle) == []
    assert read_manifest(empty_bundle).tables[table].rows == 0


def test_so_many_examples_are_kept_evenly(bundle, tmp_path):
    whole = pq.read_table(bundle / "examples.parquet")
    n = whole.num_rows // 3
    path = make_bundle(tmp_path / "fewer", n_features=60, n_texts=40, n_examples=n)
    few = pq.read_table(path / "examples.parquet")
    assert few.num_rows == n and validate(path) == []
    keys = [name for name in few.schema.names if name != "rank"]
    assert {str(row) for row in few.select(keys).to_pylist()} <= {str(row) for row in whole.select(keys).to_pylist()}
    counted = Counter()
    for row in few.to_pylist():
        bucket = (row["feature_id"], row["bucket"])
        assert row["rank"] == counted[bucket]
        counted[bucket] += 1
    features = {name: set(table["feature_id"].to_pylist()) for name, table in (("few", few), ("whole", whole))}
    assert features["few"] == features["whole"]
