"""Review: a list of features under review, item by item, what came of it, and audits as files."""

from collections.abc import Sequence

import streamlit as st

from app.components.feature import profile, verdicts
from app.components.html import panels
from app.session import audits, bundles, cache, callbacks, permalinks
from app.session.audits import Audits
from app.session.cache import ask
from app.widgets import frame, review, verdict_panel
from lfp import audit
from lfp.audit import AuditList, BundleKey, Verdict
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.util.sanitize import shortened

PARTS = REVIEW, RESULTS, LISTS = "Review", "Results", "Lists and files"


def choose_list(found: Audits) -> AuditList | None:
    """Draw the reviewer's name, the choice of a list, and the blind switch; return the list."""
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    names = [listed.name for listed in found.lists]
    with row:
        if not bundles.is_public():
            audits.show_name_input()
        if names:
            st.selectbox(
                "List",
                names,
                key="audit_list",
                bind="query-params",
                on_change=callbacks.guard(go),
                args=(1,),
                width=320,
            )
            says = "Hides a feature’s label and others’ verdicts until you have answered"
            st.toggle("Blind", value=True, key="blind", bind="query-params", help=says)
    chosen = st.session_state.get("audit_list")
    return next((listed for listed in found.lists if listed.name == chosen), None)


def go(item: int) -> None:
    """Go to an item of the list; for callbacks."""
    st.session_state.item = item


def show_progress(store: Store, listed: AuditList, latest: Sequence[Verdict]) -> None:
    """Draw how much of the list, and what share of all contributions, is reviewed."""
    name = audits.reviewer()
    by_anyone = {verdict.feature_id for verdict in latest if verdict.is_review}
    by_me = {verdict.feature_id for verdict in latest if verdict.is_review and verdict.reviewer == name}
    inside = set(listed.feature_ids)
    st.html(
        verdicts.progress(
            n=len(listed.feature_ids),
            by_me=len(by_me & inside),
            by_anyone=len(by_anyone & inside),
            share_by_me=ask(queries.features.contribution_share, store, tuple(sorted(by_me))),
            share_by_anyone=ask(queries.features.contribution_share, store, tuple(sorted(by_anyone))),
            name=name,
        )
    )


def choose_item(listed: AuditList, latest: Sequence[Verdict]) -> int:
    """Draw Previous, the item's place, Next and the next unreviewed item; return the place, from 1."""
    n = len(listed.feature_ids)
    if st.session_state.get("item", 1) > n:
        st.session_state.item = n
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    at = row.number_input(f"Item of {n}", 1, n, key="item", bind="query-params", width=110)
    with row:
        frame.show_steps(at - 1 if at > 1 else None, at + 1 if at < n else None, go)
    unreviewed = next_unreviewed(listed, latest, at)
    row.button("Next unreviewed", disabled=unreviewed is None, on_click=callbacks.guard(go), args=(unreviewed,))
    return at


def next_unreviewed(listed: AuditList, latest: Sequence[Verdict], at: int) -> int | None:
    """Return the place of the first feature after `at`, else from the start, that this reviewer has not reviewed."""
    missing = set(audit.open_to(latest, audits.reviewer(), listed.feature_ids))
    places = [place for place, id_ in enumerate(listed.feature_ids, 1) if id_ in missing and place != at]
    return next((place for place in places if place > at), places[0] if places else None)


def show_review(store: Store, bundle: BundleKey, listed: AuditList, found: Audits, latest: Sequence[Verdict]) -> None:
    """Draw one item: its examples, and beside them the verdict form."""
    at = choose_item(listed, latest)
    feature_id = listed.feature_ids[at - 1]
    frame.name_tab("Review", f"feature {feature_id}, {at} of {len(listed.feature_ids)}")
    feature = ask(queries.feature.feature, store, feature_id)
    left, right = st.columns([6, 5], gap="large")
    with right.container(key="audit_panel"):
        st.subheader(f"Feature {feature_id}")
        following = next_unreviewed(listed, latest, at)
        verdict_panel.show_panel(
            bundle,
            feature_id,
            profile.best_label(ask(queries.feature.labels, store, feature_id)),
            found,
            is_blind=st.session_state.blind,
            after_save=(lambda: go(following)) if following else None,
        )
        link = panels.anchor(permalinks.feature_href(feature_id), f"Open feature {feature_id}")
        shows = " (shows the label)" if st.session_state.blind else ""
        st.html(f'<p class="lfp-note">{link}{shows}</p>')
    with left:
        st.subheader("Examples")
        rows = ask(queries.excerpts.feature_excerpts, store, feature_id)
        none = panels.note("No examples: the feature was never active on the corpus.")
        st.html(verdicts.examples(rows, feature.max_activation, permalinks.text_href) if rows else none)
    with st.expander(f"All {len(listed.feature_ids)} of “{shortened(listed.name, 40)}”".replace("$", "\\$")):
        review.show_items(store, listed, latest, go=go)


def show() -> None:
    store = cache.current()
    bundle = audit.key_of(store.manifest)
    st.html(panels.heading(store.manifest.title, "Review"))
    if not store.manifest.tables["features"].rows:
        st.html(panels.note("This bundle holds no features to review."))
        return
    found = audits.read_audits(bundle)
    audits.show_messages()
    if found.fault and not found.lists:
        st.html(panels.notice("Audits cannot be opened", found.fault, is_page=False))
        return
    listed = choose_list(found)
    if listed is None:
        review.show_no_list(store, bundle, found)
        return
    latest = audit.newest(found.history)
    show_progress(store, listed, latest)
    part = frame.choose_one("Part", PARTS, key="part", collapsed=True)
    if part == RESULTS:
        review.show_results(store, listed, latest)
    elif part == LISTS:
        review.show_lists(store, bundle, listed, found)
    else:
        show_review(store, bundle, listed, found, latest)


show()
