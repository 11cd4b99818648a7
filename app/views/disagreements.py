"""Findings: texts and words that two scores rank differently, grouped by the features responsible."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import streamlit as st

from app.components.html import exports, panels
from app.components.results import queues
from app.components.results.queues import Judges
from app.session import cache, callbacks, names, permalinks
from app.session.cache import ask
from app.session.option_words import WORDS
from app.session.permalinks import DisagreementsView
from app.widgets import frame, verdict_panel
from lfp.bundle import queries
from lfp.bundle.queries.words import QueuedWord
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import ResultRow
from lfp.report.formatting import count, pick
from lfp.report.sentences.words import flagged_sentence, largest_gap_sentence, twins_sentence
from lfp.util.sanitize import shortened

PAGE_SIZE, LONGEST = 10, 100
UNEXPLAINED = DisagreementsView(queue="implicit against true", things="words")
"""The view that begins with preferences that the reward does not explain."""
QUEUES = {  # by URL value: the gap it sorts by, its metric in the report, and the two scores
    "estimate against true": ("gap", "gap_predicted_true", Judges("probe estimate", "reward")),
    "implicit against true": ("implicit gap", "gap_implicit_true", Judges("implicit reward", "reward", "nats")),
    "true against rating": ("rating gap", "gap_true_rating", Judges("reward", "human rating")),
}
RESPONSIBLE = (
    "For each text, the three features that contribute most to the gap (compared with an average text). Number = texts "
    "affected."
)
FIRES = "The three features that fire most on each word. Number = words."


def show_choices() -> DisagreementsView:
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    with row:
        frame.choose_one("Compare", QUEUES, key="queue", names=WORDS["queue"])
        frame.choose_one("Of", ["texts", "words"], key="things")
    row.segmented_control(
        "Side", list(queries.words.SIDES), default="any", required=True, wrap=True, key="side", bind="query-params",
        help="Over: the first score ranks it higher than the second. Under: lower.",
    )  # fmt: skip
    return permalinks.current_view(DisagreementsView)


def text_items(store: Store, gap: str, side: str) -> list[queues.Item]:
    """Return the texts with the largest gaps, each with the features responsible."""
    found = ask(queries.words.queued_texts, store, gap, side=side, limit=LONGEST)
    if not found:
        return []
    rows = ask(queries.words.responsible_features, store, gap, side=side, limit=LONGEST)
    responsible = queues.by_text(names.with_names(store, rows))
    items, start = [], ask(queries.texts.shared_start, store)
    for text in found:
        features = responsible.get(text.text_id, ())
        watch = features[0].feature_id if features else None
        href = permalinks.href("inputs", permalinks.InputsView(text=text.text_id, watch=watch))
        head = panels.anchor(href, shortened(text.text.removeprefix(start), 170) or f"text {text.text_id}, empty")
        items.append(queues.Item(head, text, features))
    return items


def word_items(store: Store, gap: str, side: str) -> list[queues.Item]:
    """Return the words with the largest gaps, each with the features that fire on it."""
    items, words = [], ask(queries.words.queued_words, store, gap, side=side, limit=LONGEST)
    named = names.read_names(store, [number for word in words for number in word.feature_ids[:3]])
    for word in words:
        href = permalinks.href("inputs", permalinks.InputsView(words=word.word))
        head = panels.anchor(href, word.word) + panels.text(f"{count(word.n)} times")
        features = tuple(queues.Named(number, named[number]) for number in word.feature_ids[:3])
        items.append(queues.Item(head, word, features))
    return items


def choose_group(items: Sequence[queues.Item], *, things: str, is_blind: bool) -> int | None:
    """Draw a button for each feature responsible with its number of items; return the feature that filters the list."""
    st.subheader("Features responsible" if things == "texts" else "Features that fire on them")
    st.html(panels.note(RESPONSIBLE if things == "texts" else FIRES))

    def go_to_start() -> None:
        st.session_state.stretch = 1

    def toggle(feature_id: int) -> None:
        st.session_state.responsible = None if st.session_state.responsible == feature_id else feature_id
        go_to_start()

    picked: int | None = st.number_input(
        "Only feature", min_value=0, value=None, step=1, placeholder="all features", key="responsible",
        bind="query-params", on_change=callbacks.guard(go_to_start),
    )  # fmt: skip
    rows = st.container(gap="xxsmall", key="responsible_features")
    for feature_id, group in queues.groups([item.features for item in items], is_blind=is_blind).items():
        kind: Literal["primary", "tertiary"] = "primary" if feature_id == picked else "tertiary"
        rows.button(
            group.heading, key=f"group_{feature_id}", type=kind, on_click=callbacks.guard(toggle), args=(feature_id,),
            help=group.name,
        )  # fmt: skip
    return picked


def show_items(
    store: Store, items: Sequence[queues.Item], judges: Judges, view: DisagreementsView
) -> Sequence[queues.Item]:
    """Draw one page of the list and return it."""
    if not items:
        st.html(panels.note("That feature is responsible for none of these. Clear its number, or choose another."))
        return ()
    slot = st.container()
    page = st.pagination(-(-len(items) // PAGE_SIZE), key="stretch", bind="query-params", max_visible_pages=5)
    shown = items[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    ids = {feature.feature_id for item in shown for feature in item.features}
    hidden = verdict_panel.hidden_subjects(store, "finding", [finding(view, name_of(item)) for item in shown])
    shown = [replace(item, is_hidden=finding(view, name_of(item)) in hidden) for item in shown]
    if hidden:
        slot.html(panels.note(verdict_panel.BLIND_REMARK))
    hrefs = {feature_id: permalinks.feature_href(feature_id) for feature_id in ids}
    slot.html(queues.legend(judges) + queues.listed(shown, judges, feature_href=hrefs))
    return shown


def show_verdict(store: Store, view: DisagreementsView, shown: Sequence[queues.Item]) -> None:
    """Draw the choice of a finding of this page, and the bar that judges it; first the next without a verdict."""
    kind = view.things.removesuffix("s")
    offered = [name_of(item) for item in shown]
    key = permalinks.widget_key("finding", view.queue, offered)
    judged = verdict_panel.judged_subjects(store, "finding", [finding(view, name) for name in offered])
    todo = [name for name in offered if finding(view, name) not in judged]
    st.session_state.setdefault(key, (todo or offered)[0])
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    name = row.selectbox("Verdict on", offered, key=key, format_func=lambda name: f"{kind} {name}", width=260)
    after = [other for other in todo if other != name]

    def go() -> None:
        st.session_state[key] = after[0]

    row.button("Next unreviewed", disabled=not after, on_click=callbacks.guard(go), key="next_finding")
    question = f"Is it true that {view.queue.replace(' against ', ' and ')} disagree on this {kind}?"
    verdict_panel.show_remark_bar(store, "finding", finding(view, name), question)


def name_of(item: queues.Item) -> str:
    """Return the word, or the text's number, of an item."""
    return str(item.thing.word if isinstance(item.thing, QueuedWord) else item.thing.text_id)


