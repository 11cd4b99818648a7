"""Two small bundles, and folders of an object store in this process's memory."""

import fsspec
import pytest

from lfp.testing.synthetic import make_bundle


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A small bundle. Do not change it."""
    return make_bundle(tmp_path_factory.mktemp("small") / "small", n_features=12, n_texts=8, n_layers=1)


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """Another one. Do not change it."""
    return make_bundle(tmp_path_factory.mktemp("other") / "other", n_features=12, n_texts=8, n_layers=1, seed=1)


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """The empty store of this process, which is reached at memory://."""
    monkeypatch.setenv("LFP_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()
