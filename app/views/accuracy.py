"""How good the estimate is: of words, of pairs, and of texts."""

import dataclasses

import streamlit as st

from app.components.charts import accuracy_scatters, agreement, charts, intervals
from app.components.html import panels, tables
from app.components.html import tables as linked
from app.components.html.numbers import count, percent
from app.components.html.wording import pick
from app.components.results import headline, word_lines
from app.session import cache, permalinks
from app.session.cache import ask
from app.widgets import frame
from lfp.bundle import queries
from lfp.errors import NotInBundleError
from lfp.evaluation.results import ResultRow


def scatter(store):
    table = ask(queries.words.judged_words, store)
    axes = frame.one_of("Show", accuracy_scatters.AXES, key="word_axes")
    more = {"on_select": pick_word, "selection_mode": "points"}
    st.plotly_chart(accuracy_scatters.words(table, axes), config=charts.CONFIG, key="word_scatter", **more)
    frame.explained(accuracy_scatters.words_sentence(table, axes), lambda: table, name="words")


def pick_word():
    chosen = st.session_state.word_scatter.selection.points
    name = chosen[0].get("customdata") if chosen else None
    if isinstance(name, str):
        st.session_state.word = name


def look_up(store):
    name = st.text_input(
        "Look up a word", key="word", bind="query-params", type="search", placeholder="any word of the corpus"
    )
    if not name.strip():
        st.html(panels.note("Its true feedback, what tuning taught of it, the estimate, the features that fire on it."))
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
    st.html(linked.table(["feature", "lift", "weight"], word_lines.feature_rows(found, permalinks.feature)))
    says = "Features that fire on it, by lift: how much stronger than on the average token."
    frame.explained(says, lambda: tables.of_rows(queries.words.WordFeature, found), name=f"word_features_{word.word}")


def taus(store):
    rows = ask(queries.run.figures, store, "kendall_tau")
    st.subheader("Words the probe never saw")
    targets = headline.targets(rows, ask(queries.common.headline, store))
    if not targets:
        st.html(panels.note("The report holds no Kendall’s τ of this run."))
        return
    target = targets[frame.one_of("Probe of", targets, key="tau_target")]
    words = frame.one_of("Words", ["all", "positive", "negative"], key="tau_words")
    lines = word_lines.by_target(rows, target, words)
    if lines:
        names = intervals.Names("Kendall’s τ with true feedback", chance="shuffled feedback reaches")
        frame.lines(lines, names, key="taus")
    frame.reported(word_lines.tau_sentence(lines), rows, name="kendall_tau")


def errors(store):
    rows = ask(queries.run.figures, store, "error_by_frequency")
    st.subheader("Error by frequency")
    if not rows:
        st.html(panels.note("The report holds no errors by frequency."))
        return
    names = intervals.Names("mean error (lexicon value)", mark="estimates dealt at random")
    frame.lines(word_lines.errors(rows), names, key="errors")
    frame.reported(word_lines.error_sentence(rows), rows, name="error_by_frequency")


def disagreements(store):
    rows = ask(queries.run.figures, store, "disagreements")
    lists = word_lines.gap_lists(rows)
    st.subheader("Largest disagreements")
    if not lists:
        st.html(panels.note("The report holds no disagreements."))
        return
    metric, kind = lists[st.selectbox("Between", list(lists), key="gap_list", bind="query-params")]
    found = word_lines.gaps(rows, metric, kind)
    st.html(linked.table([kind, "gap", "chance shows", "p"], word_lines.gap_rows(found, gap_href)))
    frame.explained(word_lines.gap_sentence(metric), lambda: tables.of_rows(word_lines.Gap, found), name=metric)


def gap_href(gap):
    if gap.kind == "word":
        here = permalinks.view_of(permalinks.AccuracyView)
        return permalinks.to("accuracy", dataclasses.replace(here, word=gap.name))
    return permalinks.text(int(gap.name))


def words(store):
    if not ask(queries.words.judged_words, store, limit=1).num_rows:
        st.subheader("Words")
        st.html(panels.note("This bundle has no words with true feedback: its feedback is of pairs or of whole texts."))
        return
    st.subheader("True, implicit, predicted: word by word")
    frame.beside(lambda: scatter(store), lambda: look_up(store), widths=[7, 5])

    def errors_and_disagreements():
        errors(store)
        disagreements(store)

    frame.beside(lambda: taus(store), errors_and_disagreements)


def pairs(store):
    rows = ask(queries.run.figures, store, "preference_accuracy")
    st.subheader("Pairs")
    if not rows:
        st.html(panels.note("This bundle has no pairs: its feedback is of words or of whole texts."))
        return
    frame.beside(lambda: told_right(rows), lambda: calibrated(store, rows))


def told_right(rows):
    length = pick(rows, metric="accuracy_of_length")
    names = intervals.Names("share of pairs told right", chance="coin-flipped preferences reach")
    frame.lines(word_lines.pair_lines(rows), names, key="pairs", zero=False)
    says = f" The longer response was chosen in {percent(length.value)} of pairs." if length else ""
    frame.reported(f"Held-out pairs.{says}", rows, name="preference_accuracy")


def calibrated(store, rows):
    facts = word_lines.calibration_facts(rows)
    margins = ask(queries.words.pair_margins, store)
    bins = agreement.reliability(margins["margin"].to_pylist())
    if bins:
        frame.figure(accuracy_scatters.reliability(bins), key="reliability")
    if facts:
        st.html(panels.facts(facts))
    drawn = f"{count(margins.num_rows)} held-out pairs of the bundle in {len(bins)} bins. " if bins else ""
    says = f"{drawn}A calibrated probe has slope 1 and an error within its null; below 1 it is over-confident."
    frame.explained(says, lambda: margins if bins else tables.of_rows(ResultRow, rows), name="calibration")


def texts(store):
    table = ask(queries.words.text_points, store)
    st.subheader("Texts on two principal components")
    if not table.num_rows:
        st.html(panels.note("This bundle keeps no texts with their activations."))
        return
    rows = table.to_pydict()
    colour = frame.one_of("Colour by", accuracy_scatters.colours(rows), key="text_colour")
    frame.figure(accuracy_scatters.texts(rows, colour), key="text_scatter", opens=permalinks.text, what="text")
    explained = word_lines.variance_sentence(ask(queries.run.figures, store, "pca_explained"))
    says = f"Sampled texts by their mean features; click one to read it. {explained}"
    frame.explained(says, lambda: table, name="texts_pca")


def show():
    store = cache.current()
    lede = "Is the feedback that the probe estimates the feedback that was given?"
    st.html(panels.heading(store.manifest.title, "Accuracy", lede))
    probe = ask(queries.common.headline, store)
    is_pairs = probe is not None and probe.target == "preference"
    for panel in (pairs, words, texts) if is_pairs else (words, pairs, texts):
        panel(store)


show()
