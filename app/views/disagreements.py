"""Where two judges disagree: three queues of texts and words, grouped by the features responsible."""

import streamlit as st

from app.components.html import panels, tables, wording
from app.components.html.numbers import count
from app.components.results import queues
from app.components.results.queues import Judges
from app.session import cache, permalinks
from app.session.cache import ask
from app.widgets import frame
from lfp.bundle import queries
from lfp.util.sanitize import shortened

PAGE, HEAD = 10, 100
QUEUES = {  # the gap each sorts by, its metric in the report, and who it is between
    "estimate against true": ("gap", "gap_predicted_true", Judges("estimate", "true feedback")),
    "implicit against true": ("implicit gap", "gap_implicit_true", Judges("implicit reward", "true feedback", "nats")),
    "true against rating": ("rating gap", "gap_true_rating", Judges("true feedback", "human rating")),
}


def choose():
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    bound = {"bind": "query-params", "required": True, "wrap": True}
    first = permalinks.DisagreementsView()
    row.segmented_control("Queue", list(QUEUES), default=first.queue, key="queue", **bound)
    row.segmented_control("Of", ["texts", "words"], default=first.things, key="things", **bound)
    help_ = "Over: the first judge ranks it higher than the second. Under: lower."
    row.segmented_control("Side", list(queries.words.SIDES), default=first.side, key="side", help=help_, **bound)
    return permalinks.view_of(permalinks.DisagreementsView)


def text_items(store, gap, side):
    """The head of a queue of texts, each with the features responsible."""
    found = ask(queries.words.queued_texts, store, gap, side=side, limit=HEAD)
    why = queues.by_text(ask(queries.words.responsible_features, store, gap, side=side, limit=HEAD)) if found else {}
    return [queues.Item(text_head(one, why.get(one.text_id, ())), one, why.get(one.text_id, ())) for one in found]


def text_head(one, features):
    watch = features[0].feature_id if features else None
    where = permalinks.to("inputs", permalinks.InputsView(text=one.text_id, watch=watch))
    return panels.anchor(where, shortened(one.text, 170) or f"text {one.text_id}, empty")


def word_items(store, gap, side):
    """The head of a queue of words, each with the features that fire on it."""
    found = ask(queries.words.queued_words, store, gap, side=side, limit=HEAD)
    return [queues.Item(word_head(one), one, queues.of_word(one)) for one in found]


def word_head(one):
    where = permalinks.to("inputs", permalinks.InputsView(words=one.word))
    return panels.anchor(where, one.word) + panels.text(f"{count(one.n)} times")


def groups(items, *, things):
    """The features responsible, a button each with how many; narrows the queue to one. Returns its number or None."""
    st.subheader("Features responsible" if things == "texts" else "Features that fire on them")
    st.html(panels.note(wording.RESPONSIBLE if things == "texts" else wording.FIRES))
    named = queues.groups([item.features for item in items])
    every = {"min_value": 0, "value": None, "step": 1, "placeholder": "all features", "on_change": first_stretch}
    picked = st.number_input("Only feature", key="responsible", bind="query-params", **every)
    rows = st.container(gap="xxsmall")
    for number, heading in named.items():
        kind = "primary" if number == picked else "tertiary"
        rows.button(heading, key=f"group_{number}", type=kind, on_click=narrow, args=(number,))
    return picked


def narrow(number):
    """Narrows the queue to a feature; a second click widens it again."""
    st.session_state.responsible = None if st.session_state.responsible == number else number
    first_stretch()


def first_stretch():
    st.session_state.stretch = 1


def queue(items, judges):
    """One page of the queue."""
    if not items:
        st.html(panels.note("That feature is responsible for none of them: clear its number, or choose another."))
        return
    pages = -(-len(items) // PAGE)
    slot = st.container()
    page = st.pagination(pages, key="stretch", bind="query-params", max_visible_pages=5)
    shown = items[(page - 1) * PAGE : page * PAGE]
    numbers = {one.feature_id for item in shown for one in item.features}
    hrefs = {number: permalinks.feature(number) for number in numbers}
    slot.html(queues.legend(judges) + queues.listed(shown, judges, feature_href=hrefs))


def paid_otherwise(store, figures):
    """Words that tuning pays more or less than is stated."""
    over, under = (ask(queries.words.paid_words, store, over=flag) for flag in (True, False))
    if not over and not under:
        return
    st.subheader("Paid otherwise than stated")
    st.html(panels.note(wording.PAID))
    sides = (("Paid more", over, "gap_over_paid"), ("Paid less", under, "gap_under_paid"))
    for column, (name, words, metric) in zip(st.columns(2, gap="large"), sides, strict=True):
        column.markdown(f"**{name}**")
        column.html(queues.paid(words, figures, metric=metric))


def show():
    store = cache.current()
    st.html(panels.heading(store.manifest.title, "Disagreements"))
    view = choose()
    gap, metric, judges = QUEUES[view.queue]
    if view.things == "words" and gap not in queries.words.WORD_GAPS:
        st.html(panels.note("People rate texts, not words: look at texts."))
        return
    figures = ask(queries.run.figures, store, "disagreements")
    items = (text_items if view.things == "texts" else word_items)(store, gap, view.side)
    if not items:
        st.html(panels.note(wording.nothing_queued(gap, view.things, view.side)))
        return
    says = wording.queue_sentence(judges.first, judges.second, len(items), view.things)
    st.html(panels.note(says) + queues.chance(figures, metric=metric, kind=view.things.removesuffix("s")))
    left, right = st.columns([4, 8], gap="large")
    with left:
        picked = groups(items, things=view.things)
    with right:
        queue([one for one in items if picked is None or picked in {part.feature_id for part in one.features}], judges)
        frame.download(lambda: tables.of_rows(type(items[0].thing), [one.thing for one in items]), name="disagreements")
    if view.things == "words" and gap == "implicit gap":
        paid_otherwise(store, figures)


show()
