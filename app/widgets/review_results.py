"""What came of a list: labels judged, who reviewed what, and whether two reviewers agree."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app.components.feature import verdicts
from app.components.html import panels
from app.session import audits, permalinks
from app.session.cache import ask
from lfp.audit import ANSWERS, VERDICTS, AuditList, Verdict, agreement
from lfp.bundle import queries
from lfp.bundle.store.connection import Store

QUESTIONS = {"about the feedback": "related", "label right": "verdict"}
"""What two reviewers may agree on, and the field of a verdict that says it."""
MOST = 200


def show(store: Store, listed: AuditList, latest: Sequence[Verdict]) -> None:
    """The results of a list, or of the whole bundle."""
    st.toggle("Count all reviewed features, not this list’s alone", key="whole", bind="query-params")
    inside = set(listed.feature_ids)
    said = [one for one in latest if st.session_state.whole or one.feature_id in inside]
    said = [one for one in said if one.is_review]
    if not said:
        st.html(panels.note("Nothing has been reviewed yet."))
        return
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Labels judged")
        st.html(verdicts.tally(said))
        if listed.origin.startswith(queries.audits.RANDOM) and not st.session_state.whole:
            st.html(panels.note("The list is a random sample, so these shares estimate those of all labels."))
    with right:
        st.subheader("Reviewers")
        st.html(verdicts.reviewers([_row(store, said, name) for name in _names(said)]))
    _agreement(store, said)


def _agreement(store: Store, said: Sequence[Verdict]) -> None:
    st.subheader("Agreement")
    names = _names(said)
    if len(names) < 2:
        st.html(panels.note("Agreement needs two reviewers. So far there is one."))
        return
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    asked = {"default": next(iter(QUESTIONS)), "required": True}
    chosen = row.segmented_control("On", list(QUESTIONS), key="question", bind="query-params", **asked)
    question = QUESTIONS[chosen]
    me = audits.reviewer()
    first = row.selectbox("Reviewer", names, index=names.index(me) if me in names else 0, key="audit_first", width=180)
    others = [name for name in names if name != first]
    second = row.selectbox("and", others, key=f"audit_second_{first}", width=180)
    pairs = _pairs(said, first, second, question)
    answers = ANSWERS if question == "related" else VERDICTS
    found = agreement(
        [getattr(a, question) for a, _ in pairs], [getattr(b, question) for _, b in pairs], answers=answers
    )
    st.html(verdicts.kappa(found, first, second))
    if question == "verdict" and (n := sum(a.label != b.label for a, b in pairs)):
        st.html(panels.note(f"On {n} of these features they judged different labels: it was labelled anew between."))
    differ = [(a, b) for a, b in pairs if getattr(a, question) != getattr(b, question)]
    if differ:
        st.html(panels.note(f"They differ on {len(differ)}{f'; the first {MOST}' if len(differ) > MOST else ''}:"))
        ids = tuple(a.feature_id for a, _ in differ[:MOST])
        named = {one.feature_id: one for one in ask(queries.audits.audited_features, store, ids)}
        answer = lambda one: getattr(one, question)  # noqa: E731
        st.html(verdicts.differences(differ[:MOST], named, answer=answer, where=permalinks.feature))


def _pairs(said: Sequence[Verdict], first: str, second: str, question: str) -> list[tuple[Verdict, Verdict]]:
    """Features that both answered, in the order of their numbers."""
    given = {(one.feature_id, one.reviewer): one for one in said if getattr(one, question) is not None}
    ids = sorted({id_ for id_, name in given if name == first} & {id_ for id_, name in given if name == second})
    return [(given[id_, first], given[id_, second]) for id_ in ids]


def _row(store: Store, said: Sequence[Verdict], name: str) -> tuple[str, int, int, float | None]:
    mine = [one for one in said if one.reviewer == name]
    ids = tuple(sorted(one.feature_id for one in mine))
    return name, len(mine), sum(one.is_blind for one in mine), ask(queries.audits.contribution_share, store, ids)


def _names(said: Sequence[Verdict]) -> list[str]:
    return sorted({one.reviewer for one in said})