def finding(view: DisagreementsView, name: str) -> str:
    """Return what remarks call a finding: the two scores, and the text or word that they disagree on."""
    return f"{view.queue}, {view.things.removesuffix('s')} {name}"[:200]


def word_href(word: str) -> str:
    """Return the address of a word: its values, the features that fire on it, and the bar that judges it."""
    return permalinks.href("accuracy", permalinks.AccuracyView(word=word))


def has_unexplained(store: Store) -> bool:
    """Tell whether the bundle compares what tuning prefers with the reward, or with twins."""
    twins = ask(queries.run.figures, store, "twins")
    return bool(twins) or any(ask(queries.words.paid_words, store, over=over) for over in (True, False))


def show_unexplained(store: Store, figures: Sequence[ResultRow]) -> None:
    """Draw the words that the tuned model prefers more or less than the reward explains."""
    twins = ask(queries.run.figures, store, "twins")
    if twins:
        _show_beyond_twins(store, twins)
        return
    over, under = (ask(queries.words.paid_words, store, over=flag) for flag in (True, False))
    st.subheader("Unexplained preferences")
    flagged = pick(figures, metric="words_flagged")
    says = (
        "How much more (or less) the tuned model favours a word than the reward explains, in nats and in standard "
        "errors. Chance: if all words differed as those in the middle of the list do, 95 % of gaps at this rank were "
        "smaller."
    )
    st.html(panels.note(says))
    if flagged:
        listed = ask(queries.words.standing_words, store)
        st.html(panels.note(flagged_sentence(flagged)) + queues.standing(listed, int(flagged.value), word_href))
    sides = (
        ("Preferred more than the reward explains", over, "gap_over_paid"),
        ("Preferred less than the reward explains", under, "gap_under_paid"),
    )
    for column, (name, words, metric) in zip(st.columns(2, gap="large"), sides, strict=True):
        column.markdown(f"**{name}**")
        column.html(queues.paid(words, figures, metric=metric, href=word_href))


