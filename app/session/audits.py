"""Audits in a session: the open store, the reviewer's name, what was read last, and verdicts still to be saved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import streamlit as st
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.components.html import exports, panels
from app.session import bundles, callbacks
from lfp import audit
from lfp.audit import AuditList, AuditStore, BundleKey, Remark, Verdict
from lfp.audit.records import checked
from lfp.bundle.store.connection import Store
from lfp.errors import AuditError


@dataclass(frozen=True)
class Audits:
    """Lists and verdicts of a bundle; `fault` says why they may be out of date, if they could not be read."""

    lists: tuple[AuditList, ...] = ()
    history: tuple[Verdict, ...] = ()
    fault: str = ""
    version: tuple[str, int] = ("", 0)
    """The store that the history is from, and its version there."""

    def verdicts(self, feature_id: int) -> list[Verdict]:
        """Return all verdicts on a feature, oldest first."""
        return [verdict for verdict in self.history if verdict.feature_id == feature_id]


def open_store() -> AuditStore:
    """Open the audits at LFP_AUDIT_URL, else in the user's data folder, once for all sessions. Raises AuditError."""
    url = audit.default_url()
    try:
        path = make_url(url).database
        inode = Path(path).stat().st_ino if path else 0
    except (ArgumentError, OSError, ValueError):
        inode = 0
    return _store(url, inode, read_only=bundles.is_public())


@st.cache_resource(max_entries=4, show_spinner=False)
def _store(url: str, inode: int, *, read_only: bool) -> AuditStore:
    """Open a store; a SQLite file that was moved or replaced has another inode and is opened again."""
    del inode  # part of the cache key
    return AuditStore(url, read_only=read_only)


def read_audits(bundle: BundleKey) -> Audits:
    """Read the audits of a bundle; if they cannot be read, return what this session read last, with the fault."""
    read: dict[str, Audits] = st.session_state.setdefault("audit_known", {})
    last = read.get(bundle.name, Audits())
    try:
        store = open_store()
        version = f"{id(store)} {store.place}", store.version(bundle)
        history = last.history if version == last.version else tuple(store.history(bundle))
        read[bundle.name] = Audits(tuple(store.lists(bundle)), history, version=version)
    except AuditError as error:
        return replace(last, fault=str(error))
    return read[bundle.name]


def read_remarks(bundle: BundleKey) -> tuple[list[Remark], str]:
    """Return the remarks on a bundle, oldest first, and why they cannot be read: one of both is empty."""
    try:
        return open_store().remarks(bundle), ""
    except AuditError as error:
        return [], str(error)


def save_remark(bundle: BundleKey, remark: Remark) -> None:
    """Save a remark; where that fails, say why. What is typed stays in its field."""
    try:
        open_store().add_remark(bundle, remark)
    except AuditError as error:
        leave_message(str(error))
        return
    st.toast("Saved", icon=":material/check:")


def noted_features(store: Store) -> tuple[tuple[int, ...], str]:
    """Return the features with a verdict or a note, in order, and why they cannot be read: one of both is empty."""
    try:
        return tuple(sorted(open_store().noted(audit.key_of(store.manifest)))), ""
    except AuditError as error:
        return (), str(error)


def reviewer() -> str:
    """Return the reviewer's name in this session, or an empty string."""
    return " ".join(str(st.session_state.get("reviewer") or "").split())


def show_name_input() -> None:
    """Draw the input for the reviewer's name, which stays in this session and is never part of a link."""
    st.text_input(
        "Your name", key="reviewer", persist_state="session", max_chars=80, placeholder="your name", width=200
    )


def save(bundle: BundleKey, verdict: Verdict) -> bool:
    """Save a verdict and return whether it worked. An invalid one leaves a message, a failed one waits."""
    try:
        valid = checked(verdict)
    except AuditError as error:
        leave_message(str(error))
        return False
    unsaved()[(bundle.name, valid.feature_id, valid.reviewer)] = (bundle, valid)
    save_waiting()
    return not unsaved()


def save_waiting() -> None:
    """Try to save all verdicts that wait."""
    waiting = unsaved()
    for key, (bundle, verdict) in list(waiting.items()):
        try:
            open_store().add(bundle, verdict)
        except AuditError as error:
            st.session_state.audit_fault = str(error)
            return
        del waiting[key]
    st.toast("Saved", icon=":material/check:")


def unsaved() -> dict[tuple[str, int, str], tuple[BundleKey, Verdict]]:
    """Return this session's verdicts that could not be saved, the last of each bundle, feature and reviewer."""
    waiting: dict[tuple[str, int, str], tuple[BundleKey, Verdict]] = st.session_state.setdefault("audit_unsaved", {})
    return waiting


def leave_message(sentence: str) -> None:
    """Keep a sentence to show in the next run; for callbacks."""
    st.session_state.audit_says = sentence


def show_messages() -> None:
    """Show which verdicts are not saved, why, and ways to keep them; then the message of the last callback, once."""
    waiting = unsaved()
    if waiting:
        n = len(waiting)
        title = f"{n} verdict{'s are' if n > 1 else ' is'} not saved"
        with st.container(border=True):
            st.html(panels.notice(title, st.session_state.get("audit_fault", ""), is_page=False))
            row = st.container(horizontal=True)
            row.button("Save again", type="primary", on_click=callbacks.guard(save_waiting), key="audit_save_again")
            for name, key in {bundle.name: bundle for bundle, _ in waiting.values()}.items():
                rows = audit.verdict_table(
                    key, [verdict for bundle, verdict in waiting.values() if bundle.name == name]
                )
                row.download_button(
                    "Download them", data=exports.as_json(rows), file_name="unsaved-verdicts.json",
                    mime="application/json", key=f"audit_unsaved_{name}", on_click="ignore",
                )  # fmt: skip
    if sentence := st.session_state.pop("audit_says", ""):
        st.warning(f"{sentence[:1].upper()}{sentence[1:].rstrip('.')}.".replace("$", "\\$"), icon=":material/info:")
