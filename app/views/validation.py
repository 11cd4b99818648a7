"""Validation: labels, weights and ablations compared with each other."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import streamlit as st

from app.components.html import exports, panels
from app.components.results import evidence, report, titles
from app.session import cache, names, permalinks
from app.session.cache import ask
from app.session.option_words import WORDS
from app.widgets import frame
from lfp.bundle import queries
from lfp.bundle.queries.run import AblatedFeature
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import CONTROL, FEATURE, ResultRow, is_inert
from lfp.report.figures import lines, points
from lfp.report.figures.intervals import Legend
from lfp.report.formatting import count
from lfp.report.sentences.ablations import effects_sentence, inert_sentence
from lfp.report.sentences.features import (
    SCORES,
    agreement_facts,
    agreement_sentence,
    frequencies_sentence,
    labellers_sentence,
)

AGAINST = {"weights that beat their null": "beats_null", "the top tenth of weights": "top_decile"}


def choose_labeller(store: Store) -> str | None:
    """Draw the choice of the labeller to judge; None if the report judges none."""
    rows = [row for name in ("label_agreement", "label_scores") for row in ask(queries.run.figures, store, name)]
    main = ask(queries.common.main_labeller, store)
    judged = dict.fromkeys(keys["labeller"] for row in rows if "labeller" in (keys := lines.keys_of(row)))
    names = sorted(judged, key=lambda name: name != main)
    if not names:
        return None
    labeller: str = st.selectbox("Labeller", names, key="labelled_by", bind="query-params", width=320)
    return labeller


def show_counts(store: Store, labeller: str) -> None:
    rows = ask(queries.run.figures, store, "label_agreement")
    compared: dict[str, dict[str, ResultRow]] = {}
    for row in rows:
        keys = lines.keys_of(row)
        if keys.get("labeller") == labeller and "against" in keys:
            compared.setdefault(keys["against"], {})[row.metric] = row
    held = {value: compared[against] for value, against in AGAINST.items() if against in compared}
    title = st.container()
    if not held:
        st.subheader("Labels against weights")
        st.html(panels.note("The report does not compare this labeller’s labels with weights."))
        return
    found = held[frame.choose_one("Count as important", held, key="weighty_by", names=WORDS["weighty_by"])]
    with title:
        frame.show_title("Labels against weights", evidence.counts(found))
    st.html(report.heat(found) + panels.facts(agreement_facts(list(found.values()))))
    frame.caption_figures(agreement_sentence(found), rows, name="label_agreement")


def show_beliefs(store: Store, labeller: str) -> None:
    figures = ask(queries.run.figures, store, "label_agreement")
    frame.show_title("Label confidence and probe weight", evidence.beliefs(figures, labeller))
    table = ask(queries.run.beliefs, store, labeller)
    if not table.num_rows:
        st.html(panels.note("No feature has both a label of this labeller and a weight."))
        return
    figure = points.beliefs(table.to_pydict())
    frame.show_figure(figure, key="beliefs", href=permalinks.feature_href, what="feature")
    total = ask(queries.run.count_beliefs, store, labeller)
    part = "" if total == table.num_rows else f"A sample of {count(table.num_rows)} of {count(total)} features. "
    says = "Chance: 95 % of shuffled labels are within it."
    frame.caption(f"{part}{says} Click a point to open its feature.", lambda: table, name="beliefs")


def show_scores(store: Store, labeller: str) -> None:
    rows = ask(queries.run.figures, store, "label_scores")
    held = [name for name in SCORES if lines.label_scores(rows, name, labeller)]
    if not held:
        st.subheader("Do labels predict when the feature fires?")
        st.html(panels.note("This labeller’s labels were not scored on held-out examples."))
        return
    title = st.container()
    metric = frame.choose_one("Score", held, key="label_score")
    with title:
        frame.show_title("Do labels predict when the feature fires?", evidence.scores(rows, metric, labeller))
    legend = Legend("balanced accuracy" if metric != "agreement" else "share", chance="another feature’s label")
    frame.show_intervals(lines.label_scores(rows, metric, labeller), legend, key="scores", include_zero=False)
    frame.caption_figures(SCORES[metric], rows, name="label_scores")
    others = [row for row in ask(queries.run.figures, store, "labellers") if labeller in lines.keys_of(row).values()]
    if others:
        frame.caption_figures(labellers_sentence(others), others, name="labellers")


def show_frequencies(store: Store, labeller: str) -> None:
    part = "Do related features fire where the estimate is high?"
    rows = ask(queries.run.figures, store, "activation_frequency")
    if not rows:
        st.subheader(part)
        st.html(panels.note("The report has no activation frequencies."))
        return
    title, metrics = st.container(), {"tokens": "per_token", "texts": "per_text"}
    metric = metrics[frame.choose_one("Share of", metrics, key="share_of")]
    found = lines.frequencies(rows, metric, labeller)
    with title:
        frame.show_title(part, evidence.frequencies(found))
    axis = "share of (token, feature) pairs active" if metric == "per_token" else "share of features active in a text"
    legend = Legend(axis, chance="as many random features (95 %)")
    frame.show_intervals(lines.frequency_lines(found), legend, key="frequencies")
    frame.caption_figures(frequencies_sentence(found), rows, name="activation_frequency")


def show_labels(store: Store) -> None:
    labeller = choose_labeller(store)
    if labeller is None:
        st.html(panels.note("The report of this bundle does not judge labels."))
        return
    frame.side_by_side(lambda: show_counts(store, labeller), lambda: show_beliefs(store, labeller))
    frame.side_by_side(lambda: show_scores(store, labeller), lambda: show_frequencies(store, labeller))


def show_effects(rows: Sequence[dict[str, Any]]) -> None:
    frame.show_title("Ablation: reward without these features", titles.ablations(rows))
    legend = Legend("change of mean reward beyond controls’", chance="controls (95 %)", is_signed=True)
    frame.show_intervals(lines.effects(rows), legend, key="effects")
    judged = {row["group"] for row in lines.ablated_groups(rows)}
    n = sum(row["kind"] == CONTROL and row["control_of"] in judged for row in rows)
    controls = f"Controls: similar features removed instead ({n} in total)."
    says = f"{effects_sentence(rows)} {controls}"
    frame.caption(says, lambda: pa.Table.from_pylist(rows), name="ablations")


def show_perplexities(rows: Sequence[dict[str, Any]]) -> None:
    frame.show_title("Is the text still fluent?", evidence.fluency(rows))
    legend = Legend("perplexity under the base model", mark="unchanged model")
    frame.show_intervals(lines.perplexities(rows), legend, key="perplexities", include_zero=False)
    says = "Points right of the controls mean that removal just damages the text."
    columns = ["group", "kind", "control_of", "perplexity", "perplexity_before", "repetition", "repetition_before"]
    frame.caption(says, lambda: pa.Table.from_pylist(rows).select(columns), name="perplexities")


def show_single_features(store: Store, found: Sequence[AblatedFeature]) -> None:
    rows = ask(queries.run.figures, store, "ablation")
    frame.show_title("Predicted and measured effects", evidence.singles(rows))
    frame.show_figure(
        points.effects(names.with_names(store, found)),
        key="single_effects",
        href=permalinks.feature_href,
        what="feature",
    )
    says = "Grey band: 95 % of controls."
    table = lambda: exports.as_table(AblatedFeature, found)  # noqa: E731
    frame.caption(f"{says} Click a point to open its feature.", table, name="single_features")


def show_inert(store: Store, found: Sequence[AblatedFeature]) -> None:
    inert = [feature for feature in found if is_inert(asdict(feature))]
    effects = [feature.measured for feature in found]
    frame.show_title("Weighted heavily, no effect detected", evidence.inert(len(inert), len(found), effects))
    if inert:
        rows = report.feature_rows(names.with_names(store, inert), permalinks.feature_href)
        st.html(panels.linked_table(["feature", "predicted", "measured"], rows))
    halves = [(high - low) / 2 for _, low, high in effects]
    says = inert_sentence(len(inert), len(found), halves, found[0].n_completions)
    frame.caption(says, lambda: exports.as_table(AblatedFeature, inert), name="inert")


def show_ablations(store: Store) -> None:
    rows = ask(queries.run.report_ablations, store)
    if not lines.ablated_groups(rows) and not any(row["kind"] == FEATURE for row in rows):
        st.subheader("Ablations")
        st.html(panels.note("This bundle has no ablations. python -m precompute ablate adds them."))
        return
    if lines.ablated_groups(rows):
        frame.side_by_side(lambda: show_effects(rows), lambda: show_perplexities(rows))
    found = ask(queries.run.ablated_features, store)
    if found:
        frame.side_by_side(lambda: show_single_features(store, found), lambda: show_inert(store, found))


def show() -> None:
    store = cache.current()
    lede = "Are the features labelled related the ones that the estimate rests on, and does the model need them?"
    st.html(panels.heading(store.manifest.title, "Validation", lede))
    show_labels(store)
    show_ablations(store)


show()
