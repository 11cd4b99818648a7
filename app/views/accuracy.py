"""How good the estimate is: of words, of pairs, and of texts."""

import dataclasses

import streamlit as st

from app import cache, frame, state
from app.cache import ask
from app.components import calibration, charts, headline, intervals, linked, panels, points, tables, word_lines
from app.components.numbers import count, percent, plain, signed
from app.components.wording import pick
from lfp import queries
from lfp.errors import NotInBundleError

TRUE, IMPLICIT, ESTIMATE = "true feedback (lexicon value)", "implicit reward (nats)", "estimate, on the lexicon’s range"
AXES = {
    "implicit reward against true": ((TRUE, "feedback"), (IMPLICIT, "implicit_reward")),
    "estimate against true": ((TRUE, "feedback"), (ESTIMATE, "shown")),
    "estimate against implicit reward": ((IMPLICIT, "implicit_reward"), (ESTIMATE, "shown")),
}
COLOURS = {
    "true feedback": ("feedback", True),
    "estimate": ("predicted", True),
    "implicit reward": ("implicit_reward", True),
    "rating": ("rating", False),
}


def scatter(store):
    table = ask(queries.judged_words, store)
    rows = table.to_pydict()
    across, up = AXES[frame.one_of("Show", AXES, key="word_axes")]
    axes = [points.Axis(title, rows[column]) for title, column in (across, up)]
    known = sum(None not in pair for pair in zip(axes[0].values, axes[1].values, strict=True))
    figure = points.words(rows["word"], *axes, rows["feedback"], rows["n"])
    more = {"on_select": pick_word, "selection_mode": "points"}
    st.plotly_chart(figure, config=charts.CONFIG, key="word_scatter", **more)
    says = f"{count(known)} words, blue where true feedback is positive. Click one to look it up."
    frame.explained(says, lambda: table, name="words")


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
        word = ask(queries.word, store, name)
    except NotInBundleError as error:
        st.html(panels.note(f"{str(error)[:1].upper()}{str(error)[1:]}."))
        return
    st.html(f"{panels.badge(word.word, 'good')}{panels.facts(word_lines.word_facts(word))}")
    found = ask(queries.word_features, store, word.word)
    if not found:
        st.html(panels.note("No feature fires on it five times as strongly as on the average token."))
        return
    rows = [
        linked.Row(feature_href(one.feature_id), f"#{one.feature_id}", one.description or "not described",
                   (f"×{plain(one.lift, 0)}", signed(one.weight, 3)))
        for one in found
    ]  # fmt: skip
    st.html(linked.table(["feature", "lift", "weight"], rows))
    says = "Features that fire on it, by lift: how much stronger than on the average token."
    frame.explained(says, lambda: tables.of_rows(queries.WordFeature, found), name=f"word_features_{word.word}")


def feature_href(number):
    return state.href("feature", state.FeatureView(feature=number), bundle=cache.bundle())


def text_href(number):
    return state.href("inputs", state.InputsView(text=number), bundle=cache.bundle())


def taus(store):
    rows = ask(queries.figures, store, "kendall_tau")
    named = dict.fromkeys(row.target for row in rows if row.target)
    targets = {headline.TARGETS.get(name, name): name for name in named}
    st.subheader("Words the probe never saw")
    if not targets:
        st.html(panels.note("The report holds no Kendall’s τ of this run."))
        return
    probe = ask(queries.headline, store)
    ordered = sorted(targets, key=lambda name: probe is None or targets[name] != probe.target)
    target = targets[frame.one_of("Probe of", ordered, key="tau_target")]
    words = frame.one_of("Words", ["all", "positive", "negative"], key="tau_words")
    lines = word_lines.by_target(rows, target, words)
    if lines:
        names = intervals.Names("Kendall’s τ with true feedback", chance="shuffled feedback reaches")
        frame.figure(intervals.chart(lines, names, ink=state.ink()), key="taus")
    passed = sum(one.chance is not None and one.value > one.chance for one in lines)
    says = (
        f"Whole words held out. {passed} of {len(lines)} lines beat 95 % of shuffles; grey diamonds are the base model."
    )
    frame.explained(says, lambda: tables.of_rows(queries.Figure, rows), name="kendall_tau")


def errors(store):
    rows = ask(queries.figures, store, "error_by_frequency")
    st.subheader("Error by frequency")
    if not rows:
        st.html(panels.note("The report holds no errors by frequency."))
        return
    names = intervals.Names("mean error (lexicon value)", mark="estimates dealt at random")
    figure = intervals.chart(word_lines.errors(rows), names, ink=state.ink())
    frame.figure(figure, key="errors")
    frame.explained(
        word_lines.error_sentence(rows), lambda: tables.of_rows(queries.Figure, rows), name="error_by_frequency"
    )


