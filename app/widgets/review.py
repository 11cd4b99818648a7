"""Review lists: how they are made, what is in them, what came of them, and audits as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import parse_qs

import pyarrow as pa
import streamlit as st

from app.components.feature import verdicts
from app.components.html import panels
from app.session import audits, bundles, callbacks, permalinks
from app.session.audits import Audits
from app.session.cache import ask
from app.widgets import filters, frame
from lfp import audit
from lfp.audit import ANSWERS, VERDICTS, AuditList, BundleKey, Verdict, agreement
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.errors import AuditError, LfpError
from lfp.report.formatting import count, percent
from lfp.util.sanitize import shortened, visible
from lfp.util.types import SITE_NAMES

LINK = "a list of the Features page"
LARGEST_MB = 50
"""Megabytes of a file of verdicts at most."""
LONGEST = 10_000
"""Features of a list at most."""
QUESTIONS = {"about the feedback": "related", "label right": "verdict"}
"""What two reviewers may agree on, and the field of a verdict that holds it."""
MOST_DIFFERENCES = 200


def show_no_list(store: Store, bundle: BundleKey, found: Audits) -> None:
    """Draw the page of a bundle without lists."""
    if bundles.is_public():
        st.html(panels.note("This bundle has no review lists. Audits are read-only here."))
        return
    st.html(panels.note("No review list yet. A list holds the features to review, in order."))
    _show_list_form(store, bundle)
    _show_files(store, bundle, found)


def show_lists(store: Store, bundle: BundleKey, listed: AuditList, found: Audits) -> None:
    """Draw where the chosen list is from, the form that makes another, and files."""
    origin = " · ".join(part for part in (listed.origin, listed.created_by, listed.created_at[:10]) if part)
    st.html(panels.note(f"“{listed.name}” holds {count(len(listed.feature_ids))} features: {origin}."))
    if not bundles.is_public():

        def remove() -> None:
            try:
                audits.open_store().remove_list(bundle, listed.name)
            except AuditError as error:
                audits.leave_message(str(error))

        with st.popover("Remove this list", icon=":material/delete:"):
            st.html(panels.note("The list is deleted. Verdicts on its features stay."))
            st.button("Remove it", key="audit_remove", on_click=callbacks.guard(remove))
        _show_list_form(store, bundle)
    _show_files(store, bundle, found)


def _show_list_form(store: Store, bundle: BundleKey) -> None:
    st.subheader("Make a list")
    if "audit_pick" not in st.session_state:
        st.session_state.audit_pick = LINK if st.query_params.get("made_from") else next(iter(queries.features.PICKS))
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    pick = row.selectbox("Features", [*queries.features.PICKS, LINK], key="audit_pick", width=320)
    n = row.number_input("At most", 1, LONGEST, 50, key="audit_most", width=120)
    seed, link = 0, ""
    if pick == queries.features.RANDOM:
        says = "The same seed gives the same sample"
        seed = row.number_input("Seed", 0, 10**9, 0, key="audit_seed", width=120, help=says)
    if pick == LINK:
        says = "Filter and sort the Features page, then copy its address here"
        link = st.text_input("Address", key="made_from", bind="query-params", help=says, placeholder="features?…")
    try:
        ids, total, origin = _pick_features(store, pick, n, seed, link)
    except LfpError as error:
        st.html(panels.note(str(error)))
        return
    st.html(panels.note(f"The list will hold {count(len(ids))} of {count(total)} features."))
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    name = row.text_input("Name of the list", key="audit_list_name", max_chars=80, placeholder=f"{pick}, {len(ids)}")
    new = AuditList(name.strip() or f"{pick}, {len(ids)}", tuple(ids), origin, audits.reviewer())

    def make() -> None:
        try:
            saved = audits.open_store().add_list(bundle, new)
        except AuditError as error:
            audits.leave_message(str(error))
            return
        st.session_state.audit_list, st.session_state.item = saved.name, 1
        st.session_state.part = permalinks.QueueView().part

    row.button("Make the list", type="primary", on_click=callbacks.guard(make), disabled=not ids)


def _pick_features(store: Store, pick: str, n: int, seed: int, link: str) -> tuple[list[int], int, str]:
    """Return the features picked, how many there were to pick from, and a description of where they are from."""
    if pick != LINK:
        ids = ask(queries.features.pick_features, store, pick, limit=n, seed=seed)
        total = ask(queries.features.count_picked, store, pick)
        return ids, total, f"{pick}, seed {seed}" if pick == queries.features.RANDOM else pick
    query = link.strip().split("?", 1)[-1]
    bundle = parse_qs(query).get("bundle", [bundles.bundle_name()])[0]
    if bundle != bundles.bundle_name():
        raise AuditError(f"That address is of the bundle {bundle}; open it, or copy the address from this one.")
    view = filters.from_walk(query)
    wanted = filters.filter_of(view, store)
    rows = ask(queries.features.features, store, wanted, order=filters.order_of(view), limit=n)
    total = ask(queries.features.count_features, store, wanted)
    return rows["feature_id"].to_pylist(), total, f"Features page, {visible(query) or 'no filter'}"


def show_items(store: Store, listed: AuditList, latest: Sequence[Verdict], *, go: Callable[[int], None]) -> None:
    """Draw the list as a table; a click opens that item. In blind mode, labels show where the reviewer has answered."""
    name = audits.reviewer()
    reviews = [verdict for verdict in latest if verdict.is_review]
    by_me = {verdict.feature_id: verdict for verdict in reviews if verdict.reviewer == name}
    is_hidden = st.session_state.blind and not bundles.is_public()
    rows, site_column = [], filters.site_column(store)
    for at, feature in enumerate(ask(queries.features.audited_features, store, listed.feature_ids), 1):
        own = by_me.get(feature.feature_id)
        answers = (own.verdict, own.related and f"related: {own.related}") if own else ()
        rows.append(
            {
                "item": at,
                "feature": feature.feature_id,
                "layer": feature.layer,
                **dict.fromkeys(site_column, SITE_NAMES.get(feature.site, feature.site)),
                "yours": " · ".join(part for part in answers if part),
                "reviewers": sum(verdict.feature_id == feature.feature_id for verdict in reviews),
                "contribution": feature.mean_abs_contribution,
                "label": "hidden" if is_hidden and not own else shortened(feature.description or "–", 120),
            }
        )
    key = permalinks.widget_key("audit_items", listed.uid, len(latest))

    def open_item() -> None:
        if cell := frame.first_cell(st.session_state[key], len(rows)):
            go(cell[0] + 1)

    st.dataframe(
        pa.Table.from_pylist(rows),
        hide_index=True,
        placeholder="–",
        key=key,
        height=min(38 * len(rows) + 40, 420),
        on_select=callbacks.guard(open_item),
        selection_mode="single-cell",
        column_config={
            "item": st.column_config.NumberColumn("Item", width=60),
            "feature": st.column_config.NumberColumn("Feature", format="#%d", width=75),
            "layer": st.column_config.NumberColumn("Layer", width=60),
            "site": st.column_config.TextColumn("Site", width=115),
            "yours": st.column_config.TextColumn("Your verdict", width=170),
            "reviewers": st.column_config.NumberColumn("Reviewers", width=85),
            "contribution": st.column_config.NumberColumn("Contribution", format="%.2g", width=100),
            "label": st.column_config.TextColumn("Label", width=380),
        },
    )


def _show_files(store: Store, bundle: BundleKey, found: Audits) -> None:
    """Draw the downloads of verdicts, lists and labels, and the upload."""
    st.subheader("Files")
    own = audit.human_table(audit.newest(found.history), audits.reviewer())
    with st.container(horizontal=True):
        if found.history:
            frame.download(lambda: audit.verdict_table(bundle, found.history), name="verdicts", label="All verdicts")
        if remarks := audits.read_remarks(bundle)[0]:
            frame.download(lambda: audit.remark_table(bundle, remarks), name="remarks", label="All remarks")
        if found.lists:
            frame.download(lambda: audit.list_table(bundle, found.lists), name="lists", label="All lists")
        if own.num_rows:
            frame.download(lambda: own, name="human-labels", label="Your labels")
    if own.num_rows:
        command = "precompute label BUNDLE --labeller human --name NAME --from human-labels.csv"
        n = f"{own.num_rows} feature{'s' if own.num_rows > 1 else ''}"
        st.html(panels.note(f"You labelled {n}. To add your labels to the bundle: {command}"))
    if bundles.is_public():
        return

    def import_file() -> None:
        file, tables = st.session_state.audit_file, store.manifest.tables
        sizes = {"n_features": tables["features"].rows, "n_texts": tables["texts"].rows}
        try:
            read = audit.read_file(audits.open_store(), bundle, name=file.name, content=file.getvalue(), **sizes)
        except AuditError as error:
            audits.leave_message(str(error))
            return
        counts = {
            "new verdicts": read.n_new,
            "new remarks": read.n_remarks,
            "already known": read.n_known,
            "new lists": read.n_lists,
            "rows of other bundles left out": read.n_other,
        }
        says = ", ".join(f"{count(n)} {what}" for what, n in counts.items() if n)
        audits.leave_message(f"{file.name}: {says or 'nothing new'}")

    with st.container(border=True):
        st.file_uploader(
            "Import verdicts, remarks or lists", key="audit_file", type=["csv", "json", "parquet"],
            max_upload_size=LARGEST_MB,
        )  # fmt: skip
        st.button("Import", on_click=callbacks.guard(import_file), disabled=st.session_state.get("audit_file") is None)


def show_results(store: Store, listed: AuditList, latest: Sequence[Verdict]) -> None:
    """Draw the results of a list, or of the whole bundle: labels judged, reviewers, and their agreement."""
    is_whole = st.toggle("Count all reviewed features, not only this list’s", key="whole", bind="query-params")
    inside = set(listed.feature_ids)
    reviews = [verdict for verdict in latest if verdict.is_review and (is_whole or verdict.feature_id in inside)]
    if not reviews:
        st.html(panels.note("Nothing has been reviewed yet."))
        return
    names = sorted({verdict.reviewer for verdict in reviews})
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Labels judged")
        st.html(verdicts.tally(reviews))
        if listed.origin.startswith(queries.features.RANDOM) and not is_whole:
            st.html(panels.note("The list is a random sample, so these shares estimate those of all labels."))
    with right:
        st.subheader("Reviewers")
        rows = []
        for name in names:
            own = [verdict for verdict in reviews if verdict.reviewer == name]
            ids = tuple(sorted(verdict.feature_id for verdict in own))
            share = ask(queries.features.contribution_share, store, ids)
            rows.append([name, str(len(own)), str(sum(verdict.is_blind for verdict in own)), percent(share)])
        st.html(panels.table(["reviewer", "features", "blind", "share of contributions"], rows))
    st.subheader("Agreement")
    if len(names) < 2:
        st.html(panels.note("Agreement needs two reviewers. So far there is one."))
    else:
        _show_agreement(store, reviews, names)


def _show_agreement(store: Store, reviews: Sequence[Verdict], names: Sequence[str]) -> None:
    """Draw the choice of two reviewers and a question, their kappa, and the features on which they differ."""
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    with row:
        question = QUESTIONS[frame.choose_one("On", QUESTIONS, key="question")]
    me = audits.reviewer()
    index = names.index(me) if me in names else 0
    first = row.selectbox("Reviewer", names, index=index, key="audit_first", width=180)
    others = [name for name in names if name != first]
    second = row.selectbox("and", others, key=f"audit_second_{first}", width=180)

    def answer(verdict: Verdict) -> str:
        return getattr(verdict, question) or ""

    given = {(review.feature_id, review.reviewer): review for review in reviews if answer(review)}
    ids = sorted({id_ for id_, name in given if name == first} & {id_ for id_, name in given if name == second})
    pairs = [(given[id_, first], given[id_, second]) for id_ in ids]
    found = agreement(
        [answer(a) for a, _ in pairs],
        [answer(b) for _, b in pairs],
        answers=ANSWERS if question == "related" else VERDICTS,
    )
    st.html(verdicts.kappa(found, first, second))
    if question == "verdict" and (n := sum(a.label != b.label for a, b in pairs)):
        st.html(panels.note(f"On {n} of these features they judged different labels: it was relabelled in between."))
    differing = [(a, b) for a, b in pairs if answer(a) != answer(b)]
    if differing:
        more = f"; the first {MOST_DIFFERENCES}" if len(differing) > MOST_DIFFERENCES else ""
        st.html(panels.note(f"They differ on {len(differing)}{more}:"))
        shown = differing[:MOST_DIFFERENCES]
        features = ask(queries.features.audited_features, store, tuple(a.feature_id for a, _ in shown))
        named = {feature.feature_id: feature for feature in features}
        st.html(verdicts.differences(shown, named, answer=answer, where=permalinks.feature_href))
