"""The queue: lists of features under review, item by item, what came of it, and audits as files."""

import streamlit as st

from app.components.feature import verdicts
from app.components.feature import verdicts as evidence
from app.components.html import panels, wording
from app.session import audits, cache, permalinks, public_mode
from app.session.cache import ask
from app.widgets import review_lists, review_results, verdict_panel
from lfp import audit
from lfp.bundle import queries
from lfp.util.sanitize import shortened

PARTS = REVIEW, RESULTS, LISTS = "Review", "Results", "Lists and files"


def top(found):
    """Who reviews, which list, blind or not. Returns the list; None where there is none."""
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    names = [one.name for one in found.lists]
    with row:
        if not public_mode.is_public():
            audits.ask_reviewer()
        if names:
            st.selectbox("List", names, key="audit_list", bind="query-params", on_change=go, args=(1,), width=320)
            says = "Hides label and others’ verdicts of a feature until you have answered"
            st.toggle("Blind", value=True, key="blind", bind="query-params", help=says)
    chosen = st.session_state.get("audit_list")
    return next((one for one in found.lists if one.name == chosen), None)


def go(item):
    st.session_state.item = item


def progress(store, listed, latest):
    """How much of the list and of all contributions is reviewed."""
    name = audits.reviewer()
    done = {one.feature_id for one in latest if one.is_review}
    mine = {one.feature_id for one in latest if one.is_review and one.reviewer == name}
    inside = set(listed.feature_ids)
    st.html(
        verdicts.progress(
            n=len(listed.feature_ids),
            mine=len(mine & inside),
            anyone=len(done & inside),
            covered_mine=ask(queries.audits.contribution_share, store, tuple(sorted(mine))),
            covered=ask(queries.audits.contribution_share, store, tuple(sorted(done))),
            name=name,
        )
    )


def walk(listed, latest):
    """Previous, a place, next, the next one not reviewed. Returns the place, from 1."""
    n = len(listed.feature_ids)
    if st.session_state.get("item", 1) > n:
        st.session_state.item = n
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    at = row.number_input(f"Item of {n}", 1, n, key="item", bind="query-params", width=110)
    left = {"icon": ":material/chevron_left:", "on_click": go}
    right = {"icon": ":material/chevron_right:", "icon_position": "right", "on_click": go}
    row.button("Previous", disabled=at <= 1, args=(at - 1,), **left)
    row.button("Next", disabled=at >= n, args=(at + 1,), **right)
    onward = next_open(listed, latest, at)
    row.button("Next open one", disabled=onward is None, on_click=go, args=(onward,))
    return at


def next_open(listed, latest, at):
    """The place of the first feature that this reviewer has not reviewed, after `at`, else from the start."""
    missing = set(audit.open_to(latest, audits.reviewer(), listed.feature_ids))
    places = [place for place, id_ in enumerate(listed.feature_ids, 1) if id_ in missing and place != at]
    return next((place for place in places if place > at), places[0] if places else None)


def examples(store, feature):
    st.subheader("Examples")
    rows = ask(queries.feature.feature_excerpts, store, feature.feature_id)
    if not rows:
        st.html(panels.note("No examples were kept of this feature: it was never active on the corpus."))
        return
    st.html(evidence.examples(rows, feature.max_activation, permalinks.text))


def review(store, bundle, listed, found, latest):
    at = walk(listed, latest)
    feature_id = listed.feature_ids[at - 1]
    feature = ask(queries.feature.feature, store, feature_id)
    label = wording.best_label(ask(queries.feature.labels, store, feature_id))
    left, right = st.columns([6, 5], gap="large")
    with right.container(key="audit_panel"):
        st.subheader(f"Feature {feature_id}")
        onward = next_open(listed, latest, at)
        verdict_panel.panel(
            bundle,
            feature_id,
            label,
            found,
            is_blind=st.session_state.blind,
            onward=(lambda: go(onward)) if onward else None,
        )
        where = permalinks.feature(feature_id)
        shows = "Its page shows the label." if st.session_state.blind else "Its page holds all there is of it."
        st.html(f'<p class="lfp-note">{panels.anchor(where, f"Open feature {feature_id}")}. {shows}</p>')
    with left:
        examples(store, feature)
    with st.expander(f"All {len(listed.feature_ids)} of “{shortened(listed.name, 40)}”".replace("$", "\\$")):
        review_lists.items(store, listed, latest, go=go)


def show():
    store = cache.current()
    bundle = audit.key_of(store.manifest)
    st.html(panels.heading(store.manifest.title, "Queue"))
    if not store.manifest.tables["features"].rows:
        st.html(panels.note("This bundle holds no features to review."))
        return
    found = audits.known(bundle)
    audits.waiting()
    audits.told()
    if found.fault and not found.lists:
        st.html(panels.notice_here("Audits cannot be opened", found.fault))
        return
    listed = top(found)
    if listed is None:
        review_lists.empty(store, bundle, found)
        return
    latest = audit.newest(found.history)
    progress(store, listed, latest)
    chosen = {"default": REVIEW, "required": True, "label_visibility": "collapsed"}
    part = st.segmented_control("Part", PARTS, key="part", bind="query-params", **chosen)
    if part == RESULTS:
        review_results.show(store, listed, latest)
    elif part == LISTS:
        review_lists.show(store, bundle, listed, found)
    else:
        review(store, bundle, listed, found, latest)


show()
