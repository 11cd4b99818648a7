"""Summary: what feedback taught the model in its own words, whether that can be believed, and where it lives."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import streamlit as st

from app.components.feature import leading
from app.components.html import exports, panels
from app.components.results import about, checks, report, titles
from app.components.text import samples
from app.session import cache, names, permalinks
from app.session.cache import ask
from app.session.option_words import WORDS
from app.widgets import frame
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import ResultRow
from lfp.evaluation.written_words import WrittenWord, split_words
from lfp.report import summary
from lfp.report.checks import WRITING as WRITTEN
from lfp.report.checks import read_checks
from lfp.report.credits import credits_sentence, layer_title, ledger_sentence, ledger_title
from lfp.report.figures import bars, lines, points
from lfp.report.figures.intervals import Legend
from lfp.report.figures.modules import draw_credits, draw_ledger
from lfp.report.formatting import count, estimate, percent, pick, place_name, plain
from lfp.report.sentences.ablations import effects_sentence
from lfp.report.sentences.features import labels_sentence
from lfp.report.sentences.models import layers_sentence
from lfp.report.sentences.sections import sentence
from lfp.report.sentences.words import writing_sentence
from lfp.report.summary import is_tuned_on_pairs

HEADLINE_ROWS = ("reward", "implicit_reward", "kendall_tau", "preference_accuracy")
ESTIMATES = {
    "implicit reward": points.IMPLICIT,
    "probe, tuned": ("probe estimate, tuned model", "predicted"),
    "probe, base": ("probe estimate, base model", "predicted_base"),
}

SAMPLE_ORDERS = WORDS["written_by"]
SAMPLES_SHOWN, WORDS_SHOWN = 3, 8
WRITING = "what-both-models-write"
"""Anchor of the panel that shows what both models write."""


def show_checks(store: Store) -> None:
    """Draw the four checks, each linked to its evidence."""
    made = ask(read_checks, store)
    accuracy = permalinks.href("accuracy", permalinks.AccuracyView())
    validation = permalinks.href("validation", permalinks.ValidationView())
    unexplained = permalinks.DisagreementsView(queue="implicit against true", things="words")
    where = {
        "reward": f"#{WRITING}",
        WRITTEN: f"#{WRITING}",
        "implicit_reward": accuracy,
        "preference_accuracy": accuracy,
        "kendall_tau": accuracy,
        "twins": permalinks.href("disagreements", unexplained),
        "label_scores": validation,
        "ablation": validation,
        "interventions": permalinks.href("features", permalinks.FeaturesView(sort="credit_size")),
    }
    st.html(checks.box(made, where))


def show_leading(store: Store) -> None:
    """Draw the five features that carry most."""
    found = ask(queries.credits.leading_features, store)
    found = replace(found, features=tuple(names.with_names(store, found.features)))
    shares = ask(queries.run.figures, store, "feature_credits")
    modules = ask(queries.run.figures, store, "module_credits")
    st.subheader(leading.title(found, shares, modules))
    text_href = lambda text_id, feature: permalinks.href(  # noqa: E731
        "inputs", permalinks.InputsView(text=text_id, watch=feature)
    )
    listed = leading.listed(found, feature_href=permalinks.feature_href, text_href=text_href)
    st.html(listed + panels.note(leading.sentence(found, shares, modules)))


def show_ledger(store: Store) -> None:
    """Draw the implicit reward as one bar of what kinds of modules carry."""
    rows = ask(queries.run.figures, store, "module_credits")
    st.subheader(ledger_title(rows))
    figure = draw_ledger(rows)
    if figure is None:
        st.html(panels.note(credits_sentence(rows) if rows else "This run did not split it over modules."))
        return
    frame.show_figure(figure, key="ledger")
    frame.caption_figures(ledger_sentence(rows), rows, name="module_credits")


def show_headlines(store: Store) -> None:
    figures = {row: ask(queries.run.figures, store, row) for row in HEADLINE_ROWS}
    probe = ask(queries.common.headline, store)
    found = report.headlines(figures, probe.target if probe else None)
    st.subheader(titles.probe(figures, probe.target if probe else None))
    if not any(figures.values()):
        st.html(panels.note("The report of this bundle has no metrics yet."))
        return
    missing = "This run does not compare probes of the tuned and the base model."
    st.html((panels.cards(found) if found else panels.note(missing)) + panels.facts(summary.reward_facts(figures)))
    heads, rows = report.tau_table(figures["kendall_tau"])
    if rows:
        with st.expander("Kendall’s τ by words and probe inputs"):
            st.html(panels.table(heads, rows))
            says = "Held-out words, 95 % intervals over words. “Within sign” leaves out what the sign alone gives."
            st.html(panels.note(says))
    shown = [row for rows in figures.values() for row in rows]
    frame.download(lambda: exports.as_table(ResultRow, shown), name="headline")


def show_writing(store: Store) -> None:
    n = ask(queries.run.count_samples, store)
    words = ask(queries.run.written_words, store)
    st.subheader(titles.writing(words, n) if n else "What both models write", anchor=WRITING)
    if not n:
        st.html(panels.note("This bundle has no completions."))
        return
    frame.side_by_side(lambda: show_written_words(words, n), lambda: show_samples(store, words, n))


def show_written_words(words: Sequence[WrittenWord], n: int) -> None:
    sides = zip(("written more", "written less"), split_words(words), strict=True)
    tables = [
        panels.linked_table((name, "base → tuned", "FDR"), [written_row(word) for word in found[:WORDS_SHOWN]])
        for name, found in sides
        if found
    ]
    if tables:
        st.html(f'<div class="lfp-halves">{"".join(tables)}</div>')
    frame.caption(writing_sentence(words, n), lambda: exports.as_table(WrittenWord, words), name="written_words")


def written_row(word: WrittenWord) -> panels.LinkedRow:
    href = permalinks.href("accuracy", permalinks.AccuracyView(word=word.word))
    rate = "< 0.001" if word.q < 0.001 else plain(word.q, 3)
    return panels.LinkedRow(href, word.word, "", (f"{count(word.n_base)} → {count(word.n_tuned)}", rate))


def show_samples(store: Store, words: Sequence[WrittenWord], n: int) -> None:
    chosen = frame.choose_one("Continuations", SAMPLE_ORDERS, key="written_by", names=SAMPLE_ORDERS)
    slot = st.container()
    page = st.pagination(-(-n // SAMPLES_SHOWN), key="writing", bind="query-params", max_visible_pages=5)
    window = {"limit": SAMPLES_SHOWN, "offset": (page - 1) * SAMPLES_SHOWN}
    risen, fallen = ({word.word for word in found[:WORDS_SHOWN]} for found in split_words(words))
    for sample in ask(queries.run.samples, store, by_change=chosen == "changed", **window):
        slot.html(samples.continuations(sample, risen=risen, fallen=fallen))
    st.html(panels.note(samples.sentence(is_of_pairs=is_tuned_on_pairs(store.manifest))))


def show_credits(store: Store) -> None:
    rows = ask(queries.run.figures, store, "module_credits")
    figure = draw_credits(rows)
    if figure is None:
        return
    st.subheader(layer_title(rows))
    frame.show_figure(figure, key="module_credits")
    st.html(panels.note(sentence("module_credits", rows)))


def show_layers(store: Store) -> None:
    table = ask(queries.run.layers, store)
    rows = table.to_pydict()
    moved = [value for value in rows["divergence"] if value is not None]
    where = rows["layer"][rows["divergence"].index(max(moved))] if moved else None
    st.subheader(
        "Where tuning changed the model" if where is None else f"Tuning moved the weights of layer {where} most"
    )
    if not rows["layer"]:
        st.html(panels.note("This bundle lists no layers."))
        return
    frame.show_figure(bars.divergence(rows), key="divergence")
    says = layers_sentence(sum(rows["selected"]), len(rows["layer"]), ask(queries.features.feature_sites, store))
    frame.caption(says, lambda: table, name="layers")


def show_words(store: Store) -> None:
    tau = pick(ask(queries.run.figures, store, "implicit_reward"), metric="tau", words="all", target="implicit_reward")
    says = "" if tau is None else f": implicit reward and reward have τ = {estimate(tau)}"
    st.subheader(f"Reward and estimate of each word{says}")
    table = ask(queries.words.judged_words, store)
    rows = table.to_pydict()
    if not rows["word"]:
        st.html(panels.note("No word of this bundle has a reward."))
        return
    chosen = frame.choose_one("Estimate", ESTIMATES, key="estimate")
    frame.show_figure(points.words(rows, points.REWARD, ESTIMATES[chosen]), key="words_chart")
    missing = sum(value is None for value in rows[ESTIMATES[chosen][1]])
    left_out = f" {count(missing)} without an estimate are left out." if missing else ""
    says = f"{count(len(rows['word']))} words with a reward. Larger points: more common words.{left_out}"
    frame.caption(says, lambda: table, name="words")


def show_agreement(store: Store) -> None:
    rows = [row for row in ask(queries.run.figures, store, "label_agreement") if row.metric == "kappa"]
    st.subheader(labels_sentence(rows).rstrip(".") if rows else "Do labels and weights agree?")
    if not rows:
        st.html(panels.note("This run did not compare labels with weights."))
        return
    legend = Legend("Cohen’s κ", chance="shuffled labels (95 %)")
    frame.show_intervals(lines.kappas(rows), legend, key="kappas")
    says = "Agreement of “related” labels with which features have large weights; shuffled labels show chance."
    frame.caption_figures(says, rows, name="label_agreement")


def show_ablations(store: Store) -> None:
    rows = ask(queries.run.report_ablations, store)
    st.subheader(titles.ablations(rows))
    if not lines.ablated_groups(rows):
        st.html(panels.note("No features were ablated in this run."))
        return
    legend = Legend("change of mean reward beyond controls’", chance="controls (95 %)", is_signed=True)
    frame.show_intervals(lines.effects(rows), legend, key="effects")
    frame.caption(effects_sentence(rows), lambda: pa.Table.from_pylist(rows), name="ablations")


def has_share(row: Mapping[str, Any]) -> bool:
    """Return whether a dictionary may have a share of credit: that of the features, and its control."""
    return bool(row["is_used"] or row["source"] == "random_decoder")


def show_dictionaries(store: Store) -> None:
    table = ask(queries.run.dictionaries, store)
    st.subheader(titles.dictionaries(table.to_pylist()))
    if not table.num_rows:
        st.html(panels.note("This bundle lists no dictionaries."))
        return
    heads = [
        "dictionary",
        "unexplained variance",
        "tuned model",
        "base model",
        "active features per token",
        "dead",
        "loss recovered",
        "credit carried",
        "stability",
    ]
    shares = summary.credit_shares(ask(queries.run.figures, store, "feature_credits"))
    listed = table.to_pylist()
    rows = [
        [
            f"{place_name(row['layer'], row['site'])} · {row['trained_on'] or row['model']} ·"
            f" {count(row['width'])} features"
            + (" · used" if row["is_used"] else " · random decoder" if row["source"] == "random_decoder" else ""),
            percent(row["fvu"]),
            percent(row["fvu_tuned"]),
            percent(row["fvu_base"]),
            plain(row["l0"], 1),
            percent(row["dead_fraction"]),
            percent(row["ce_recovered"]),
            percent(shares.get((row["layer"], row["site"], not row["is_used"]))) if has_share(row) else "",
            plain(row["mmcs"]),
        ]
        for row in listed
    ]
    st.html(panels.table(heads, rows, strong=[i for i, row in enumerate(listed) if row["is_used"]]))
    says = (
        "Measured on held-out texts, by what each was trained on and on each model’s activations. Bold: the"
        " dictionaries that this bundle’s features come from. Credit carried: the share of what a module changed in the"
        " log-probability of the next token."
    )
    frame.caption(says, lambda: table, name="dictionaries")


def show() -> None:
    store = cache.current()
    manifest = store.manifest
    st.html(panels.heading("What feedback taught", manifest.title, summary.what_was_tuned(manifest)))
    show_checks(store)
    show_writing(store)
    show_leading(store)
    show_ledger(store)
    frame.side_by_side(lambda: show_credits(store), lambda: show_layers(store))
    show_headlines(store)
    show_words(store)
    frame.side_by_side(lambda: show_agreement(store), lambda: show_ablations(store))
    show_dictionaries(store)
    st.html(panels.facts(about.run_facts(manifest)))


show()
