"""Verdicts: the bar with its keys for features, texts, pairs, words and findings, and the form for features."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import streamlit as st

from app.components.feature import verdicts
from app.components.html import panels
from app.session import audits, bundles, callbacks, permalinks
from app.session.audits import Audits
from lfp import audit
from lfp.audit import ANSWERS, VERDICTS, BundleKey, Remark, Verdict
from lfp.bundle.queries.feature import Label
from lfp.bundle.store.connection import Store

READ_ONLY = "Audits are read-only here. Run your own explorer to review."
BLIND = "The label is hidden until you have answered. Judge by the examples alone."
BLIND_REMARK = "Scores are hidden until you have answered. Judge by the text alone."
NAMELESS = "Enter your name to review. It is stored with your verdicts, and in a cookie of this browser."
BLIND_KEY = "bar_blind"
BLIND_HELP = "Hides labels, scores, credits and others’ verdicts until you have answered"
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


def show_history(store: Store, feature_id: int) -> None:
    """Draw the verdicts on a feature, and what could not be saved."""
    st.subheader("Verdicts")
    bundle = audit.key_of(store.manifest)
    found = audits.read_audits(bundle)
    audits.show_messages()
    if found.fault:
        st.html(panels.notice("Audits cannot be read", found.fault, is_page=False))
    if bundles.is_public():
        st.html(panels.note(READ_ONLY))
    st.html(_history(bundle, feature_id, found))


def is_blind() -> bool:
    """Return whether the reviewer has chosen to judge before labels, scores and others' verdicts are shown."""
    return bool(st.session_state.get(BLIND_KEY)) and not bundles.is_public()


def is_hidden(store: Store, feature_id: int) -> bool:
    """Return whether a blind reviewer has yet to answer, so that labels and credits must not be shown."""
    if not is_blind():
        return False
    bundle = audit.key_of(store.manifest)
    earlier = _earlier(bundle, feature_id, audits.read_audits(bundle))
    return earlier is None or not earlier.is_review


def show_bar(store: Store, feature_id: int, label: Label | None) -> None:
    """Draw the bar that judges a feature: name, blind mode, the answers with their keys, and the form."""
    if bundles.is_public():
        return
    bundle = audit.key_of(store.manifest)
    found = audits.read_audits(bundle)
    with st.container(key="verdict_bar", horizontal=True, vertical_alignment="bottom", gap="small"):
        show_reviewer()
        if not audits.reviewer():
            return
        _show_answers(_case(bundle, feature_id, label, found, is_blind=st.session_state[BLIND_KEY]))
        with st.popover("Comment", icon=":material/rate_review:", key="audit_review"):
            show_panel(bundle, feature_id, label, found, is_blind=st.session_state[BLIND_KEY], form_only=True)


def show_reviewer() -> None:
    """Draw the reviewer's name and the switch of blind mode, in a bar."""
    audits.show_name_input()
    st.toggle("Blind", key=BLIND_KEY, persist_state="session", help=BLIND_HELP)


def show_remark_bar(store: Store, kind: str, subject: str, question: str) -> None:
    """Draw the bar that judges a text, pair, word or finding, with remarks on it; to a blind reviewer only own ones."""
    bundle = audit.key_of(store.manifest)
    remarks, fault = audits.read_remarks(bundle)
    on_it = [remark for remark in remarks if (remark.kind, remark.subject) == (kind, subject)]
    if is_remark_hidden(store, kind, subject):
        on_it = [remark for remark in on_it if remark.reviewer == audits.reviewer()]
    if on_it or fault:
        st.html(panels.notice("Audits cannot be read", fault, is_page=False) if fault else verdicts.remarks(on_it))
    audits.show_messages()
    if bundles.is_public():
        return
    with st.container(key="verdict_bar", horizontal=True, vertical_alignment="bottom", gap="small"):
        show_reviewer()
        name = audits.reviewer()
        if not name:
            return
        own = audit.newest_remarks(on_it).get((kind, subject, name))
        key = permalinks.widget_key("remark", bundle.name, kind, subject, name)
        st.session_state.setdefault(key, own.note if own else "")
        st.html(panels.note(subject if kind == "finding" else f"{kind} {subject}"), width="content")
        for number, answer in enumerate(VERDICTS, 1):
            st.button(
                answer.capitalize(), key=f"remark_{answer}", shortcut=str(number), help=question,
                type="primary" if own and own.verdict == answer else "secondary",
                on_click=callbacks.guard(_remark), args=(bundle, kind, subject, key, answer, own),
            )  # fmt: skip
        with st.popover("Comment", icon=":material/rate_review:", key="remark_comment"):
            st.text_area("Comment", key=key, max_chars=10_000, persist_state="session")
            st.button(
                "Save comment", type="primary", on_click=callbacks.guard(_remark), key="remark_save",
                args=(bundle, kind, subject, key, own.verdict if own else None, own),
            )  # fmt: skip


