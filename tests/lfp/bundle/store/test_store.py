import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lfp.bundle.manifest import read_manifest, read_table
from lfp.bundle.schema import BY_NAME, TABLES
from lfp.bundle.store.connection import Limits, Store
from lfp.bundle.validation import validate
from lfp.errors import BundleError
from lfp.testing.synthetic import make_bundle
from tests.conftest import rewrite


@pytest.fixture
def store(bundle):
    with Store.open(bundle) as opened:
        yield opened


def test_there_is_a_view_a_table(store):
    for table in TABLES:
        rows = store.rows(f"SELECT count(*) AS n FROM {table.name}")
        assert rows == [{"n": store.manifest.tables[table.name].rows}]


def test_parameters_are_bound(store):
    hostile = "'; DROP VIEW features; --"
    assert store.rows("SELECT $text AS said", {"text": hostile}) == [{"said": hostile}]
    assert store.rows("SELECT ? + 1 AS n", [41]) == [{"n": 42}]


def test_answers_are_right_in_many_threads(store):
    expected = {row["feature_id"]: row["density"] for row in store.rows("SELECT feature_id, density FROM features")}

    def ask(call):
        feature_id = call % len(expected)
        rows = store.rows("SELECT density FROM features WHERE feature_id = $id", {"id": feature_id})
        return rows == [{"density": expected[feature_id]}]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(600)))


def test_the_key_is_of_the_tables(bundle, tmp_path, copied_bundle):
    rewrite(copied_bundle, "labels", lambda table: table.slice(0, 1))
    keys = set()
    for path in (bundle, make_bundle(tmp_path / "other", seed=5, n_features=4, n_texts=2), copied_bundle):
        with Store.open(path) as opened:
            keys.add(opened.manifest.key)
    assert len(keys) == 3


@pytest.mark.parametrize("name", ["run[1]", "run*", "ru?1", "[!x]un1", "r**1", "run{1}", 'it\'s "run1"', "seed=3"])
def test_a_folder_is_read_by_its_name_and_not_as_a_pattern(bundle, tmp_path, name):
    """Each of these names, taken as a pattern, finds the decoy as well or instead."""
    make_bundle(tmp_path / "run1", n_features=7, n_texts=3)
    path = Path(shutil.copytree(bundle, tmp_path / name))
    with Store.open(path) as opened:
        for table in ("features", "texts"):
            rows = opened.rows(f"SELECT count(*) AS n FROM {table}")
            assert rows == [{"n": opened.manifest.tables[table].rows}]
    assert validate(path) == []
    rewrite(path, "labels", lambda table: table.drop_columns(["task"]))  # the other way that a file is read
    with Store.open(path) as opened:
        assert opened.rows("SELECT count(*) AS n FROM labels")[0]["n"] == opened.manifest.tables["labels"].rows


@pytest.mark.parametrize(("memory", "says"), [("4MB", "needs more than 4MB"), (None, None)])
def test_only_a_store_with_a_limit_refuses_large_answers(bundle, memory, says):
    sql = "SELECT list(i) AS one_large_list FROM range(2_000_000) r(i)"
    with Store.open(bundle, limits=Limits(memory=memory)) as opened:
        if says is None:
            assert opened.query(sql).num_rows == 1
        else:
            with pytest.raises(BundleError, match=says):
                opened.query(sql)


def test_a_broken_bundle_is_not_opened(broken_bundle):
    with pytest.raises(BundleError, match="table features was changed"):
        Store.open(broken_bundle)


def test_a_table_that_is_no_parquet_is_named(copied_bundle):
    path = copied_bundle / "layers.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(BundleError, match="layers"):
        Store.open(copied_bundle)


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_files_that_change_under_it_are_one_sentence(copied_bundle, harm):
    file = copied_bundle / "texts.parquet"
    with Store.open(copied_bundle) as opened:
        if harm == "cut":
            file.write_bytes(file.read_bytes()[:1000])
        else:
            file.unlink()
        with pytest.raises(BundleError, match="copy the bundle again"):
            opened.query('SELECT max(length("text")) FROM texts')


def test_columns_that_came_after_the_bundle_was_made_read_as_null(copied_bundle):
    rewrite(copied_bundle, "labels", lambda table: table.drop_columns(["task", "score_swapped"]))
    with Store.open(copied_bundle) as store:
        rows = store.rows("SELECT feature_id, task, score_swapped FROM labels")
        assert len(rows) == read_manifest(copied_bundle).tables["labels"].rows
        assert {(row["task"], row["score_swapped"]) for row in rows} == {(None, None)}
    assert read_table(copied_bundle, "labels").schema.names == BY_NAME["labels"].schema.names
    assert validate(copied_bundle) == []


def test_a_bundle_without_sites_reads_mlp_outputs(copied_bundle):
    added = {"saes": ["site", "scale"], "features": ["site"], "results": ["site"], "probes": ["sites"],
             "ablations": ["site"]}  # fmt: skip
    newer = {name: read_table(copied_bundle, name) for name in added}
    for name, columns in added.items():
        rewrite(copied_bundle, name, lambda table, columns=columns: table.drop_columns(columns))
    assert validate(copied_bundle) == []
    with Store.open(copied_bundle) as store:
        for name in ("saes", "features"):
            assert set(store.query(f"SELECT site FROM {name}")["site"].to_pylist()) == {"mlp_out"}
        assert read_table(copied_bundle, "features") == newer["features"]
        assert store.rows("SELECT count(*) AS n FROM feature_table WHERE site <> 'mlp_out'") == [{"n": 0}]
        assert store.rows("SELECT count(site) + count(sites) AS n FROM results, probes") == [{"n": 0}]
