import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lfp.bundle import queries
from lfp.bundle.manifest import read_manifest
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.features import FeatureFilter
from lfp.bundle.schema import TABLES
from lfp.bundle.store import sorted_copy
from lfp.bundle.store.connection import Store
from lfp.errors import BundleError
from tests.conftest import ROOT, rewrite


@pytest.fixture(autouse=True)
def all_worth(monkeypatch, tmp_path):
    """Bundles of any size are worth a copy, and the user's cache is a folder of the test's."""
    monkeypatch.setattr(sorted_copy, "WORTH_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def large(bundle, tmp_path):
    """A bundle in a folder of its own."""
    return Path(shutil.copytree(bundle, tmp_path / "folder" / "it's [a] *bundle*"))


def beside(path):
    """Files next to a bundle."""
    return sorted(other for other in path.parent.iterdir() if other != path)


def contents(store):
    names = [*(table.name for table in TABLES), "feature_table"]
    return {name: store.query(f"SELECT * FROM {name} ORDER BY ALL").to_pylist() for name in names}


def answers(store):
    wanted = FeatureFilter(search="the", sign="positive")
    return [
        [queries.feature.feature(store, n) for n in range(5)],
        queries.features.features(store, wanted, order=Order("weight"), limit=10).to_pylist(),
        queries.excerpts.feature_excerpts(store, 3),
        [queries.feature.feature_texts(store, n) for n in range(5)],
        [store.query("SELECT * FROM active_of($n) ORDER BY ALL", {"n": n}).to_pylist() for n in range(5)],
    ]


def test_it_says_what_the_parquet_files_say(large):
    with Store.open(large) as plain, Store.open(large, prepare=True) as prepared:
        assert beside(large) == [sorted_copy.find(large, plain.manifest)]
        assert contents(prepared) == contents(plain)
        assert answers(prepared) == answers(plain)


def test_the_average_text_is_the_same_in_both(large):
    with Store.open(large) as plain, Store.open(large, prepare=True) as prepared:
        there, here = (store.query("FROM usual ORDER BY feature_id") for store in (plain, prepared))
        assert here["feature_id"].equals(there["feature_id"]) and len(here)
        np.testing.assert_allclose(here["pooled"].to_numpy(), there["pooled"].to_numpy(), rtol=1e-12)


def test_rows_lie_as_the_bundle_has_them(large):
    with Store.open(large, prepare=True) as store:
        for table in (
            table for table in TABLES if not any(c.nullable for c in table.columns if c.name in table.sorted_by)
        ):
            order = ", ".join(f'"{key}"' for key in table.sorted_by)
            lying, sorted_ = (store.query(f"SELECT {order} FROM {table.name} {by}") for by in ("", f"ORDER BY {order}"))
            assert lying.to_pylist() == sorted_.to_pylist()


def test_small_bundles_get_none(large, monkeypatch):
    monkeypatch.setattr(sorted_copy, "WORTH_BYTES", read_manifest(large).bytes + 1)
    Store.open(large, prepare=True).close()
    assert beside(large) == []


def test_who_only_reads_builds_none(large):
    Store.open(large).close()
    assert beside(large) == []


def test_it_is_built_once_and_again_when_the_bundle_changes(large):
    Store.open(large, prepare=True).close()
    (first,) = beside(large)
    at = first.stat().st_mtime_ns
    Store.open(large, prepare=True).close()
    assert first.stat().st_mtime_ns == at
    rewrite(large, "labels", lambda table: table.slice(0, 3))
    with Store.open(large, prepare=True) as store:
        assert store.rows("SELECT count(*) AS n FROM labels") == [{"n": 3}]
    assert len(beside(large)) == 1 and beside(large) != [first]


def test_drafts_of_processes_that_died_are_swept_and_others_left(large):
    manifest = read_manifest(large)
    name = sorted_copy._places(large, manifest)[0].name
    old, new = (large.parent / f"{name}.{which}.writing" for which in ("old", "new"))
    stranger = large.parent / f".other.{'0' * 16}.duckdb"
    for file in (old, new, stranger):
        file.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    built = sorted_copy.build(large, manifest)
    assert set(beside(large)) == {built, new, stranger}


def test_the_cache_takes_it_where_the_folder_cannot(large, tmp_path):
    manifest = read_manifest(large)
    sorted_copy._places(large, manifest)[0].mkdir()
    with Store.open(large, prepare=True) as store:
        assert sorted_copy.find(large, manifest).parent == tmp_path / "cache" / "lfp-explorer"
        assert len(answers(store)[0]) == 5


def test_tables_that_cannot_be_sorted_are_not_passed_over(large, monkeypatch):
    monkeypatch.setattr(sorted_copy.views, "FEATURE_TABLE", "SELECT no_such_column FROM features")
    with pytest.raises(BundleError, match=r"tables cannot be sorted .*no_such_column"):
        sorted_copy.build(large, read_manifest(large))
    assert beside(large) == []


def test_nowhere_to_write_means_parquet(large, tmp_path, monkeypatch):
    manifest = read_manifest(large)
    sorted_copy._places(large, manifest)[0].mkdir()
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with Store.open(large, prepare=True) as store:
        assert sorted_copy.find(large, manifest) is None
        assert len(answers(store)[0]) == 5


def test_a_full_disk_means_parquet(large, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with Store.open(large, prepare=True) as store:
            assert len(answers(store)[0]) == 5
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert beside(large) == []
    assert [*(tmp_path / "cache" / "lfp-explorer").iterdir()] == []


@pytest.mark.parametrize("harm", ["cut", "garbled", "no database"])
def test_one_that_is_damaged_is_left_aside(large, harm):
    with Store.open(large) as plain:
        expected = contents(plain)
    file = sorted_copy.build(large, read_manifest(large))
    damage(file, harm)
    with Store.open(large, prepare=True) as store:
        assert contents(store) == expected
    assert beside(large) == []


def test_one_that_is_damaged_under_it_is_left_too(large):
    with Store.open(large) as plain:
        expected = contents(plain)
    with Store.open(large, prepare=True) as store:
        damage(sorted_copy.find(large, store.manifest), "garbled")
        assert contents(store) == expected


def damage(file, harm):
    whole = file.read_bytes()
    with file.open("r+b") as handle:
        if harm == "cut":
            handle.truncate(len(whole) // 2)
        elif harm == "garbled":
            handle.seek(3 * 4096)
            handle.write(b"\x55" * (len(whole) - 3 * 4096))
        else:
            handle.write(b"no database at all" * 1000)


def test_processes_that_build_at_once_all_get_it(large):
    code = (
        "import sys; from pathlib import Path; from lfp.bundle.manifest import read_manifest\n"
        "from lfp.bundle.store import sorted_copy as sidecar\n"
        "path = Path(sys.argv[1]); print(sidecar.build(path, read_manifest(path)))"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code, str(large)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = {racer.communicate(timeout=60)[0].strip() for racer in racers}
    assert said == {str(file) for file in beside(large)} and len(said) == 1
    with Store.open(large, prepare=True) as store, Store.open(large, prepare=True) as another:
        assert answers(store) == answers(another)
