"""A text of one's own, read by the bundle's models and written on, with features scaled. The one page with torch."""

import streamlit as st

from app.components.charts import charts
from app.components.html import panels, wording
from app.components.text import playground, tokens
from app.session import cache, permalinks, public_mode
from app.session.cache import ask
from lfp.bundle import queries
from lfp.bundle.manifest import has_models
from lfp.config import parse_config
from lfp.errors import DataError, LfpError
from lfp.texts.rewards import reward_of

LONGEST = 2000  # characters of a text
SLIDERS, MOST_TOKENS, TOKENS = 6, 60, 16


def why_not(manifest):
    """Why no text can be tried with this bundle; None where one can."""
    if not has_models(manifest):
        public = "This bundle carries no models, so no text can be tried."
        mend = " Make one that does: python -m precompute run CONFIG.toml --out DIR --set artifacts=true."
        return public if public_mode.is_public() else public + mend
    if public_mode.is_public() and playground.too_large(manifest):
        limit = f"{playground.LARGEST_PUBLIC / 1e6:.0f} million parameters"
        return f"This bundle’s models are too large to run here, above {limit}. Run the explorer at home to try a text."
    return None


def load(store):
    """The bundle's models; None, with what is missing on the page, where they cannot be had."""
    reason = why_not(store.manifest)
    if reason is None:
        try:
            return cache.live(store)
        except ImportError:
            reason = (
                "Reading a text needs torch, which is not installed here. Get the project and run make test once, or "
                "pip install -e '.[jobs]' in its folder; then start the explorer again."
            )
        except LfpError as error:
            reason = f"The models of this bundle cannot be loaded: {public_mode.told(error)}."
    st.html(panels.note(reason))
    return None


def typed(store):
    """The text and the model that reads it."""
    hint = "A sentence or two, such as a film review"
    text = st.text_area("Text", key="typed", bind="query-params", placeholder=hint, max_chars=LONGEST, height=110)
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    first = {"default": "tuned", "required": True}
    role = row.segmented_control("Read by", ["tuned", "base"], key="reader", bind="query-params", **first)
    wanted = queries.texts.TextFilter(is_sampled=True)
    found = ask(queries.texts.texts, store, wanted, order=queries.common.Order("feedback"), limit=1)["text"].to_pylist()
    if found:
        row.button("Take a text of the corpus", on_click=take, args=(found[0],), icon=":material/notes:")
    return text, role


def take(text):
    st.session_state.typed = text[:LONGEST]


def probe_of(store, live):
    """The headline probe, as the bundle states it and dense; None twice where there is none."""
    probe = ask(queries.common.headline, store)
    if probe is None:
        return None, None
    weights = ask(queries.feature.probe_weights, store)
    ids, values = (weights[name].to_pylist() for name in ("feature_id", "weight"))
    return probe, playground.dense_probe(probe, ids, values, live.dictionary.n_features)


def read(store, live, reading):
    """Totals, score sheet and ledger; returns the features that made the estimate, largest part first."""
    probe, dense = probe_of(store, live)
    ledger = playground.ledger_of(reading, dense) if dense is not None else None
    config = store.manifest.config
    if reading.text.truncated:
        st.html(panels.note(f"Cut to its first {live.context} tokens, which is what this run’s models read at once."))
    st.html(playground.totals(reading, ledger, config))
    target = wording.target_name(probe) if probe else ""
    rows = playground.rows(reading, dense, ask(queries.texts.score_limits, store), config, target=target)
    numbers = st.toggle("Show numbers", key="tried_values", bind="query-params")
    parts = tokens.pieces(reading.text.text, reading.text.token_starts)
    st.html(tokens.sheet_legend(rows) + tokens.sheet(parts, rows, numbers=numbers))
    st.subheader("What made the estimate")
    if ledger is None:
        st.html(panels.note("This bundle holds no probe to split an estimate by."))
        return []
    ids = ledger.features.tolist()
    names = ask(queries.feature.named_features, store, ids[: playground.SHOWN])
    shown = {"descriptions": [names.get(id_) for id_ in ids[: playground.SHOWN]], "ink": permalinks.ink()}
    values = ledger.contributions[: playground.SHOWN].tolist()
    figure = charts.contributions(ids[: playground.SHOWN], values=values, **shown)
    st.plotly_chart(figure, config=charts.CONFIG, key="tried_ledger")
    names = " · ".join(panels.anchor(permalinks.feature(id_), f"#{id_}") for id_ in ids[: playground.SHOWN])
    st.html(playground.check(reading, dense, ledger) + panels.text("Open a feature: ") + names)
    return ids


