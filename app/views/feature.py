"""Feature: what one feature fires on, what it carries of the implicit reward and the estimate, and its labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.components.feature import card, credit, naming, profile, titles, trust
from app.components.html import panels
from app.components.text import reading, steering, tokens
from app.session import cache, callbacks, names, permalinks
from app.session.cache import ask
from app.session.option_words import words_for
from app.session.permalinks import FeaturesView
from app.widgets import filters, frame, share, verdict_panel
from lfp.bundle import queries
from lfp.bundle.manifest import has_models
from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.feature import Feature, Label
from lfp.bundle.queries.features import Place
from lfp.bundle.store.connection import Store
from lfp.errors import NotInBundleError
from lfp.report.figures import bars, modules
from lfp.report.figures.frame import CONFIG
from lfp.report.formatting import count, plain

MOST_EXAMPLES = 20
"""Examples of a bucket that are shown."""
BUCKETS = {0: "top", -1: "silent", -2: "near miss"}
"""URL values of the buckets of examples that are not an interval of activation quantiles."""


def choose_feature(store: Store) -> tuple[int | None, DeltaGenerator]:
    """Draw Previous, the number and Next; return the number (at first the strongest feature's), and their row."""
    n, first = store.manifest.tables["features"].rows, ask(queries.feature.strongest_feature, store)
    walk = st.query_params.get("walk", "")
    view = filters.from_walk(walk) if walk else None
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    chosen: int | None = row.number_input(
        "Feature number", min_value=0, value=None, step=1, placeholder=str(first), width=120, key="feature",
        bind="query-params",
    )  # fmt: skip
    here = first if chosen is None else chosen
    if here is None:
        return None, row
    if view is None:
        before, after = (here - 1 if 0 < here <= n else None), (here + 1 if here < n - 1 else None)
        place = Place(here if here < n else None, n, before, after)
    else:
        wanted, order = filters.filter_of(view, store), filters.order_of(view)
        place = ask(queries.features.feature_place, store, here, wanted, order=order)
    if place.position is not None:
        says = f"{count(place.position + 1)} of {count(place.total)}" + ("" if view is None else " in the list")
    else:
        says = "" if view is None else "Not in the list that you came from."
    with row:
        frame.show_steps(place.before, place.after, go)
        st.html(panels.note(says), width="content")
        st.space("stretch")
        href = permalinks.href("features", view or FeaturesView())
        st.html(panels.anchor(href, "All features" if view is None else "Back to the list"), width="content")
        if here < n and has_models(store.manifest):
            steered = permalinks.TryView(scales=steering.written_scales({str(here): 0.0}))
            st.html(panels.anchor(permalinks.href("try_it", steered), "Steer this"), width="content")
    return here, row


def go(feature_id: int) -> None:
    """Open a feature; for callbacks."""
    st.session_state.feature = feature_id


def show_examples(feature: Feature, rows: Sequence[dict[str, Any]]) -> None:
    """Draw the examples of one bucket, out of all `rows` of the feature."""
    counts = Counter(row["bucket"] for row in rows)
    frame.show_title("Examples", titles.examples(feature))
    if not counts:
        st.html(panels.note("No examples: the feature was never active on the corpus."))
        return
    order = sorted(counts, key=lambda bucket: (bucket < 0, bucket != 0, -bucket))
    buckets = {BUCKETS.get(bucket, str(bucket)): bucket for bucket in order}
    top = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    has_quartiles = max(counts) == 4
    chosen = top.segmented_control(
        "Activation", list(buckets), default=next(iter(buckets)), required=True, wrap=True, key="examples",
        bind="query-params", format_func=words_for("examples") if has_quartiles else str,
    )  # fmt: skip
    top.toggle("Show numbers", key="activation_values", bind="query-params")
    bucket = buckets[chosen]
    items = []
    for row in [row for row in rows if row["bucket"] == bucket][:MOST_EXAMPLES]:
        mark = profile.contribution_mark(feature.weight, row["activation"])
        link = panels.anchor(permalinks.text_href(row["text_id"]), f"text {row['text_id']}")
        caption = f"<b>{plain(row['activation'])}</b>{mark}{link}"
        items.append(tokens.example(row, limit=feature.max_activation, caption=caption, weight=feature.weight))
    contributes = "" if feature.weight is None else "; in colour, its contribution to the estimate"
    says = f"activation; the example’s token is underlined{contributes}"
    legend = tokens.strength_legend(feature.max_activation, says)
    st.html(legend + tokens.examples(items, numbers=st.session_state.activation_values))
    st.html(panels.note(profile.bucket_sentence(bucket, max(counts))))


def show_labels(store: Store, feature: Feature, labels: Sequence[Label], rows: Sequence[dict[str, Any]]) -> None:
    st.subheader("Labels")
    if labels:
        cards = trust.cards(labels, rows, max_activation=feature.max_activation, where=permalinks.text_href)
        if len(labels) > 1:
            st.html(trust.comparison(labels))
        st.html(cards)
    else:
        st.html(panels.note("No label."))
    verdict_panel.show_history(store, feature.feature_id)


def show_contribution(store: Store, feature: Feature, probe: Probe | None) -> None:
    n = store.manifest.tables["features"].rows
    frame.show_title("In the estimate", titles.contribution(feature, n_features=n))
    st.html(profile.contribution(feature, n_features=n))
    drifted = ask(queries.feature.feature_drift, store, feature.feature_id)
    frame.show_title("Drift", titles.drift(drifted))
    st.html(profile.drift(drifted, n_features=n))
    removed = ask(queries.feature.feature_ablations, store, feature.feature_id)
    frame.show_title("Ablations", titles.ablations(removed))
    is_dpo = store.manifest.config.get("tune", {}).get("method") == "dpo"
    reward = "implicit reward (nats)" if is_dpo else "reward of completions"
    target = reading.target_name(probe) if probe else ""
    st.html(profile.ablations(removed, reward=reward, target=target))


def show_credit(store: Store, feature: Feature) -> None:
    found, n = ask(queries.feature.feature_credit, store, feature.feature_id), store.manifest.tables["features"].rows
    frame.show_title("Credit", titles.credit(found, n_features=n))
    st.html(credit.facts(found, n_features=n))
    if found is None:
        return
    grown = modules.draw_feature_trajectory(
        ask(queries.feature.credit_trajectory, store, feature.feature_id).to_pydict()
    )
    if grown is not None:
        st.plotly_chart(grown, config=CONFIG, key="credit_trajectory")
        st.html(panels.note("Its credit at each checkpoint of the tuning, nats per token, 95 % intervals over texts."))
    st.html(credit.intervention(ask(queries.feature.feature_intervention, store, feature.feature_id)))
    st.markdown("**Promotes and demotes, by credit**")
    left, right = st.columns(2, gap="medium")
    promoted, demoted = credit.tokens(found)
    left.html(promoted)
    right.html(demoted)
    says = "Next tokens, by the nats of implicit reward that tuning’s change of this feature gives them. Most at:"
    examples = ask(queries.excerpts.credit_examples, store, feature.feature_id)
    href = lambda text_id: permalinks.href(  # noqa: E731
        "inputs", permalinks.InputsView(text=text_id, watch=feature.feature_id, account="implicit reward")
    )
    st.html(panels.note(says) + credit.examples(examples, where=href))


def show_activity(store: Store, feature: Feature) -> None:
    frame.show_title("Activity, tuned and base", titles.activity(feature))
    histogram = ask(queries.feature.histogram, store, feature.feature_id)
    if histogram and sum(histogram.counts) + sum(histogram.base_counts):
        figure = bars.activation_histogram(histogram.edges, histogram.counts, histogram.base_counts)
        st.plotly_chart(figure, config=CONFIG, key="histogram")
    else:
        st.html(panels.note("It was active on no token of the corpus."))
    st.html(profile.activity(feature))
    if feature.scale_tuned is not None:
        frame.show_title("Latent scaling", titles.latent_scaling(feature))
        st.html(profile.latent_scaling(feature))


def show_tokens(feature: Feature) -> None:
    frame.show_title("Fires on", titles.fires_on(feature))
    st.html(panels.token_bars(feature.top_tokens) + panels.note("Share of the feature’s total activation."))
    frame.show_title("Tokens it raises and lowers", titles.tokens(feature))
    left, right = st.columns(2, gap="medium")
    left.html(panels.token_bars(feature.pos_logits[:8], sign=1))
    right.html(panels.token_bars(feature.neg_logits[:8], sign=-1))
    st.html(panels.note("Effect on next-token logits (direct path)."))


def show_texts(store: Store, feature: Feature) -> None:
    parts = ask(queries.feature.feature_texts, store, feature.feature_id)
    frame.show_title("Where it moves the estimate", titles.texts(parts))
    if parts is None:
        st.html(panels.note("No probe of this bundle reads this feature."))
    else:
        watched = feature.feature_id
        href = lambda text_id: permalinks.href("inputs", permalinks.InputsView(text=text_id, watch=watched))  # noqa: E731
        st.html(profile.texts(parts, where=href, start=ask(queries.texts.shared_start, store)))
    near = names.with_names(store, ask(queries.feature.neighbours, store, feature.feature_id), key="neighbour_id")
    frame.show_title("Neighbours", titles.neighbours(near))
    st.html(profile.neighbours(near, where=permalinks.feature_href))


def show_feature(store: Store, feature: Feature, row: DeltaGenerator) -> None:
    """Draw labels first where the screen is narrow, and beside the examples where it is wide: see style.css."""
    labels, probe = ask(queries.feature.labels, store, feature.feature_id), ask(queries.common.headline, store)
    rows = ask(queries.excerpts.feature_excerpts, store, feature.feature_id)
    if verdict_panel.is_hidden(store, feature.feature_id):
        show_blind(feature, rows)
        verdict_panel.show_bar(store, feature.feature_id, profile.best_label(labels))
        return
    named = naming.page_title(feature, naming.strongest_words(rows))
    frame.name_tab(f"Feature {feature.feature_id}", named[0])

    def draw_card() -> str:
        carried = ask(queries.feature.feature_credit, store, feature.feature_id)
        credited = ask(queries.excerpts.credit_examples, store, feature.feature_id)
        return card.feature_card(feature, named[0], store.manifest, credit=carried, credited=credited, rows=rows)

    st.html(profile.heading(feature, labels, probe, named=named, with_site=bool(filters.site_column(store))))
    with row:
        share.show_button(draw_card, feature_id=feature.feature_id, bundle_id=store.manifest.bundle_id)
    with st.container(key="feature_panels"):
        left, right = st.columns([7, 5], gap="large")
    with left:
        show_examples(feature, rows)
        show_texts(store, feature)
    with right:
        with st.container(key="label_cards"):
            show_labels(store, feature, labels, rows)
        with st.container():
            show_tokens(feature)
            show_credit(store, feature)
            show_activity(store, feature)
            show_contribution(store, feature, probe)
    verdict_panel.show_bar(store, feature.feature_id, profile.best_label(labels))


def show_blind(feature: Feature, rows: Sequence[dict[str, Any]]) -> None:
    """Draw only what a blind reviewer judges by: examples, activity and tokens, without labels, weights and credits."""
    st.html(panels.heading(f"Feature {feature.feature_id}", "Label hidden") + panels.note(verdict_panel.BLIND))
    left, right = st.columns([7, 5], gap="large")
    with left:
        show_examples(replace(feature, weight=None), rows)
    with right:
        show_tokens(feature)


def show() -> None:
    store = cache.current()
    chosen, row = choose_feature(store)
    if chosen is None:
        st.html(panels.note("This bundle holds no features."))
        return
    try:
        feature = ask(queries.feature.feature, store, chosen)
    except NotInBundleError as error:
        st.html(panels.notice("No such feature", str(error)))
        strongest = ask(queries.feature.strongest_feature, store)
        st.button("Open the strongest feature", on_click=callbacks.guard(go), args=(strongest,))
        return
    show_feature(store, feature, row)


show()