def _show_beyond_twins(store: Store, figures: Sequence[ResultRow]) -> None:
    """Draw the words that the tuned model prefers more or less than models tuned on the same stated feedback."""
    st.subheader("Unexplained preferences")
    st.html(panels.note(twins_sentence(figures)))
    names = {"Preferred more than by the twins": True, "Preferred less than by the twins": False}
    for column, (name, over) in zip(st.columns(2, gap="large"), names.items(), strict=True):
        column.markdown(f"**{name}**")
        column.html(queues.beyond_twins(ask(queries.words.twin_words, store, over=over), word_href))


def show() -> None:
    store = cache.current()
    st.html(panels.heading(store.manifest.title, "Findings"))
    view = show_choices()
    is_of_words = (view.queue, view.things) == (UNEXPLAINED.queue, UNEXPLAINED.things)
    if not is_of_words and has_unexplained(store):
        st.html(panels.anchor(permalinks.href("disagreements", UNEXPLAINED), "Words preferred beyond the reward"))
    gap, metric, judges = QUEUES[view.queue]
    if view.things == "words" and gap not in queries.words.WORD_GAPS:
        st.html(panels.note("People rate texts, not words. Choose texts."))
        return
    figures = ask(queries.run.figures, store, "disagreements")
    items = (text_items if view.things == "texts" else word_items)(store, gap, view.side)
    if not items:
        if view.side != "any":
            says = f"No {view.things} on this side. Choose any."
        elif gap == "rating gap":
            says = "This bundle has no human ratings to compare the reward with."
        else:
            says = f"This bundle holds no {view.things} with both scores."
        st.html(panels.note(says))
        return
    which = f"{len(items):,} {view.things}" if len(items) > 1 else view.things.removesuffix("s")
    ranks = f"the percentile ranks of {judges.first} and {judges.second}"
    says = f"The {which} with the largest difference between {ranks}."
    largest = largest_gap_sentence(figures, metric=metric, kind=view.things.removesuffix("s"))
    is_blind = verdict_panel.is_blind()
    if is_of_words and not is_blind and has_unexplained(store):
        show_unexplained(store, figures)
        st.subheader("Words by ranks")
    st.html(panels.note(says) + (panels.note(largest) if largest else ""))
    left, right = st.columns([4, 8], gap="large")
    with left:
        picked = choose_group(items, things=view.things, is_blind=is_blind)
    with right:
        kept = [item for item in items if picked is None or picked in {part.feature_id for part in item.features}]
        shown = show_items(store, kept, judges, view)
        frame.download(
            lambda: exports.as_table(type(items[0].thing), [item.thing for item in items]), name="disagreements"
        )
    if shown:
        show_verdict(store, view, shown)


show()
