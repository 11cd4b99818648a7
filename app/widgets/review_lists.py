"""Lists of the queue: how one is made, what is in it, and audits as files, out and in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import parse_qs

import pyarrow as pa
import streamlit as st

from app.components.html import panels
from app.components.html.numbers import count
from app.session import audits, permalinks, public_mode
from app.session.cache import ask
from app.widgets import filters, frame
from lfp import audit
from lfp.audit import AuditList, BundleKey, Verdict
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.errors import AuditError, LfpError
from lfp.util.sanitize import shortened, visible

LINK = "a list of the Features page"
MOST = 10_000
NO_LIST = "No list has been made of this bundle yet. A list says which features to review, and in which order."
PUBLIC_NO_LIST = "Nobody has made a list of this bundle. Audits are read-only here."


def empty(store: Store, bundle: BundleKey, found: audits.Known) -> None:
    """The page before there is a list."""
    if public_mode.is_public():
        st.html(panels.note(PUBLIC_NO_LIST))
        return
    st.html(panels.note(NO_LIST))
    make(store, bundle)
    files(store, bundle, found)


def show(store: Store, bundle: BundleKey, listed: AuditList, found: audits.Known) -> None:
    """Where the chosen list is from, how to make another, files."""
    made = " · ".join(part for part in (listed.origin, listed.created_by, listed.created_at[:10]) if part)
    st.html(panels.note(f"“{listed.name}” holds {count(len(listed.feature_ids))} features: {made}."))
    if not public_mode.is_public():
        with st.popover("Remove this list", icon=":material/delete:"):
            st.html(panels.note("The list is forgotten. Verdicts on its features stay."))
            st.button("Remove it", key="audit_remove", on_click=_remove, args=(bundle, listed.name))
        make(store, bundle)
    files(store, bundle, found)


def make(store: Store, bundle: BundleKey) -> None:
    """The form that makes a list."""
    st.subheader("Make a list")
    ways = [*queries.audits.PICKS, LINK]
    is_linked = bool(st.query_params.get("made_from"))
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    if "audit_pick" not in st.session_state:
        st.session_state.audit_pick = LINK if is_linked else ways[0]
    pick = row.selectbox("Features", ways, key="audit_pick", width=320)
    n = row.number_input("At most", 1, MOST, 50, key="audit_most", width=120)
    seed = 0
    if pick == queries.audits.RANDOM:
        seed = row.number_input("Seed", 0, 10**9, 0, key="audit_seed", width=120, help="The same seed, the same sample")
    link = ""
    if pick == LINK:
        says = "Filter and sort the Features page, then copy its address here"
        link = st.text_input("Address", key="made_from", bind="query-params", help=says, placeholder="features?…")
    try:
        ids, there, origin = _picked(store, pick, int(n), int(seed), link)
    except LfpError as error:
        st.html(panels.note(str(error)))
        return
    st.html(panels.note(f"The list will hold {count(len(ids))} of {count(there)} features."))
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    name = row.text_input("Name of the list", key="audit_list_name", max_chars=80, placeholder=f"{pick}, {len(ids)}")
    made = AuditList(name.strip() or f"{pick}, {len(ids)}", tuple(ids), origin, audits.reviewer())
    row.button("Make the list", type="primary", on_click=_make, args=(bundle, made), disabled=not ids)


def items(store: Store, listed: AuditList, latest: Sequence[Verdict], *, go: Callable[[int], None]) -> None:
    """The list as a table; a click goes to that item. Blind, labels show where the reviewer has answered."""
    name = audits.reviewer()
    mine = {one.feature_id: one for one in latest if one.reviewer == name and one.is_review}
    by = {id_: sum(one.feature_id == id_ and one.is_review for one in latest) for id_ in listed.feature_ids}
    hidden = st.session_state.blind and not public_mode.is_public()
    rows = [
        {
            "item": at,
            "feature": one.feature_id,
            "layer": one.layer,
            "yours": _said(mine.get(one.feature_id)),
            "reviewers": by[one.feature_id],
            "contribution": one.mean_abs_contribution,
            "label": "hidden" if hidden and one.feature_id not in mine else shortened(one.description or "–", 120),
        }
        for at, one in enumerate(ask(queries.audits.audited_features, store, listed.feature_ids), 1)
    ]
    key = permalinks.key_for("audit_items", listed.uid, len(latest))
    st.dataframe(
        pa.Table.from_pylist(rows),
        hide_index=True,
        placeholder="–",
        key=key,
        height=min(38 * len(rows) + 40, 420),
        on_select=lambda: _go_to(key, go),
        selection_mode="single-cell",
        column_config={
            "item": st.column_config.NumberColumn("Item", width=60),
            "feature": st.column_config.NumberColumn("Feature", format="#%d", width=75),
            "layer": st.column_config.NumberColumn("Layer", width=60),
            "yours": st.column_config.TextColumn("You said", width=170),
            "reviewers": st.column_config.NumberColumn("Reviewers", width=85),
            "contribution": st.column_config.NumberColumn("Contribution", format="%.5f", width=100),
            "label": st.column_config.TextColumn("Label", width=380),
        },
    )


def files(store: Store, bundle: BundleKey, found: audits.Known) -> None:
    """Downloads of verdicts, lists and labels, and the way in."""
    st.subheader("Files")
    name = audits.reviewer()
    latest = audit.newest(found.history)
    own = audit.human_table(latest, name)
    with st.container(horizontal=True):
        if found.history:
            frame.download(lambda: audit.verdict_table(bundle, found.history), name="verdicts", label="All verdicts")
        if found.lists:
            frame.download(lambda: audit.list_table(bundle, found.lists), name="lists", label="All lists")
        if own.num_rows:
            frame.download(lambda: own, name="human-labels", label="Your own labels")
    if own.num_rows:
        how = "precompute label BUNDLE --labeller human --name NAME --from human-labels.csv"
        n = f"{own.num_rows} feature{'s' if own.num_rows > 1 else ''}"
        st.html(panels.note(f"Your own labels are your words on {n}; put them into the bundle with: {how}"))
    if public_mode.is_public():
        return
    kinds = {"type": ["csv", "json", "parquet"], "max_upload_size": 50}
    with st.container(border=True):
        st.file_uploader("Bring verdicts or lists from a file", key="audit_file", **kinds)
        n_features = store.manifest.tables["features"].rows
        held = st.session_state.get("audit_file") is not None
        st.button("Bring them in", on_click=_bring, args=(bundle, n_features), disabled=not held)


def _picked(store: Store, pick: str, n: int, seed: int, link: str) -> tuple[list[int], int, str]:
    """The features picked, how many there were to pick from, and in words where they are from."""
    if pick != LINK:
        ids = ask(queries.audits.pick_features, store, pick, limit=n, seed=seed)
        there = ask(queries.audits.count_picked, store, pick)
        return ids, there, f"{pick}, seed {seed}" if pick == queries.audits.RANDOM else pick
    asked = link.strip().split("?", 1)[-1]
    named = parse_qs(asked).get("bundle", [permalinks.bundle_name()])[0]
    if named != permalinks.bundle_name():
        raise AuditError(f"That address is of the bundle {named}; open it, or copy the address from this one.")
    view = filters.from_walk(asked)
    wanted = filters.wanted_in(store, view)
    rows = ask(queries.features.features, store, wanted, order=filters.order_of(view), limit=n)
    there = ask(queries.features.count_features, store, wanted)
    return rows["feature_id"].to_pylist(), there, f"Features page, {visible(asked) or 'no filter'}"


def _make(bundle: BundleKey, made: AuditList) -> None:
    try:
        kept = audits.opened().add_list(bundle, made)
    except AuditError as error:
        audits.tell(str(error))
        return
    st.session_state.audit_list, st.session_state.item = kept.name, 1
    st.session_state.part = permalinks.QueueView().part


def _remove(bundle: BundleKey, name: str) -> None:
    try:
        audits.opened().remove_list(bundle, name)
    except AuditError as error:
        audits.tell(str(error))


def _bring(bundle: BundleKey, n_features: int) -> None:
    file = st.session_state.audit_file
    try:
        brought = audit.read_file(
            audits.opened(), bundle, name=file.name, content=file.getvalue(), n_features=n_features
        )
    except AuditError as error:
        audits.tell(str(error))
        return
    told = [
        f"{count(brought.n_new)} new verdicts" if brought.n_new else "",
        f"{count(brought.n_known)} known before" if brought.n_known else "",
        f"{count(brought.n_lists)} new lists" if brought.n_lists else "",
        f"{count(brought.n_other)} rows of other bundles left out" if brought.n_other else "",
    ]
    audits.tell(f"{file.name}: {', '.join(part for part in told if part) or 'nothing new'}")


def _go_to(key: str, go: Callable[[int], None]) -> None:
    cells = st.session_state[key].selection.cells
    if cells:
        go(cells[0][0] + 1)


def _said(one: Verdict | None) -> str:
    if one is None:
        return ""
    return " · ".join(part for part in (one.verdict, one.related and f"related: {one.related}") if part)
