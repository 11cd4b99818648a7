"""Pairs: chosen and rejected responses side by side, the features behind the difference, and the effect of length."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import streamlit as st

from app.components.html import exports, panels
from app.components.text import ledgers, reading, tokens
from app.session import cache, names, permalinks
from app.session.cache import ask
from app.session.option_words import words_for
from app.session.permalinks import PairsView
from app.widgets import frame, paging, verdict_panel
from lfp.bundle import queries
from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.texts import Pair, PairFilter, ScoreLimits, Text
from lfp.bundle.store.connection import Store
from lfp.errors import NotInBundleError
from lfp.evaluation.results import FATES
from lfp.report.figures import points
from lfp.report.running_text import pieces
from lfp.report.sentences.models import forecast_sentence
from lfp.util.sanitize import escaped

PAGE_SIZE = 12
MARGIN = "Estimate of the chosen response minus that of the rejected one."


def show_filters() -> PairsView:
    hint = "words that one of the two responses must contain"
    st.text_input("Find", key="said", bind="query-params", type="search", placeholder=hint)
    bound: dict[str, Any] = {"bind": "query-params", "width": 165}
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    sampled = "Sampled: a random sample with the activations of both sides, whose difference can be split by feature."
    row.selectbox("Pairs", ["sampled", "all"], key="kept", help=sampled, **bound)
    right = "Right: it ranks the chosen response above the rejected one."
    row.selectbox("Implicit reward is", ["any", "right", "wrong"], key="tuned_verdict", help=right, **bound)
    row.selectbox("Probe estimate is", ["any", "right", "wrong"], key="verdict", help=right, **bound)
    row.selectbox("Split", ["any", "train", "held_out"], key="half", format_func=words_for("half"), **bound)
    sorts = list(queries.texts.PAIR_SORTS)
    first = sorts.index(PairsView().rank_by)
    row.selectbox("Sort by", sorts, index=first, key="rank_by", help=MARGIN, **bound)
    row.selectbox("Order", ["descending", "ascending"], key="towards", **bound)
    return permalinks.current_view(PairsView)


def show_list(store: Store, view: PairsView) -> paging.Page:
    """Draw one page of pairs, each opened by a click; return the page."""
    has_sampled = ask(queries.texts.count_pairs, store, PairFilter(is_sampled=True)) > 0
    wanted = PairFilter(
        view.said, view.half, view.verdict, view.tuned_verdict, is_sampled=view.kept == "sampled" and has_sampled
    )
    n = ask(queries.texts.count_pairs, store, wanted)
    if not n:
        st.html(panels.note("No matches. Use fewer words, or look at all pairs."))
        return paging.Page([])
    order = queries.common.Order(view.rank_by, view.towards == "descending")
    page = paging.show_page(
        n, size=PAGE_SIZE, key="leaf", noun="pair", id_column="pair_id",
        rows=lambda **window: ask(queries.texts.pairs, store, wanted, order=order, **window), table=show_table,
    )  # fmt: skip
    frame.download(lambda: queries.texts.pairs(store, wanted, order=order), name="pairs")
    return page


def show_table(rows: pa.Table) -> None:
    number, words = st.column_config.NumberColumn, st.column_config.TextColumn
    columns = {
        "pair_id": number("Pair", format="#%d", width=58, pinned=True),
        "chosen_response": words("Chosen begins", width=110),
        "rejected_response": words("Rejected begins", width=110),
        "margin": number("Margin", format="%+.2f", width=66, help=MARGIN),
        "implicit_margin": number("Implicit", format="%+.2f", width=66, help="Margin of the implicit reward, nats"),
        "length": number("Longer by", format="%+d", width=85, help="Tokens, chosen minus rejected"),
        "split": words("Split", width=80),
    }
    ids = rows["pair_id"].to_pylist()
    shown = reading.for_screen(rows, reading.PAIR_COLUMNS, longest=110)
    paging.show_table(shown, ids, name="pair_table", opens="pair", columns=columns)


def show_response(
    store: Store, text: Text, probe: Probe | None, *, name: str, n_tokens: int, limits: ScoreLimits
) -> None:
    """Draw one side of a pair: its scores as a whole and per token."""
    st.subheader(name)
    length = f"{n_tokens:,} token{'s' if n_tokens != 1 else ''}"
    st.html(panels.facts({"response": length, **reading.scores(text)}))
    first = reading.first_token(text, probe)
    parts = pieces(text.text, text.token_starts)[first:]
    if not parts:
        st.html(panels.note("This response is empty."))
        return
    rows = [replace(row, values=row.values[first:]) for row in reading.score_rows(text, limits, probe)]
    split = names.name_parts(store, ask(queries.texts.token_ledgers, store, text.text_id)[first:])
    tips = [ledgers.token_tip(ledger) for ledger in split]
    st.html(tokens.sheet(parts, rows, numbers=st.session_state.side_values, tips=tips))
    if says := reading.largest_tokens(parts, (text.token_implicit_reward or [])[first:]):
        st.html(panels.note(says))
    href = permalinks.href("inputs", permalinks.InputsView(text=text.text_id, texts="all"))
    st.html(panels.anchor(href, f"Open text {text.text_id} in Inputs"))


def show_difference(store: Store, pair: Pair) -> None:
    st.subheader("What makes the difference")
    found = ask(queries.ledgers.pair_ledger, store, pair.pair_id)
    if found is None:
        says = "This pair has no stored activations, so its difference cannot be split. Look at sampled pairs."
        st.html(panels.note(says))
        return
    says = (
        "Contribution of each feature to the estimate, chosen minus rejected. Blue: in favour of the chosen response. "
        "The intercept cancels."
    )
    st.html(panels.note(says))
    frame.show_ledger(ledgers.from_contrast(*names.name_parts(store, [found])), key="pair_chart")

    def all_parts() -> pa.Table:
        whole = ask(queries.ledgers.pair_ledger, store, pair.pair_id, limit=None)
        return ledgers.all_parts(whole.shown if whole else ())

    if found.shown:
        frame.list_contributions(all_parts, key="every_difference", name=f"pair_{pair.pair_id}_differences")


def show_length(store: Store, pair: Pair) -> None:
    st.subheader("Length")
    figures = ask(queries.run.figures, store, "preference_accuracy")
    st.html(reading.length_note(pair) + reading.accuracy_table(figures))


def show_pair(store: Store, pair: Pair) -> None:
    probe = ask(queries.common.headline, store)
    chosen, rejected = (ask(queries.texts.text, store, number) for number in (pair.chosen_id, pair.rejected_id))
    st.html(reading.margins(pair))
    if prompt := reading.shared_prompt(chosen, rejected, probe):
        with st.expander("The prompt of both responses", expanded=len(prompt) < 400):
            st.html(f'<pre class="lfp-prompt">{escaped(prompt)}</pre>')
    limits = ask(queries.texts.score_limits, store)
    st.html(tokens.sheet_legend(reading.score_rows(chosen, limits, probe)))
    frame.side_by_side(
        lambda: show_response(store, chosen, probe, name="Chosen", n_tokens=pair.chosen_tokens, limits=limits),
        lambda: show_response(store, rejected, probe, name="Rejected", n_tokens=pair.rejected_tokens, limits=limits),
    )
    frame.side_by_side(lambda: show_difference(store, pair), lambda: show_length(store, pair), widths=[7, 5])


def show_blind(store: Store, pair: Pair) -> None:
    """Draw the prompt and both responses alone."""
    chosen, rejected = (ask(queries.texts.text, store, number) for number in (pair.chosen_id, pair.rejected_id))
    st.html(panels.note(verdict_panel.BLIND_REMARK))
    for name, text in (("Chosen", chosen), ("Rejected", rejected)):
        st.subheader(name)
        st.html(panels.plain_text(text.text))


def show_forecast(store: Store) -> None:
    """Draw what the pairs held of the base model's features before tuning, and what tuning changed of them."""
    features = ask(queries.run.forecast, store)
    if not features:
        return
    st.subheader("In the pairs before tuning, and learned from them")
    frame.show_figure(points.forecast(features), key="forecast")
    says = forecast_sentence(ask(queries.run.figures, store, "forecast"))
    frame.caption(says, lambda: exports.as_table(type(features[0]), features), name="forecast")
    for column, fate in zip(st.columns(2, gap="large"), FATES[1:3], strict=True):
        column.markdown(f"**Features {fate}**")
        column.html(reading.fates(features, fate))


