"""The audits as the explorer opens them: the store, who reviews, what is known, and what could not be saved yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import streamlit as st
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.components.html import exports, panels
from app.session import public_mode
from lfp import audit
from lfp.audit import AuditList, AuditStore, BundleKey, Verdict
from lfp.audit.records import checked
from lfp.bundle.store.connection import Store
from lfp.errors import AuditError

_UNSAVED, _KNOWN, _SAYS, _REVIEWER = "audit_unsaved", "audit_known", "audit_says", "reviewer"


@dataclass(frozen=True)
class Known:
    """Lists and verdicts of a bundle; `fault` says why they are not today's, where they could not be read."""

    lists: tuple[AuditList, ...] = ()
    history: tuple[Verdict, ...] = ()
    fault: str = ""
    version: tuple[str, int] = ("", 0)
    """Where the history is from, and its version there."""

    def of(self, feature_id: int) -> list[Verdict]:
        """All that was said of a feature, oldest first."""
        return [one for one in self.history if one.feature_id == feature_id]


def opened() -> AuditStore:
    """The audits at LFP_AUDIT_URL, else in the user's data folder, opened once for all sessions. Raises AuditError."""
    url = audit.default_url()
    return _store(url, _file_number(url), read_only=public_mode.is_public())


def known(bundle: BundleKey) -> Known:
    """What the audits hold of a bundle now; where they cannot be read, what this session read last."""
    held: dict[str, Known] = st.session_state.setdefault(_KNOWN, {})
    last = held.get(bundle.name, Known())
    try:
        store = opened()
        version = f"{id(store)} {store.place}", store.version(bundle)
        history = last.history if version == last.version else tuple(store.history(bundle))
        held[bundle.name] = Known(tuple(store.lists(bundle)), history, version=version)
    except AuditError as error:
        return replace(last, fault=str(error))
    return held[bundle.name]


def noted(store: Store) -> tuple[int, ...]:
    """Features of a bundle with a verdict or a note, in order; none where the audits cannot be read.

    A list of features must not fail for that: `fault` says what is wrong.
    """
    try:
        return tuple(sorted(opened().noted(audit.key_of(store.manifest))))
    except AuditError:
        return ()


def fault(store: Store) -> str:
    """Why the audits of a bundle cannot be read; nothing where they can."""
    try:
        opened().version(audit.key_of(store.manifest))
    except AuditError as error:
        return str(error)
    return ""


def reviewer() -> str:
    """The name that this session gave, or nothing."""
    return " ".join(str(st.session_state.get(_REVIEWER) or "").split())


def ask_reviewer() -> None:
    """Asks for the reviewer's name; it stays in this session and never stands in a link."""
    st.text_input(
        "Your name", key=_REVIEWER, persist_state="session", max_chars=80, placeholder="who reviews", width=200
    )


def save(bundle: BundleKey, verdict: Verdict) -> bool:
    """Keeps a verdict: True. What is said wrongly is told; what cannot be kept waits in the session."""
    try:
        said = checked(verdict)
    except AuditError as error:
        tell(str(error))
        return False
    waiting = unsaved()
    waiting[(bundle.name, said.feature_id, said.reviewer)] = (bundle, said)
    return save_again()


def save_again() -> bool:
    """Tries to keep all that waits. True where nothing waits any more."""
    waiting = unsaved()
    for key, (bundle, verdict) in list(waiting.items()):
        try:
            opened().add(bundle, verdict)
        except AuditError as error:
            st.session_state.audit_fault = str(error)
            return False
        del waiting[key]
    st.toast("Saved", icon=":material/check:")
    return True


def unsaved() -> dict[tuple[str, int, str], tuple[BundleKey, Verdict]]:
    """Verdicts of this session that could not be kept, the last of each bundle, feature and reviewer."""
    return st.session_state.setdefault(_UNSAVED, {})


def tell(sentence: str) -> None:
    """Leaves a sentence for the next run; for callbacks."""
    st.session_state[_SAYS] = sentence


def told() -> None:
    """Shows what a callback left, once."""
    if sentence := st.session_state.pop(_SAYS, ""):
        st.warning(f"{sentence[:1].upper()}{sentence[1:].rstrip('.')}.".replace("$", "\\$"), icon=":material/info:")


def waiting() -> None:
    """What could not be saved: why, and ways not to lose it. Nothing where nothing waits."""
    held = unsaved()
    if not held:
        return
    n = len(held)
    says = f"{n} verdict{'s are' if n > 1 else ' is'} not saved"
    with st.container(border=True):
        st.html(panels.notice_here(says, st.session_state.get("audit_fault", "")))
        row = st.container(horizontal=True)
        row.button("Save again", type="primary", on_click=save_again, key="audit_save_again")
        bundles = {bundle.name: bundle for bundle, _ in held.values()}
        for name, bundle in bundles.items():
            rows = audit.verdict_table(bundle, [one for of, one in held.values() if of.name == name])
            file = {"file_name": "unsaved-verdicts.json", "mime": "application/json", "key": f"audit_unsaved_{name}"}
            row.download_button("Download them", data=exports.as_json(rows), on_click="ignore", **file)


@st.cache_resource(max_entries=4, show_spinner=False)
def _store(url: str, file_number: int, *, read_only: bool) -> AuditStore:  # noqa: ARG001 - part of the cache's key
    return AuditStore.open(url, read_only=read_only)


def _file_number(url: str) -> int:
    """Which file a SQLite address names now: one that was moved away or replaced is opened anew."""
    try:
        path = make_url(url).database
        return Path(path).stat().st_ino if path else 0
    except (ArgumentError, OSError, ValueError):
        return 0
