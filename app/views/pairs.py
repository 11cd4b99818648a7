"""Preference pairs: chosen and rejected side by side, the features behind the difference, and what length would say."""

from dataclasses import replace

import streamlit as st

from app import cache, frame, state
from app.cache import ask
from app.components import ledgers, pairing, panels, reading, tokens, wording
from app.components.numbers import count
from lfp import queries
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
    names = list(queries.PAIR_SORTS)
    at_first = names.index(state.PairsView().rank_by)
    row.selectbox("Sort by", names, index=at_first, key="rank_by", help=wording.MARGIN, **bound)
    row.selectbox("Order", ["descending", "ascending"], key="towards", **bound)
    return state.view_of(state.PairsView)


def listing(store, view):
    """One page of pairs; a click on a row opens it."""
    has_sampled = ask(queries.count_pairs, store, queries.PairFilter(is_sampled=True)) > 0
    is_sampled = view.kept == "sampled" and has_sampled
    wanted = queries.PairFilter(view.said, view.half, view.verdict, is_sampled=is_sampled)
    n = ask(queries.count_pairs, store, wanted)
    if not n:
        st.html(panels.note(wording.NO_PAIR_PASSES))
        return frame.Listing([])
    st.html(panels.note(f"{count(n)} pair{'s' if n != 1 else ''}. Click a row to read it."))
    slot, order = st.container(), queries.Order(view.rank_by, view.towards == "descending")
    page = st.pagination(-(-n // PAGE), key="leaf", bind="query-params", max_visible_pages=5)
    rows = ask(queries.pairs, store, wanted, order=order, **frame.window(page, PAGE))
    found = frame.Listing.of(rows["pair_id"].to_pylist(), page=page, size=PAGE)
    with slot:
        table(rows.slice(page > 1, len(found.ids)))
    frame.download(lambda: queries.pairs(store, wanted, order=order), name="pairs")
    return found


def table(rows):
    number, words = st.column_config.NumberColumn, st.column_config.TextColumn
    ids = rows["pair_id"].to_pylist()
    key = state.key_for("pair_table", ids)
    st.dataframe(
        pairing.listed(rows),
        hide_index=True,
        placeholder="–",
        key=key,
        on_select=lambda: open_pair(key, ids),
        selection_mode="single-cell",
        height="content",
        row_height=36,
        column_config={
            "pair_id": number("Pair", format="#%d", width=58, pinned=True),
            "chosen_response": words("Chosen begins", width=305),
            "rejected_response": words("Rejected begins", width=305),
            "margin": number("Margin", format="%+.3f", width=80, help=wording.MARGIN),
            "implicit_margin": number("Implicit margin", format="%+.2f", width=115, help="In nats"),
            "length": number("Longer by", format="%+d", width=85, help="Tokens, chosen less rejected"),
            "split": words("Split", width=80),
        },
    )


def open_pair(key, ids):
    cells = st.session_state[key].selection.cells
    if cells and cells[0][0] < len(ids):
        st.session_state.pair = ids[cells[0][0]]


def choose(found):
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    first = found.ids[0] if found.ids else None
    shown = "" if first is None else str(first)
    number = {"min_value": 0, "value": None, "step": 1, "placeholder": shown, "width": 165}
    chosen = row.number_input("Pair number", key="pair", bind="query-params", **number)
    here = first if chosen is None else chosen
    with row:
        frame.steps(found, here, key="pair", page_key="leaf")
    row.toggle("Show numbers", key="side_values", bind="query-params")
    return here


def response_of(text, probe):
    """The first token that is shown: the response's, where the estimate reads nothing before it."""
    reads_response = probe is not None and probe.pooling == "response"
    return text.response_start if reads_response and text.response_start < len(text.token_starts) else 0


def prompt(chosen, rejected, probe):
    """What both answer, once, where it is the same."""
    starts = [text.token_starts[response_of(text, probe)] if text.token_starts else 0 for text in (chosen, rejected)]
    asked = [text.text[:start] for text, start in zip((chosen, rejected), starts, strict=True)]
    if asked[0] and asked[0] == asked[1]:
        with st.expander("The prompt, which both answer", expanded=len(asked[0]) < 400):
            st.html(panels.quoted(asked[0]))


def side(store, text, probe, *, name, n_tokens, limits):
    st.subheader(name)
    st.html(pairing.side(text, tokens=n_tokens))
    first = response_of(text, probe)
    parts = tokens.pieces(text.text, text.token_starts)[first:]
    if not parts:
        st.html(panels.note("This response is empty."))
        return
    rows = [replace(row, values=row.values[first:]) for row in reading.rows(text, limits, probe)]
    tips = [ledgers.tip(one) for one in ask(queries.token_ledgers, store, text.text_id)][first:]
    st.html(tokens.sheet(parts, rows, numbers=st.session_state.side_values, tips=tips))
    where = state.href("inputs", state.InputsView(text=text.text_id, texts="all"), bundle=cache.bundle())
    st.html(panels.anchor(where, f"Open text {text.text_id} in Inputs"))


def difference(store, pair):
    st.subheader("What makes the difference")
    found = ask(queries.pair_ledger, store, pair.pair_id)
    if found is None:
        st.html(panels.note(wording.NO_PAIR_LEDGER))
        return
    st.html(panels.note(wording.PAIR_LEDGER))
    frame.ledger(ledgers.of_contrast(found), key="pair_chart")
    every = lambda: ledgers.listed(ask(queries.pair_ledger, store, pair.pair_id, limit=None).shown)  # noqa: E731
    if found.shown:
        frame.every_part(every, key="every_difference", name=f"pair_{pair.pair_id}_differences")


def read(store, pair):
    probe = ask(queries.headline, store)
    chosen, rejected = (ask(queries.text, store, number) for number in (pair.chosen_id, pair.rejected_id))
    st.html(pairing.margins(pair))
    prompt(chosen, rejected, probe)
    limits = ask(queries.score_limits, store)
    st.html(tokens.sheet_legend(reading.rows(chosen, limits, probe)))
    left, right = st.columns(2, gap="large")
    with left:
        side(store, chosen, probe, name="Chosen", n_tokens=pair.chosen_tokens, limits=limits)
    with right:
        side(store, rejected, probe, name="Rejected", n_tokens=pair.rejected_tokens, limits=limits)
    left, right = st.columns([7, 5], gap="large")
    with left:
        difference(store, pair)
    with right:
        st.subheader("Length")
        st.html(pairing.length(pair) + pairing.accuracies(ask(queries.figures, store, "preference_accuracy")))


def show():
    store = cache.current()
    st.html(panels.heading(store.manifest.title, "Pairs"))
    if not ask(queries.count_pairs, store, queries.PairFilter()):
        where = state.href("inputs", state.InputsView(), bundle=cache.bundle())
        st.html(panels.note(wording.NO_PAIRS) + panels.anchor(where, "Read single texts in Inputs"))
        return
    chosen = choose(listing(store, filters()))
    if chosen is None:
        return
    try:
        read(store, ask(queries.pair, store, chosen))
    except NotInBundleError as error:
        st.html(panels.notice("No such pair", str(error)))


show()
