"""Inputs: a text with its scores per token, and the ledger of its implicit reward or of a probe's estimate."""

from typing import Any

import pyarrow as pa
import streamlit as st

from app.components.html import panels
from app.components.text import ledgers, reading, tokens
from app.session import bundles, cache, names, permalinks
from app.session.cache import ask
from app.session.option_words import WORDS, words_for
from app.session.permalinks import InputsView
from app.widgets import frame, paging, verdict_panel
from lfp.bundle import queries
from lfp.bundle.queries.feature import Feature
from lfp.bundle.queries.implicit_ledgers import Path
from lfp.bundle.queries.texts import Text, TextFilter
from lfp.bundle.store.connection import Store
from lfp.errors import NotInBundleError
from lfp.report.running_text import pieces
from lfp.util import sanitize

PAGE_SIZE = 12
SCORES = {
    "gap": "probe estimate and reward",
    "implicit gap": "implicit reward and reward",
    "rating gap": "reward and human rating",
}
"""The two scores that a gap is between."""
ESTIMATES: dict[str, tuple[Any, Any]] = {  # by URL value: the query, and how its result is drawn
    "estimate": (queries.ledgers.ledger, ledgers.from_estimate),
    "against the average text": (queries.ledgers.average_ledger, ledgers.from_contrast),
    "raw estimate, with what is missed": (queries.ledgers.raw_ledger, ledgers.from_raw),
}
IMPLICIT: dict[str, Path] = {"implicit reward": "full", "implicit reward, same position": "same_position"}
"""Ledgers of the implicit reward by URL value: the paths that they follow."""


def is_split(store: Store) -> bool:
    """Tell whether the bundle splits the implicit reward of any text."""
    return bool(ask(queries.implicit_ledgers.split_texts, store))


def show_filters(store: Store) -> InputsView:
    st.text_input(
        "Find", key="words", bind="query-params", type="search", placeholder="words that the text must contain"
    )
    bound: dict[str, Any] = {"bind": "query-params", "width": 165}
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    sampled = (
        "Sampled: a random sample with full activations. With a ledger: those whose implicit reward is split over "
        "modules or features. Others appear only as feature examples."
    )
    kinds = ["sampled", "all", *(["split"] if is_split(store) else [])]
    row.selectbox("Texts", kinds, key="texts", help=sampled, format_func=words_for("texts"), **bound)
    splits = ["any", "train", "held_out"]
    row.selectbox("Split", splits, key="split", format_func=words_for("split"), **bound)
    sorts, gaps = list(queries.texts.TEXT_SORTS), "Gap = difference of the two percentile ranks."
    row.selectbox(
        "Sort by",
        sorts,
        key="by",
        help=gaps,
        format_func=words_for("by"),
        **bound,
    )
    row.selectbox("Order", ["descending", "ascending"], key="direction", **bound)
    rated = ask(queries.texts.rating_range, store)
    if rated:  # without limits, as another bundle's ratings may have others
        ends: dict[str, Any] = {"value": None, "step": 1.0, "format": "%g"}
        row.number_input("Rating from", key="rated_from", placeholder=f"{rated[0]:g}", **ends, **bound)
        row.number_input("Rating to", key="rated_to", placeholder=f"{rated[1]:g}", **ends, **bound)
    return permalinks.current_view(InputsView)


def show_list(store: Store, view: InputsView) -> paging.Page:
    """Draw one page of texts, each opened by a click; return the page."""
    has_sample = store.manifest.tables["activations"].rows > 0
    wanted = TextFilter(
        words=view.words, split=view.split,
        is_sampled=view.texts == "sampled" and has_sample, is_split=view.texts == "split",
        rating_low=view.rated_from, rating_high=view.rated_to,
    )  # fmt: skip
    n = ask(queries.texts.count_texts, store, wanted)
    if not n:
        has_texts, says = store.manifest.tables["texts"].rows, "No matches. Use fewer words or a wider rating."
        st.html(panels.note(says if has_texts else "This bundle holds no texts."))
        return paging.Page([])
    order = queries.common.Order(view.by, view.direction == "descending")
    gap = view.by if view.by in queries.common.TEXT_GAPS else "gap"
    page = paging.show_page(
        n, size=PAGE_SIZE, key="sheet", noun="text", id_column="text_id",
        rows=lambda **window: ask(queries.texts.texts, store, wanted, order=order, **window),
        table=lambda rows: show_table(rows, gap=gap, start=ask(queries.texts.shared_start, store)),
    )  # fmt: skip
    frame.download(lambda: queries.texts.texts(store, wanted, order=order), name="texts")
    return page


