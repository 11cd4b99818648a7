"""What was tuned on what, and what came of it."""

import pyarrow as pa
import streamlit as st

from app.components.charts import charts, intervals, points
from app.components.html import panels, tables, wording
from app.components.html.numbers import count, percent, plain
from app.components.results import ablation_lines, headline, label_lines
from app.session import cache, permalinks
from app.session.cache import ask
from app.widgets import frame
from lfp.bundle import queries
from lfp.evaluation.results import ResultRow

ROWS = ("reward", "implicit_reward", "kendall_tau", "preference_accuracy")
ESTIMATES = {
    "implicit reward": "implicit_reward",
    "probe, tuned": "predicted",
    "probe, base": "predicted_base",
}


def headlines(store):
    figures = {row: ask(queries.run.figures, store, row) for row in ROWS}
    found = headline.compared(figures, ask(queries.common.headline, store))
    st.subheader("What was learned")
    if not any(figures.values()):
        st.html(panels.note("The report of this bundle has no figures yet."))
        return
    missing = "This run compares no probe of the tuned model with one of the base."
    st.html((panels.cards(found) if found else panels.note(missing)) + panels.facts(headline.run_facts(figures)))
    heads, rows = wording.tau_table(figures["kendall_tau"])
    if rows:
        with st.expander("Kendall’s τ by words and inputs"):
            st.html(panels.table(heads, rows))
            says = "Held-out words, 95 % intervals over words. Within sign leaves out what the sign alone gives."
            st.html(panels.note(says))
    shown = [row for rows in figures.values() for row in rows]
    frame.download(lambda: tables.of_rows(ResultRow, shown), name="headline")


def layers(store):
    table = ask(queries.run.layers, store)
    rows = table.to_pydict()
    st.subheader("Where tuning changed the model")
    if not rows["layer"]:
        st.html(panels.note("This bundle lists no layers."))
        return
    figure = charts.divergence(rows["layer"], rows["divergence"], rows["selected"])
    frame.figure(figure, key="divergence")
    says = wording.layers_sentence(sum(rows["selected"]), len(rows["layer"]))
    frame.explained(says, lambda: table, name="layers")


def words(store):
    st.subheader("True feedback against estimate, word by word")
    table = ask(queries.words.judged_words, store)
    rows = table.to_pydict()
    if not rows["word"]:
        st.html(panels.note("No word of this bundle has true feedback."))
        return
    chosen = frame.one_of("Estimate", ESTIMATES, key="estimate")
    estimate = rows[ESTIMATES[chosen]]
    true, up = points.Axis("true feedback (lexicon value)", rows["feedback"]), points.Axis(chosen, estimate)
    figure = points.words(rows["word"], true, up, rows["feedback"], rows["n"])
    frame.figure(figure, key="words_chart")
    missing = sum(value is None for value in estimate)
    left_out = f" {count(missing)} have no estimate and are left out." if missing else ""
    says = f"{count(len(estimate))} words with true feedback. Larger points are commoner words.{left_out}"
    frame.explained(says, lambda: table, name="words")


def agreement(store):
    st.subheader("Do labels and weights agree?")
    rows = [row for row in ask(queries.run.figures, store, "label_agreement") if row.metric == "kappa"]
    if not rows:
        st.html(panels.note("This run holds no labels against weights."))
        return
    against = {"beats_null": "weights that beat their null", "top_decile": "top tenth of weights"}
    keys = [label_lines.keys_of(row) for row in rows]
    names = [f"{one.get('labeller', '')}: {against.get(one.get('against'), '')}" for one in keys]
    lines = [intervals.line(name, row) for name, row in zip(names, rows, strict=True)]
    frame.lines(lines, intervals.Names("Cohen’s κ"), key="kappas")
    passed = sum(row.null_high is not None and row.value > row.null_high for row in rows)
    says = f"Features called related against features the probe weighs: {passed} of {len(rows)} beat labels dealt anew."
    frame.reported(says, rows, name="label_agreement")


def ablations(store):
    st.subheader("What happens without them?")
    rows = ask(queries.run.report_ablations, store)
    lines = ablation_lines.effects(rows)
    if not lines:
        st.html(panels.note("No features were taken out in this run."))
        return
    names = intervals.Names("change of mean reward", chance="95 % of controls", is_signed=True)
    frame.lines(lines, names, key="effects")
    frame.explained(ablation_lines.effect_sentence(rows), lambda: pa.Table.from_pylist(rows), name="ablations")


def dictionaries(store):
    table = ask(queries.run.dictionaries, store)
    st.subheader("How well the dictionaries rebuild activations")
    if not table.num_rows:
        st.html(panels.note("This bundle lists no sparse autoencoders."))
        return
    heads = ["dictionary", "unexplained variance", "active a token", "dead", "loss recovered", "stability"]
    listed = table.to_pylist()
    rows = [
        [
            f"layer {row['layer']} · {row['model']} · {count(row['width'])} features"
            + (" · used" if row["is_used"] else ""),
            percent(row["fvu"]),
            plain(row["l0"], 1),
            percent(row["dead_fraction"]),
            percent(row["ce_recovered"]),
            plain(row["mmcs"]),
        ]
        for row in listed
    ]
    st.html(panels.table(heads, rows, strong=[i for i, row in enumerate(listed) if row["is_used"]]))
    says = "Measured on held-out texts. The dictionaries in bold are the ones this bundle’s features come from."
    frame.explained(says, lambda: table, name="dictionaries")


def show():
    store = cache.current()
    manifest = store.manifest
    st.html(
        panels.heading("Learned feedback patterns", manifest.title, wording.what_was_tuned(manifest))
        + panels.facts(wording.run_facts(manifest))
        + (panels.note(manifest.notes) if manifest.notes else "")
    )
    headlines(store)
    frame.beside(lambda: words(store), lambda: layers(store))
    frame.beside(lambda: agreement(store), lambda: ablations(store))
    dictionaries(store)
    ways = {"accuracy": ("Accuracy: words, pairs, texts", permalinks.AccuracyView()),
            "validation": ("Validation: labels, weights, ablations", permalinks.ValidationView()),
            "features": ("The features", permalinks.FeaturesView())}  # fmt: skip
    onward = (panels.anchor(permalinks.to(page, view), says) for page, (says, view) in ways.items())
    st.html(f'<p class="lfp-note">{" · ".join(onward)}</p>')


show()
