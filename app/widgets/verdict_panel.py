"""The verdict panel: a feature's label to be judged, the form, and earlier verdicts; any page can draw it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import streamlit as st

from app.components.feature import verdicts
from app.components.html import panels
from app.session import audits, bundles, permalinks
from app.session.audits import Audits
from lfp import audit
from lfp.audit import ANSWERS, VERDICTS, BundleKey, Verdict
from lfp.bundle.queries.feature import Label
from lfp.bundle.store.connection import Store

READ_ONLY = "Audits are read-only here. Run your own explorer to review."
BLIND = "The label is hidden until you have answered. Judge by the examples alone."
NAMELESS = "Enter your name to review. It is stored with your verdicts, and in a cookie of this browser."
TAGS = ("duplicate", "polysemantic", "token-level", "unclear")
"""Offered besides the tags in use."""


class _Case(NamedTuple):
    """One feature under review by one reviewer."""

    bundle: BundleKey
    feature_id: int
    label: Label | None
    earlier: Verdict | None
    """This reviewer's last verdict, saved or waiting to be saved."""
    is_hidden: bool
    """Whether the label must not be shown yet."""

    def key(self, field: str) -> str:
        return permalinks.widget_key(f"audit_{field}", self.bundle.name, self.feature_id, audits.reviewer())


def show(store: Store, feature_id: int, label: Label | None) -> None:
    """Draw heading, name, form and earlier verdicts on a page that shows the label."""
    st.subheader("Verdict")
    bundle = audit.key_of(store.manifest)
    found = audits.read_audits(bundle)
    audits.show_messages()
    if bundles.is_public():
        show_panel(bundle, feature_id, label, found, is_blind=False)
        return
    st.html(_history(bundle, feature_id, found))
    with st.expander("Review this feature", icon=":material/rate_review:", key="audit_review"):
        audits.show_name_input()
        show_panel(bundle, feature_id, label, found, is_blind=False, form_only=True)


def show_panel(
    bundle: BundleKey,
    feature_id: int,
    label: Label | None,
    found: Audits,
    *,
    is_blind: bool,
    form_only: bool = False,
    after_save: Callable[[], None] | None = None,
) -> None:
    """Draw label, form and earlier verdicts. In blind mode only the form, until the reviewer has answered.

    `form_only` leaves out label and verdicts, which the page shows elsewhere. `after_save` is called when a reviewer
    saves and moves on.
    """
    if found.fault:
        st.html(panels.notice("Audits cannot be read", found.fault, is_page=False))
    if bundles.is_public():
        st.html(panels.note(READ_ONLY) + _history(bundle, feature_id, found))
        return
    name = audits.reviewer()
    if not name:
        st.html(panels.note(NAMELESS) + ("" if is_blind or form_only else _history(bundle, feature_id, found)))
        return
    waiting = audits.unsaved().get((bundle.name, feature_id, name))
    last = next((verdict for verdict in reversed(found.verdicts(feature_id)) if verdict.reviewer == name), None)
    earlier = waiting[1] if waiting else last
    case = _Case(bundle, feature_id, label, earlier, is_blind and not (earlier and earlier.is_review))
    if case.is_hidden:
        st.html(panels.note(BLIND))
    elif not form_only:
        st.html(verdicts.judged(label))
    _show_form(case, sorted({tag for verdict in found.history for tag in verdict.tags}))
    row = st.container(horizontal=True)
    if case.is_hidden:
        row.button("Save, then see the label", type="primary", on_click=_save, args=(case,), key=case.key("reveal"))
        return
    row.button("Save verdict", type="primary", on_click=_save, args=(case,), key=case.key("save"))
    if after_save is not None:
        row.button("Save and next", on_click=_save, args=(case, after_save), key=case.key("save_on"))
    if not form_only:
        st.html(_history(bundle, feature_id, found))


def _history(bundle: BundleKey, feature_id: int, found: Audits) -> str:
    """Write all verdicts on a feature, those that wait to be saved too."""
    unsaved = [
        verdict for (name, id_, _), (_, verdict) in audits.unsaved().items() if (name, id_) == (bundle.name, feature_id)
    ]
    return verdicts.history([*found.verdicts(feature_id), *unsaved])


def _show_form(case: _Case, tags: Sequence[str]) -> None:
    """Draw the widgets, filled with the last verdict; what is typed is kept for each feature in the session."""
    last = case.earlier
    first: dict[str, Any] = {
        "verdict": last and last.verdict,
        "related": last and last.related,
        "description": last.description if last else "",
        "confidence": last and last.confidence,
        "tags": list(last.tags) if last else [],
        "note": last.note if last else "",
    }
    for field, value in first.items():
        st.session_state.setdefault(case.key(field), value)
    kept: dict[str, Any] = {"persist_state": "session"}
    if not case.is_hidden and case.label is not None and case.label.description is not None:
        st.segmented_control("Is the label right?", VERDICTS, key=case.key("verdict"), **kept)
    st.segmented_control("Is it about the feedback?", ANSWERS, key=case.key("related"), **kept)
    st.text_area("Your label", key=case.key("description"), height=68, max_chars=1000, **kept)
    left, right = st.columns([2, 3], gap="small")
    left.number_input(
        "Confidence", min_value=0.0, max_value=1.0, step=0.05, placeholder="0 to 1", key=case.key("confidence"),
        help="0: a guess; 1: certain", **kept,
    )  # fmt: skip
    options = sorted({*TAGS, *tags, *st.session_state[case.key("tags")]})
    right.multiselect("Tags", options, key=case.key("tags"), accept_new_options=True, **kept)
    st.text_area("Note", key=case.key("note"), height=68, max_chars=10_000, **kept)


def _save(case: _Case, after_save: Callable[[], None] | None = None) -> None:
    """Save what the form holds. An answer changed after the label was seen no longer counts as blind."""
    typed = {
        field: st.session_state.get(case.key(field))
        for field in ("verdict", "related", "confidence", "tags", "description", "note")
    }
    label, last = case.label, case.earlier
    judged = None if case.is_hidden else typed["verdict"]
    stays_blind = last is not None and last.is_blind and last.related == typed["related"]
    verdict = Verdict(
        case.feature_id, audits.reviewer(), judged, typed["related"], typed["confidence"],
        tuple(typed["tags"] or ()), typed["note"] or "", typed["description"] or "",
        label.labeller if label and judged else None, label.description if label and judged else None,
        is_blind=case.is_hidden or stays_blind,
    )  # fmt: skip
    if audits.save(case.bundle, verdict) and after_save is not None:
        after_save()