def show_table(rows: pa.Table, *, gap: str, start: str) -> None:
    number = st.column_config.NumberColumn
    columns = {
        "text_id": number("Text", format="#%d", width=52, pinned=True),
        "text": st.column_config.TextColumn("Begins", width=145),
        "gap": number("Gap", format="%.2f", width=52, help=f"Difference of the percentile ranks of {SCORES[gap]}."),
        "feedback": number("Reward", format="%+.2f", width=66),
        "predicted": number("Estimate", format="%+.3f", width=76, help="Probe estimate"),
        "implicit_reward": number("Implicit", format="%+.2f", width=70, help="Implicit reward, nats"),
        "rating": number("Rating", format="%.0f", width=60),
    }
    ids = rows["text_id"].to_pylist()
    shown = reading.for_screen(rows, reading.TEXT_COLUMNS, longest=120, start=start)
    paging.show_table(shown, ids, name="text_table", opens="text", columns=columns)


def choose_account(store: Store) -> str:
    """Draw the choice of a ledger, out of those that the bundle has."""
    offered = [*(ESTIMATES if ask(queries.common.headline, store) else ()), *(IMPLICIT if is_split(store) else ())]
    if not offered:
        return ""
    return frame.choose_one("Ledger of", offered, key="account", names=WORDS["account"])


def choose_watched(store: Store, ids: list[int]) -> Feature | None:
    """Draw the choice of a feature to show on the tokens: one of the ledger's, or the one in the link."""
    linked = st.session_state.get("watch") or st.query_params.get("watch")
    if linked is not None and str(linked).isdigit() and int(linked) not in ids:
        ids = [*ids, int(linked)]
    if not ids:
        return None
    chosen = st.pills("Show one feature on the tokens", ids, key="watch", bind="query-params", wrap=True)
    if chosen is None:
        return None
    try:
        feature = ask(queries.feature.feature, store, chosen)
    except NotInBundleError as error:
        st.html(panels.note(f"{error}."))
        return None
    link = panels.anchor(permalinks.feature_href(feature.feature_id), "Open the feature")
    says = panels.text(names.read_names(store, [chosen])[chosen] or "no label")
    st.html(f"{panels.badge(f'feature {feature.feature_id}')}{says} · {link}")
    return feature


def show_tokens(store: Store, text: Text, feature: Feature | None, tips: list[str]) -> None:
    """Draw the scores under each token, and the watched feature's activation behind them."""
    parts = pieces(text.text, text.token_starts)
    if not parts:
        st.html(panels.note("This text is empty."))
        return
    probe = ask(queries.common.headline, store)
    rows = reading.score_rows(text, ask(queries.texts.score_limits, store), probe)
    legend, activations, limit = tokens.sheet_legend(rows), [], 0.0
    if feature is not None:
        activations = ask(queries.texts.token_activations, store, text.text_id, feature_id=feature.feature_id)
        limit = feature.max_activation
        legend += tokens.strength_legend(limit, f"activation of feature {feature.feature_id}, behind the tokens")
    values = st.session_state.token_values
    st.html(legend + tokens.sheet(parts, rows, activations=activations, limit=limit, numbers=values, tips=tips))
    if tips:
        st.html(panels.note("Hover or focus a token to see its split."))


def watch_bar() -> None:
    """Show the feature whose bar was clicked on the tokens; for callbacks."""
    if isinstance(number := frame.first_point(st.session_state.ledger_chart), int):
        st.session_state.watch = number


