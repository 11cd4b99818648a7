"""The only caches: open stores, loaded models, and query results keyed by the bundle's hash and the query."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import streamlit as st

from app.session import bundles, remote
from app.session.turns import Turns
from lfp.bundle.manifest import MANIFEST
from lfp.bundle.store.connection import Limits, Store
from lfp.errors import BundleError
from lfp.util import sanitize

if TYPE_CHECKING:
    from lfp.ml.interventions.bundle_models import Live

P = ParamSpec("P")
R = TypeVar("R")

HOSTED = Limits(memory="128MB")
"""What a bundle may use in public mode: a small host has room for several."""


def current() -> Store:
    """Return the chosen bundle, open. Raises BundleError."""
    return open_store(bundles.listed_bundles()[bundles.bundle_name()])


def open_store(path: Path | str) -> Store:
    """Open a bundle, in a folder or at an address, once for all sessions, and again after it was replaced.

    Raises BundleError.
    """
    if isinstance(path, str):
        return _open_store(path, remote.look(path).state, bundles.is_public())
    manifest = path / MANIFEST
    modified = manifest.stat().st_mtime_ns if manifest.is_file() else 0
    return _open_store(path.resolve(), str(modified), bundles.is_public())


def ask(query: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a query of lfp.bundle on one or two stores, or return its cached result."""
    result: R = _result(f"{query.__module__}.{query.__name__}", args, kwargs, _query=query)
    return result


def ask_large(query: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do the same for a result of thousands of rows; only the last few are kept."""
    result: R = _large_result(f"{query.__module__}.{query.__name__}", args, kwargs, _query=query)
    return result


@st.cache_data(max_entries=1000, show_spinner=False, hash_funcs={Store: lambda store: store.manifest.key})
def _result(name: str, args: Any, kwargs: Any, *, _query: Callable[..., Any]) -> Any:
    del name  # part of the cache key
    return _query(*args, **kwargs)


@st.cache_data(max_entries=12, show_spinner=False, hash_funcs={Store: lambda store: store.manifest.key})
def _large_result(name: str, args: Any, kwargs: Any, *, _query: Callable[..., Any]) -> Any:
    del name  # part of the cache key
    return _query(*args, **kwargs)


def live(store: Store) -> Live:
    """Load the bundle's models once for all sessions. Raises ImportError without torch, BundleError, ModelError."""
    weights = [info.sha256 for _, info in sorted(store.manifest.artifacts.items())]
    return _live(str(store.source), tuple(weights), _store=store)


@st.cache_resource(max_entries=2, show_spinner="Loading the models (once)")
def _live(path: str, weights: tuple[str, ...], *, _store: Store) -> Live:
    from lfp.ml.interventions.bundle_models import Live  # the only import of torch in the explorer

    del path, weights  # the cache key
    _store.fetch()
    return Live.load(_store.path, _store.manifest)


@st.cache_resource
def turns() -> Turns:
    """Return the queue of all sessions that write."""
    return Turns()


@st.cache_resource(max_entries=8, show_spinner="Opening the bundle; a large one is sorted once, for a minute")
def _open_store(path: Path | str, state: str, is_public: bool) -> Store:
    """Open a bundle; in public mode its manifest names models, corpora and config values without their folders."""
    del state  # part of the cache key
    try:
        store = Store.open(path, prepare=True, limits=HOSTED if is_public else None)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); let the explorer read its files") from error
    if is_public:
        manifest = store.manifest
        models = {
            role: model.model_copy(update={"name": sanitize.path_name(model.name)})
            for role, model in manifest.models.items()
        }
        config = sanitize.values_without_paths(manifest.config)
        store.manifest = manifest.model_copy(update={"config": config, "models": models})
    return store