def show() -> None:
    store = cache.current()
    st.html(panels.heading(store.manifest.title, "Pairs"))
    if not ask(queries.texts.count_pairs, store, PairFilter()):
        href = permalinks.href("inputs", permalinks.InputsView())
        says = "This bundle holds no preference pairs: its model was tuned on a reward."
        if ask(queries.texts.has_pairs, store):
            says = "No pair is whole here: of each, the bundle keeps one response at most."
        none = panels.note(says)
        st.html(none + panels.anchor(href, "Read single texts in Inputs"))
        return
    left, right = st.columns([5, 8], gap="large")
    with left:
        page = show_list(store, show_filters())
    with right:
        chosen = paging.choose_row(page, "Pair number", key="pair", page_key="leaf", values_key="side_values")
        if chosen is not None:
            try:
                pair = ask(queries.texts.pair, store, chosen)
                frame.name_tab(f"Pair {pair.pair_id}")
                if verdict_panel.is_remark_hidden(store, "pair", str(chosen)):
                    show_blind(store, pair)
                else:
                    show_pair(store, pair)
                verdict_panel.show_remark_bar(store, "pair", str(chosen), "Are the scores of this pair right?")
            except NotInBundleError as error:
                st.html(panels.notice("No such pair", str(error)))
    show_forecast(store)


show()
