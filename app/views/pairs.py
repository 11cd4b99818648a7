"""Preference pairs: chosen and rejected side by side, the features behind the difference, and what length would say."""

from dataclasses import replace

import streamlit as st

from app.components.html import panels, wording
from app.components.text import ledgers, reading, tokens
from app.components.text import reading as pairing
from app.session import cache, permalinks
from app.session.cache import ask
from app.widgets import frame, paging
from lfp.bundle import queries
from lfp.errors import NotInBundleError

PAGE = 8


def filters():
    hint = "words that one of the two responses must contain"
    st.text_input("Find", key="said", bind="query-params", type="search", placeholder=hint)
    bound = {"bind": "query-params", "width": 165}
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    row.selectbox("Pairs", ["sampled", "all"], key="kept", help=wording.SAMPLED_PAIRS, **bound)
    row.selectbox("The estimate is", ["any", "right", "wrong"], key="verdict", help=wording.VERDICT, **bound)
    row.selectbox("Split", ["any", "train", "held_out"], key="half", **bound)
    names = list(queries.texts.PAIR_SORTS)
    at_first = names.index(permalinks.PairsView().rank_by)
    row.selectbox("Sort by", names, index=at_first, key="rank_by", help=wording.MARGIN, **bound)
    row.selectbox("Order", ["descending", "ascending"], key="towards", **bound)
    return permalinks.view_of(permalinks.PairsView)


def listing(store, view):
    """One page of pairs; a click on a row opens it."""
    has_sampled = ask(queries.texts.count_pairs, store, queries.texts.PairFilter(is_sampled=True)) > 0
    is_sampled = view.kept == "sampled" and has_sampled
    wanted = queries.texts.PairFilter(view.said, view.half, view.verdict, is_sampled=is_sampled)
    n = ask(queries.texts.count_pairs, store, wanted)
    if not n:
        st.html(panels.note(wording.NO_PAIR_PASSES))
        return paging.Listing([])
    order = queries.common.Order(view.rank_by, view.towards == "descending")
    found = paging.one_page(
        n, size=PAGE, key="leaf", noun="pair", number="pair_id", table=table,
        rows=lambda **window: ask(queries.texts.pairs, store, wanted, order=order, **window),
    )  # fmt: skip
    frame.download(lambda: queries.texts.pairs(store, wanted, order=order), name="pairs")
    return found


def table(rows):
    number, words = st.column_config.NumberColumn, st.column_config.TextColumn
    columns = {
        "pair_id": number("Pair", format="#%d", width=58, pinned=True),
        "chosen_response": words("Chosen begins", width=305),
        "rejected_response": words("Rejected begins", width=305),
        "margin": number("Margin", format="%+.3f", width=80, help=wording.MARGIN),
        "implicit_margin": number("Implicit margin", format="%+.2f", width=115, help="In nats"),
        "length": number("Longer by", format="%+d", width=85, help="Tokens, chosen less rejected"),
        "split": words("Split", width=80),
    }
    paging.table(pairing.listed(rows), rows["pair_id"].to_pylist(), name="pair_table", opens="pair", columns=columns)


def prompt(chosen, rejected, probe):
    """What both answer, once, where it is the same."""
    asked = pairing.prompt(chosen, rejected, probe)
    if asked:
        with st.expander("The prompt, which both answer", expanded=len(asked) < 400):
            st.html(panels.quoted(asked))


def side(store, text, probe, *, name, n_tokens, limits):
    st.subheader(name)
    st.html(pairing.side(text, tokens=n_tokens))
    first = pairing.first_shown(text, probe)
    parts = tokens.pieces(text.text, text.token_starts)[first:]
    if not parts:
        st.html(panels.note("This response is empty."))
        return
    rows = [replace(row, values=row.values[first:]) for row in reading.rows(text, limits, probe)]
    tips = [ledgers.tip(one) for one in ask(queries.texts.token_ledgers, store, text.text_id)][first:]
    st.html(tokens.sheet(parts, rows, numbers=st.session_state.side_values, tips=tips))
    where = permalinks.to("inputs", permalinks.InputsView(text=text.text_id, texts="all"))
    st.html(panels.anchor(where, f"Open text {text.text_id} in Inputs"))


def difference(store, pair):
    st.subheader("What makes the difference")
    found = ask(queries.ledgers.pair_ledger, store, pair.pair_id)
    if found is None:
        st.html(panels.note(wording.NO_PAIR_LEDGER))
        return
    st.html(panels.note(wording.PAIR_LEDGER))
    frame.ledger(ledgers.of_contrast(found), key="pair_chart")
    every = lambda: ledgers.listed(ask(queries.ledgers.pair_ledger, store, pair.pair_id, limit=None).shown)  # noqa: E731
    if found.shown:
        frame.every_part(every, key="every_difference", name=f"pair_{pair.pair_id}_differences")


def read(store, pair):
    probe = ask(queries.common.headline, store)
    chosen, rejected = (ask(queries.texts.text, store, number) for number in (pair.chosen_id, pair.rejected_id))
    st.html(pairing.margins(pair))
    prompt(chosen, rejected, probe)
    limits = ask(queries.texts.score_limits, store)
    st.html(tokens.sheet_legend(reading.rows(chosen, limits, probe)))
    frame.beside(
        lambda: side(store, chosen, probe, name="Chosen", n_tokens=pair.chosen_tokens, limits=limits),
        lambda: side(store, rejected, probe, name="Rejected", n_tokens=pair.rejected_tokens, limits=limits),
    )
    frame.beside(lambda: difference(store, pair), lambda: length(store, pair), widths=[7, 5])


def length(store, pair):
    st.subheader("Length")
    st.html(pairing.length(pair) + pairing.accuracies(ask(queries.run.figures, store, "preference_accuracy")))


def show():
    store = cache.current()
    st.html(panels.heading(store.manifest.title, "Pairs"))
    if not ask(queries.texts.count_pairs, store, queries.texts.PairFilter()):
        where = permalinks.to("inputs", permalinks.InputsView())
        st.html(panels.note(wording.NO_PAIRS) + panels.anchor(where, "Read single texts in Inputs"))
        return
    found = listing(store, filters())
    chosen = paging.choose(found, "Pair number", key="pair", page_key="leaf", values_key="side_values")
    if chosen is None:
        return
    try:
        read(store, ask(queries.texts.pair, store, chosen))
    except NotInBundleError as error:
        st.html(panels.notice("No such pair", str(error)))


show()
