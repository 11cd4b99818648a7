"""Accuracy: how well the probe estimates the reward of words, pairs and texts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from app.components.html import exports, panels
from app.components.results import evidence, report
from app.session import cache, callbacks, names, permalinks
from app.session.cache import ask
from app.session.option_words import WORDS, words_for
from app.widgets import frame, verdict_panel
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.errors import NotInBundleError
from lfp.evaluation.results import ResultRow
from lfp.report.figures import lines, points
from lfp.report.figures.frame import CONFIG
from lfp.report.figures.intervals import Legend
from lfp.report.formatting import count, pick, plain, signed
from lfp.report.sentences.words import (
    beating_sentence,
    calibration_facts,
    errors_sentence,
    gaps_sentence,
    pairs_sentence,
)

AXES = {
    "implicit reward against true": (points.REWARD, points.IMPLICIT),
    "estimate against true": (points.REWARD, points.ESTIMATE),
    "estimate against implicit reward": (points.IMPLICIT, points.ESTIMATE),
}
"""What the scatter of words shows, by its value in the URL."""
NAMES = {"feedback": "reward", "implicit_reward": "implicit reward", "shown": "probe estimate"}
"""What columns of words are called within a sentence."""
COLOURS = {
    "true feedback": "feedback",
    "estimate": "predicted",
    "implicit reward": "implicit_reward",
    "rating": "rating",
}
"""Columns that texts may be coloured by, by their values in the URL."""


def show_scatter(store: Store) -> None:
    table = ask(queries.words.judged_words, store)
    rows = table.to_pydict()
    title = st.container()
    chosen = frame.choose_one("Show", AXES, key="word_axes", names=WORDS["word_axes"])
    across, up = AXES[chosen]

    def look_up_point() -> None:
        if isinstance(word := frame.first_point(st.session_state.word_scatter), str):
            st.session_state.word = word

    st.plotly_chart(
        points.words(rows, across, up),
        config=CONFIG,
        key="word_scatter",
        on_select=callbacks.guard(look_up_point),
        selection_mode="points",
    )
    known = sum(None not in pair for pair in zip(rows[across[1]], rows[up[1]], strict=True))
    says = f"{count(known)} words, blue where the reward is positive. Click one to look it up."
    frame.caption(says, lambda: table, name="words")
    with title:
        frame.show_title("Words", words_title(store, rows, chosen))


def words_title(store: Store, rows: Mapping[str, Sequence[Any]], axes: str) -> str:
    """Say whether one score of words ranks them as the other does, by the report, or else by the words themselves."""
    across, up = (column for _, column in AXES[axes])
    n = sum(None not in pair for pair in zip(rows[across], rows[up], strict=True))
    probe = ask(queries.common.headline, store)
    if axes == "implicit reward against true":
        row = pick(ask(queries.run.figures, store, "implicit_reward"), metric="tau", words="all", target=up)
    elif axes == "estimate against true" and probe is not None:
        keys = {"model": "tuned", "inputs": "sae", "words": "all", "target": probe.target}
        held = [row for row in ask(queries.run.figures, store, "kendall_tau") if row.split in ("held_out_words", None)]
        row = pick(held, metric="tau", **keys)
    else:
        row = store.once("words ranked alike", lambda: evidence.rank_words(rows[across], rows[up]))
    return evidence.words(row, n, first=f"The {NAMES[up]}", second=NAMES[across])


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
    frame.name_tab(f"Word “{word.word}”")
    is_hidden = verdict_panel.is_remark_hidden(store, "word", word.word)
    st.html(panels.badge(word.word, "good") + ("" if is_hidden else panels.facts(report.word_facts(word))))
    st.html(panels.anchor(permalinks.href("inputs", permalinks.InputsView(words=word.word)), "Texts with this word"))
    verdict_panel.show_remark_bar(store, "word", word.word, "Does the model prefer this word as shown?")
    if is_hidden:
        st.html(panels.note(verdict_panel.BLIND_REMARK))
        return
    found = ask(queries.words.word_features, store, word.word)
    if not found:
        st.html(panels.note("No feature fires on it five times as strongly as on the average token."))
        return
    rows = report.feature_rows(names.with_names(store, found), permalinks.feature_href)
    st.html(panels.linked_table(["feature", "lift", "weight"], rows))
    says = "Features by lift: how much more strongly they fire on this word than on the average token."
    frame.caption(says, lambda: exports.as_table(queries.words.WordFeature, found), name=f"word_features_{word.word}")


def show_taus(store: Store) -> None:
    rows = ask(queries.run.figures, store, "kendall_tau")
    title, targets = st.container(), report.targets(rows, ask(queries.common.headline, store))
    if not targets:
        st.subheader("Held-out words")
        st.html(panels.note("The report of this run has no Kendall’s τ."))
        return
    target = targets[frame.choose_one("Probe of", targets, key="tau_target", names=WORDS["tau_target"])]
    words = frame.choose_one("Words", ["all", "positive", "negative"], key="tau_words")
    with title:
        frame.show_title("Held-out words", evidence.taus(rows, target, words=words))
    shown = lines.probes(rows, "tau", target, words=words)
    if shown:
        legend = Legend("Kendall’s τ with the reward", chance="shuffled rewards (95 %)")
        frame.show_intervals(shown, legend, key="taus")
    frame.caption_figures(beating_sentence(shown), rows, name="kendall_tau")


def show_errors(store: Store) -> None:
    rows = ask(queries.run.figures, store, "error_by_frequency")
    frame.show_title("Error by word frequency", evidence.errors(rows))
    if not rows:
        st.html(panels.note("The report has no errors by frequency."))
        return
    legend = Legend("mean error (lexicon value)", mark="shuffled estimates")
    frame.show_intervals(lines.errors(rows), legend, key="errors")
    frame.caption_figures(errors_sentence(rows), rows, name="error_by_frequency")


def show_disagreements(store: Store) -> None:
    rows = ask(queries.run.figures, store, "disagreements")
    lists = report.gap_lists(rows)
    title = st.container()
    if not lists:
        st.subheader("Largest disagreements")
        st.html(panels.note("The report has no disagreements."))
        return
    chosen = st.selectbox("Show", list(lists), key="gap_list", bind="query-params", format_func=words_for("gap_list"))
    metric, gaps = lists[chosen]
    with title:
        frame.show_title("Largest disagreements", evidence.gaps(metric, gaps))
    here, linked = permalinks.current_view(permalinks.AccuracyView), []
    for gap in gaps:
        cells = signed(gap.gap), plain(gap.chance), plain(gap.p, 3)
        if gap.kind == "word":
            href = permalinks.href("accuracy", dataclasses.replace(here, word=gap.name))
            linked.append(panels.LinkedRow(href, gap.name, "", cells))
        else:
            linked.append(panels.LinkedRow(permalinks.text_href(int(gap.name)), f"text {gap.name}", "", cells))
    st.html(panels.linked_table([gaps[0].kind, "gap", "chance", "p"], linked))
    frame.caption(gaps_sentence(metric), lambda: exports.as_table(report.Gap, gaps), name=metric)


def show_words(store: Store) -> None:
    if not ask(queries.words.judged_words, store, limit=1).num_rows:
        st.subheader("Words")
        st.html(panels.note("This bundle has no rewards of words: its feedback is on pairs or on whole texts."))
        return
    frame.side_by_side(lambda: show_scatter(store), lambda: show_word(store), widths=[7, 5])
    left, right = st.columns(2, gap="large")
    with left:
        show_taus(store)
    with right:
        show_errors(store)
        show_disagreements(store)


def show_pairs(store: Store) -> None:
    rows = ask(queries.run.figures, store, "preference_accuracy")
    if not rows:
        st.subheader("Pairs")
        st.html(panels.note("This bundle has no pairs: its feedback is on words or on whole texts."))
        return
    frame.side_by_side(lambda: show_pair_accuracy(rows), lambda: show_calibration(store, rows))


def show_pair_accuracy(rows: Sequence[ResultRow]) -> None:
    frame.show_title("Pairs", evidence.pairs(rows))
    legend = Legend("pair accuracy", chance="coin-flipped preferences (95 %)")
    frame.show_intervals(lines.pairs(rows), legend, key="pairs", include_zero=False)
    frame.caption_figures(pairs_sentence(rows), rows, name="preference_accuracy")


def show_calibration(store: Store, rows: Sequence[ResultRow]) -> None:
    frame.show_title("Calibration", evidence.calibration(rows))
    facts = calibration_facts(rows)
    margins = ask(queries.words.pair_margins, store)
    bins = points.reliability_bins(margins["margin"].to_pylist())
    if bins:
        frame.show_figure(points.reliability(bins), key="reliability")
    if facts:
        st.html(panels.facts(facts))
    n = f"{count(margins.num_rows)} held-out pairs in {len(bins)} bins. " if bins else ""
    says = f"{n}A calibrated probe has slope 1 and an error within chance; a slope below 1 means over-confidence."
    frame.caption(says, lambda: margins if bins else exports.as_table(ResultRow, rows), name="calibration")


def show_texts(store: Store) -> None:
    table = ask(queries.words.text_points, store)
    explained = ask(queries.run.figures, store, "pca_explained")
    frame.show_title("Texts on two principal components", evidence.components(explained))
    if not table.num_rows:
        st.html(panels.note("This bundle has no texts with activations."))
        return
    rows = table.to_pydict()
    options = [value for value, column in COLOURS.items() if any(score is not None for score in rows[column])]
    colour = frame.choose_one("Colour by", options, key="text_colour", names=WORDS["text_colour"])
    chart = points.texts(rows, COLOURS[colour])
    frame.show_figure(chart, key="text_scatter", href=permalinks.text_href, what="text")
    says = (
        "Sampled texts by their mean feature activations. Click one to read it. Chance: each feature’s activations "
        "shuffled among texts."
    )
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
