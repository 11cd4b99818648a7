"""Labels, weights and ablations held against each other."""

from dataclasses import asdict

import pyarrow as pa
import streamlit as st

from app.components.charts import agreement, intervals, points
from app.components.html import panels, tables
from app.components.html import tables as linked
from app.components.html.numbers import count
from app.components.results import ablation_lines, label_lines
from app.session import cache, permalinks
from app.session.cache import ask
from app.widgets import frame
from lfp.bundle import queries
from lfp.evaluation.ablation_rows import is_inert

AGAINST = {"weights that beat their null": "beats_null", "the top tenth of weights": "top_decile"}
SCORES = {
    "detection": "Held-out texts, firing or silent, told right by the label; the null is another feature’s label.",
    "fuzzing": "Held-out tokens, firing or silent, told right by the label.",
    "agreement": "Share of repeats, from other examples, that agree on whether a feature is related.",
}


def chosen_labeller(store):
    """Whose labels are judged; None where the report judges nobody’s."""
    rows = [row for name in ("label_agreement", "label_scores") for row in ask(queries.run.figures, store, name)]
    names = label_lines.labellers(rows)
    main = ask(queries.common.main_labeller, store)
    names.sort(key=lambda name: name != main)
    bound = {"key": "labelled_by", "bind": "query-params", "width": 320}
    return st.selectbox("Labeller", names, **bound) if names else None


def counts(store, labeller):
    st.subheader("Labels against weights")
    rows = ask(queries.run.figures, store, "label_agreement")
    held = {says: name for says, name in AGAINST.items() if label_lines.agreement(rows, labeller, name)}
    if not held:
        st.html(panels.note("The report holds no labels of this labeller against weights."))
        return
    found = label_lines.agreement(rows, labeller, held[frame.one_of("Weighty are", held, key="weighty_by")])
    st.html(agreement.heat(found) + panels.facts(agreement.measures(found)))
    frame.reported(label_lines.agreement_sentence(found), rows, name="label_agreement")


def ranks(store, labeller):
    st.subheader("How sure, and how weighty")
    table = ask(queries.run.beliefs, store, labeller)
    if not table.num_rows:
        st.html(panels.note("No feature has both a label of this labeller and a weight."))
        return
    rows = table.to_pydict()
    figure = points.beliefs(rows["feature_id"], rows["belief"], rows["size"], rows["description"])
    frame.figure(figure, key="beliefs", opens=permalinks.feature, what="feature")
    total = ask(queries.run.count_beliefs, store, labeller)
    drawn = "" if total == table.num_rows else f"{count(table.num_rows)} of {count(total)} features, drawn evenly. "
    says = label_lines.rank_sentence(ask(queries.run.figures, store, "label_agreement"), labeller)
    frame.explained(f"{drawn}{says} Click a point to open its feature.", lambda: table, name="beliefs")


def scores(store, labeller):
    st.subheader("Do labels tell their features?")
    rows = ask(queries.run.figures, store, "label_scores")
    held = [name for name in SCORES if label_lines.scores(rows, labeller, name)]
    if not held:
        st.html(panels.note("The labels of this labeller were not scored on held-out examples."))
        return
    metric = frame.one_of("Score", held, key="label_score")
    names = intervals.Names("balanced accuracy" if metric != "agreement" else "share", chance="another feature’s label")
    lines = label_lines.scores(rows, labeller, metric)
    frame.lines(lines, names, key="scores", zero=False)
    frame.reported(SCORES[metric], rows, name="label_scores")


def frequencies(store, labeller):
    st.subheader("Do related features fire where the estimate is high?")
    rows = ask(queries.run.figures, store, "activation_frequency")
    if not rows:
        st.html(panels.note("The report holds no activation frequencies."))
        return
    of = {"tokens": "per_token", "texts": "per_text"}
    metric = of[frame.one_of("Share of", of, key="share_of")]
    found = label_lines.frequencies(rows, metric, labeller)
    axis = "share of (token, feature) pairs active" if metric == "per_token" else "share of features active in a text"
    names = intervals.Names(axis, chance="as many random features")
    frame.lines(label_lines.frequency_lines(found), names, key="frequencies")
    frame.reported(label_lines.frequency_sentence(found), rows, name="activation_frequency")


def labels(store):
    labeller = chosen_labeller(store)
    if labeller is None:
        st.html(panels.note("This bundle judges no labels."))
        return
    frame.beside(lambda: counts(store, labeller), lambda: ranks(store, labeller))
    frame.beside(lambda: scores(store, labeller), lambda: frequencies(store, labeller))


def effects(rows):
    st.subheader("Reward without them")
    names = intervals.Names("change of mean reward", chance="95 % of controls", is_signed=True)
    frame.lines(ablation_lines.effects(rows), names, key="effects")
    n = ablation_lines.n_controls(rows)
    says = f"{ablation_lines.effect_sentence(rows)} Beside each group stand controls of like features, {n} in all."
    frame.explained(says, lambda: pa.Table.from_pylist(rows), name="ablations")


def perplexities(rows):
    st.subheader("Does the text stay whole?")
    names = intervals.Names("perplexity under the base model", mark="untouched model")
    frame.lines(ablation_lines.perplexities(rows), names, key="perplexities", zero=False)
    says = "A group that only breaks the text lies right of its controls."
    columns = ["group", "kind", "control_of", "perplexity", "perplexity_before", "repetition", "repetition_before"]
    frame.explained(says, lambda: pa.Table.from_pylist(rows).select(columns), name="perplexities")


def singles(store, found):
    st.subheader("Predicted against measured")
    frame.figure(points.effects(found), key="single_effects", opens=permalinks.feature, what="feature")
    says = ablation_lines.single_sentence(ask(queries.run.figures, store, "ablation"))
    table = lambda: tables.of_rows(queries.run.AblatedFeature, found)  # noqa: E731
    frame.explained(f"{says} Click one to open it.", table, name="single_features")


def inert(found):
    st.subheader("Important but inert")
    still = [one for one in found if is_inert(asdict(one))]
    if still:
        rows = ablation_lines.feature_rows(still, permalinks.feature)
        st.html(linked.table(["feature", "predicted", "measured"], rows))
    says = ablation_lines.inert_sentence(found, len(still))
    frame.explained(says, lambda: tables.of_rows(queries.run.AblatedFeature, still), name="inert")


def ablations(store):
    rows = ask(queries.run.report_ablations, store)
    if not ablation_lines.groups(rows) and not ablation_lines.singles(rows):
        st.subheader("Reward without them")
        st.html(panels.note("This bundle takes no features out; precompute ablate does, from the bundle alone."))
        return
    if ablation_lines.groups(rows):
        frame.beside(lambda: effects(rows), lambda: perplexities(rows))
    found = ask(queries.run.ablated_features, store)
    if found:
        frame.beside(lambda: singles(store, found), lambda: inert(found))


def show():
    store = cache.current()
    lede = "Are the features that are called related the ones that the estimate rests on, and does the model need them?"
    st.html(panels.heading(store.manifest.title, "Validation", lede))
    labels(store)
    ablations(store)


show()
