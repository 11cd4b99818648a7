"""Find a text; see true feedback, implicit reward and estimate a token, and which features made the estimate."""

import streamlit as st

from app.components.html import panels, tables, wording
from app.components.text import ledgers, reading, tokens
from app.session import cache, permalinks, public_mode
from app.session.cache import ask
from app.widgets import frame, paging
from lfp.bundle import queries
from lfp.errors import NotInBundleError
from lfp.util import sanitize

PAGE = 12
ACCOUNTS = {  # ledgers of a text: the question, and how its answer is drawn
    "estimate": (queries.ledgers.ledger, ledgers.of_estimate),
    "against the average text": (queries.ledgers.average_ledger, ledgers.of_contrast),
    "raw estimate, with what is missed": (queries.ledgers.raw_ledger, ledgers.of_raw),
}


def filters(store):
    st.text_input(
        "Find", key="words", bind="query-params", type="search", placeholder="words that the text must contain"
    )
    bound = {"bind": "query-params", "width": 165}
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    row.selectbox("Texts", ["sampled", "all"], key="texts", help=wording.SAMPLED, **bound)
    row.selectbox("Split", ["any", "train", "held_out"], key="split", **bound)
    row.selectbox("Sort by", list(queries.texts.TEXT_SORTS), key="by", help=wording.GAPS, **bound)
    row.selectbox("Order", ["descending", "ascending"], key="direction", **bound)
    rated = ask(queries.texts.rating_range, store)
    if rated:
        ends = {"value": None, "step": 1.0, "format": "%g"}  # no limits: another bundle's ratings may have others
        row.number_input("Rating from", key="rated_from", placeholder=f"{rated[0]:g}", **ends, **bound)
        row.number_input("Rating to", key="rated_to", placeholder=f"{rated[1]:g}", **ends, **bound)
    return permalinks.view_of(permalinks.InputsView)


def wanted_of(store, view):
    is_sampled = view.texts == "sampled" and store.manifest.tables["activations"].rows > 0
    return queries.texts.TextFilter(
        words=view.words, split=view.split, is_sampled=is_sampled, rating_low=view.rated_from, rating_high=view.rated_to
    )


def listing(store, view):
    """One page of texts; a click on a row opens it. Returns the texts of the page."""
    wanted = wanted_of(store, view)
    n = ask(queries.texts.count_texts, store, wanted)
    if not n:
        has_texts = store.manifest.tables["texts"].rows
        st.html(panels.note(wording.NO_TEXT_PASSES if has_texts else "This bundle keeps no texts."))
        return paging.Listing([])
    order = queries.common.Order(view.by, view.direction == "descending")
    gap = view.by if view.by in queries.common.TEXT_GAPS else "gap"
    found = paging.one_page(
        n, size=PAGE, key="sheet", noun="text", number="text_id", table=lambda rows: table(rows, gap=gap),
        rows=lambda **window: ask(queries.texts.texts, store, wanted, order=order, **window),
    )  # fmt: skip
    frame.download(lambda: queries.texts.texts(store, wanted, order=order), name="texts")
    return found


def table(rows, *, gap):
    number = st.column_config.NumberColumn
    columns = {
        "text_id": number("Text", format="#%d", width=52, pinned=True),
        "text": st.column_config.TextColumn("Begins", width=145),
        "gap": number("Gap", format="%.2f", width=52, help=wording.gap_sentence(gap)),
        "feedback": number("True", format="%+.2f", width=58, help="True feedback"),
        "predicted": number("Estimate", format="%+.3f", width=76, help="The headline probe’s"),
        "implicit_reward": number("Implicit", format="%+.2f", width=70, help="Implicit reward, nats"),
        "rating": number("Rating", format="%.0f", width=60),
    }
    paging.table(tables.texts(rows), rows["text_id"].to_pylist(), name="text_table", opens="text", columns=columns)


