"""The search of the list of features: one box, by words, by token, by meaning, or by a sentence that they fire on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from app.session import cache, callbacks, models
from app.session.cache import ask
from app.session.permalinks import FeaturesView
from lfp.bundle import queries
from lfp.bundle.queries.features import MATCH
from lfp.bundle.queries.search import TOKEN_ROLES, Found
from lfp.bundle.store.connection import Store
from lfp.errors import LfpError
from lfp.report.running_text import pieces

WAYS = ("words", "token", "meaning", "sentence")
LONGEST = 500
"""Characters that are searched for."""
_HINTS = {
    "words": "words of a name or label, a token, or a number",
    "token": "a whole token, such as great",
    "meaning": "a few words, such as complaints about food",
    "sentence": "which features fire on this sentence?",
}
_HELP = (
    "Words: names, labels and top tokens that contain all of them. Token: what fires on it, promotes or demotes it "
    "(also token:great). Meaning: examples, top tokens and labels with these words, rare words first. Sentence: what "
    "fires on it, by the bundle’s models where they can run here, else in its stored texts."
)


def show_search(**bound: Any) -> None:
    """Draw the box and the choice of what it searches by; a ranked search sorts the list by match."""
    slots = st.columns([3, 2], vertical_alignment="bottom")
    way = st.session_state.get("find_by", st.query_params.get("find_by", "words"))
    options: dict[str, Any] = {**bound, "on_change": callbacks.guard(_sort_by_match)}
    slots[0].text_input("Find", key="find", type="search", placeholder=_HINTS.get(way, _HINTS["words"]),
                        max_chars=LONGEST, **options)  # fmt: skip
    with slots[1].container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.segmented_control("Search by", WAYS, default="words", required=True, key="find_by", help=_HELP, **options)
        if way == "token":
            st.selectbox("Token as", list(TOKEN_ROLES), key="token_as", width=120, **options)


def _sort_by_match() -> None:
    """Sort by match as a ranked search begins, and by contribution as it ends; go to the first page."""
    state = st.session_state
    is_ranked = wanted(FeaturesView(find=state.get("find") or "", find_by=state.get("find_by", "words")))[0] != "words"
    if is_ranked:
        state.sort, state.order = MATCH, "descending"
    elif state.get("sort") == MATCH:
        state.sort = FeaturesView().sort
    state.page = 1


def wanted(view: FeaturesView) -> tuple[str, str]:
    """Return how a view searches and for what; `token:great` says it in the box itself. Without a text: by words."""
    text = view.find.strip()[:LONGEST]
    for way in WAYS:
        if text.lower().startswith(f"{way}:"):
            return (way, text[len(way) + 1 :].strip()) if text[len(way) + 1 :].strip() else ("words", "")
    return (view.find_by, text) if text and view.find_by in WAYS else ("words", text)


def find(store: Store, view: FeaturesView) -> Found | None:
    """Run a view's ranked search, or find its result in the cache; None for a view that searches by words."""
    way, text = wanted(view)
    if way == "token":
        role = view.token_as if view.token_as in TOKEN_ROLES else "any"
        return ask(queries.search.by_token, store, text, role=role)
    if way == "meaning":
        return ask(queries.search.by_meaning, store, text)
    return _by_sentence(store, text) if way == "sentence" else None


def _by_sentence(store: Store, text: str) -> Found:
    """Let the bundle's models read the sentence if they can run here; else look up its words in texts, and say why."""
    reason = models.why_not(store.manifest)
    if reason is None:
        try:
            return ask(read_sentence, store, text)
        except (ImportError, LfpError) as error:
            reason = models.why_failed(error)
    found = ask(queries.search.by_stored_words, store, text)
    return replace(found, says=f"{found.says} {reason}")


def read_sentence(store: Store, text: str) -> Found:
    """Rank the features that are active as the bundle's tuned model reads a text.

    Raises ImportError without torch, BundleError and ModelError where the models cannot be loaded, DataError where the
    text has no token.
    """
    live = cache.live(store)
    reading = live.read(text, "tuned")
    active, tokens = reading.active, pieces(reading.text.text, reading.text.token_starts)
    cut = f" Only its first {live.context} tokens were read." if reading.text.truncated else ""
    says = (
        f"The bundle’s tuned model read the sentence ({len(tokens)} tokens). These features are active; match is the "
        f"largest activation on it as a share of the feature’s largest in the corpus.{cut}"
    )
    positions, features = np.asarray(active.positions, np.int64), np.asarray(active.features, np.int64)
    return queries.search.by_activations(store, tokens, features, positions, active.values.tolist(), says=says)
