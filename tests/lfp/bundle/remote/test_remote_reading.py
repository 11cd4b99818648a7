"""Reading a bundle at an address: only what a query needs, checked, through a cache of bounded size."""

import sys
import threading
from pathlib import Path

import fsspec
import pytest

import lfp
from lfp.bundle.manifest import FileInfo, read_manifest
from lfp.bundle.remote.cache import Cache
from lfp.bundle.remote.mirror import Mirror
from lfp.bundle.remote.publishing import Target
from lfp.bundle.store.connection import Limits, Store
from lfp.errors import BundleChangedError, BundleError, ConfigError, DependencyError


@pytest.fixture
def address(bucket, small):
    """A bundle in a bucket."""
    Target.find(f"{bucket}/run").publish(small)
    return f"{bucket}/run"


def place_of(address, name):
    """Where a table of a published bundle is in the bucket."""
    (found,) = [path for path in fsspec.filesystem("s3").find(f"{address}/objects") if path.endswith(name)]
    return found


def test_a_query_fetches_the_tables_that_it_reads(address, s3, small):
    s3.sent.clear()
    with lfp.open_bundle(address) as run:
        assert set(s3.fetched()) == {"manifest.json"}
        assert run.sql("WITH t AS (SELECT count(*) AS n FROM texts) SELECT n FROM t").n[0] == 8
        assert set(s3.fetched()) == {"manifest.json", "texts.parquet"}
        found = run.features(limit=3)
    of_features = {"features", "weights", "probes", "drift", "credits", "labels"}
    assert set(s3.fetched()) == {"manifest.json", "texts.parquet", *(f"{name}.parquet" for name in of_features)}
    with lfp.open_bundle(small) as local:
        assert local.features(limit=3).equals(found)
        expected = local.feature(3).examples()
    before = dict(s3.sent)
    with lfp.open_bundle(address) as again:
        assert again.features(limit=3).equals(found)
        assert again.feature(3).examples().equals(expected)
    twice = {path for path, n in before.items() if s3.sent[path] > n}
    assert {path.rpartition("/")[2] for path in twice} == {"manifest.json"}, "the cache was not used"


def test_strangers_read_tables_of_an_address_and_no_file(address, s3):
    with Store.open(address, limits=Limits(memory="128MB", is_locked=True)) as store:
        assert store.select("SELECT count(*) AS n FROM texts", limit=5, seconds=30)["n"][0].as_py() == 8
        with pytest.raises(ConfigError, match="out of reach"):
            store.select("SELECT * FROM read_csv('/etc/passwd')", limit=5, seconds=30)


def test_a_folder_that_was_copied_into_a_bucket_is_a_bundle(bucket, small, s3):
    fsspec.filesystem("s3").put(str(small), f"{bucket}/copied", recursive=True)
    assert Mirror.open(f"{bucket}/copied").manifest == read_manifest(small)
    with lfp.open_bundle(f"{bucket}/copied") as run:
        assert len(run.texts()) == 8


def test_a_file_that_is_cut_off_or_changed_is_not_read(address, s3):
    files = fsspec.filesystem("s3")
    place = place_of(address, "/texts.parquet")
    whole = files.cat_file(place)
    for content, says in ((whole[:-9], "bytes where the manifest says"), (whole[:-1] + b"?", "sha256 differs")):
        files.pipe_file(place, content)
        with lfp.open_bundle(address) as run, pytest.raises(BundleError, match=rf"texts\.parquet is damaged .*{says}"):
            run.texts()
    files.rm_file(place)
    with lfp.open_bundle(address) as run, pytest.raises(BundleError, match=r"texts\.parquet is missing; publish"):
        run.texts()
    files.pipe_file(place, whole)
    with lfp.open_bundle(address) as run:
        assert len(run.texts()) == 8, "a damaged file was kept"


def test_a_bundle_that_is_replaced_while_it_is_open_says_so(address, s3, other):
    with lfp.open_bundle(address) as run:
        words = run.words()
        Target.find(address).publish(other)
        assert run.words().equals(words), "what was fetched stays"
        with pytest.raises(BundleChangedError, match="the bundle was replaced while it was open; open it again"):
            run.texts()
    with lfp.open_bundle(address) as run:
        assert run.manifest == read_manifest(other) and len(run.texts()) == 8


def test_a_silent_server_ends_after_the_time_that_is_set(address, s3, monkeypatch):
    monkeypatch.setenv("LFP_STORE_TIMEOUT", "0.1")
    answer = threading.Event()
    s3.before = lambda method, path: answer.wait(10) and None
    try:
        with pytest.raises(BundleError, match=r"cannot be opened \(no answer within 0\.1 s\); try again, or set LFP_"):
            lfp.open_bundle(address)
    finally:
        answer.set()
    monkeypatch.setenv("LFP_STORE_TIMEOUT", "soon")
    with pytest.raises(ConfigError, match="LFP_STORE_TIMEOUT: soon is no number"):
        lfp.open_bundle(address)


def test_a_server_that_is_not_there_and_a_package_that_is_missing(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(BundleError, match="the server cannot be reached"):
        lfp.open_bundle("s3://bucket/run")
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DependencyError, match=r"s3://bucket/run: needs the package s3fs; run pip install 's3fs=="):
        lfp.open_bundle("s3://bucket/run")


def put(cache, content):
    """Let a cache fetch some content."""
    import hashlib

    info = FileInfo(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    cache.make_room(info.bytes, keep=[info])
    return cache.fetch(info, lambda target: target.write_bytes(content) and None), info


def test_what_was_used_least_recently_makes_room(tmp_path):
    cache = Cache(tmp_path / "cache", limit=250)
    (first, of_first), (second, of_second) = put(cache, b"a" * 100), put(cache, b"b" * 100)
    cache.link(first, tmp_path / "cache" / "bundles" / "run" / "a.parquet")
    cache.link(second, tmp_path / "cache" / "bundles" / "run" / "b.parquet")
    assert cache.find(of_first) == first  # now it is the second that was not used for longest
    third, _ = put(cache, b"c" * 100)
    assert third.is_file() and first.is_file() and not second.is_file() and cache.find(of_second) is None
    assert not (tmp_path / "cache" / "bundles" / "run" / "b.parquet").exists(), "its bytes are still taken"
    with pytest.raises(BundleError, match=r"a cache of 2\.5e-07 GB holds less than .* set LFP_CACHE_GB to more"):
        cache.make_room(251, keep=[])


def test_threads_and_processes_fetch_a_file_once(tmp_path):
    started, fetched = threading.Barrier(4), []
    info = FileInfo(bytes=3, sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")

    def download(target: Path) -> None:
        fetched.append(target)
        target.write_bytes(b"abc")

    def get() -> None:
        started.wait()
        assert Cache(tmp_path, limit=100).fetch(info, download).read_bytes() == b"abc"

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1 and [path.name for path in (tmp_path / "files").iterdir()] == [info.sha256]


def test_a_file_that_made_room_is_fetched_again(address, s3):
    with lfp.open_bundle(address) as run:
        words = run.words()
        for file in sorted((Cache.of_user().folder).rglob("*.parquet")):
            file.unlink()
        for file in (Cache.of_user().folder / "files").iterdir():
            file.unlink()
        assert run.words().equals(words)


@pytest.mark.parametrize(("name", "value"), [("LFP_CACHE_GB", "much"), ("LFP_CACHE_GB", "0")])
def test_a_cache_of_no_size_is_one_sentence(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"{name}: {value} is no number of gigabytes"):
        Cache.of_user()
