"""The only caches: open stores, and small answers kept by the bundle's hash and the question."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import streamlit as st

from app import state
from lfp.bundle import MANIFEST
from lfp.store import Store

P = ParamSpec("P")
R = TypeVar("R")


def bundle() -> str:
    """The name of the bundle that is chosen."""
    names = list(state.listed_bundles())
    chosen = st.session_state.get("bundle")
    return chosen if chosen in names else names[0]


def current() -> Store:
    """The bundle that is chosen, open. Raises BundleError."""
    return open_store(state.listed_bundles()[bundle()])


def open_store(path: Path) -> Store:
    """The bundle at `path`, opened once for all sessions and again when it was replaced. Raises BundleError."""
    manifest = path / MANIFEST
    stamp = manifest.stat().st_mtime_ns if manifest.is_file() else 0
    return _store(str(path.resolve()), stamp)


def ask(question: Callable[Concatenate[Store, P], R], store: Store, *args: P.args, **kwargs: P.kwargs) -> R:
    """A question of lfp.queries, answered from the cache where it was asked before."""
    answer: R = _answer(store.key, question.__name__, args, kwargs, _store=store, _question=question)
    return answer


def ask_large(question: Callable[Concatenate[Store, P], R], store: Store, *args: P.args, **kwargs: P.kwargs) -> R:
    """The same for answers of thousands of rows, of which only the last few are kept."""
    answer: R = _large_answer(store.key, question.__name__, args, kwargs, _store=store, _question=question)
    return answer


@st.cache_resource(max_entries=8, show_spinner="Opening the bundle")
def _store(path: str, stamp: int) -> Store:  # noqa: ARG001 - part of the cache's key
    return Store.open(Path(path))


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