def disagreements(store):
    rows = ask(queries.figures, store, "disagreements")
    lists = word_lines.gap_lists(rows)
    st.subheader("Largest disagreements")
    if not lists:
        st.html(panels.note("The report holds no disagreements."))
        return
    chosen = st.selectbox("Between", list(lists), key="gap_list", bind="query-params")
    metric, kind = lists[chosen]
    found = word_lines.gaps(rows, metric, kind)
    listed = [
        linked.Row(gap_href(one), one.name if kind == "word" else f"text {one.name}", "",
                   (signed(one.gap), plain(one.chance), plain(one.p, 3)))
        for one in found
    ]  # fmt: skip
    st.html(linked.table([kind, "gap", "chance shows", "p"], listed))
    frame.explained(word_lines.gap_sentence(metric), lambda: tables.of_rows(word_lines.Gap, found), name=metric)


def gap_href(gap):
    if gap.kind == "word":
        view = dataclasses.replace(state.view_of(state.AccuracyView), word=gap.name)
        return state.href("accuracy", view, bundle=cache.bundle())
    return text_href(int(gap.name))


def words(store):
    if not ask(queries.judged_words, store, limit=1).num_rows:
        st.subheader("Words")
        st.html(panels.note("This bundle has no words with true feedback: its feedback is of pairs or of whole texts."))
        return
    st.subheader("True, implicit, predicted: word by word")
    left, right = st.columns([7, 5], gap="large")
    with left:
        scatter(store)
    with right:
        look_up(store)
    left, right = st.columns(2, gap="large")
    with left:
        taus(store)
    with right:
        errors(store)
        disagreements(store)


def pairs(store):
    rows = ask(queries.figures, store, "preference_accuracy")
    st.subheader("Pairs")
    if not rows:
        st.html(panels.note("This bundle has no pairs: its feedback is of words or of whole texts."))
        return
    left, right = st.columns(2, gap="large")
    with left:
        length = pick(rows, metric="accuracy_of_length")
        lines = word_lines.pair_lines(rows)
        names = intervals.Names("share of pairs told right", chance="coin-flipped preferences reach")
        frame.figure(intervals.chart(lines, names, ink=state.ink(), zero=False), key="pairs")
        says = f" The longer response was chosen in {percent(length.value)} of pairs." if length else ""
        frame.explained(
            f"Held-out pairs.{says}", lambda: tables.of_rows(queries.Figure, rows), name="preference_accuracy"
        )
    with right:
        calibrated(store, rows)


def calibrated(store, rows):
    facts = word_lines.calibration_facts(rows)
    margins = ask(queries.pair_margins, store)
    bins = calibration.reliability(margins["margin"].to_pylist())
    if bins:
        ends = [(one.low, one.high) for one in bins]
        figure = points.reliability([one.stated for one in bins], [one.chosen for one in bins], ends)
        frame.figure(figure, key="reliability")
    if facts:
        st.html(panels.facts(facts))
    drawn = f"{count(margins.num_rows)} held-out pairs of the bundle in {len(bins)} bins. " if bins else ""
    says = f"{drawn}A calibrated probe has slope 1 and an error within its null; below 1 it is over-confident."
    frame.explained(says, lambda: margins if bins else tables.of_rows(queries.Figure, rows), name="calibration")


def texts(store):
    table = ask(queries.text_points, store)
    st.subheader("Texts on two principal components")
    if not table.num_rows:
        st.html(panels.note("This bundle keeps no texts with their activations."))
        return
    rows = table.to_pydict()
    held = {name: how for name, how in COLOURS.items() if any(value is not None for value in rows[how[0]])}
    name = frame.one_of("Colour by", held, key="text_colour")
    column, is_signed = held[name]
    axes = [points.Axis(f"component {i}", rows[f"pca_{axis}"]) for i, axis in ((1, "x"), (2, "y"))]
    colour = points.Axis(name, rows[column])
    figure = points.texts(rows["text_id"], *axes, colour, rows["begins"], is_signed=is_signed)
    frame.figure(figure, key="text_scatter", opens=text_href, what="text")
    explained = word_lines.variance_sentence(ask(queries.figures, store, "pca_explained"))
    says = f"Sampled texts by their mean features; click one to read it. {explained}"
    frame.explained(says, lambda: table, name="texts_pca")


def show():
    store = cache.current()
    lede = "Is the feedback that the probe estimates the feedback that was given?"
    st.html(panels.heading(store.manifest.title, "Accuracy", lede))
    probe = ask(queries.headline, store)
    is_pairs = probe is not None and probe.target == "preference"
    for panel in (pairs, words, texts) if is_pairs else (words, pairs, texts):
        panel(store)


show()