def judged_subjects(store: Store, kind: str, subjects: Collection[str]) -> frozenset[str]:
    """Return those of some texts, pairs, words or findings that the reviewer has judged."""
    newest = audit.newest_remarks(audits.read_remarks(audit.key_of(store.manifest))[0])
    own = {subject: newest.get((kind, subject, audits.reviewer())) for subject in subjects}
    return frozenset(subject for subject, remark in own.items() if remark is not None and remark.verdict is not None)


def hidden_subjects(store: Store, kind: str, subjects: Collection[str]) -> frozenset[str]:
    """Return those of some subjects that a blind reviewer has yet to judge, whose scores must not be shown."""
    if not is_blind():
        return frozenset()
    return frozenset(subjects) - judged_subjects(store, kind, subjects)


def is_remark_hidden(store: Store, kind: str, subject: str) -> bool:
    """Return whether a blind reviewer has yet to judge the subject, so that scores and credits must not be shown."""
    return subject in hidden_subjects(store, kind, (subject,))


def _remark(bundle: BundleKey, kind: str, subject: str, key: str, verdict: str | None, own: Remark | None) -> None:
    """Save a remark; one that was blind stays so as long as its verdict stays."""
    was_blind = own is not None and own.is_blind and own.verdict == verdict
    is_first = own is None or own.verdict is None
    is_blind = was_blind or (is_first and bool(st.session_state.get(BLIND_KEY)))
    note = st.session_state.get(key) or ""
    audits.save_remark(bundle, Remark(kind, subject, audits.reviewer(), verdict, note, is_blind=is_blind))


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
    case = _case(bundle, feature_id, label, found, is_blind=is_blind)
    if case.is_hidden:
        st.html(panels.note(BLIND))
    elif not form_only:
        st.html(verdicts.judged(label))
    if not form_only:
        with st.container(horizontal=True, gap="small"):
            _show_answers(case)
    _show_form(case, sorted({tag for verdict in found.history for tag in verdict.tags}))
    row = st.container(horizontal=True)
    if case.is_hidden:
        row.button(
            "Save, then see the label", type="primary", key=case.key("reveal"),
            on_click=callbacks.guard(_save), args=(case,),
        )  # fmt: skip
        return
    row.button("Save verdict", type="primary", on_click=callbacks.guard(_save), args=(case,), key=case.key("save"))
    if after_save is not None:
        row.button("Save and next", on_click=callbacks.guard(_save), args=(case, after_save), key=case.key("save_on"))
    if not form_only:
        st.html(_history(bundle, feature_id, found))


def _earlier(bundle: BundleKey, feature_id: int, found: Audits) -> Verdict | None:
    """Return the reviewer's last verdict on a feature, saved or waiting to be saved."""
    name = audits.reviewer()
    waiting = audits.unsaved().get((bundle.name, feature_id, name))
    last = next((verdict for verdict in reversed(found.verdicts(feature_id)) if verdict.reviewer == name), None)
    return waiting[1] if waiting else last


def _case(bundle: BundleKey, feature_id: int, label: Label | None, found: Audits, *, is_blind: bool) -> _Case:
    earlier = _earlier(bundle, feature_id, found)
    return _Case(bundle, feature_id, label, earlier, is_blind and not (earlier and earlier.is_review))


def _show_answers(case: _Case) -> None:
    """Draw a button for each answer: to whether the label is right, or without one shown, about the feedback."""
    has_label = case.label is not None and case.label.description is not None
    field, question = "verdict", "Is the label right?"
    answers: Sequence[str] = VERDICTS
    if case.is_hidden or not has_label:
        field, answers, question = "related", ANSWERS, "Is it about the feedback?"
    given = getattr(case.earlier, field) if case.earlier else None
    for number, answer in enumerate(answers, 1):
        st.button(
            answer.capitalize(), key=f"bar_{answer}", shortcut=str(number), help=question,
            type="primary" if given == answer else "secondary",
            on_click=callbacks.guard(_answer), args=(case, field, answer),
        )  # fmt: skip


def _answer(case: _Case, field: str, answer: str) -> None:
    """Put an answer of the bar into the form and save it."""
    st.session_state[case.key(field)] = answer
    _save(case)


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
    held = case.earlier
    typed = {
        field: st.session_state.get(case.key(field), getattr(held, field) if held else None)
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
