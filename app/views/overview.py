"""What was tuned on what, and what came of it."""

import streamlit as st

from app import cache
from app.cache import ask
from app.components import charts, panels, wording
from app.components.numbers import count, percent, plain
from lfp import queries

ROWS = ("reward", "implicit_reward", "kendall_tau", "preference_accuracy")
ESTIMATES = {
    "implicit reward": "implicit_reward",
    "probe, tuned": "predicted",
    "probe, base": "predicted_base",
}


def headlines(store):
    figures = {row: ask(queries.figures, store, row) for row in ROWS}
    found = wording.headlines(figures)
    st.subheader("What was learned")
    st.html(panels.cards(found) if found else panels.note("The report of this bundle has no figures yet."))
    heads, rows = wording.tau_table(figures["kendall_tau"])
    if rows:
        with st.expander("Kendall’s τ by words and inputs"):
            st.html(panels.table(heads, rows))
            st.html(
                panels.note(
                    "Held-out words, 95 % intervals over words. Within sign leaves out what the sign alone gives."
                )
            )


def layers(store):
    table = ask(queries.layers, store).to_pydict()
    st.subheader("Where tuning changed the model")
    if not table["layer"]:
        st.html(panels.note("This bundle lists no layers."))
        return
    figure = charts.divergence(table["layer"], table["divergence"], table["selected"])
    st.plotly_chart(figure, config=charts.CONFIG, key="divergence")
    st.html(panels.note(wording.layers_sentence(sum(table["selected"]), len(table["layer"]))))


def words(store):
    st.subheader("True feedback against estimate, word by word")
    table = ask(queries.scored_words, store).to_pydict()
    if not table["word"]:
        st.html(panels.note("No word of this bundle has true feedback."))
        return
    chosen = st.segmented_control(
        "Estimate", list(ESTIMATES), default="implicit reward", required=True, key="estimate", bind="query-params"
    )
    estimate = table[ESTIMATES[chosen]]
    figure = charts.words(table["word"], table["feedback"], estimate, table["n"], title=chosen)
    st.plotly_chart(figure, config=charts.CONFIG, key="words_chart")
    missing = sum(value is None for value in estimate)
    left_out = f" {count(missing)} have no estimate and are left out." if missing else ""
    st.html(
        panels.note(f"{count(len(estimate))} words with true feedback. Larger points are commoner words.{left_out}")
    )


def dictionaries(store):
    table = ask(queries.dictionaries, store).to_pylist()
    st.subheader("How well the dictionaries rebuild activations")
    if not table:
        st.html(panels.note("This bundle lists no sparse autoencoders."))
        return
    heads = ["dictionary", "unexplained variance", "active a token", "dead", "loss recovered", "stability"]
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
        for row in table
    ]
    st.html(panels.table(heads, rows, strong=[i for i, row in enumerate(table) if row["is_used"]]))
    st.html(
        panels.note(
            "Measured on held-out texts. The dictionaries in bold are the ones this bundle’s features come from."
        )
    )


def show():
    store = cache.current()
    manifest = store.manifest
    st.html(
        panels.heading("Learned feedback patterns", manifest.title, wording.what_was_tuned(manifest))
        + panels.facts(wording.run_facts(manifest))
        + (panels.note(manifest.notes) if manifest.notes else "")
    )
    headlines(store)
    left, right = st.columns(2, gap="large")
    with left:
        words(store)
    with right:
        layers(store)
    dictionaries(store)
    st.page_link("views/features.py", label="Look at the features", icon=":material/grid_view:")


show()
