"""One feature: what it fires on, what it writes, and what it adds to the estimate."""

from collections import Counter

import streamlit as st

from app.components.charts import charts
from app.components.feature import profile, trust
from app.components.feature import profile as surroundings
from app.components.html import panels, wording
from app.components.html.numbers import plain
from app.components.text import tokens
from app.session import cache, permalinks
from app.session.cache import ask
from app.widgets import filters, verdict_panel
from lfp.bundle import queries
from lfp.errors import NotInBundleError

SHOWN = 20
"""Examples of a bucket on screen."""


def choose(store):
    """Previous, a number, next. Returns the number; until one is chosen, the strongest feature's."""
    n, first = store.manifest.tables["features"].rows, ask(queries.feature.strongest_feature, store)
    walk = permalinks.unbound("walk")
    view = filters.from_walk(walk) if walk else None
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    number = {"min_value": 0, "value": None, "step": 1, "placeholder": str(first), "width": 120}
    chosen = row.number_input("Feature number", key="feature", bind="query-params", **number)
    here = first if chosen is None else chosen
    if here is None:
        return None
    place = by_number(here, n) if view is None else in_list(store, here, view)
    for label, to, icon in (("Previous", place.before, "left"), ("Next", place.after, "right")):
        shown = {"icon": f":material/chevron_{icon}:", "icon_position": icon}
        row.button(label, disabled=to is None, on_click=step, args=(to,), **shown)
    with row:
        st.html(panels.note(wording.place_sentence(place, is_list=view is not None)), width="content")
        st.space("stretch")
        where = permalinks.to("features", view or permalinks.FeaturesView())
        st.html(panels.anchor(where, "All features" if view is None else "Back to the list"), width="content")
    return here


def by_number(here, n):
    """Where a feature stands among all by number."""
    known = here < n
    before, after = (here - 1 if 0 < here <= n else None), (here + 1 if here < n - 1 else None)
    return queries.features.Place(here if known else None, n, before, after)


def in_list(store, here, view):
    return ask(
        queries.features.feature_place, store, here, filters.wanted_in(store, view), order=filters.order_of(view)
    )


def step(feature_id):
    st.session_state.feature = feature_id


def examples(feature, rows):
    """Examples in one bucket, of all `rows` of the feature."""
    counts = Counter(row["bucket"] for row in rows)
    st.subheader("Examples")
    if not counts:
        st.html(panels.note("No examples were kept of this feature: it was never active on the corpus."))
        return
    buckets = sorted(counts, key=lambda bucket: (bucket < 0, bucket != 0, -bucket))
    names = {wording.bucket_name(bucket): bucket for bucket in buckets}
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    first = {"default": next(iter(names)), "required": True, "wrap": True}
    says = "Top, quantile interval, silent or near miss"
    chosen = row.segmented_control(says, list(names), key="examples", bind="query-params", **first)
    row.toggle("Show numbers", key="activation_values", bind="query-params")
    bucket = names.get(chosen, buckets[0])
    found = [queries.feature.Example(**row) for row in rows if row["bucket"] == bucket]
    items = [example(item, feature) for item in found[:SHOWN]]
    adds = "" if feature.weight is None else "; in colour, what it adds to the estimate"
    says = f"activation, scaled; the example’s token is underlined{adds}"
    legend = tokens.strength_legend(feature.max_activation, says)
    st.html(legend + tokens.examples(items, numbers=st.session_state.activation_values))
    st.html(panels.note(wording.bucket_sentence(bucket, max(counts))))


def example(item, feature):
    caption = f"<b>{plain(item.activation)}</b>{profile.added(feature.weight, item.activation)}"
    return tokens.example(
        tokens.pieces(item.text, item.token_starts),
        item.window_values,
        first=item.window_start,
        position=item.position,
        limit=feature.max_activation,
        caption=caption + panels.anchor(permalinks.text(item.text_id), f"text {item.text_id}"),
        weight=feature.weight,
    )


def watched_href(feature_id):
    """Leads to texts with this feature shown on their tokens."""
    return lambda text_id: permalinks.to("inputs", permalinks.InputsView(text=text_id, watch=feature_id))


def descriptions(feature, labels, rows):
    st.subheader("Descriptions")
    if not labels:
        st.html(panels.note("Nobody has described it yet."))
        return
    st.html(trust.cards(labels, rows, max_activation=feature.max_activation, where=permalinks.text))


def activity(store, feature):
    st.subheader("Activity, tuned and base")
    histogram = ask(queries.feature.histogram, store, feature.feature_id)
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


def texts(store, feature):
    st.subheader("Where it moves the estimate")
    parts = ask(queries.feature.feature_texts, store, feature.feature_id)
    if parts is None:
        st.html(panels.note("No probe of this bundle reads it."))
        return
    st.html(surroundings.texts(parts, where=watched_href(feature.feature_id)))


def neighbours(store, feature):
    st.subheader("Neighbours")
    near = ask(queries.feature.neighbours, store, feature.feature_id)
    st.html(surroundings.neighbours(near, where=permalinks.feature))


def ablations(store, feature, probe):
    st.subheader("Taken out")
    rows = ask(queries.feature.feature_ablations, store, feature.feature_id)
    names = {"reward": wording.measured_reward(store.manifest.config), "target": probe and wording.target_name(probe)}
    st.html(surroundings.ablations(rows, **names))


def prediction(store, feature):
    n = store.manifest.tables["features"].rows
    st.subheader("In the prediction")
    st.html(profile.contribution(feature, n_features=n))
    st.subheader("Drift")
    st.html(surroundings.drift(ask(queries.feature.feature_drift, store, feature.feature_id), n_features=n))


def page(store, feature):
    """Labels first where the screen is narrow, beside the examples where it is wide: see style.css."""
    labels, probe = ask(queries.feature.labels, store, feature.feature_id), ask(queries.common.headline, store)
    rows = ask(queries.feature.feature_excerpts, store, feature.feature_id)
    st.html(profile.heading(feature, labels, probe))
    with st.container(key="feature_panels"):
        left, right = st.columns([7, 5], gap="large")
    with left:
        examples(feature, rows)
        texts(store, feature)
        neighbours(store, feature)
    with right:
        with st.container(key="label_cards"):
            descriptions(feature, labels, rows)
            verdict_panel.show(store, feature.feature_id, wording.best_label(labels))
        prediction(store, feature)
        ablations(store, feature, probe)
        activity(store, feature)
        logits(feature)
        st.subheader("Fires on")
        st.html(panels.token_bars(feature.top_tokens) + panels.note("Share of its sampled activation."))


def show():
    store = cache.current()
    chosen = choose(store)
    if chosen is None:
        st.html(panels.note("This bundle holds no features."))
        return
    try:
        feature = ask(queries.feature.feature, store, chosen)
    except NotInBundleError as error:
        st.html(panels.notice("No such feature", str(error)))
        st.button("Open the strongest feature", on_click=step, args=(ask(queries.feature.strongest_feature, store),))
        return
    page(store, feature)


show()
