"""Callbacks of widgets inside the error boundary: one that fails leaves a sentence, which the page shows."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec

import streamlit as st

from app.session import bundles
from lfp.errors import LfpError

P = ParamSpec("P")
_SAYS = "callback_says"


def guard(callback: Callable[P, object]) -> Callable[P, None]:
    """Wrap a callback so that its error is kept as a sentence: Streamlit calls it before the page is drawn."""

    @functools.wraps(callback)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            callback(*args, **kwargs)
        except LfpError as error:
            st.session_state[_SAYS] = bundles.error_text(error)
        except Exception:
            logging.getLogger("app").exception("a callback failed")
            st.session_state[_SAYS] = bundles.unforeseen_text()

    return call


def take_failure() -> str:
    """Return what the last callback that failed left, once; empty where none did."""
    says: str = st.session_state.pop(_SAYS, "")
    return says