def show_estimate(store: Store, text: Text, name: str) -> None:
    """Draw the text's tokens, then the ledger of its estimate, the check of its sum, and all parts on demand."""
    query, build = ESTIMATES[name]
    found = ask(query, store, text.text_id)
    shown = ask(queries.ledgers.ledger, store, text.text_id)
    watched = choose_watched(store, [part.feature_id for part in shown.shown] if shown else [])
    split = names.name_parts(store, ask(queries.texts.token_ledgers, store, text.text_id))
    tips = [ledgers.token_tip(ledger) for ledger in split]
    show_tokens(store, text, watched, tips)
    if shown is None:
        says = (
            "This text has no stored activations, as it appears only as a feature example. Its estimate cannot be "
            "split by feature."
        )
        st.html(panels.note(says))
        return
    if found is None:
        st.html(panels.note("This bundle does not split the raw-activation probe’s estimate."))
        return
    account = build(*names.name_parts(store, [found]))
    st.subheader(account.title)
    st.html(panels.note(account.says))
    frame.show_ledger(account, key="ledger_chart", on_select=watch_bar)
    if found.shown:
        frame.list_contributions(
            lambda: ledgers.all_parts(ask(query, store, text.text_id, limit=None).shown),
            key="every_part",
            name=f"text_{text.text_id}_contributions",
        )


def show_implicit(store: Store, text: Text, path: Path) -> None:
    """Draw the text's tokens, then its implicit reward split over modules, and over features within modules."""
    modules = ask(queries.implicit_ledgers.module_ledger, store, text.text_id, path=path)
    features = ask(queries.implicit_ledgers.feature_ledger, store, text.text_id, path=path)
    watched = choose_watched(store, [part.feature_id for part in features.shown] if features else [])
    split = names.name_parts(store, ask(queries.implicit_ledgers.token_credits, store, text.text_id, path=path))
    rewards = text.token_implicit_reward or [None] * len(split)
    tips = [ledgers.credit_tip(at, path=path, reward=reward) for at, reward in zip(split, rewards, strict=False)]
    show_tokens(store, text, watched, tips)
    if modules is None and features is None:
        others = " · ".join(
            panels.anchor(permalinks.href("inputs", permalinks.current_view(InputsView, text=number)), f"text {number}")
            for number in ask(queries.implicit_ledgers.split_texts, store)
        )
        says = "This run did not split the implicit reward of this text; it split a sample. Open "
        st.html(f'<p class="lfp-note">{says}{others}.</p>')
        return
    if modules is None:
        st.html(panels.note("This run did not split this text’s implicit reward over all modules on such paths."))
    else:
        account = ledgers.from_modules(modules, path=path)
        st.subheader(account.title)
        st.html(panels.note(account.says))
        frame.show_ledger(account, key="module_chart")
    if features is None:
        st.html(panels.note("This run did not split this text’s implicit reward over features."))
        return
    account = ledgers.from_features(*names.name_parts(store, [features]), path=path)
    st.subheader(account.title)
    st.html(panels.note(account.says))
    frame.show_ledger(account, key="ledger_chart", on_select=watch_bar)
    frame.list_contributions(
        lambda: ledgers.all_parts(ask(queries.implicit_ledgers.text_features, store, text.text_id, path=path)),
        key="every_part",
        name=f"text_{text.text_id}_credits",
    )


def show_text(store: Store, text: Text) -> None:
    """Draw one text: its scores as a whole and per token, and the ledger that is chosen."""
    source = sanitize.source_name(text.source) if bundles.is_public() else text.source
    st.html(reading.totals(text, source=source))
    name = choose_account(store)
    if name in IMPLICIT:
        show_implicit(store, text, IMPLICIT[name])
    elif name:
        show_estimate(store, text, name)
    else:
        show_tokens(store, text, None, [])
        st.html(panels.note("This bundle has no probe and no credits, so no score of this text can be split."))


def show() -> None:
    store = cache.current()
    st.html(panels.heading(store.manifest.title, "Inputs"))
    left, right = st.columns([5, 7], gap="large")
    with left:
        page = show_list(store, show_filters(store))
    with right:
        chosen = paging.choose_row(page, "Text number", key="text", page_key="sheet", values_key="token_values")
        if chosen is None:
            return
        try:
            text = ask(queries.texts.text, store, chosen)
            frame.name_tab(f"Text {text.text_id}", text.text.removeprefix(ask(queries.texts.shared_start, store)))
            if verdict_panel.is_remark_hidden(store, "text", str(chosen)):
                st.html(panels.note(verdict_panel.BLIND_REMARK) + panels.plain_text(text.text))
            else:
                show_text(store, text)
            verdict_panel.show_remark_bar(store, "text", str(chosen), "Are the scores of this text right?")
        except NotInBundleError as error:
            st.html(panels.notice("No such text", str(error)))


show()
