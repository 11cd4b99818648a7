"""Overview: which model was tuned on what, and what it learned."""

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
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import ResultRow

HEADLINE_ROWS = ("reward", "implicit_reward", "kendall_tau", "preference_accuracy")
ESTIMATES = {"implicit reward": "implicit_reward", "probe, tuned": "predicted", "probe, base": "predicted_base"}


def show_headlines(store: Store) -> None:
    figures = {row: ask(queries.run.figures, store, row) for row in HEADLINE_ROWS}
    found = headline.compared(figures, ask(queries.common.headline, store))
    st.subheader("What was learned")
    if not any(figures.values()):
        st.html(panels.note("The report of this bundle has no metrics yet."))
        return
    missing = "This run does not compare probes of the tuned and the base model."
    st.html((panels.cards(found) if found else panels.note(missing)) + panels.facts(headline.run_facts(figures)))
    heads, rows = wording.tau_table(figures["kendall_tau"])
    if rows:
        with st.expander("Kendall’s τ by words and probe inputs"):
            st.html(panels.table(heads, rows))
            says = "Held-out words, 95 % intervals over words. “Within sign” leaves out what the sign alone gives."
            st.html(panels.note(says))
    shown = [row for rows in figures.values() for row in rows]
    frame.download(lambda: tables.of_rows(ResultRow, shown), name="headline")


def show_layers(store: Store) -> None:
    table = ask(queries.run.layers, store)
    rows = table.to_pydict()
    st.subheader("Where tuning changed the model")
    if not rows["layer"]:
        st.html(panels.note("This bundle lists no layers."))
        return
    frame.show_figure(charts.divergence(rows["layer"], rows["divergence"], rows["selected"]), key="divergence")
    says = wording.layers_sentence(sum(rows["selected"]), len(rows["layer"]))
    frame.caption(says, lambda: table, name="layers")


def show_words(store: Store) -> None:
    st.subheader("Reward and estimate of each word")
    table = ask(queries.words.judged_words, store)
    rows = table.to_pydict()
    if not rows["word"]:
        st.html(panels.note("No word of this bundle has a reward."))
        return
    chosen = frame.choose_one("Estimate", ESTIMATES, key="estimate")
    estimate = rows[ESTIMATES[chosen]]
    reward, up = points.Axis("reward (lexicon value)", rows["feedback"]), points.Axis(chosen, estimate)
    frame.show_figure(points.words(rows["word"], reward, up, rows["feedback"], rows["n"]), key="words_chart")
    missing = sum(value is None for value in estimate)
    left_out = f" {count(missing)} without an estimate are left out." if missing else ""
    says = f"{count(len(estimate))} words with a reward. Larger points: commoner words.{left_out}"
    frame.caption(says, lambda: table, name="words")


def show_agreement(store: Store) -> None:
    st.subheader("Do labels and weights agree?")
    rows = [row for row in ask(queries.run.figures, store, "label_agreement") if row.metric == "kappa"]
    if not rows:
        st.html(panels.note("This run did not compare labels with weights."))
        return
    against = {"beats_null": "weights beyond chance", "top_decile": "top tenth of weights"}
    keys = [label_lines.keys_of(row) for row in rows]
    names = [f"{key.get('labeller', '')}: {against.get(key.get('against', ''), '')}" for key in keys]
    lines = [intervals.line(name, row) for name, row in zip(names, rows, strict=True)]
    frame.show_intervals(lines, intervals.Names("Cohen’s κ"), key="kappas")
    passed = sum(row.null_high is not None and row.value > row.null_high for row in rows)
    verdict = "Labels predict which features matter" if passed else "Labels do not predict which features matter"
    says = f"{verdict}: {passed} of {len(rows)} tests beat{'s' if passed == 1 else ''} shuffled labels."
    frame.caption_figures(says, rows, name="label_agreement")


def show_ablations(store: Store) -> None:
    st.subheader("Ablation: reward without these features")
    rows = ask(queries.run.report_ablations, store)
    lines = ablation_lines.effects(rows)
    if not lines:
        st.html(panels.note("No features were ablated in this run."))
        return
    names = intervals.Names("change of mean reward", chance="95 % of controls", is_signed=True)
    frame.show_intervals(lines, names, key="effects")
    frame.caption(ablation_lines.effect_sentence(rows), lambda: pa.Table.from_pylist(rows), name="ablations")


def show_dictionaries(store: Store) -> None:
    table = ask(queries.run.dictionaries, store)
    st.subheader("SAE reconstruction quality")
    if not table.num_rows:
        st.html(panels.note("This bundle lists no SAEs."))
        return
    heads = ["SAE", "unexplained variance", "active features per token", "dead", "loss recovered", "stability"]
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
    says = "Measured on held-out texts. Bold: the SAEs that this bundle’s features come from."
    frame.caption(says, lambda: table, name="dictionaries")


def show() -> None:
    store = cache.current()
    manifest = store.manifest
    st.html(
        panels.heading("Learned feedback patterns", manifest.title, wording.what_was_tuned(manifest))
        + panels.facts(wording.run_facts(manifest))
        + (panels.note(manifest.notes) if manifest.notes else "")
    )
    show_headlines(store)
    frame.side_by_side(lambda: show_words(store), lambda: show_layers(store))
    frame.side_by_side(lambda: show_agreement(store), lambda: show_ablations(store))
    show_dictionaries(store)
    links = {
        "Accuracy: words, pairs, texts": permalinks.href("accuracy", permalinks.AccuracyView()),
        "Validation: labels, weights, ablations": permalinks.href("validation", permalinks.ValidationView()),
        "All features": permalinks.href("features", permalinks.FeaturesView()),
    }
    anchors = " · ".join(panels.anchor(href, name) for name, href in links.items())
    st.html(f'<p class="lfp-note">{anchors}</p>')


show()