def scaled(store, live, ids):
    """The form: a slider a feature, and how to draw. Returns the scales that are not 1, and the drawing's settings.

    A form's widgets are new all at once when it is sent; only then do the scales go into the link.
    """
    also = st.number_input(
        "Also scale feature", min_value=0, max_value=live.dictionary.n_features - 1, value=None, key="also",
        bind="query-params", placeholder="any number", width=180,
    )  # fmt: skip
    linked = playground.read_scales(permalinks.unbound("scales"), live.dictionary.n_features)
    ids = list(dict.fromkeys([*([] if also is None else [also]), *linked, *ids[:SLIDERS]]))
    names = ask(queries.feature.named_features, store, ids)
    with st.form("scales", border=True):
        columns = st.columns(2, gap="large")
        scales = {}
        for at, id_ in enumerate(ids):
            says = playground.slider_name(id_, names.get(id_))
            key = f"scale_{id_}"
            ends = {"min_value": 0.0, "max_value": playground.LARGEST_SCALE, "step": playground.SCALE_STEP}
            st.session_state.setdefault(key, linked.get(id_, 1.0))
            scales[id_] = columns[at % 2].slider(says, key=key, format="%.2f ×", **ends)
        row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
        most = min(MOST_TOKENS, live.most_tokens())
        bound = {"bind": "query-params"}
        n_tokens = row.number_input("Tokens", 1, most, min(TOKENS, most), key="try_tokens", width=120, **bound)
        temperature = row.number_input("Temperature", 0.1, 2.0, 1.0, 0.1, key="temperature", width=130, **bound)
        seed = row.number_input("Seed", min_value=0, max_value=10**6, key="seed", width=120, **bound)
        sent = {"type": "primary", "icon": ":material/edit_note:", "on_click": keep, "args": (ids,)}
        goes = row.form_submit_button("Write on", **sent)
    drawn = {"n_tokens": int(n_tokens), "temperature": float(temperature), "seed": int(seed)}
    return ({id_: scale for id_, scale in scales.items() if scale != 1.0}, drawn) if goes else (None, drawn)


def keep(ids):
    """Puts the sliders into the link."""
    permalinks.set_unbound("scales", playground.written_scales({id_: st.session_state[f"scale_{id_}"] for id_ in ids}))


def write(store, live, text, role, ids):
    st.subheader("Let it write on")
    scales, drawn = scaled(store, live, ids)
    if scales is None:
        return
    with st.spinner("Writing"):
        untouched, changed = live.write(text, role, scales=scales, **drawn)
    rewards = rewards_of(store.manifest.config, [untouched.text, changed.text])
    if live.is_cut(text, drawn["n_tokens"]):
        room = live.kept_tokens(drawn["n_tokens"])
        st.html(panels.note(f"Only the last {room} tokens of the text were read, to leave room for the completion."))
    st.html(
        playground.completions(text, untouched.text, changed.text, rewards)
        + panels.note(playground.difference(rewards, bool(scales)))
    )


def rewards_of(config, written):
    """Rewards of completions; None where the run's reward is not built in, or its lexicon is not installed."""
    if not playground.has_reward(config):
        return None
    try:
        return reward_of(parse_config(config).feedback, beside=None)(written)
    except ImportError:
        return None


def show():
    store = cache.current()
    lede = "Type a text; see what the models of this bundle make of it, and what they write with features scaled."
    st.html(panels.heading(store.manifest.title, "Try it", lede))
    live = load(store)
    if live is None:
        return
    text, role = typed(store)
    if not text.strip():
        st.html(panels.note("Nothing is typed yet."))
        return
    try:
        ids = read(store, live, live.read(text, role))
        write(store, live, text, role, ids)
    except DataError as error:
        st.html(panels.note(f"{str(error)[:1].upper()}{str(error)[1:]}."))


show()
