"""The only caches: open stores, and small answers kept by the bundle's hash and the question."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import streamlit as st

from app.session import permalinks, public_mode
from lfp.bundle.manifest import MANIFEST, Manifest
from lfp.bundle.store.connection import Limits, Store
from lfp.errors import BundleError
from lfp.util import sanitize

if TYPE_CHECKING:
    from lfp.ml.interventions.bundle_models import Live

P = ParamSpec("P")
R = TypeVar("R")

HOSTED = Limits(memory="128MB")
"""What a bundle that strangers read may use: a small host has room for several."""


def current() -> Store:
    """The bundle that is chosen, open. Raises BundleError."""
    return open_store(permalinks.listed_bundles()[permalinks.bundle_name()])


def open_store(path: Path) -> Store:
    """The bundle at `path`, opened once for all sessions and again when it was replaced. Raises BundleError."""
    manifest = path / MANIFEST
    stamp = manifest.stat().st_mtime_ns if manifest.is_file() else 0
    return _store(str(path.resolve()), stamp, public_mode.is_public())


def ask(question: Callable[Concatenate[Store, P], R], store: Store, *args: P.args, **kwargs: P.kwargs) -> R:
    """A question of lfp.queries, answered from the cache where it was asked before."""
    answer: R = _answer(store.key, question.__name__, args, kwargs, _store=store, _question=question)
    return answer


def ask_large(question: Callable[Concatenate[Store, P], R], store: Store, *args: P.args, **kwargs: P.kwargs) -> R:
    """The same for answers of thousands of rows, of which only the last few are kept."""
    answer: R = _large_answer(store.key, question.__name__, args, kwargs, _store=store, _question=question)
    return answer


def ask_both(question: Callable[[Store, Store], R], one: Store, other: Store) -> R:
    """A question of lfp.bundle.comparison, of two bundles, answered from the cache where it was asked before."""
    answer: R = _answer_of_two(one.key, other.key, question.__name__, _one=one, _other=other, _question=question)
    return answer


def live(store: Store) -> Live:
    """The bundle's models, loaded once for all sessions. Raises ImportError without torch, BundleError, ModelError."""
    weights = [info.sha256 for _, info in sorted(store.manifest.artifacts.items())]
    return _live(str(store.path), tuple(weights), _store=store)


@st.cache_resource(max_entries=2, show_spinner="Loading the models, once")
def _live(path: str, weights: tuple[str, ...], *, _store: Store) -> Live:  # noqa: ARG001 - the cache's key
    from lfp.ml.interventions.bundle_models import Live  # the one lazy way from the explorer to torch

    return Live.load(_store.path, _store.manifest)


@st.cache_resource(max_entries=8, show_spinner="Opening the bundle; a large one is sorted once, for a minute")
def _store(path: str, stamp: int, is_public: bool) -> Store:  # noqa: ARG001 - part of the cache's key
    try:
        store = Store.open(Path(path), prepare=True, limits=HOSTED if is_public else None)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); let the explorer read its files") from error
    if is_public:
        store.manifest = _for_strangers(store.manifest)
    return store


def _for_strangers(manifest: Manifest) -> Manifest:
    """The manifest without the host's folders, which models and corpora may be named by."""
    models = {
        role: model.model_copy(update={"name": sanitize.path_name(model.name)})
        for role, model in manifest.models.items()
    }
    return manifest.model_copy(update={"config": sanitize.values_without_paths(manifest.config), "models": models})


@st.cache_data(max_entries=1000, show_spinner=False)
def _answer(
    key: str,  # noqa: ARG001 - part of the cache's key, as is name
    name: str,  # noqa: ARG001
    args: Any,
    kwargs: Any,
    *,
    _store: Store,
    _question: Callable[..., Any],
) -> Any:
    return _question(_store, *args, **kwargs)


@st.cache_data(max_entries=12, show_spinner=False)
def _large_answer(
    key: str,  # noqa: ARG001 - as above
    name: str,  # noqa: ARG001
    args: Any,
    kwargs: Any,
    *,
    _store: Store,
    _question: Callable[..., Any],
) -> Any:
    return _question(_store, *args, **kwargs)


@st.cache_data(max_entries=50, show_spinner="Comparing the runs")
def _answer_of_two(
    key: str,  # noqa: ARG001 - part of the cache's key, as are the next two
    other_key: str,  # noqa: ARG001
    name: str,  # noqa: ARG001
    *,
    _one: Store,
    _other: Store,
    _question: Callable[[Store, Store], Any],
) -> Any:
    return _question(_one, _other)
