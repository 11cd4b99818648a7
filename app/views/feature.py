"""One feature: what it fires on, what it writes, and what it adds to the estimate."""

import streamlit as st

from app import cache, state, verdict_panel
from app.cache import ask
from app.components import charts, panels, profile, tokens, trust, wording
from app.components.numbers import plain
from lfp import queries
from lfp.errors import NotInBundleError


def choose(store):
    """Previous, a number, next. Returns the number; until one is chosen, the strongest feature's."""
    n, first = store.manifest.tables["features"].rows, ask(queries.strongest_feature, store)
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    number = {"min_value": 0, "value": None, "step": 1, "placeholder": str(first), "width": 120}
    chosen = row.number_input("Feature number", key="feature", bind="query-params", **number)
    here = first if chosen is None else chosen
    if here is not None:
        row.button(
            "Previous", icon=":material/chevron_left:", disabled=not 0 < here <= n, on_click=step, args=(here - 1,)
        )
        right = {"icon": ":material/chevron_right:", "icon_position": "right"}
        row.button("Next", disabled=not here < n - 1, on_click=step, args=(here + 1,), **right)
    with row:
        st.space("stretch")
        st.page_link("views/features.py", label="All features", icon=":material/grid_view:")
    return here


def step(feature_id):
    st.session_state.feature = feature_id


def examples(store, feature):
    counts = ask(queries.example_counts, store, feature.feature_id)
    st.subheader("Examples")
    if not counts:
        st.html(panels.note("No examples were kept of this feature: it was never active on the corpus."))
        return
    buckets = sorted(counts, key=lambda bucket: (bucket < 0, bucket != 0, -bucket))
    names = {wording.bucket_name(bucket): bucket for bucket in buckets}
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    first = {"default": next(iter(names)), "required": True}
    says = "Top, quantile interval, silent or near miss"
    chosen = row.segmented_control(says, list(names), key="examples", bind="query-params", **first)
    row.toggle("Show numbers", key="activation_values", bind="query-params")
    bucket = names.get(chosen, buckets[0])
    found = ask(queries.examples, store, feature.feature_id, bucket=bucket)
    items = [example(item, feature.max_activation) for item in found]
    legend = tokens.strength_legend(feature.max_activation, "activation, scaled; the example’s token is underlined")
    st.html(legend + tokens.examples(items, numbers=st.session_state.activation_values))
    st.html(panels.note(wording.bucket_sentence(bucket, max(counts))))


def example(item, limit):
    return tokens.example(
        tokens.pieces(item.text, item.token_starts),
        item.window_values,
        first=item.window_start,
        position=item.position,
        limit=limit,
        caption=f"<b>{plain(item.activation)}</b>{panels.anchor(text_href(item.text_id), f'text {item.text_id}')}",
    )


def text_href(text_id):
    return state.href("inputs", state.InputsView(text=text_id), bundle=cache.bundle())


def descriptions(store, feature, labels):
    st.subheader("Descriptions")
    if not labels:
        st.html(panels.note("Nobody has described it yet."))
        return
    rows = ask(queries.feature_excerpts, store, feature.feature_id)
    st.html(trust.cards(labels, rows, max_activation=feature.max_activation, where=text_href))


def activity(store, feature):
    st.subheader("Activity, tuned and base")
    histogram = ask(queries.histogram, store, feature.feature_id)
    if histogram and sum(histogram.counts) + sum(histogram.base_counts):
        figure = charts.activation_histogram(histogram.edges, histogram.counts, histogram.base_counts)
        st.plotly_chart(figure, config=charts.CONFIG, key="histogram")
    else:
        st.html(panels.note("It was active on no token of the corpus."))
    st.html(profile.activity(feature))


def logits(feature):
    st.subheader("Tokens it raises and lowers")
    left, right = st.columns(2, gap="medium")
    left.html(panels.token_bars(feature.pos_logits[:8], sign=1))
    right.html(panels.token_bars(feature.neg_logits[:8], sign=-1))
    st.html(panels.note("Change of each token’s logit when the feature is written, direct path only."))


def show():
    store = cache.current()
    chosen = choose(store)
    if chosen is None:
        st.html(panels.note("This bundle holds no features."))
        return
    try:
        feature = ask(queries.feature, store, chosen)
    except NotInBundleError as error:
        st.html(panels.notice("No such feature", str(error)))
        st.button("Open the strongest feature", on_click=step, args=(ask(queries.strongest_feature, store),))
        return
    labels, probe = ask(queries.labels, store, chosen), ask(queries.headline, store)
    st.html(profile.heading(feature, labels, probe))
    left, right = st.columns([7, 5], gap="large")
    with left:
        examples(store, feature)
    with right:
        descriptions(store, feature, labels)
        verdict_panel.show(store, chosen, wording.best_label(labels))
        st.subheader("In the prediction")
        st.html(profile.contribution(feature, n_features=store.manifest.tables["features"].rows))
        activity(store, feature)
        logits(feature)
        st.subheader("Fires on")
        st.html(panels.token_bars(feature.top_tokens) + panels.note("Share of its sampled activation."))


show()
