"""The verdict panel: a feature's label to be judged, the form, what others said. `show` draws it on any page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import streamlit as st

from app.components.feature import verdicts
from app.components.html import panels
from app.session import audits, permalinks, public_mode
from lfp import audit
from lfp.audit import ANSWERS, VERDICTS, BundleKey, Verdict
from lfp.bundle.queries.feature import Label
from lfp.bundle.store.connection import Store

READ_ONLY = "Audits are read-only here. Run your own explorer to review."
BLIND = "The label is hidden until you have answered. Judge by the examples alone."
NAMELESS = "Give your name to review. It is kept with your verdicts, and on this page only until you close it."
ABOUT = "Is it about the feedback?"
OWN_WORDS = "What does it fire on? In your own words"
TAGS = ("duplicate", "polysemantic", "token-level", "unclear")
"""Offered besides those in use."""


class _Case(NamedTuple):
    """One feature under review by one reviewer."""

    bundle: BundleKey
    feature_id: int
    label: Label | None
    mine: Verdict | None
    is_hidden: bool
    """Whether the label is not to be seen yet."""

    def key(self, field: str) -> str:
        return permalinks.key_for(f"audit_{field}", self.bundle.name, self.feature_id, audits.reviewer())


def show(store: Store, feature_id: int, label: Label | None) -> None:
    """The panel on a page that shows the label: heading, name, form and history."""
    st.subheader("Verdict")
    bundle = audit.key_of(store.manifest)
    found = audits.known(bundle)
    audits.waiting()
    audits.told()
    if public_mode.is_public():
        panel(bundle, feature_id, label, found, is_blind=False, shows_label=False)
        return
    st.html(verdicts.history(audit.newest(found.of(feature_id))))
    with st.expander("Review this feature", icon=":material/rate_review:", key="audit_review"):
        audits.ask_reviewer()
        panel(bundle, feature_id, label, found, is_blind=False, shows_label=False)


def panel(
    bundle: BundleKey,
    feature_id: int,
    label: Label | None,
    found: audits.Known,
    *,
    is_blind: bool,
    shows_label: bool = True,
    onward: Callable[[], None] | None = None,
) -> None:
    """The same without heading and name. Blind, label and history are hidden until the reviewer has answered.

    `onward` is called when a reviewer saves and wants to go on.
    """
    if found.fault:
        st.html(panels.notice_here("Audits cannot be read", found.fault))
    said = found.of(feature_id)
    case = _case(bundle, feature_id, label, said, is_blind=is_blind)
    if public_mode.is_public():
        st.html(panels.note(READ_ONLY) + verdicts.history(said))
        return
    if not audits.reviewer():
        st.html(panels.note(NAMELESS) + ("" if is_blind or not shows_label else verdicts.history(said)))
        return
    if case.is_hidden:
        st.html(panels.note(BLIND))
    elif shows_label:
        st.html(verdicts.judged(label))
    _form(case, _tags(found))
    row = st.container(horizontal=True)
    if case.is_hidden:
        row.button("Save, then see the label", type="primary", on_click=_save, args=(case,), key=case.key("reveal"))
        return
    row.button("Save verdict", type="primary", on_click=_save, args=(case,), key=case.key("save"))
    if onward is not None:
        row.button("Save and go on", on_click=_save, args=(case, onward), key=case.key("save_on"))
    st.html(verdicts.history([*said, *_waiting(case)]))


def _case(bundle: BundleKey, feature_id: int, label: Label | None, said: Sequence[Verdict], *, is_blind: bool) -> _Case:
    name = audits.reviewer()
    waits = audits.unsaved().get((bundle.name, feature_id, name))
    last = next((one for one in reversed(said) if one.reviewer == name), None)
    mine = waits[1] if waits else last
    is_public = public_mode.is_public()
    return _Case(bundle, feature_id, label, mine, is_blind and not is_public and not (mine and mine.is_review))


def _form(case: _Case, tags: Sequence[str]) -> None:
    """The widgets; what is typed stays in the session for each feature, on whichever page."""
    mine = case.mine
    kept: dict[str, Any] = {"persist_state": "session"}
    if not case.is_hidden and case.label is not None and case.label.description is not None:
        _seed(case, "verdict", mine and mine.verdict)
        st.segmented_control("Is the label right?", VERDICTS, key=case.key("verdict"), **kept)
    _seed(case, "related", mine and mine.related)
    st.segmented_control(ABOUT, ANSWERS, key=case.key("related"), **kept)
    _seed(case, "description", mine.description if mine else "")
    st.text_area(OWN_WORDS, key=case.key("description"), height=68, max_chars=1000, **kept)
    left, right = st.columns([2, 3], gap="small")
    _seed(case, "confidence", mine and mine.confidence)
    sure = {"min_value": 0.0, "max_value": 1.0, "step": 0.05, "placeholder": "0 to 1"}
    left.number_input("Confidence", key=case.key("confidence"), help="0: a guess; 1: certain", **sure, **kept)
    _seed(case, "tags", list(mine.tags) if mine else [])
    options = sorted({*TAGS, *tags, *st.session_state[case.key("tags")]})
    right.multiselect("Tags", options, key=case.key("tags"), accept_new_options=True, **kept)
    _seed(case, "note", mine.note if mine else "")
    st.text_area("Note", key=case.key("note"), height=68, max_chars=10_000, **kept)


def _seed(case: _Case, field: str, value: Any) -> None:
    """What was said last fills the form until something is typed."""
    if case.key(field) not in st.session_state:
        st.session_state[case.key(field)] = value


def _save(case: _Case, onward: Callable[[], None] | None = None) -> None:
    if audits.save(case.bundle, _verdict(case)) and onward is not None:
        onward()


def _verdict(case: _Case) -> Verdict:
    """What the form says. Changed after the label was seen, an answer on the feedback is blind no more."""
    typed = {
        name: st.session_state.get(case.key(name))
        for name in ("verdict", "related", "confidence", "tags", "description", "note")
    }
    label, mine = case.label, case.mine
    judged = None if case.is_hidden else typed["verdict"]
    stays_blind = mine is not None and mine.is_blind and mine.related == typed["related"]
    return Verdict(
        case.feature_id,
        audits.reviewer(),
        judged,
        typed["related"],
        typed["confidence"],
        tuple(typed["tags"] or ()),
        typed["note"] or "",
        typed["description"] or "",
        label.labeller if label and judged else None,
        label.description if label and judged else None,
        is_blind=case.is_hidden or stays_blind,
    )


def _waiting(case: _Case) -> list[Verdict]:
    return [
        one
        for (name, id_, _), (_, one) in audits.unsaved().items()
        if (name, id_) == (case.bundle.name, case.feature_id)
    ]


def _tags(found: audits.Known) -> list[str]:
    return sorted({tag for one in found.history for tag in one.tags})
