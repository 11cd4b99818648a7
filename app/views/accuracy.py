"""Accuracy: how well the probe estimates the reward of words, pairs and texts."""

import dataclasses
from collections.abc import Sequence

import streamlit as st

from app.components.charts import accuracy_scatters, agreement, charts, intervals
from app.components.html import panels, tables
from app.components.html.numbers import count, percent
from app.components.html.wording import pick
from app.components.results import headline, word_lines
from app.session import cache, permalinks
from app.session.cache import ask
from app.session.permalinks import WORDS, words_for
from app.widgets import frame
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.errors import NotInBundleError
from lfp.evaluation.results import ResultRow


def show_scatter(store: Store) -> None:
    table = ask(queries.words.judged_words, store)
    axes = frame.choose_one("Show", accuracy_scatters.AXES, key="word_axes", names=WORDS["word_axes"])

    def look_up_point() -> None:
        if isinstance(word := frame.first_point(st.session_state.word_scatter), str):
            st.session_state.word = word

    st.plotly_chart(
        accuracy_scatters.words(table, axes), config=charts.CONFIG, key="word_scatter", on_select=look_up_point,
        selection_mode="points",
    )  # fmt: skip
    frame.caption(accuracy_scatters.words_sentence(table, axes), lambda: table, name="words")


def show_word(store: Store) -> None:
    """Look up a word: its values, and the features that fire on it."""
    name = st.text_input(
        "Look up a word", key="word", bind="query-params", type="search", placeholder="any word of the corpus"
    )
    if not name.strip():
        st.html(panels.note("Shows its reward, implicit reward and probe estimate, and the features that fire on it."))
        return
    try:
        word = ask(queries.words.word, store, name)
    except NotInBundleError as error:
        st.html(panels.note(f"{str(error)[:1].upper()}{str(error)[1:]}."))
        return
    st.html(f"{panels.badge(word.word, 'good')}{panels.facts(word_lines.word_facts(word))}")
    found = ask(queries.words.word_features, store, word.word)
    if not found:
        st.html(panels.note("No feature fires on it five times as strongly as on the average token."))
        return
    st.html(tables.table(["feature", "lift", "weight"], word_lines.feature_rows(found, permalinks.feature_href)))
    says = "Features by lift: how much more strongly they fire on this word than on the average token."
    frame.caption(says, lambda: tables.of_rows(queries.words.WordFeature, found), name=f"word_features_{word.word}")


def show_taus(store: Store) -> None:
    rows = ask(queries.run.figures, store, "kendall_tau")
    st.subheader("Held-out words")
    targets = headline.targets(rows, ask(queries.common.headline, store))
    if not targets:
        st.html(panels.note("The report of this run has no Kendall’s τ."))
        return
    target = targets[frame.choose_one("Probe of", targets, key="tau_target", names=WORDS["tau_target"])]
    words = frame.choose_one("Words", ["all", "positive", "negative"], key="tau_words")
    lines = word_lines.by_target(rows, target, words)
    if lines:
        frame.show_intervals(lines, intervals.Names("Kendall’s τ with the reward", chance="chance"), key="taus")
    frame.caption_figures(word_lines.tau_sentence(lines), rows, name="kendall_tau")


def show_errors(store: Store) -> None:
    rows = ask(queries.run.figures, store, "error_by_frequency")
    st.subheader("Error by word frequency")
    if not rows:
        st.html(panels.note("The report has no errors by frequency."))
        return
    names = intervals.Names("mean error (lexicon value)", mark="random estimates")
    frame.show_intervals(word_lines.errors(rows), names, key="errors")
    frame.caption_figures(word_lines.error_sentence(rows), rows, name="error_by_frequency")


def show_disagreements(store: Store) -> None:
    rows = ask(queries.run.figures, store, "disagreements")
    lists = word_lines.gap_lists(rows)
    st.subheader("Largest disagreements")
    if not lists:
        st.html(panels.note("The report has no disagreements."))
        return
    chosen = st.selectbox("Show", list(lists), key="gap_list", bind="query-params", format_func=words_for("gap_list"))
    metric, kind = lists[chosen]
    found = word_lines.gaps(rows, metric, kind)
    st.html(tables.table([kind, "gap", "chance", "p"], word_lines.gap_rows(found, gap_href)))
    frame.caption(word_lines.gap_sentence(metric), lambda: tables.of_rows(word_lines.Gap, found), name=metric)