def watch(store, ledger):
    """The feature shown on the tokens: one of the largest, or the one the link names. None where there is none."""
    ids = [part.feature_id for part in ledger.shown]
    named = st.session_state.get("watch") or st.query_params.get("watch")
    if named is not None and str(named).isdigit() and int(named) not in ids:
        ids.append(int(named))
    chosen = (
        st.pills("Show one feature on the tokens", ids, key="watch", bind="query-params", wrap=True) if ids else None
    )
    try:
        return None if chosen is None else ask(queries.feature.feature, store, chosen)
    except NotInBundleError as error:
        st.html(panels.note(f"{error}."))
        return None


def watched_line(store, feature):
    label = wording.best_label(ask(queries.feature.labels, store, feature.feature_id))
    where = permalinks.feature(feature.feature_id)
    says = panels.text(label.description if label else "not described")
    st.html(panels.badge(f"feature {feature.feature_id}") + says + " · " + panels.anchor(where, "Open the feature"))


def sheet(store, text, probe, feature):
    parts = tokens.pieces(text.text, text.token_starts)
    if not parts:
        st.html(panels.note("This text is empty."))
        return
    rows = reading.rows(text, ask(queries.texts.score_limits, store), probe)
    legend, activations, limit = tokens.sheet_legend(rows), [], 0.0
    if feature is not None:
        activations = ask(queries.texts.token_activations, store, text.text_id, feature_id=feature.feature_id)
        limit = feature.max_activation
        legend += tokens.strength_legend(limit, f"activation of feature {feature.feature_id}, behind the tokens")
    tips = [ledgers.tip(one) for one in ask(queries.texts.token_ledgers, store, text.text_id)]
    values = st.session_state.token_values
    st.html(legend + tokens.sheet(parts, rows, activations=activations, limit=limit, numbers=values, tips=tips))
    if tips:
        st.html(panels.note("Point at a token, or move to it with Tab, to see which features it adds by."))


def contributions(store, text, account):
    """The chosen ledger, its sum checked, and every part of it on demand."""
    ask_ledger, drawn = ACCOUNTS[account]
    found = ask(ask_ledger, store, text.text_id)
    if found is None:
        st.html(panels.note(wording.NO_RAW_LEDGER))
        return
    st.html(panels.note(wording.ledger_sentence(found)))
    frame.ledger(drawn(found), key="ledger_chart", on_select=pick_bar)
    every = lambda: ledgers.listed(ask(ask_ledger, store, text.text_id, limit=None).shown)  # noqa: E731
    if found.shown:
        frame.every_part(every, key="every_part", name=f"text_{text.text_id}_contributions")


def pick_bar():
    points = st.session_state.ledger_chart.selection.points
    number = points[0].get("customdata") if points else None
    if isinstance(number, int):
        st.session_state.watch = number


def read(store, text):
    """One text: totals, score sheet, ledger."""
    probe, ledger = ask(queries.common.headline, store), ask(queries.ledgers.ledger, store, text.text_id)
    source = sanitize.source_name(text.source) if public_mode.is_public() else text.source
    st.html(reading.totals(text, source=source))
    feature = watch(store, ledger) if ledger else None
    if feature is not None:
        watched_line(store, feature)
    sheet(store, text, probe, feature)
    st.subheader("What made the estimate")
    if ledger is None:
        st.html(
            panels.note(wording.NO_ACTIVATIONS if probe else "This bundle holds no probe to split the estimate by.")
        )
        return
    names = list(ACCOUNTS)
    which = {"default": names[0], "required": True, "label_visibility": "collapsed", "wrap": True}
    contributions(store, text, st.segmented_control("Ledger", names, key="account", bind="query-params", **which))


def show():
    store = cache.current()
    st.html(panels.heading(store.manifest.title, "Inputs"))
    left, right = st.columns([5, 7], gap="large")
    with left:
        found = listing(store, filters(store))
    with right:
        chosen = paging.choose(found, "Text number", key="text", page_key="sheet", values_key="token_values")
        if chosen is None:
            return
        try:
            read(store, ask(queries.texts.text, store, chosen))
        except NotInBundleError as error:
            st.html(panels.notice("No such text", str(error)))


show()