def gap_href(gap: word_lines.Gap) -> str:
    """Return the link to a word's look-up on this page, or to a text."""
    if gap.kind == "word":
        here = permalinks.current_view(permalinks.AccuracyView)
        return permalinks.href("accuracy", dataclasses.replace(here, word=gap.name))
    return permalinks.text_href(int(gap.name))


def show_words(store: Store) -> None:
    if not ask(queries.words.judged_words, store, limit=1).num_rows:
        st.subheader("Words")
        st.html(panels.note("This bundle has no rewards of words: its feedback is on pairs or on whole texts."))
        return
    st.subheader("Reward, implicit reward and probe estimate of each word")
    frame.side_by_side(lambda: show_scatter(store), lambda: show_word(store), widths=[7, 5])
    left, right = st.columns(2, gap="large")
    with left:
        show_taus(store)
    with right:
        show_errors(store)
        show_disagreements(store)


def show_pairs(store: Store) -> None:
    rows = ask(queries.run.figures, store, "preference_accuracy")
    st.subheader("Pairs")
    if not rows:
        st.html(panels.note("This bundle has no pairs: its feedback is on words or on whole texts."))
        return
    frame.side_by_side(lambda: show_pair_accuracy(rows), lambda: show_calibration(store, rows))


def show_pair_accuracy(rows: Sequence[ResultRow]) -> None:
    length = pick(rows, metric="accuracy_of_length")
    frame.show_intervals(
        word_lines.pair_lines(rows), intervals.Names("pair accuracy", chance="chance"), key="pairs", include_zero=False
    )
    says = f" The longer response was chosen in {percent(length.value)} of pairs." if length else ""
    frame.caption_figures(f"Held-out pairs.{says}", rows, name="preference_accuracy")


def show_calibration(store: Store, rows: Sequence[ResultRow]) -> None:
    facts = word_lines.calibration_facts(rows)
    margins = ask(queries.words.pair_margins, store)
    bins = agreement.reliability(margins["margin"].to_pylist())
    if bins:
        frame.show_figure(accuracy_scatters.reliability(bins), key="reliability")
    if facts:
        st.html(panels.facts(facts))
    n = f"{count(margins.num_rows)} held-out pairs in {len(bins)} bins. " if bins else ""
    says = f"{n}A calibrated probe has slope 1 and an error within chance; a slope below 1 means over-confidence."
    frame.caption(says, lambda: margins if bins else tables.of_rows(ResultRow, rows), name="calibration")


def show_texts(store: Store) -> None:
    table = ask(queries.words.text_points, store)
    st.subheader("Texts on two principal components")
    if not table.num_rows:
        st.html(panels.note("This bundle has no texts with activations."))
        return
    rows = table.to_pydict()
    options = accuracy_scatters.colours(rows)
    colour = frame.choose_one("Colour by", options, key="text_colour", names=WORDS["text_colour"])
    chart = accuracy_scatters.texts(rows, colour)
    frame.show_figure(chart, key="text_scatter", href=permalinks.text_href, what="text")
    explained = word_lines.variance_sentence(ask(queries.run.figures, store, "pca_explained"))
    says = f"Sampled texts by their mean feature activations. Click one to read it. {explained}"
    frame.caption(says, lambda: table, name="texts_pca")


def show() -> None:
    store = cache.current()
    lede = "Does the probe’s estimate match the feedback that was given?"
    st.html(panels.heading(store.manifest.title, "Accuracy", lede))
    probe = ask(queries.common.headline, store)
    is_pairs = probe is not None and probe.target == "preference"
    for draw in (show_pairs, show_words, show_texts) if is_pairs else (show_words, show_pairs, show_texts):
        draw(store)


show()
